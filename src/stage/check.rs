//! What is wrong with an app folder, found without running it.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::FUNCTIONS;
use crate::host::app::App;
use crate::host::config::RetryPolicy;
use crate::host::function::{Function, Trigger};

/// Something that would keep the app from running, or from running without loss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, folder or function it is about.
    pub what: String,
    /// What is wrong and what would be right.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.reason)
    }
}

/// The first bundle with a Kafka extension that honours `commitOnFailure`.
const FIRST_SAFE_BUNDLE: [u64; 3] = [4, 37, 0];

/// Everything that is wrong with the app in `folder`; nothing when it is ready. Settings come from its
/// `local.settings.json` and from `environment`, which wins.
pub fn check(
    folder: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Vec<Problem> {
    let mut problems = Problems::default();
    let app = match App::load(folder, environment) {
        Ok(app) => app,
        Err(error) => {
            problems.add("host.json", error);
            return problems.0;
        }
    };
    for (name, _) in FUNCTIONS {
        if let Some(reason) = why_missing(&app, name) {
            problems.add(name, reason);
        }
    }
    for dropped in &app.dropped {
        problems.add(
            &dropped.name,
            format!("the host drops it: {}", dropped.reason),
        );
    }
    for function in &app.functions {
        check_function(&app, function, &mut problems);
    }
    check_executable(&app, &mut problems);
    check_bundle(&app, &mut problems);
    check_delivery(&app, &mut problems);
    if let Some(source) = app.settings.get("Replay__Source")
        && !source.contains("://")
        && !app.root.join(source).is_file()
    {
        problems.add(
            "Replay__Source",
            format!("{source} is not in the folder, so replay has nothing to send"),
        );
    }
    if app.settings.get("FUNCTIONS_WORKER_RUNTIME") != Some("custom") {
        problems.add(
            "FUNCTIONS_WORKER_RUNTIME",
            "set it to custom (in local.settings.json or the environment); tools refuse the app without it",
        );
    }
    problems.0
}

#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, what: &str, reason: impl fmt::Display) {
        self.0.push(Problem {
            what: what.to_owned(),
            reason: reason.to_string(),
        });
    }
}

/// Why a function of ours is not there, looking for the usual near misses.
fn why_missing(app: &App, name: &str) -> Option<String> {
    if app.function(name).is_some() || app.dropped.iter().any(|dropped| dropped.name == name) {
        return None;
    }
    let is_same = |other: &str| other.eq_ignore_ascii_case(name);
    if let Some(other) = names_in(&app.root).into_iter().find(|other| is_same(other)) {
        if other != name {
            return Some(format!(
                "the folder is called {other}; case matters, rename it to {name}"
            ));
        }
        let files = names_in(&app.root.join(&other));
        let file = files
            .iter()
            .find(|file| file.eq_ignore_ascii_case("function.json"));
        return Some(match file {
            Some(file) if file != "function.json" => {
                format!("its file is called {file}; case matters, rename it to function.json")
            }
            Some(_) => "host.json does not list it under `functions`".to_owned(),
            None => "its folder holds no function.json".to_owned(),
        });
    }
    if app.root.join("functions").join(name).exists() {
        return Some("it lies in functions/, one level too deep; the host looks only into the direct sub-folders".to_owned());
    }
    Some("the function is missing; stage the app anew".to_owned())
}

fn names_in(folder: &Path) -> Vec<String> {
    // A folder that cannot be listed has no names: what was looked for is then reported missing.
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

fn check_function(app: &App, function: &Function, problems: &mut Problems) {
    if !matches!(
        function.json.get("disabled"),
        None | Some(Value::Bool(false))
    ) {
        let setting = format!("AzureWebJobs.{}.Disabled", function.name);
        problems.add(
            &function.name,
            format!("the host does not read `disabled`; use the setting {setting}=true"),
        );
    }
    if !matches!(function.trigger, Trigger::Kafka(_)) {
        return;
    }
    match &function.retry {
        Some(RetryPolicy {
            max_retry_count: -1,
            ..
        }) => {}
        Some(policy) => problems.add(
            &function.name,
            format!(
                "retry.maxRetryCount is {}, so a longer outage gets past it; set it to -1",
                policy.max_retry_count
            ),
        ),
        None => problems.add(
            &function.name,
            "it has no retry block, so a failing batch is repeated without any pause",
        ),
    }
    if app.is_disabled(&function.name) {
        problems.add(&function.name, "a setting disables it");
    }
}

/// The executable that `host.json` names must be in the folder, under exactly that name: the packing
/// tool gives the execute bit to the entry that equals it character for character.
fn check_executable(app: &App, problems: &mut Problems) {
    let name = app.config.handler.executable.as_str();
    let field = "customHandler.description.defaultExecutablePath";
    if name.starts_with("./")
        || name.contains('\\')
        || name.contains('%')
        || Path::new(name).is_absolute()
    {
        return problems.add(
            "host.json",
            format!("{field} is {name:?}; write the plain path below the app folder, or the packed file gets no execute bit"),
        );
    }
    let path = app.root.join(name);
    if !path.is_file() {
        let folder = path.parent().unwrap_or(&app.root);
        let near = names_in(folder)
            .into_iter()
            .filter(|other| folder.join(other).is_file() && !other.contains('.'))
            .collect::<Vec<_>>();
        let hint = match near.as_slice() {
            [] => "the folder holds no binary".to_owned(),
            near => format!("the folder holds {}", near.join(", ")),
        };
        return problems.add(
            "host.json",
            format!("{field} is {name:?}, which is not there ({hint})"),
        );
    }
    if !is_executable(&path) {
        problems.add(name, "it is not executable; chmod 755 it");
    }
}

#[cfg(unix)]
fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    // Every tool that deploys asks for the owner's bit.
    std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o100 != 0)
}

