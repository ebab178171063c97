//! The places of each stream, as the settings name them, and the one write that goes to all of them.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::{Duration, Instant};

use futures::future;

use super::archive::Archive;
use super::blob::BlobSink;
use super::file::FileSink;
use super::kafka::KafkaSink;
use super::table::TableSink;
use super::webhook::{InvalidWebhook, WebhookSink};
use super::{Event, Sink, SinkError, Stream};
use crate::config::{self, InvalidSetting, Setting, Settings, Span};
use crate::kafka;
use crate::store::azure::Account;
use crate::telemetry;

/// Where the events of each stream go.
#[derive(Debug)]
pub struct Places {
    of_stream: BTreeMap<Stream, Vec<Box<dyn Sink>>>,
    timeout: Duration,
}

impl Places {
    /// Reads the settings and makes the sinks; nothing connects before the first write.
    pub fn from_settings(settings: &Settings) -> Result<Self, InvalidSetting> {
        let timeout = timeout(settings)?;
        let mut of_stream = BTreeMap::new();
        for stream in [Stream::Anomalies, Stream::DeadLetters, Stream::Verdicts] {
            let names = Names::of(stream);
            let kinds = kinds(settings, names.kind)?;
            let sinks = kinds
                .into_iter()
                .map(|kind| names.sink(kind, settings, timeout))
                .collect::<Result<Vec<_>, _>>()?;
            of_stream.insert(stream, sinks);
        }
        Ok(Self { of_stream, timeout })
    }

    /// Places given by hand; a stream that is not named has none.
    pub fn new(
        of_stream: impl IntoIterator<Item = (Stream, Vec<Box<dyn Sink>>)>,
        timeout: Duration,
    ) -> Self {
        Self {
            of_stream: of_stream.into_iter().collect(),
            timeout,
        }
    }

    /// Whether events of `stream` go anywhere; those of one that do not need not be made.
    pub fn takes(&self, stream: Stream) -> bool {
        !self.sinks(stream).is_empty()
    }

    /// Writes events of one topic-partition, in ascending order of position, to every place of their
    /// stream. All must take them within `Records__Timeout`; otherwise the first place's error is
    /// given, and writing the same events again completes the others.
    pub async fn write(&self, stream: Stream, events: &[Event]) -> Result<(), SinkError> {
        debug_assert!(events.iter().all(|event| event.stream == stream));
        if events.is_empty() {
            return Ok(());
        }
        let writes = self.sinks(stream).iter().map(|sink| async move {
            let start = Instant::now();
            let written = match tokio::time::timeout(self.timeout, sink.write(events)).await {
                Ok(written) => written.map(drop),
                Err(_) => Err(SinkError::Unavailable {
                    stream: stream.name(),
                    place: sink.place(),
                    source: format!("no answer within {} s", self.timeout.as_secs_f64()).into(),
                }),
            };
            let outcome = if written.is_ok() { "ok" } else { "failed" };
            telemetry::RECORD_SECONDS
                .with_label_values(&[stream.name(), outcome])
                .observe(start.elapsed().as_secs_f64());
            written
        });
        // Joined, not tried: a place that fails does not cut short what another is writing.
        future::join_all(writes).await.into_iter().collect()
    }

    /// The places of each stream, for people; what `/health` shows.
    pub fn describe(&self) -> BTreeMap<&'static str, Vec<String>> {
        self.of_stream
            .iter()
            .map(|(stream, sinks)| {
                let places = sinks.iter().map(|sink| sink.place()).collect();
                (stream.name(), places)
            })
            .collect()
    }

    fn sinks(&self, stream: Stream) -> &[Box<dyn Sink>] {
        self.of_stream.get(&stream).map_or(&[], Vec::as_slice)
    }
}

/// A kind of place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// JSON Lines in a folder.
    File,
    /// JSON Lines in append blobs.
    Blob,
    /// Entities of a table.
    Table,
    /// Messages of a topic.
    Kafka,
    /// HTTP requests.
    Webhook,
}

