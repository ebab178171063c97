//! Settings: their names, defaults and meaning, and the only reader of the environment.
//!
//! Names are those of Azure app settings (`Window__Points`). A component takes what it needs from
//! [`Settings`] when it is built; nothing reads the environment later. [`ALL`] is the settings table
//! of the README: a test compares the two.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

/// One setting: what it is called, what holds without it, and what it means.
#[derive(Debug)]
pub struct Setting {
    /// Name of the app setting.
    pub name: &'static str,
    /// The value that holds when it is absent or empty; empty when there is none.
    pub default: &'static str,
    /// One line for the settings table.
    pub meaning: &'static str,
    /// Never shown, only whether it is set.
    pub secret: bool,
}

impl Setting {
    const fn new(name: &'static str, default: &'static str, meaning: &'static str) -> Self {
        Self {
            name,
            default,
            meaning,
            secret: false,
        }
    }

    const fn secret(name: &'static str, meaning: &'static str) -> Self {
        Self {
            name,
            default: "",
            meaning,
            secret: true,
        }
    }
}

macro_rules! settings {
    ($($ident:ident = $make:expr;)*) => {
        $(#[allow(missing_docs, reason = "the value says it, and the table shows it")]
        pub static $ident: Setting = $make;)*
        /// Every setting, in the order of the settings table.
        pub static ALL: &[&Setting] = &[$(&$ident),*];
    };
}

