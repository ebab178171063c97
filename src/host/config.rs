//! `host.json`: what the host takes from it, with the host's own defaults.

use std::time::Duration;

use serde_json::Value;

use super::section::{Section, Unusable};
use super::settings::{AppSettings, timespan};

/// What `host.json` decides.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// How the handler is started.
    pub handler: HandlerConfig,
    /// The longest an invocation may take; `None`: for ever.
    pub function_timeout: Option<Duration>,
    /// What stands before every HTTP route; empty for nothing.
    pub route_prefix: String,
    /// The Kafka extension's options.
    pub kafka: KafkaConfig,
    /// The retry policy of every function that has none of its own.
    pub retry: Option<RetryPolicy>,
    /// The only functions that are loaded, when given.
    pub functions: Option<Vec<String>>,
    /// `id` and `version` of the extension bundle.
    pub bundle: Option<(String, String)>,
}

/// The section `customHandler`.
#[derive(Clone, Debug)]
pub struct HandlerConfig {
    /// The executable as written, `%NAME%` not yet replaced.
    pub executable: String,
    /// Its working directory, when it is not the script root.
    pub working_directory: Option<String>,
    /// Its arguments, to be joined by spaces without quoting.
    pub arguments: Vec<String>,
    /// How long it may take until it answers for the first time.
    pub initialization_timeout: Duration,
    /// Whether every line on stderr is an error.
    pub stderr_is_for_errors: bool,
    /// How pure HTTP functions are passed on.
    pub http: HttpMode,
    /// A fixed port for the handler instead of a free one.
    pub port: Option<u16>,
}

/// How a function of one `httpTrigger` and one `http` output reaches the handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpMode {
    /// As JSON, like every other trigger.
    Invocation,
    /// The request itself, its body only when it came with a length.
    Forwarding,
    /// The request itself, streamed.
    Proxying,
}

/// The section `extensions.kafka`.
#[derive(Clone, Debug)]
pub struct KafkaConfig {
    /// Most messages of one batch.
    pub max_batch_size: usize,
    /// Longest time to collect a batch.
    pub subscriber_interval: Duration,
    /// Batches waiting behind the running one.
    pub executor_channel_capacity: usize,
    /// How long to wait before a full channel is tried again.
    pub channel_full_retry_interval: Duration,
    /// Time between two commits of the stored offsets, in milliseconds.
    pub auto_commit_interval_ms: i64,
    /// Where a group without offsets begins: `earliest` or `latest`.
    pub auto_offset_reset: &'static str,
    /// Session timeout, in milliseconds.
    pub session_timeout_ms: i64,
    /// Longest time between two polls, in milliseconds.
    pub max_poll_interval_ms: i64,
    /// Whether the offsets of a failed execution are stored, which loses its messages.
    pub commit_on_failure: bool,
    /// Repeats of a failed execution without delay; -1: without end. Only when failures are not
    /// committed.
    pub max_retries: i64,
    /// Options that go to the client as they are: librdkafka's name and the value.
    pub client: Vec<(&'static str, String)>,
}

/// The section `retry` of a function or of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts after the first; -1: without end.
    pub max_retry_count: i64,
    /// The pause before each.
    pub delay: RetryDelay,
}

/// The pause between two attempts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RetryDelay {
    /// Always the same.
    Fixed(Duration),
    /// Doubling from the first to the second, with jitter.
    Exponential(Duration, Duration),
}