impl FromStr for Kind {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "file" => Self::File,
            "blob" => Self::Blob,
            "table" => Self::Table,
            "kafka" => Self::Kafka,
            "webhook" => Self::Webhook,
            _ => {
                return Err(
                    "expected file, blob, table, kafka or webhook, comma separated, or none",
                );
            }
        })
    }
}

/// The settings of one stream.
struct Names {
    kind: &'static Setting,
    path: &'static Setting,
    container: &'static Setting,
    table: &'static Setting,
    topic: &'static Setting,
    url: &'static Setting,
    secret: &'static Setting,
}

impl Names {
    fn of(stream: Stream) -> Self {
        match stream {
            Stream::Anomalies => Self {
                kind: &config::RECORDS_KIND,
                path: &config::RECORDS_PATH,
                container: &config::RECORDS_CONTAINER,
                table: &config::RECORDS_TABLE,
                topic: &config::RECORDS_TOPIC,
                url: &config::RECORDS_URL,
                secret: &config::RECORDS_SECRET,
            },
            Stream::DeadLetters => Self {
                kind: &config::DEAD_LETTERS_KIND,
                path: &config::DEAD_LETTERS_PATH,
                container: &config::DEAD_LETTERS_CONTAINER,
                table: &config::DEAD_LETTERS_TABLE,
                topic: &config::DEAD_LETTERS_TOPIC,
                url: &config::DEAD_LETTERS_URL,
                secret: &config::DEAD_LETTERS_SECRET,
            },
            Stream::Verdicts => Self {
                kind: &config::VERDICTS_KIND,
                path: &config::VERDICTS_PATH,
                container: &config::VERDICTS_CONTAINER,
                table: &config::VERDICTS_TABLE,
                topic: &config::VERDICTS_TOPIC,
                url: &config::VERDICTS_URL,
                secret: &config::VERDICTS_SECRET,
            },
        }
    }

    fn file(&self, settings: &Settings) -> Result<FileSink, InvalidSetting> {
        Ok(FileSink::new(settings.required::<String>(self.path)?))
    }

    fn blob(&self, settings: &Settings) -> Result<BlobSink, InvalidSetting> {
        let name: String = settings.required(self.container)?;
        let container = self
            .account(settings)?
            .container(&name)
            .map_err(|reason| InvalidSetting::new(&config::STORAGE, "", reason))?;
        Ok(BlobSink::new(container))
    }

    fn table(&self, settings: &Settings) -> Result<TableSink, InvalidSetting> {
        let name: String = settings.required(self.table)?;
        let (endpoint, pipeline) = self
            .account(settings)?
            .tables()
            .map_err(|reason| InvalidSetting::new(&config::STORAGE, "", reason))?;
        Ok(TableSink::new(pipeline, endpoint, name))
    }

    fn account(&self, settings: &Settings) -> Result<Account, InvalidSetting> {
        Account::from_settings(settings)?.ok_or_else(|| {
            let kind = settings.get(self.kind).unwrap_or_default();
            let reason = "blob and table need AzureWebJobsStorage; set it as well";
            InvalidSetting::new(self.kind, kind, reason)
        })
    }

    fn sink(
        &self,
        kind: Kind,
        settings: &Settings,
        timeout: Duration,
    ) -> Result<Box<dyn Sink>, InvalidSetting> {
        // The sink's own deadline comes first: it can say what it waited for.
        let timeout = timeout.mul_f64(0.9);
        Ok(match kind {
            Kind::File => Box::new(self.file(settings)?),
            Kind::Blob => Box::new(self.blob(settings)?),
            Kind::Table => Box::new(self.table(settings)?),
            Kind::Kafka => {
                let topic = needed(settings, self.topic)?;
                let read = settings.get(&config::KAFKA_TOPIC);
                if read == Some(topic) {
                    let reason = "it is the topic that `detect` reads, and would feed on its own records; name another";
                    return Err(InvalidSetting::new(self.topic, topic, reason));
                }
                Box::new(KafkaSink::new(&kafka::cluster(settings)?, topic, timeout))
            }
            Kind::Webhook => {
                let url = needed(settings, self.url)?;
                let secret = needed(settings, self.secret)?;
                let sink = WebhookSink::new(url, secret, timeout).map_err(|error| {
                    let (setting, value) = match error {
                        InvalidWebhook::Secret(_) => (self.secret, secret),
                        _ => (self.url, url),
                    };
                    InvalidSetting::new(setting, value, error)
                })?;
                Box::new(sink)
            }
        })
    }
}