settings! {
    KAFKA_BROKERS = Setting::new("KafkaBrokers", "localhost:9092", "Kafka brokers, `host:port`, comma separated");
    KAFKA_TOPIC = Setting::new("KafkaTopic", "aws-cloudwatch-network", "topic that `detect` reads and `replay` writes");
    KAFKA_GROUP = Setting::new("KafkaGroup", "anomaly-detection-group", "consumer group of `detect`");
    KAFKA_PROTOCOL = Setting::new("KafkaProtocol", "", "security of the connection: `Plaintext`, `Ssl`, `SaslPlaintext` or `SaslSsl`; for the trigger it counts when the app is staged");
    KAFKA_AUTHENTICATION_MODE = Setting::new("KafkaAuthenticationMode", "", "SASL mechanism: `Plain`, `ScramSha256` or `ScramSha512`; for the trigger it counts when the app is staged");
    KAFKA_USERNAME = Setting::new("KafkaUsername", "", "SASL user; for Event Hubs `$ConnectionString`");
    KAFKA_PASSWORD = Setting::secret("KafkaPassword", "SASL password; for Event Hubs the connection string");
    KAFKA_SSL_CA_LOCATION = Setting::new("KafkaSslCaLocation", "", "file with the certificates that brokers are trusted by; empty: the machine's");
    REPLAY_SCHEDULE = Setting::new("REPLAY_SCHEDULE", "0 */5 * * * *", "when `replay` ticks: six cron fields, or a TimeSpan");
    REPLAY_SOURCE = Setting::new("Replay__Source", "", "CSV that `replay` sends: a path, or an http(s) or blob URL");
    REPLAY_ROWS_PER_TICK = Setting::new("Replay__RowsPerTick", "1", "rows that one tick sends, 1 to 100000");
    REPLAY_LOOP = Setting::new("Replay__Loop", "false", "`true`: past the end go on from the top with timestamps carried on");
    REPLAY_SERIES = Setting::new("Replay__Series", "", "key of rows whose file has no column `series`; empty: the topic's name");
    WINDOW_POINTS = Setting::new("Window__Points", "288", "points kept of a series and needed before judging, 12 to 8640");
    WINDOW_MIN_POINTS = Setting::new("Window__MinPoints", "", "judge already from so many points on, 12 to `Window__Points`; empty: only full windows");
    WINDOW_OFF_GRID = Setting::new("Window__OffGrid", "reject", "a point off the window's grid: `reject` (dead letter) or `snap` (to the nearest slot)");
    WINDOW_MAX_SERIES = Setting::new("Window__MaxSeries", "100000", "series kept per partition; points of any further one are dead letters");
    WINDOW_IDLE_AFTER = Setting::new("Window__IdleAfter", "1h", "a partition silent for so long leaves memory (`90s`, `15m`, `1h`, `30d`)");
    WINDOW_FORGET_AFTER = Setting::new("Window__ForgetAfter", "30d", "a series silent for so long leaves the store at the next compaction");
    STORE_KIND = Setting::new("Store__Kind", "", "where windows are kept: `blob`, `table`, `file` or `memory`; empty: `blob` when `AzureWebJobsStorage` is set, else `file`");
    STORE_PATH = Setting::new("Store__Path", "lapwing-state", "folder of the file store");
    STORE_CONTAINER = Setting::new("Store__Container", "lapwing", "container of the blob store");
    STORE_TABLE = Setting::new("Store__Table", "lapwing", "table of the table store");
    STORE_TIMEOUT = Setting::new("Store__Timeout", "30s", "deadline of a request to the store; more when many bytes move");
    STORAGE = Setting::secret("AzureWebJobsStorage", "connection string of the storage account, or `UseDevelopmentStorage=true` for Azurite; `AzureWebJobsStorage__accountName` and the like for an identity");
    DETECTOR_GRANULARITY = Setting::new("Detector__Granularity", "minutely", "unit of the grid: yearly, monthly, weekly, daily, hourly, minutely, secondly, microsecond or none");
    DETECTOR_CUSTOM_INTERVAL = Setting::new("Detector__CustomInterval", "5", "granules from one point to the next");
    DETECTOR_SENSITIVITY = Setting::new("Detector__Sensitivity", "99", "0 to 100; a larger one flags more points");
    DETECTOR_MAX_ANOMALY_RATIO = Setting::new("Detector__MaxAnomalyRatio", "0.25", "most points of a window that may be anomalies, above 0 to 0.49");
    RECORDS_KIND = Setting::new("Records__Kind", "", "places that anomalies go to: `file`, `blob`, `table`, `kafka`, `webhook`, comma separated, or `none`; empty: blob when `AzureWebJobsStorage` is set, else file");
    RECORDS_PATH = Setting::new("Records__Path", "lapwing-records", "file: folder below which the anomalies go");
    RECORDS_CONTAINER = Setting::new("Records__Container", "lapwing-records", "blob: container that the anomalies go to");
    RECORDS_TABLE = Setting::new("Records__Table", "LapwingAnomalies", "table: its name");
    RECORDS_TOPIC = Setting::new("Records__Topic", "", "kafka: topic that the anomalies go to");
    RECORDS_URL = Setting::secret("Records__Url", "webhook: https URL that the anomalies are posted to");
    RECORDS_SECRET = Setting::secret("Records__Secret", "webhook: key of the signatures, `whsec_` and base64, or a text of 16 bytes and more");
    DEAD_LETTERS_KIND = Setting::new("DeadLetters__Kind", "", "places that dead letters go to: `file`, `blob`, `table`, `kafka`, `webhook`, comma separated, or `none`; empty: blob when `AzureWebJobsStorage` is set, else file");
    DEAD_LETTERS_PATH = Setting::new("DeadLetters__Path", "lapwing-records", "file: folder below which the dead letters go");
    DEAD_LETTERS_CONTAINER = Setting::new("DeadLetters__Container", "lapwing-records", "blob: container that the dead letters go to");
    DEAD_LETTERS_TABLE = Setting::new("DeadLetters__Table", "LapwingDeadLetters", "table: its name");
    DEAD_LETTERS_TOPIC = Setting::new("DeadLetters__Topic", "", "kafka: topic that the dead letters go to");
    DEAD_LETTERS_URL = Setting::secret("DeadLetters__Url", "webhook: https URL that the dead letters are posted to");
    DEAD_LETTERS_SECRET = Setting::secret("DeadLetters__Secret", "webhook: key of the signatures, `whsec_` and base64, or a text of 16 bytes and more");
    VERDICTS_KIND = Setting::new("Verdicts__Kind", "none", "places that every verdict goes to: `file`, `blob`, `table`, `kafka`, `webhook`, comma separated, or `none`");
    VERDICTS_PATH = Setting::new("Verdicts__Path", "lapwing-records", "file: folder below which the verdicts go");
    VERDICTS_CONTAINER = Setting::new("Verdicts__Container", "lapwing-records", "blob: container that the verdicts go to");
    VERDICTS_TABLE = Setting::new("Verdicts__Table", "LapwingVerdicts", "table: its name");
    VERDICTS_TOPIC = Setting::new("Verdicts__Topic", "", "kafka: topic that the verdicts go to");
    VERDICTS_URL = Setting::secret("Verdicts__Url", "webhook: https URL that the verdicts are posted to");
    VERDICTS_SECRET = Setting::secret("Verdicts__Secret", "webhook: key of the signatures, `whsec_` and base64, or a text of 16 bytes and more");
    RECORDS_TIMEOUT = Setting::new("Records__Timeout", "30s", "longest time that one write to all places of a stream may take, 1s to 5m");
    API_KEY1 = Setting::secret("Api__Key1", "key that callers of the REST API send; without any key every call is refused");
    API_KEY2 = Setting::secret("Api__Key2", "second key, as good as the first, so that one can be rotated");
    API_KEY = Setting::secret("ApiKey", "the container edition's name of a first key; taken beside the two");
    API_ALLOW_ANONYMOUS = Setting::new("Api__AllowAnonymous", "false", "`true`: the REST API answers without looking at keys");
    API_RATE_LIMIT = Setting::new("Api__RateLimit", "", "calls per second and key of the REST API; empty: no limit");
    API_MAX_BODY_BYTES = Setting::new("Api__MaxBodyBytes", "8388608", "largest request body of the REST API, unpacked");
    ANOMALY_DETECTOR_ENDPOINT = Setting::new("ANOMALY_DETECTOR_ENDPOINT", "", "URL of a remote detector that judges instead of the embedded one; empty: the embedded one judges");
    ANOMALY_DETECTOR_KEY = Setting::secret("ANOMALY_DETECTOR_KEY", "key of the remote detector");
    REMOTE_ON_FAILURE = Setting::new("Remote__OnFailure", "fail", "when the remote detector fails: `fail` (the batch, so that Kafka keeps it) or `embedded` (judge without it)");
    REMOTE_DEADLINE = Setting::new("Remote__Deadline", "20s", "longest time for a call of the remote detector, all tries together");
}