impl HostConfig {
    /// Reads the file; the error is a sentence without the file's name.
    pub(crate) fn read(root: &Section<'_>, settings: &AppSettings) -> Result<Self, String> {
        let wrong = |error: Unusable| error.to_string();
        if root.at("version").text().map_err(wrong)?.as_deref() != Some("2.0") {
            return Err(wrong(root.at("version").unusable("\"2.0\"")));
        }
        let functions = root.at("functions");
        let bundle = root.at("extensionBundle");
        let bundle = match bundle.exists() {
            true => Some((
                bundle.at("id").text().map_err(wrong)?.unwrap_or_default(),
                bundle
                    .at("version")
                    .text()
                    .map_err(wrong)?
                    .unwrap_or_default(),
            )),
            false => None,
        };
        let prefix = root.at("extensions").at("http").at("routePrefix");
        let prefix = prefix.text().map_err(wrong)?;
        Ok(Self {
            handler: HandlerConfig::read(root)?,
            function_timeout: function_timeout(root).map_err(wrong)?,
            route_prefix: prefix
                .unwrap_or("api".to_owned())
                .trim_matches('/')
                .to_owned(),
            kafka: KafkaConfig::read(&root.at("extensions").at("kafka")).map_err(wrong)?,
            retry: RetryPolicy::read(&root.at("retry")).map_err(wrong)?,
            functions: match functions.exists() {
                true => Some(texts(&functions, settings).map_err(wrong)?),
                false => None,
            },
            bundle,
        })
    }
}

impl HandlerConfig {
    fn read(root: &Section<'_>) -> Result<Self, String> {
        let wrong = |error: Unusable| error.to_string();
        let (section, legacy) = match root.at("customHandler") {
            custom if custom.exists() => (custom, false),
            _ => (root.at("httpWorker"), true),
        };
        if !section.exists() {
            return Err("it has no `customHandler`, so no handler would start".to_owned());
        }
        let description = section.at("description");
        let executable = description.at("defaultExecutablePath");
        let executable = executable.text().map_err(wrong)?.unwrap_or_default();
        if executable.trim().is_empty() {
            return Err(
                "`customHandler.description.defaultExecutablePath` is empty; name the binary"
                    .to_owned(),
            );
        }
        let flag = |name: &str| section.at(name).bool().map(|flag| flag == Some(true));
        let http = if flag("enableProxyingHttpRequest").map_err(wrong)? {
            HttpMode::Proxying
        } else if legacy || flag("enableForwardingHttpRequest").map_err(wrong)? {
            HttpMode::Forwarding
        } else {
            HttpMode::Invocation
        };
        let port = section.at("port");
        let port = match port.int().map_err(wrong)? {
            None | Some(0) => None,
            Some(n) => Some(u16::try_from(n).map_err(|_| wrong(port.unusable("a port")))?),
        };
        let initialization = section.at("initializationTimeout").timespan();
        let errors_only = description.at("useStdErrorStreamForErrorsOnly").bool();
        Ok(Self {
            executable,
            working_directory: description.at("workingDirectory").text().map_err(wrong)?,
            arguments: arguments(&description.at("arguments")).map_err(wrong)?,
            initialization_timeout: initialization
                .map_err(wrong)?
                .unwrap_or(Duration::from_secs(30)),
            stderr_is_for_errors: errors_only.map_err(wrong)?.unwrap_or(true),
            http,
            port,
        })
    }
}

impl KafkaConfig {
    fn read(section: &Section<'_>) -> Result<Self, Unusable> {
        let int = |name: &str, default: i64, least: i64| {
            let value = section.at(name);
            match value.int()?.unwrap_or(default) {
                n if n >= least => Ok(n),
                _ => Err(value.unusable(&format!("{least} or more"))),
            }
        };
        let reset = section.at("autoOffsetReset");
        let mut client = Vec::new();
        for (name, property) in CLIENT_OPTIONS {
            if let Some(value) = section.at(name).text()? {
                client.push((*property, value.to_ascii_lowercase()));
            }
        }
        Ok(Self {
            max_batch_size: int("maxBatchSize", 64, 1)? as usize,
            subscriber_interval: Duration::from_secs(
                int("subscriberIntervalInSeconds", 1, 1)? as u64
            ),
            executor_channel_capacity: int("executorChannelCapacity", 1, 1)? as usize,
            channel_full_retry_interval: Duration::from_millis(int(
                "channelFullRetryIntervalInMs",
                50,
                1,
            )? as u64),
            auto_commit_interval_ms: int("autoCommitIntervalMs", 200, 1)?,
            auto_offset_reset: match reset.choice(&["Latest", "Earliest"])? {
                Some("Latest") => "latest",
                _ => "earliest",
            },
            session_timeout_ms: int("sessionTimeoutMs", 10_000, 1)?,
            max_poll_interval_ms: int("maxPollIntervalMs", 300_000, 1)?,
            commit_on_failure: section.at("commitOnFailure").bool()?.unwrap_or(true),
            max_retries: int("maxRetries", 5, -1)?,
            client,
        })
    }
}