/// The place of `stream` that can be read again: the one of kind `wanted`, else the first readable one
/// that its settings name.
pub fn archive(
    settings: &Settings,
    stream: Stream,
    wanted: Option<Kind>,
) -> Result<Box<dyn Archive>, InvalidSetting> {
    let names = Names::of(stream);
    let named = kinds(settings, names.kind)?;
    let mut readable = wanted.into_iter().chain(named).filter_map(|kind| {
        let archive = match kind {
            Kind::File => names
                .file(settings)
                .map(|sink| Box::new(sink) as Box<dyn Archive>),
            Kind::Blob => names
                .blob(settings)
                .map(|sink| Box::new(sink) as Box<dyn Archive>),
            Kind::Table => names
                .table(settings)
                .map(|sink| Box::new(sink) as Box<dyn Archive>),
            Kind::Kafka | Kind::Webhook => return None,
        };
        Some(archive)
    });
    readable.next().unwrap_or_else(|| {
        let value = settings.get(names.kind).unwrap_or_default();
        let reason =
            "of these none can be read again; name file, blob or table too, or consume the topic";
        Err(InvalidSetting::new(names.kind, value, reason))
    })
}

fn timeout(settings: &Settings) -> Result<Duration, InvalidSetting> {
    let Span(timeout) = settings.required(&config::RECORDS_TIMEOUT)?;
    // Kafka takes no shorter one, and the host ends an invocation at its own limit.
    if !(Duration::from_secs(1)..=Duration::from_secs(300)).contains(&timeout) {
        let value = settings.get(&config::RECORDS_TIMEOUT).unwrap_or_default();
        let reason = "expected 1s to 5m";
        return Err(InvalidSetting::new(&config::RECORDS_TIMEOUT, value, reason));
    }
    Ok(timeout)
}

