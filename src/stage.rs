//! The folder that the Functions host runs: laid out from what this binary carries, then checked for
//! everything that a host would only notice by doing nothing or by losing messages.
//!
//! The Functions host looks for `function.json` in the direct sub-folders of its root, so the tree of
//! the repository (`functions/detect/…`) is never the tree that runs.

mod check;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::config::{self, Settings};

pub use check::{Problem, check};

/// Name of the binary in a staged folder.
pub const BINARY: &str = "lapwing";

/// The functions of the app: name and `function.json`.
pub const FUNCTIONS: &[(&str, &str)] = &[
    (
        "anomalydetector",
        include_str!("../functions/anomalydetector/function.json"),
    ),
    ("detect", include_str!("../functions/detect/function.json")),
    ("replay", include_str!("../functions/replay/function.json")),
];

/// The `host.json` of the app.
pub const HOST_JSON: &str = include_str!("../host.json");

/// The sample that `replay` sends unless told otherwise: where it lies in the folder, and its bytes.
pub const SAMPLE: (&str, &[u8]) = (
    "data/sample_network_data.csv",
    include_bytes!("../data/sample_network_data.csv"),
);

/// What `func … publish` leaves at home.
const FUNCIGNORE: &str = "local.settings.json\n.lapwing\n*.log\n";

/// A folder that cannot be laid out.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// A file or folder that cannot be written.
    #[error("cannot write {}; name a folder that this user can write", path.display())]
    Unwritable {
        /// What was to be written.
        path: PathBuf,
        /// Why it was not.
        source: std::io::Error,
    },
    /// The binary that is to go there cannot be read.
    #[error("cannot read the binary {}", path.display())]
    NoBinary {
        /// Where it should be.
        path: PathBuf,
        /// Why it is not.
        source: std::io::Error,
    },
}

/// Lays out the app in `folder`, which is made when it is not there: `host.json`, a folder for each
/// function, `binary` under the name [`BINARY`], the [`SAMPLE`], and a `local.settings.json` if there is
/// none.
///
/// `settings` decides about what the host takes from `function.json` alone: with `KafkaProtocol` or
/// `KafkaAuthenticationMode` the Kafka triggers get the security properties, by the names of their
/// settings.
///
/// # Errors
/// When something cannot be written or the binary cannot be read.
pub fn lay_out(folder: &Path, binary: &Path, settings: &Settings) -> Result<(), StageError> {
    write(&folder.join("host.json"), HOST_JSON.as_bytes())?;
    for (name, text) in FUNCTIONS {
        let text = secured(text, settings);
        write(&folder.join(name).join("function.json"), text.as_bytes())?;
    }
    write(&folder.join(SAMPLE.0), SAMPLE.1)?;
    write(&folder.join(".funcignore"), FUNCIGNORE.as_bytes())?;
    let local = folder.join("local.settings.json");
    if !local.exists() {
        let text = format!("{:#}\n", local_settings());
        write(&local, text.as_bytes())?;
    }
    install(binary, &folder.join(BINARY))
}

/// The settings of a developer's machine: the tutorial's Kafka names and the storage emulator.
fn local_settings() -> Value {
    let mut values = json!({
        "FUNCTIONS_WORKER_RUNTIME": "custom",
        "AzureWebJobsStorage": "UseDevelopmentStorage=true",
        "REPLAY_SCHEDULE": "0 */5 * * * *",
        "Replay__Source": SAMPLE.0,
    });
    for setting in [
        &config::KAFKA_BROKERS,
        &config::KAFKA_TOPIC,
        &config::KAFKA_GROUP,
    ] {
        values[setting.name] = json!(setting.default);
    }
    json!({ "IsEncrypted": false, "Values": values })
}

/// Adds the security properties to a Kafka trigger. The protocol and the authentication mode are
/// enumerations in the Kafka extension and cannot be `%NAME%`, so staging is the last moment at which
/// a setting can decide about them.
fn secured(function: &str, settings: &Settings) -> String {
    let enumerations = [
        ("protocol", "KafkaProtocol"),
        ("authenticationMode", "KafkaAuthenticationMode"),
    ];
    let by_name = [
        ("username", "KafkaUsername"),
        ("password", "KafkaPassword"),
        ("sslCaLocation", "KafkaSslCaLocation"),
    ];
    let is_secure = enumerations
        .iter()
        .any(|(_, name)| settings.raw(name).is_some());
    let parsed: Result<Value, _> = serde_json::from_str(function);
    let (true, Ok(mut json)) = (is_secure, parsed) else {
        return function.to_owned();
    };
    for binding in json["bindings"].as_array_mut().into_iter().flatten() {
        if binding["type"] != "kafkaTrigger" {
            continue;
        }
        for (property, name) in enumerations {
            if let Some(value) = settings.raw(name) {
                binding[property] = json!(value);
            }
        }
        for (property, name) in by_name {
            if settings.raw(name).is_some() {
                binding[property] = json!(format!("%{name}%"));
            }
        }
    }
    format!("{json:#}\n")
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), StageError> {
    let unwritable = |source| StageError::Unwritable {
        path: path.to_owned(),
        source,
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(unwritable)?;
    }
    std::fs::write(path, bytes).map_err(unwritable)
}

/// Copies the binary beside its place and renames it, because one that runs cannot be written over.
fn install(binary: &Path, place: &Path) -> Result<(), StageError> {
    let unwritable = |source| StageError::Unwritable {
        path: place.to_owned(),
        source,
    };
    std::fs::metadata(binary).map_err(|source| StageError::NoBinary {
        path: binary.to_owned(),
        source,
    })?;
    let beside = place.with_extension("new");
    std::fs::copy(binary, &beside).map_err(unwritable)?;
    make_executable(&beside).map_err(unwritable)?;
    std::fs::rename(&beside, place).map_err(unwritable)
}

#[cfg(unix)]
fn make_executable(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn make_executable(_path: &Path) -> std::io::Result<()> {
    Ok(())
}
