//! A staged app as the Functions host finds it: `host.json`, the settings, and the functions in the
//! direct sub-folders of the script root. Nothing here runs anything.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::config::HostConfig;
use super::function::Function;
use super::section::{Section, put};
use super::settings::AppSettings;

/// An app folder, read and understood.
#[derive(Clone, Debug)]
pub struct App {
    /// The script root, absolute.
    pub root: PathBuf,
    /// Its settings.
    pub settings: AppSettings,
    /// What its `host.json` says, overrides applied.
    pub config: HostConfig,
    /// The functions that can run, by name.
    pub functions: Vec<Function>,
    /// The ones that the host leaves out, each with the reason.
    pub dropped: Vec<Dropped>,
}

/// A function that breaks a rule: the host logs it and goes on without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Name of its folder.
    pub name: String,
    /// What is wrong with it.
    pub reason: String,
}

/// An app that cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The folder has no `host.json`.
    #[error("no host.json in {}; name a folder made by `lapwing stage`", .0.display())]
    NoHostJson(PathBuf),
    /// A file that is there and cannot be read.
    #[error("cannot read {}: {source}; check its permissions", file.display())]
    Unreadable {
        /// The file or folder.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file whose content the host would refuse.
    #[error("{} cannot be used: {reason}", file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
        /// Where and why.
        reason: String,
    },
}

