//! The README says what is so: its settings table is the one of the code, and every file that it points to
//! is there.

use std::fmt::Write;
use std::path::Path;

use lapwing::config;

const START: &str = "<!-- settings: this table is held to src/config.rs by tests/readme.rs -->\n";
const END: &str = "<!-- end of settings -->";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn table() -> String {
    let mut table = "| setting | default | meaning |\n| --- | --- | --- |\n".to_owned();
    for setting in config::ALL {
        let default = if setting.default.is_empty() {
            String::new()
        } else {
            format!("`{}`", setting.default)
        };
        let meaning = setting.meaning.replace('|', "\\|");
        let secret = if setting.secret { " (secret)" } else { "" };
        writeln!(
            table,
            "| `{}` | {default} | {meaning}{secret} |",
            setting.name
        )
        .unwrap();
    }
    table
}

/// `LAPWING_REWRITE=1 cargo test --test readme` writes the table anew.
#[test]
fn the_settings_table_is_that_of_the_code() {
    let path = root().join("README.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text
        .split_once(START)
        .expect("the README has a settings table");
    let (written, after) = rest.split_once(END).expect("the settings table ends");
    if std::env::var_os("LAPWING_REWRITE").is_some() {
        std::fs::write(&path, format!("{before}{START}{}{END}{after}", table())).unwrap();
        return;
    }
    assert_eq!(written, table(), "write it anew with LAPWING_REWRITE=1");
}

#[test]
fn every_link_leads_somewhere() {
    let text = std::fs::read_to_string(root().join("README.md")).unwrap();
    let mut links = 0;
    for (at, _) in text.match_indices("](") {
        let target = text[at + 2..].split(')').next().unwrap_or_default();
        if !target.starts_with("http") {
            assert!(
                root().join(target).exists(),
                "README.md points to {target}, which is not there"
            );
            links += 1;
        }
    }
    assert!(links > 3);
}
