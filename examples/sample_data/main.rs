//! Writes `data/sample_network_data.csv` and `data/sample_network_labels.json`, or the same two files
//! into the folder that is given: `cargo run --example sample_data [DIR]`.

mod generator;

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args_os().nth(1).unwrap_or_else(|| "data".into()));
    let (csv, labels) = generator::sample();
    std::fs::write(folder.join("sample_network_data.csv"), csv)?;
    let mut json = serde_json::to_string_pretty(&labels)?;
    json.push('\n');
    std::fs::write(folder.join("sample_network_labels.json"), json)?;
    Ok(())
}
