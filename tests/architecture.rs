//! Holds the arrows of `docs/architecture.md`: what a module may know, read from its `crate::` paths.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Every module with the modules it may know, in reading order; nothing knows one below it.
const MAY_KNOW: &[(&str, &[&str])] = &[
    ("series", &[]),
    ("message", &[]),
    ("row", &["message", "series"]),
    ("detector", &["series"]),
    ("request", &["detector", "series"]),
    ("contract", &["detector", "series"]),
    ("config", &[]),
    ("telemetry", &[]),
    ("window", &["config", "detector", "series"]),
    ("store", &["config", "series", "telemetry", "window"]),
    ("kafka", &["config"]),
    (
        "record",
        &["config", "kafka", "series", "store", "telemetry"],
    ),
    (
        "remote",
        &["config", "contract", "detector", "series", "telemetry"],
    ),
    (
        "judge",
        &[
            "config",
            "detector",
            "message",
            "record",
            "remote",
            "row",
            "series",
            "store",
            "telemetry",
            "window",
        ],
    ),
    (
        "replay",
        &["config", "kafka", "row", "series", "store", "telemetry"],
    ),
    ("report", &["series"]),
    (
        "api",
        &[
            "config",
            "contract",
            "detector",
            "request",
            "series",
            "telemetry",
        ],
    ),
    ("invocation", &["message", "series"]),
    ("functions", &["invocation", "judge", "replay"]),
    (
        "handler",
        &[
            "api",
            "config",
            "functions",
            "invocation",
            "judge",
            "replay",
            "series",
            "telemetry",
        ],
    ),
    ("host", &["config", "kafka", "telemetry"]),
    ("stage", &["config", "host"]),
];

/// Modules that do no I/O: no clock, no environment, no runtime.
const PURE: &[&str] = &[
    "series",
    "message",
    "row",
    "detector",
    "window",
    "invocation",
];
const IMPURE: &[&str] = &[
    "tokio",
    "std::env",
    "std::fs",
    "std::net",
    "SystemTime::now",
    "Instant::now",
    "reqwest",
    "rdkafka",
];

fn files_of(module: &str) -> Vec<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![source.join(format!("{module}.rs"))];
    let mut folders = vec![source.join(module)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files
}

/// The code of a file: no comments, and nothing of its unit tests, which may know more.
fn code_of(path: &Path) -> String {
    let text =
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    code.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The top-level modules that `code` names: `crate::x::…` and `use crate::{x, y::z}`.
fn known_by(code: &str) -> BTreeSet<String> {
    code.match_indices("crate::")
        .flat_map(|(at, prefix)| {
            let rest = &code[at + prefix.len()..];
            match rest.strip_prefix('{') {
                Some(group) => group
                    .split('}')
                    .next()
                    .unwrap_or_default()
                    .split(',')
                    .map(|part| first_word(part.trim()))
                    .collect::<Vec<_>>(),
                None => vec![first_word(rest)],
            }
        })
        .filter(|name| !name.is_empty())
        .collect()
}

fn first_word(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

#[test]
fn every_module_is_listed() {
    let listed: BTreeSet<&str> = MAY_KNOW
        .iter()
        .map(|(module, _)| *module)
        .chain(["cli"])
        .collect();
    let library = code_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs"));
    for line in library
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub mod "))
    {
        let module = line.trim_end_matches(';');
        assert!(
            listed.contains(module),
            "src/lib.rs has a module {module} that this test does not know"
        );
    }
}

#[test]
fn modules_know_only_those_above_them() {
    for (module, may_know) in MAY_KNOW {
        for file in files_of(module).iter().filter(|file| file.exists()) {
            for known in known_by(&code_of(file)) {
                assert!(
                    known == *module || may_know.contains(&known.as_str()),
                    "{} knows {known}, which {module} may not",
                    file.display()
                );
            }
        }
    }
}

#[test]
fn the_core_does_no_io() {
    for module in PURE {
        for file in files_of(module).iter().filter(|file| file.exists()) {
            let code = code_of(file);
            for word in IMPURE {
                assert!(
                    !code.contains(word),
                    "{} must stay pure and names {word}",
                    file.display()
                );
            }
        }
    }
}

#[test]
fn every_function_folder_has_its_rust_side() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for entry in fs::read_dir(root.join("functions")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        // The REST API is an HTTP function that is proxied as it is, so its Rust side is the API itself.
        let twin = if name == "anomalydetector" {
            "src/api.rs".to_owned()
        } else {
            format!("src/functions/{name}.rs")
        };
        assert!(root.join(&twin).exists(), "functions/{name} has no {twin}");
    }
}