#[cfg(not(unix))]
fn is_executable(_path: &Path) -> bool {
    true
}

fn check_bundle(app: &App, problems: &mut Problems) {
    let Some((id, version)) = &app.config.bundle else {
        return problems.add(
            "host.json",
            "it has no extensionBundle, and the Kafka trigger is not built into the host",
        );
    };
    if id != "Microsoft.Azure.Functions.ExtensionBundle" {
        problems.add(
            "host.json",
            format!("extensionBundle.id is {id:?}, which is not the general one"),
        );
    }
    if !is_safe_range(version) {
        problems.add(
            "host.json",
            format!("extensionBundle.version {version:?} allows a Kafka extension that ignores commitOnFailure and loses failed batches; write [4.37.0, 5.0.0)"),
        );
    }
}

/// Whether every version in `range` (`[4.37.0, 5.0.0)`) is one of bundle 4 that keeps failed batches.
fn is_safe_range(range: &str) -> bool {
    let version = |text: &str| -> Option<[u64; 3]> {
        let mut parts = text.trim().splitn(3, '.').map(|part| match part {
            "*" => Some(0),
            part => part.parse().ok(),
        });
        let mut next = || parts.next().unwrap_or(Some(0));
        Some([next()?, next()?, next()?])
    };
    let range = range.trim();
    let Some(inner) = range.strip_prefix(['[', '(']) else {
        return false;
    };
    if let Some(exact) = inner.strip_suffix(']').filter(|inner| !inner.contains(',')) {
        return version(exact).is_some_and(|v| v >= FIRST_SAFE_BUNDLE && v < [5, 0, 0]);
    }
    let Some((low, high)) = inner.split_once(',') else {
        return false;
    };
    let is_open = high.trim_end().ends_with(')');
    let high = version(high.trim_end().trim_end_matches([')', ']']));
    let low = version(low);
    low.is_some_and(|low| low >= FIRST_SAFE_BUNDLE)
        && high.is_some_and(|high| high < [5, 0, 0] || (is_open && high == [5, 0, 0]))
}

/// What of `host.json` decides whether a message can be lost.
fn check_delivery(app: &App, problems: &mut Problems) {
    let kafka = &app.config.kafka;
    let mut lossy = |reason: &str| problems.add("host.json", reason);
    if kafka.commit_on_failure {
        lossy(
            "extensions.kafka.commitOnFailure is not false: a failed batch would be committed and lost",
        );
    }
    if kafka.max_retries != -1 {
        lossy(
            "extensions.kafka.maxRetries is not -1: a batch would be given up after so many repeats",
        );
    }
    if kafka.auto_offset_reset != "earliest" {
        lossy(
            "extensions.kafka.autoOffsetReset is not Earliest: a new group would skip what is there",
        );
    }
    let poll = Duration::from_millis(kafka.max_poll_interval_ms.unsigned_abs());
    match app.config.function_timeout {
        Some(limit) if limit < poll => {}
        _ => lossy(
            "functionTimeout is not below extensions.kafka.maxPollIntervalMs: a slow batch would lose its partitions while it runs",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_with_an_old_extension_are_unsafe() {
        for safe in [
            "[4.37.0, 5.0.0)",
            "[4.37.1,5.0.0)",
            "[4.38.0]",
            "[4.37.0, 4.99.0]",
        ] {
            assert!(is_safe_range(safe), "{safe}");
        }
        for lossy in [
            "[4.*, 5.0.0)",
            "[4.0.0, 5.0.0)",
            "[4.36.0, 5.0.0)",
            "[4.37.0, 5.0.0]",
            "[4.37.0, )",
            "4.37.0",
            "",
        ] {
            assert!(!is_safe_range(lossy), "{lossy}");
        }
    }
}