fn kinds(settings: &Settings, setting: &'static Setting) -> Result<Vec<Kind>, InvalidSetting> {
    let Some(text) = settings.get(setting) else {
        return Ok(vec![default_kind(settings)?]);
    };
    let mut kinds = Vec::new();
    if text.trim() == "none" {
        return Ok(kinds);
    }
    for part in text.split(',') {
        let kind = part
            .trim()
            .parse()
            .map_err(|reason| InvalidSetting::new(setting, text, reason))?;
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    Ok(kinds)
}

/// Records lie where the windows lie: in the app's storage account when it has one.
fn default_kind(settings: &Settings) -> Result<Kind, InvalidSetting> {
    Ok(match Account::from_settings(settings)? {
        Some(_) => Kind::Blob,
        None => Kind::File,
    })
}

fn needed<'a>(
    settings: &'a Settings,
    setting: &'static Setting,
) -> Result<&'a str, InvalidSetting> {
    settings
        .get(setting)
        .ok_or_else(|| InvalidSetting::new(setting, "", "the kind of place needs it; set it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(pairs: &[(&str, &str)]) -> Result<Places, String> {
        let settings = Settings::from_pairs(pairs.iter().copied());
        Places::from_settings(&settings).map_err(|error| error.to_string())
    }

    #[test]
    fn without_settings_anomalies_and_dead_letters_go_to_a_folder_and_verdicts_nowhere() {
        let places = built(&[]).unwrap();
        let described = places.describe();
        assert_eq!(described["anomalies"], ["folder lapwing-records"]);
        assert_eq!(described["dead-letters"], ["folder lapwing-records"]);
        assert!(described["verdicts"].is_empty() && !places.takes(Stream::Verdicts));
    }

    #[test]
    fn with_a_storage_account_they_go_to_it() {
        let storage = ("AzureWebJobsStorage", "UseDevelopmentStorage=true");
        let described = built(&[storage]).unwrap().describe();
        assert_eq!(described["anomalies"], ["container lapwing-records"]);
        let described = built(&[storage, ("Verdicts__Kind", "table")])
            .unwrap()
            .describe();
        assert_eq!(described["verdicts"], ["table LapwingVerdicts"]);
    }

    #[test]
    fn a_stream_has_the_places_that_its_kind_lists_once_each() {
        let places = built(&[
            ("Records__Kind", "file, webhook,kafka,file"),
            ("Records__Path", "out"),
            ("Records__Topic", "anomalies"),
            ("Records__Url", "https://example.org/hook?code=1"),
            ("Records__Secret", "0123456789abcdef"),
            ("DeadLetters__Kind", "none"),
        ])
        .unwrap();
        let described = places.describe();
        assert_eq!(
            described["anomalies"],
            [
                "folder out",
                "webhook https://example.org/hook",
                "topic anomalies"
            ]
        );
        assert!(described["dead-letters"].is_empty());
    }

    #[test]
    fn a_setting_that_cannot_work_is_named() {
        for (pairs, told) in [
            (
                &[("Records__Kind", "ftp")][..],
                "setting Records__Kind is \"ftp\": expected file",
            ),
            (
                &[("Verdicts__Kind", "blob")],
                "setting Verdicts__Kind is \"blob\": blob and table need AzureWebJobsStorage",
            ),
            (
                &[("Verdicts__Kind", "kafka")],
                "setting Verdicts__Topic is \"\": ",
            ),
            (
                &[
                    ("DeadLetters__Kind", "kafka"),
                    ("DeadLetters__Topic", "in"),
                    ("KafkaTopic", "in"),
                ],
                "setting DeadLetters__Topic is \"in\": it is the topic that `detect` reads",
            ),
            (
                &[
                    ("Records__Kind", "webhook"),
                    ("Records__Url", "https://example.org/?code=hidden"),
                    ("Records__Secret", "short"),
                ],
                "setting Records__Secret is \"***\": ",
            ),
            (
                &[
                    ("Records__Kind", "webhook"),
                    ("Records__Url", "ftp://example.org/?code=hidden"),
                    ("Records__Secret", "0123456789abcdef"),
                ],
                "setting Records__Url is \"***\": ",
            ),
            (
                &[("Records__Timeout", "1h")],
                "setting Records__Timeout is \"1h\": expected 1s to 5m",
            ),
        ] {
            let error = built(pairs).unwrap_err();
            assert!(error.starts_with(told), "{error}");
            assert!(!error.contains("hidden"), "{error}");
        }
    }

    /// A place that takes nothing, or nothing in time.
    #[derive(Debug)]
    struct Broken {
        silent: bool,
    }

    #[async_trait::async_trait]
    impl Sink for Broken {
        async fn write(&self, _: &[Event]) -> Result<usize, SinkError> {
            if self.silent {
                future::pending::<()>().await;
            }
            Err(SinkError::Unavailable {
                stream: "dead-letters",
                place: self.place(),
                source: "it is broken".into(),
            })
        }

        fn place(&self) -> String {
            "nowhere".to_owned()
        }
    }

    #[tokio::test]
    async fn one_place_that_fails_fails_the_write_and_not_the_other_places() {
        for silent in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let sinks: Vec<Box<dyn Sink>> = vec![
                Box::new(Broken { silent }),
                Box::new(FileSink::new(folder.path())),
            ];
            let places = Places::new([(Stream::DeadLetters, sinks)], Duration::from_secs(1));
            let event = crate::record::file::tests::event(1, "");
            let error = places
                .write(Stream::DeadLetters, &[event])
                .await
                .unwrap_err();
            assert_eq!(error.to_string(), "cannot write dead-letters to nowhere");
            let file = folder
                .path()
                .join("dead-letters/metrics/3/2026-08-21.jsonl");
            assert!(file.exists());
        }
    }
}