/// Options of the extension that are librdkafka's under another name.
const CLIENT_OPTIONS: &[(&str, &str)] = &[
    ("metadataMaxAgeMs", "metadata.max.age.ms"),
    ("socketKeepaliveEnable", "socket.keepalive.enable"),
    ("reconnectBackoffMs", "reconnect.backoff.ms"),
    ("reconnectBackoffMaxMs", "reconnect.backoff.max.ms"),
    ("queuedMinMessages", "queued.min.messages"),
    ("queuedMaxMessagesKbytes", "queued.max.messages.kbytes"),
    ("maxPartitionFetchBytes", "max.partition.fetch.bytes"),
    ("fetchMaxBytes", "fetch.max.bytes"),
    ("libkafkaDebug", "debug"),
];

impl RetryPolicy {
    /// Reads a `retry` block, if there is one.
    pub(crate) fn read(section: &Section<'_>) -> Result<Option<Self>, Unusable> {
        if !section.exists() {
            return Ok(None);
        }
        let span = |name: &str| {
            let value = section.at(name);
            let span = value.timespan()?;
            span.ok_or_else(|| value.unusable("a span such as 00:00:05"))
        };
        let strategy = section.at("strategy");
        let delay = match strategy.choice(&["fixedDelay", "exponentialBackoff"])? {
            Some("fixedDelay") => RetryDelay::Fixed(span("delayInterval")?),
            Some(_) => RetryDelay::Exponential(span("minimumInterval")?, span("maximumInterval")?),
            None => return Err(strategy.unusable("fixedDelay or exponentialBackoff")),
        };
        let count = section.at("maxRetryCount");
        match count.int()? {
            Some(max_retry_count) if max_retry_count >= -1 => Ok(Some(Self {
                max_retry_count,
                delay,
            })),
            _ => Err(count.unusable("a number of retries, -1 for no end")),
        }
    }
}

/// `-1` is for ever; absent is half an hour, as outside the Consumption plan.
fn function_timeout(root: &Section<'_>) -> Result<Option<Duration>, Unusable> {
    let section = root.at("functionTimeout");
    let text = section.text()?.unwrap_or("00:30:00".to_owned());
    if text.trim().starts_with('-') {
        return Ok(None);
    }
    match timespan(text.trim()) {
        Some(limit) if limit >= Duration::from_secs(1) => Ok(Some(limit)),
        _ => Err(section.unusable("a span of at least 00:00:01, or -1 for no limit")),
    }
}

/// An array, or one text that holds a JSON array, as a setting gives it.
fn arguments(section: &Section<'_>) -> Result<Vec<String>, Unusable> {
    let elements = || -> Result<Vec<String>, Unusable> {
        let list = section.list()?;
        list.iter()
            .map(|element| Ok(element.text()?.unwrap_or_default()))
            .collect()
    };
    match section.raw() {
        Some(Value::String(text)) => {
            serde_json::from_str(text).map_err(|_| section.unusable("an array of texts"))
        }
        _ => elements(),
    }
}

fn texts(section: &Section<'_>, settings: &AppSettings) -> Result<Vec<String>, Unusable> {
    let elements = match section.raw() {
        // Overrides name elements by number, which makes an object of what was no array.
        Some(Value::Object(members)) => members.values().map(Section::root).collect(),
        _ => section.list()?,
    };
    elements
        .iter()
        .map(|element| Ok(settings.expand(&element.text()?.unwrap_or_default())))
        .collect()
}
