//! App settings as the Functions host sees them, and the `%NAME%` and TimeSpan forms that they and
//! `host.json` use.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::app::AppError;

/// The settings of one app: its `local.settings.json`, overridden by the environment.
#[derive(Clone, Debug, Default)]
pub struct AppSettings(BTreeMap<String, String>);

impl AppSettings {
    /// Reads `local.settings.json` of the app at `root`, if there is one, and lets `environment` win
    /// over it.
    ///
    /// # Errors
    /// When the file is there and cannot be read, is no JSON object, or is encrypted.
    pub fn load(
        root: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, AppError> {
        let mut settings = Self(local_settings(&root.join("local.settings.json"))?);
        for (name, value) in environment {
            settings.set(name, value);
        }
        Ok(settings)
    }

    /// Sets one value; a name that differs only in case is replaced.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let name = name.into();
        self.0.retain(|known, _| !known.eq_ignore_ascii_case(&name));
        self.0.insert(name, value.into());
    }

    /// The value of `name`, looked up without regard to case; `A:B` also finds `A__B`.
    pub fn get(&self, name: &str) -> Option<&str> {
        let flat = name.replace(':', "__");
        self.0
            .get(name)
            .or_else(|| {
                let mut all = self.0.iter();
                all.find(|(known, _)| known.eq_ignore_ascii_case(&flat))
                    .map(|(_, value)| value)
            })
            .map(String::as_str)
    }

    /// Every setting, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// `text` with every `%NAME%` replaced by its setting.
    ///
    /// # Errors
    /// The first name that no setting has. A single `%` is text.
    pub fn resolve(&self, text: &str) -> Result<String, Unresolved> {
        self.replace(text, |name| Err(Unresolved(name.to_owned())))
    }

    /// `text` with every `%NAME%` replaced by its setting, unknown names by nothing: how the host
    /// treats the handler's path and arguments.
    pub fn expand(&self, text: &str) -> String {
        match self.replace(text, |_| Ok(String::new())) {
            Ok(text) => text,
            Err(Unresolved(never)) => never,
        }
    }

    fn replace(
        &self,
        text: &str,
        missing: impl Fn(&str) -> Result<String, Unresolved>,
    ) -> Result<String, Unresolved> {
        let (mut done, mut rest) = (String::new(), text);
        while let Some((before, after)) = rest.split_once('%') {
            let Some((name, tail)) = after.split_once('%') else {
                break;
            };
            done.push_str(before);
            match self.get(name) {
                Some(value) => done.push_str(value),
                None => done.push_str(&missing(name)?),
            }
            rest = tail;
        }
        done.push_str(rest);
        Ok(done)
    }
}

/// A `%NAME%` whose setting does not exist.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`%{0}%` does not resolve to a value; set the app setting {0}")]
pub struct Unresolved(pub String);

fn local_settings(file: &Path) -> Result<BTreeMap<String, String>, AppError> {
    let malformed = |reason: String| AppError::Malformed {
        file: file.to_owned(),
        reason,
    };
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(source) => {
            let file = file.to_owned();
            return Err(AppError::Unreadable { file, source });
        }
    };
    let json: serde_json::Value = serde_json::from_str(text.trim_start_matches('\u{feff}'))
        .map_err(|e| malformed(e.to_string()))?;
    if json["IsEncrypted"] == true {
        return Err(malformed(
            "it is encrypted; decrypt it with `func settings decrypt`".to_owned(),
        ));
    }
    let Some(values) = json.get("Values") else {
        return Ok(BTreeMap::new());
    };
    let values = values
        .as_object()
        .ok_or_else(|| malformed("`Values` is no object".to_owned()))?;
    values
        .iter()
        .map(|(name, value)| match value {
            serde_json::Value::String(text) => Ok((name.clone(), text.clone())),
            serde_json::Value::Number(_) | serde_json::Value::Bool(_) => {
                Ok((name.clone(), value.to_string()))
            }
            _ => Err(malformed(format!("the value of {name} is no text"))),
        })
        .collect()
}

/// A span written as .NET writes a TimeSpan, `[d.]hh:mm[:ss[.fraction]]`, or as whole days.
///
/// `None` for anything else and for negative spans.
pub(crate) fn timespan(text: &str) -> Option<Duration> {
    let number = |text: &str, limit: u64| -> Option<u64> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let number = text.parse::<u64>().ok().filter(|_| digits)?;
        (number < limit).then_some(number)
    };
    const DAYS: u64 = 10_675_200; // a TimeSpan counts 100 ns ticks in 63 bits
    let Some((hours, rest)) = text.split_once(':') else {
        return Some(Duration::from_secs(number(text, DAYS)? * 86_400));
    };
    let (days, hours) = match hours.split_once('.') {
        Some((days, hours)) => (number(days, DAYS)?, number(hours, 24)?),
        None => (0, number(hours, 24)?),
    };
    let (minutes, seconds) = match rest.split_once(':') {
        Some((minutes, seconds)) => (number(minutes, 60)?, seconds),
        None => (number(rest, 60)?, "0"),
    };
    let (seconds, ticks) = match seconds.split_once('.') {
        Some((seconds, fraction)) if (1..=7).contains(&fraction.len()) => {
            let ticks = number(fraction, 10_000_000)? * 10_u64.pow(7 - fraction.len() as u32);
            (number(seconds, 60)?, ticks)
        }
        Some(_) => return None,
        None => (number(seconds, 60)?, 0),
    };
    let whole = ((days * 24 + hours) * 60 + minutes) * 60 + seconds;
    Some(Duration::from_secs(whole) + Duration::from_nanos(ticks * 100))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> AppSettings {
        let mut settings = AppSettings::default();
        for (name, value) in pairs {
            settings.set(*name, *value);
        }
        settings
    }

    #[test]
    fn names_between_percent_signs_are_replaced() {
        let settings = settings(&[("KafkaTopic", "metrics"), ("A__B", "deep")]);
        assert_eq!(settings.resolve("%kafkatopic%-x"), Ok("metrics-x".into()));
        assert_eq!(settings.resolve("%A:B%"), Ok("deep".into()));
        assert_eq!(settings.resolve("100 %"), Ok("100 %".into()));
        assert_eq!(
            settings.resolve("%Missing%"),
            Err(Unresolved("Missing".into()))
        );
        assert_eq!(settings.expand("a%Missing%b"), "ab");
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("local.settings.json"),
            r#"{"IsEncrypted": false, "Values": {"A": "file", "B": "file", "N": 5}}"#,
        )
        .unwrap();
        let environment = [("a".to_owned(), "environment".to_owned())];
        let settings = AppSettings::load(dir.path(), environment).unwrap();
        assert_eq!(settings.get("A"), Some("environment"));
        assert_eq!(settings.get("B"), Some("file"));
        assert_eq!(settings.get("N"), Some("5"));
    }

    #[test]
    fn timespans_read_as_dotnet_reads_them() {
        assert_eq!(timespan("00:05:00"), Some(Duration::from_secs(300)));
        assert_eq!(timespan("00:05"), Some(Duration::from_secs(300)));
        assert_eq!(
            timespan("1.02:00:00.25"),
            Some(Duration::from_millis(93_600_250))
        );
        assert_eq!(timespan("2"), Some(Duration::from_secs(172_800)));
        for wrong in [
            "",
            "-00:01:00",
            "24:00:00",
            "00:60:00",
            "1:2:3:4",
            "5m",
            "00:00:00.",
        ] {
            assert_eq!(timespan(wrong), None, "{wrong}");
        }
    }
}