/// A setting whose value cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("setting {name} is {value:?}: {reason}")]
pub struct InvalidSetting {
    /// Name of the setting.
    pub name: &'static str,
    /// What it holds; `***` for a secret.
    pub value: String,
    /// What is wrong and what would be right.
    pub reason: String,
}

impl InvalidSetting {
    /// `setting` holds something that `reason` speaks against.
    pub fn new(setting: &'static Setting, value: &str, reason: impl Display) -> Self {
        let is_hidden = setting.secret && !value.is_empty();
        let value = if is_hidden { "***" } else { value };
        Self {
            name: setting.name,
            value: value.to_owned(),
            reason: reason.to_string(),
        }
    }
}

/// A snapshot of the app settings.
#[derive(Clone, Debug, Default)]
pub struct Settings(BTreeMap<String, String>);

impl Settings {
    /// The process's environment, which is where the Functions host puts app settings.
    pub fn from_env() -> Self {
        Self(
            std::env::vars_os()
                .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
                .collect(),
        )
    }

    /// Settings given by hand; later ones win.
    pub fn from_pairs<K: Into<String>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        Self(
            pairs
                .into_iter()
                .map(|(k, v)| (k.into(), v.into()))
                .collect(),
        )
    }

    /// The value of any name, looked up as the host does: exactly, then without regard to case; an
    /// empty value counts as absent.
    pub fn raw(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .or_else(|| {
                self.0
                    .iter()
                    .find(|(key, _)| key.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value)
            })
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// The value or the default of `setting`; `None` when there is neither.
    pub fn get(&self, setting: &'static Setting) -> Option<&str> {
        self.raw(setting.name)
            .or(Some(setting.default))
            .filter(|value| !value.is_empty())
    }

    /// The parsed value or default of `setting`; `None` when there is neither.
    pub fn parsed<T>(&self, setting: &'static Setting) -> Result<Option<T>, InvalidSetting>
    where
        T: FromStr<Err: Display>,
    {
        self.get(setting)
            .map(|value| {
                value
                    .trim()
                    .parse()
                    .map_err(|error| InvalidSetting::new(setting, value, error))
            })
            .transpose()
    }

    /// The parsed value of a setting that has a default.
    pub fn required<T>(&self, setting: &'static Setting) -> Result<T, InvalidSetting>
    where
        T: FromStr<Err: Display>,
    {
        self.parsed(setting)?
            .ok_or_else(|| InvalidSetting::new(setting, "", "it is required; set it"))
    }

    /// Every known setting with the value that holds, secrets hidden: what `/health` shows.
    pub fn redacted(&self) -> BTreeMap<&'static str, String> {
        ALL.iter()
            .map(|setting| {
                let value = match self.get(setting) {
                    Some(_) if setting.secret => "***".to_owned(),
                    Some(value) => without_query(value),
                    None => String::new(),
                };
                (setting.name, value)
            })
            .collect()
    }
}

/// A URL without its query, where a shared access signature would be; any other text as it is.
pub fn without_query(text: &str) -> String {
    match text.split_once('?') {
        Some((address, _)) if address.contains("://") => format!("{address}?***"),
        _ => text.to_owned(),
    }
}

/// A span of time written as a number and a unit: `250ms`, `90s`, `15m`, `1h`, `30d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub std::time::Duration);

impl FromStr for Span {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str =
            "expected a whole number and a unit, such as 250ms, 90s, 15m, 1h or 30d";
        let split = text.find(|c: char| !c.is_ascii_digit()).ok_or(EXPECTED)?;
        let number: u64 = text[..split].parse().map_err(|_| EXPECTED)?;
        let millis = match &text[split..] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(EXPECTED),
        };
        number
            .checked_mul(millis)
            .map(|ms| Self(std::time::Duration::from_millis(ms)))
            .ok_or(EXPECTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_is_absent_and_case_is_forgiven() {
        let settings = Settings::from_pairs([("window__points", "100"), ("KafkaTopic", "")]);
        assert_eq!(settings.required::<u32>(&WINDOW_POINTS), Ok(100));
        assert_eq!(settings.get(&KAFKA_TOPIC), Some("aws-cloudwatch-network"));
        assert_eq!(settings.parsed::<u32>(&WINDOW_MIN_POINTS), Ok(None));
    }

    #[test]
    fn a_bad_value_names_the_setting() {
        let error = Settings::from_pairs([("Window__Points", "many")])
            .required::<u32>(&WINDOW_POINTS)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "setting Window__Points is \"many\": invalid digit found in string"
        );
    }

    #[test]
    fn what_is_shown_holds_no_secret() {
        let shown = Settings::from_pairs([
            ("KafkaPassword", "hush"),
            ("Replay__Source", "https://a.example/b.csv?sv=1&sig=hush"),
            ("KafkaTopic", "what?"),
        ])
        .redacted();
        assert_eq!(shown["KafkaPassword"], "***");
        assert_eq!(shown["Replay__Source"], "https://a.example/b.csv?***");
        assert_eq!(shown["KafkaTopic"], "what?");
    }

    #[test]
    fn spans_need_a_unit() {
        assert_eq!("90s".parse(), Ok(Span(std::time::Duration::from_secs(90))));
        assert_eq!(
            "2d".parse(),
            Ok(Span(std::time::Duration::from_secs(172_800)))
        );
        assert!(
            "90".parse::<Span>().is_err()
                && "s".parse::<Span>().is_err()
                && "99999999999999999d".parse::<Span>().is_err()
        );
    }
}