impl App {
    /// Reads the app at `root`. `environment` wins over `local.settings.json`.
    ///
    /// # Errors
    /// When `host.json` or `local.settings.json` is missing, unreadable or wrong. A wrong function is
    /// no error: it is [dropped](App::dropped).
    pub fn load(
        root: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, AppError> {
        let root = std::path::absolute(root).map_err(|source| AppError::Unreadable {
            file: root.to_owned(),
            source,
        })?;
        let settings = AppSettings::load(&root, environment)?;
        let config = host_json(&root, &settings)?;
        let mut app = Self {
            root,
            settings,
            config,
            functions: Vec::new(),
            dropped: Vec::new(),
        };
        app.discover()?;
        Ok(app)
    }

    /// The function called `name`, case and all.
    pub fn function(&self, name: &str) -> Option<&Function> {
        self.functions.iter().find(|function| function.name == name)
    }

    /// Whether a setting takes the function out of service; `disabled` in `function.json` does not.
    pub fn is_disabled(&self, name: &str) -> bool {
        [
            format!("AzureWebJobs.{name}.Disabled"),
            format!("AzureWebJobs_{name}_Disabled"),
        ]
        .iter()
        .filter_map(|setting| self.settings.get(setting))
        .any(|value| value == "1" || value.eq_ignore_ascii_case("true"))
    }

    /// Looks for `function.json` one level down, no deeper.
    fn discover(&mut self) -> Result<(), AppError> {
        let unreadable = |file: &Path| {
            let file = file.to_owned();
            move |source| AppError::Unreadable { file, source }
        };
        let entries = std::fs::read_dir(&self.root).map_err(unreadable(&self.root))?;
        let mut folders = Vec::new();
        for entry in entries {
            let path = entry.map_err(unreadable(&self.root))?.path();
            // A link to a folder counts as a folder, so the path is asked and not the entry.
            if path.is_dir() && path.join("function.json").is_file() {
                folders.push(path);
            }
        }
        folders.sort();
        for folder in folders {
            let name = folder.file_name().unwrap_or_default().to_string_lossy();
            let allowed = self.config.functions.as_ref();
            if allowed.is_some_and(|list| !list.iter().any(|f| f.eq_ignore_ascii_case(&name))) {
                continue;
            }
            let taken = |f: &Function| f.name.eq_ignore_ascii_case(&name);
            let read = match self.functions.iter().find(|f| taken(f)) {
                Some(other) => Err(format!("the name differs from {} only in case", other.name)),
                None => Function::read(&name, &folder, self),
            };
            match read {
                Ok(function) => self.functions.push(function),
                Err(reason) => self.dropped.push(Dropped {
                    name: name.into_owned(),
                    reason,
                }),
            }
        }
        Ok(())
    }
}

fn host_json(root: &Path, settings: &AppSettings) -> Result<HostConfig, AppError> {
    let file = root.join("host.json");
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(AppError::NoHostJson(root.to_owned()));
        }
        Err(source) => return Err(AppError::Unreadable { file, source }),
    };
    let malformed = |reason: String| AppError::Malformed {
        file: file.clone(),
        reason,
    };
    let mut json: Value = serde_json::from_str(text.trim_start_matches('\u{feff}'))
        .map_err(|error| malformed(error.to_string()))?;
    for (name, value) in settings.iter() {
        let prefix = "AzureFunctionsJobHost__";
        let matches = name.get(..prefix.len());
        if matches.is_some_and(|start| start.eq_ignore_ascii_case(prefix)) {
            let path: Vec<&str> = name[prefix.len()..].split("__").collect();
            put(&mut json, &path, value);
        }
    }
    HostConfig::read(&Section::root(&json), settings).map_err(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::function::Trigger;

    const HOST: &str =
        r#"{"version": "2.0", "customHandler": {"description": {"defaultExecutablePath": "h"}}}"#;
    const TIMER: &str =
        r#"{"bindings": [{"type": "timerTrigger", "name": "tick", "schedule": "0 * * * * *"}]}"#;

    fn app(files: &[(&str, &str)], environment: &[(&str, &str)]) -> App {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let environment = environment
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        App::load(dir.path(), environment).unwrap()
    }

    fn reason(function: &str) -> String {
        let app = app(&[("host.json", HOST), ("f/function.json", function)], &[]);
        assert!(app.functions.is_empty(), "{function}");
        app.dropped[0].reason.clone()
    }

    #[test]
    fn functions_are_looked_for_one_level_down() {
        let app = app(
            &[
                ("host.json", HOST),
                ("sweep/function.json", TIMER),
                ("functions/deep/function.json", TIMER),
                ("Upper/Function.json", TIMER),
            ],
            &[],
        );
        let names: Vec<&str> = app.functions.iter().map(|f| f.name.as_str()).collect();
        assert_eq!(names, ["sweep"]);
        assert!(app.dropped.is_empty());
    }

    #[test]
    fn names_that_the_host_drops_are_dropped() {
        let files = [
            ("host.json", HOST),
            ("9lives/function.json", TIMER),
            ("host/function.json", TIMER),
            ("fine-name_2/function.json", TIMER),
        ];
        let app = app(&files, &[]);
        assert_eq!(app.functions.len(), 1);
        let dropped: Vec<&str> = app.dropped.iter().map(|d| d.name.as_str()).collect();
        assert_eq!(dropped, ["9lives", "host"]);
    }

    #[test]
    fn broken_functions_say_why() {
        let cases = [
            ("{", "EOF"),
            ("{}", "`bindings`"),
            (r#"{"bindings": []}"#, "exactly one trigger"),
            (
                r#"{"bindings": [{"type": "timerTrigger", "name": "my_tick", "schedule": "0 * * * * *"}]}"#,
                "my_tick",
            ),
            (
                r#"{"bindings": [{"type": "timerTrigger", "name": "tick", "schedule": "%Nope%"}]}"#,
                "app setting Nope",
            ),
            (
                r#"{"bindings": [{"type": "timerTrigger", "name": "tick", "schedule": "every day"}]}"#,
                "every day",
            ),
            (
                r#"{"bindings": [{"type": "queueTrigger", "name": "q"}]}"#,
                "queueTrigger",
            ),
            (
                r#"{"bindings": [{"type": "blob", "direction": "out", "name": "b"}]}"#,
                "output binding blob",
            ),
            (
                r#"{"scriptFile": "run.sh", "bindings": [{"type": "timerTrigger", "name": "tick", "schedule": "0 * * * * *"}]}"#,
                "run.sh",
            ),
            (
                r#"{"bindings": [{"type": "timerTrigger", "name": "a", "schedule": "0 * * * * *"}, {"type": "http", "direction": "out", "name": "A"}]}"#,
                "only in case",
            ),
            (
                r#"{"bindings": [{"type": "kafkaTrigger", "name": "e", "brokerList": "b", "topic": "t", "consumerGroup": "g", "cardinality": "MANY"}]}"#,
                "dataType",
            ),
            (
                r#"{"bindings": [{"type": "kafkaTrigger", "name": "e", "brokerList": "b", "topic": "t", "consumerGroup": "g", "protocol": "%P%"}]}"#,
                "NotSet",
            ),
            (
                r#"{"bindings": [{"type": "httpTrigger", "name": "r", "route": "admin/x"}]}"#,
                "admin",
            ),
        ];
        for (function, expected) in cases {
            let reason = reason(function);
            assert!(reason.contains(expected), "{function}: {reason}");
        }
    }

    #[test]
    fn a_setting_overrides_host_json() {
        let files = [("host.json", HOST), ("sweep/function.json", TIMER)];
        let app = app(
            &files,
            &[
                ("AzureFunctionsJobHost__functionTimeout", "00:00:07"),
                (
                    "AzureFunctionsJobHost__customHandler__description__arguments",
                    r#"["a", "b"]"#,
                ),
                (
                    "AzureFunctionsJobHost__extensions__kafka__maxBatchSize",
                    "5",
                ),
            ],
        );
        assert_eq!(
            app.config.function_timeout,
            Some(std::time::Duration::from_secs(7))
        );
        assert_eq!(app.config.handler.arguments, ["a", "b"]);
        assert_eq!(app.config.kafka.max_batch_size, 5);
    }

    #[test]
    fn the_list_in_host_json_and_the_disabled_setting_are_obeyed() {
        let host = r#"{"version": "2.0", "functions": ["a", "b"], "customHandler": {"description": {"defaultExecutablePath": "h"}}}"#;
        let files = [
            ("host.json", host),
            ("a/function.json", TIMER),
            ("b/function.json", TIMER),
            ("c/function.json", TIMER),
        ];
        let app = app(&files, &[("AzureWebJobs.b.Disabled", "true")]);
        assert_eq!(app.functions.len(), 2);
        assert!(!app.is_disabled("a") && app.is_disabled("b"));
        assert!(matches!(app.functions[0].trigger, Trigger::Timer(_)));
    }
}
