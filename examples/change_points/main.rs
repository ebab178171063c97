//! Lapwing's change points beside PELT and Bayesian online change point detection, on labelled series.
//!
//! ```text
//! cargo run --release --example change_points                  # the committed set
//! cargo run --release --example change_points -- fresh 7 504   # another: seed, series
//! cargo run --release --example change_points -- write 2026 112 > tests/fixtures/change_points/labelled.jsonl
//! ```
//!
//! Lapwing runs with its defaults and searches for the period itself. The other methods know no
//! season, so they are given each series twice, as it is and with the season of its true period taken
//! off, and each is tuned on the very set that it is measured on: the figures are the best that any
//! of its settings reaches. With `LAPWING_SHARED` set to the reference folder, the level shifts among
//! the labelled anomalies of its Numenta Anomaly Benchmark series follow, with the same settings.

mod labelled;
mod nab;
mod rivals;
mod score;

use std::error::Error;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;
use std::time::Instant;

use labelled::Labelled;
use rivals::Rival;
use score::Score;

/// Where the committed set lies.
const COMMITTED: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/fixtures/change_points/labelled.jsonl"
);

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let set = match args[..] {
        [] => labelled::read(BufReader::new(File::open(COMMITTED)?))?,
        ["fresh", seed, count] => labelled::generate(seed.parse()?, count.parse()?),
        ["write", seed, count] => {
            let set = labelled::generate(seed.parse()?, count.parse()?);
            return Ok(labelled::write(&set, io::stdout().lock())?);
        }
        _ => return Err("expected nothing, `fresh SEED COUNT` or `write SEED COUNT`".into()),
    };
    let rivals = compare(&set);
    if let Some(shared) = std::env::var_os("LAPWING_SHARED") {
        nab::report(&Path::new(&shared).join("data/nab"), &rivals)?;
    }
    Ok(())
}

/// Prints the table of the set and returns each rival as tuned on it, by its name.
fn compare(set: &[Labelled]) -> Vec<(String, Rival)> {
    println!(
        "{} series, {} points, {} changes\n",
        set.len(),
        set.iter().map(|series| series.values.len()).sum::<usize>(),
        set.iter().map(|series| series.changes.len()).sum::<usize>(),
    );
    println!("| method | settings | F1 | precision | recall | false alarms per 1000 points |");
    println!("| --- | --- | --- | --- | --- | --- |");
    let started = Instant::now();
    let mut score = Score::default();
    for series in set {
        score.add(
            &series.changes,
            &labelled::lapwing(series),
            series.values.len(),
        );
    }
    let elapsed = started.elapsed();
    print_row("Lapwing", "defaults, period searched", &score);

    let plain: Vec<Vec<f64>> = set.iter().map(|series| series.values.clone()).collect();
    let unseasoned: Vec<Vec<f64>> = set.iter().map(rivals::without_season).collect();
    let mut tuned = vec![];
    for (name, settings) in rivals::families() {
        for (data, form) in [(&plain, "as is"), (&unseasoned, "season off")] {
            let (rival, score) = rivals::tune(set, data, &settings);
            print_row(&format!("{name}, {form}"), &rival.to_string(), &score);
            if form == "as is" {
                tuned.push((name.to_owned(), rival));
            }
        }
    }
    println!(
        "\nLapwing took {:.1} ms a series\n",
        elapsed.as_secs_f64() * 1e3 / set.len() as f64
    );
    tuned
}

fn print_row(method: &str, settings: &str, score: &Score) {
    println!(
        "| {method} | {settings} | {:.3} | {:.3} | {:.3} | {:.2} |",
        score.f1(),
        score.precision(),
        score.recall(),
        score.false_alarms_per_thousand()
    );
}
