//! `function.json`: one function, its trigger and its outputs, and the rules by which the host drops it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::app::App;
use super::config::{HttpMode, RetryPolicy};
use super::http::route::Route;
use super::schedule::Schedule;
use super::section::{Section, Unusable};

/// A function that can run.
#[derive(Clone, Debug)]
pub struct Function {
    /// Its name: that of its folder, case and all; also the path of its invocations.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// Name of the trigger's binding: the key in `Data`.
    pub binding: String,
    /// What starts it.
    pub trigger: Trigger,
    /// Where its results go.
    pub outputs: Vec<Output>,
    /// How a failed invocation is repeated before the trigger hears of it.
    pub retry: Option<RetryPolicy>,
    /// `function.json` as it stands, for the admin page.
    pub json: Value,
}

/// What starts a function.
#[derive(Clone, Debug)]
pub enum Trigger {
    /// Messages of a topic.
    Kafka(Box<KafkaTrigger>),
    /// A schedule.
    Timer(TimerTrigger),
    /// Requests.
    Http(HttpTrigger),
}

/// An output binding.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its name, or `$return`.
    pub name: String,
    /// Where it goes.
    pub target: Target,
    /// Whether text stays as it is: it is taken for base64 without this.
    pub is_binary: bool,
}

/// Where an output goes.
#[derive(Clone, Debug)]
pub enum Target {
    /// Back to the caller of an HTTP trigger.
    Http,
    /// Into a topic.
    Kafka(KafkaOutput),
}

/// A `kafka` output binding, settings resolved.
#[derive(Clone, Debug)]
pub struct KafkaOutput {
    /// Brokers, `host:port`, comma separated.
    pub brokers: String,
    /// The topic.
    pub topic: String,
    /// Security, in librdkafka's names.
    pub client: Vec<(&'static str, String)>,
}

/// A `kafkaTrigger` binding, settings resolved.
#[derive(Clone, Debug)]
pub struct KafkaTrigger {
    /// Brokers, `host:port`, comma separated.
    pub brokers: String,
    /// The topic.
    pub topic: String,
    /// The consumer group.
    pub group: String,
    /// Whether an invocation gets one message or a batch.
    pub is_batch: bool,
    /// Whether values are handed over as bytes, without envelope.
    pub is_binary: bool,
    /// How keys are read.
    pub key_type: KeyType,
    /// Security, in librdkafka's names.
    pub client: Vec<(&'static str, String)>,
}

/// How the key of a message is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    /// UTF-8 text.
    Text,
    /// Four bytes, big endian.
    Int,
    /// Eight bytes, big endian.
    Long,
    /// Bytes as they are.
    Binary,
}

/// A `timerTrigger` binding, settings resolved.
#[derive(Clone, Debug)]
pub struct TimerTrigger {
    /// When it fires.
    pub schedule: Schedule,
    /// Whether it fires at every start of the host, too.
    pub run_on_startup: bool,
    /// Whether the last and next run are remembered.
    pub use_monitor: bool,
}

/// An `httpTrigger` binding.
#[derive(Clone, Debug)]
pub struct HttpTrigger {
    /// The route, without the host's prefix.
    pub route: Route,
    /// The methods it answers to, in capitals; empty for all.
    pub methods: Vec<String>,
    /// How the request reaches the handler.
    pub mode: HttpMode,
}

impl Function {
    /// Reads `folder/function.json`; the error is the sentence with which the host drops it.
    pub(crate) fn read(name: &str, folder: &Path, app: &App) -> Result<Self, String> {
        if !is_function_name(name) {
            return Err(format!(
                "{name:?} is no function name; begin with a letter, go on with letters, digits, _ and - (not `host`), at most 128"
            ));
        }
        let file = folder.join("function.json");
        let text = std::fs::read_to_string(&file)
            .map_err(|error| format!("function.json cannot be read: {error}"))?;
        let json: Value = serde_json::from_str(text.trim_start_matches('\u{feff}'))
            .map_err(|error| format!("function.json is no JSON: {error}"))?;
        let root = Section::root(&json);
        if let Some(script) = root.at("scriptFile").text().map_err(wrong)?
            && !folder.join(&script).is_file()
        {
            return Err(format!("its scriptFile {script} does not exist"));
        }
        let bindings = root.at("bindings");
        if !bindings.exists() {
            return Err(wrong(bindings.unusable("an array")));
        }
        let (mut triggers, mut outputs, mut names) = (Vec::new(), Vec::new(), Vec::new());
        for binding in bindings.list().map_err(wrong)? {
            let (kind, name) = (binding.at("type"), binding.at("name"));
            let kind = kind.text().map_err(wrong)?.unwrap_or_default();
            let name = name.text().map_err(wrong)?.unwrap_or_default();
            if !is_binding_name(&name) {
                return Err(format!(
                    "{name:?} is no binding name; begin with a letter, go on with letters and digits only, at most 128"
                ));
            }
            if names
                .iter()
                .any(|known: &String| known.eq_ignore_ascii_case(&name))
            {
                return Err(format!(
                    "two bindings are called {name} or differ only in case"
                ));
            }
            names.push(name.clone());
            let direction = binding.at("direction");
            let direction = direction.choice(&["in", "out", "inout"]).map_err(wrong)?;
            if kind.to_ascii_lowercase().ends_with("trigger") {
                triggers.push((kind, name, binding));
            } else if direction == Some("out") {
                let data_type = binding.at("dataType").text().map_err(wrong)?;
                let target = match kind.to_ascii_lowercase().as_str() {
                    "http" => Target::Http,
                    "kafka" => Target::Kafka(KafkaOutput::read(&binding, app)?),
                    _ => return Err(format!("this local host has no output binding {kind}")),
                };
                outputs.push(Output {
                    name,
                    target,
                    is_binary: data_type.is_some_and(|t| t.eq_ignore_ascii_case("binary")),
                });
            } else {
                return Err(format!("this local host has no input binding {kind}"));
            }
        }
        let count = triggers.len();
        let Some((kind, binding, section)) = triggers.pop().filter(|_| count == 1) else {
            return Err(format!(
                "it has {count} triggers, and needs exactly one trigger"
            ));
        };
        let trigger = match kind.to_ascii_lowercase().as_str() {
            "kafkatrigger" => Trigger::Kafka(Box::new(KafkaTrigger::read(&section, app)?)),
            "timertrigger" => Trigger::Timer(TimerTrigger::read(&section, app)?),
            "httptrigger" => Trigger::Http(HttpTrigger::read(&section, name, app, &outputs)?),
            _ => return Err(format!("this local host has no trigger {kind}")),
        };
        let retry = RetryPolicy::read(&root.at("retry")).map_err(wrong)?;
        Ok(Self {
            name: name.to_owned(),
            folder: folder.to_owned(),
            binding,
            trigger,
            outputs,
            retry: retry.or_else(|| app.config.retry.clone()),
            json,
        })
    }
}

impl KafkaTrigger {
    fn read(section: &Section<'_>, app: &App) -> Result<Self, String> {
        let required = |name: &str| required(section, name, app);
        let events_hub = secure_setting(&section.at("eventHubConnectionString"), app)?;
        let is_batch = section
            .at("cardinality")
            .choice(&["ONE", "MANY"])
            .map_err(wrong)?
            == Some("MANY");
        let data_type = section.at("dataType");
        let data_type = data_type
            .choice(&["string", "binary", "stream"])
            .map_err(wrong)?;
        if is_batch && data_type.is_none() {
            return Err("cardinality MANY without dataType: the listener would not start; say string or binary".to_owned());
        }
        let key_types = ["Int", "Long", "String", "Binary"];
        let key_type = match section
            .at("keyDataType")
            .choice(&key_types)
            .map_err(wrong)?
        {
            Some("Int") => KeyType::Int,
            Some("Long") => KeyType::Long,
            Some("Binary") => KeyType::Binary,
            _ => KeyType::Text,
        };
        for name in ["avroSchema", "keyAvroSchema", "schemaRegistryUrl"] {
            if section.at(name).exists() {
                return Err(format!(
                    "this local host does not decode Avro; remove {name}"
                ));
            }
        }
        let brokers = required("brokerList")?;
        let (brokers, group, client) = match events_hub {
            Some(connection) => {
                let group = secure_setting(&section.at("consumerGroup"), app)?;
                let host = match brokers.split(':').next().unwrap_or_default() {
                    host if host.contains('.') => host.to_owned(),
                    namespace => format!("{namespace}.servicebus.windows.net"),
                };
                let client = vec![
                    ("security.protocol", "sasl_ssl".to_owned()),
                    ("sasl.mechanism", "PLAIN".to_owned()),
                    ("sasl.username", "$ConnectionString".to_owned()),
                    ("sasl.password", connection),
                ];
                (
                    format!("{host}:9093"),
                    group.unwrap_or("$Default".to_owned()),
                    client,
                )
            }
            None => (brokers, required("consumerGroup")?, security(section, app)?),
        };
        Ok(Self {
            brokers,
            topic: required("topic")?,
            group,
            is_batch,
            is_binary: data_type == Some("binary"),
            key_type,
            client,
        })
    }
}

impl KafkaOutput {
    fn read(section: &Section<'_>, app: &App) -> Result<Self, String> {
        Ok(Self {
            brokers: required(section, "brokerList", app)?,
            topic: required(section, "topic", app)?,
            client: security(section, app)?,
        })
    }
}

impl TimerTrigger {
    fn read(section: &Section<'_>, app: &App) -> Result<Self, String> {
        let schedule = section.at("schedule").text().map_err(wrong)?;
        let schedule =
            schedule.ok_or_else(|| wrong(section.at("schedule").unusable("a schedule")))?;
        let schedule = app.settings.resolve(&schedule).map_err(|e| e.to_string())?;
        let flag = |name: &str| section.at(name).bool().map_err(wrong);
        let schedule: Schedule = schedule.parse()?;
        Ok(Self {
            use_monitor: flag("useMonitor")?.unwrap_or(true) && !schedule.is_below_a_minute(),
            run_on_startup: flag("runOnStartup")?.unwrap_or(false),
            schedule,
        })
    }
}

impl HttpTrigger {
    fn read(
        section: &Section<'_>,
        name: &str,
        app: &App,
        outputs: &[Output],
    ) -> Result<Self, String> {
        let route = section.at("route").text().map_err(wrong)?;
        let route = app.settings.resolve(route.as_deref().unwrap_or(name));
        let route = route.map_err(|error| error.to_string())?;
        let methods = section.at("methods").list().map_err(wrong)?;
        let methods: Result<Vec<String>, Unusable> = methods
            .iter()
            .map(|method| Ok(method.text()?.unwrap_or_default().to_ascii_uppercase()))
            .collect();
        let is_pure = matches!(outputs, [output] if matches!(output.target, Target::Http));
        Ok(Self {
            route: Route::parse(&route)?,
            methods: methods.map_err(wrong)?,
            mode: match is_pure {
                true => app.config.handler.http,
                false => HttpMode::Invocation,
            },
        })
    }
}

/// The security properties, which count only when a protocol or an authentication mode is set. Those
/// two are enumerations in the extension, so they cannot be `%NAME%`.
fn security(section: &Section<'_>, app: &App) -> Result<Vec<(&'static str, String)>, String> {
    let protocols = ["NotSet", "Plaintext", "Ssl", "SaslPlaintext", "SaslSsl"];
    let protocol = section.at("protocol").choice(&protocols).map_err(wrong)?;
    let modes = [
        "NotSet",
        "Gssapi",
        "Plain",
        "ScramSha256",
        "ScramSha512",
        "OAuthBearer",
    ];
    let mode = section
        .at("authenticationMode")
        .choice(&modes)
        .map_err(wrong)?;
    let (protocol, mode) = (
        protocol.filter(|p| *p != "NotSet"),
        mode.filter(|m| *m != "NotSet"),
    );
    let mut client = Vec::new();
    if protocol.is_none() && mode.is_none() {
        return Ok(client);
    }
    match protocol {
        Some("Ssl") => client.push(("security.protocol", "ssl".to_owned())),
        Some("SaslPlaintext") => client.push(("security.protocol", "sasl_plaintext".to_owned())),
        Some("SaslSsl") => client.push(("security.protocol", "sasl_ssl".to_owned())),
        _ => {}
    }
    match mode {
        Some("Plain") => client.push(("sasl.mechanism", "PLAIN".to_owned())),
        Some("ScramSha256") => client.push(("sasl.mechanism", "SCRAM-SHA-256".to_owned())),
        Some("ScramSha512") => client.push(("sasl.mechanism", "SCRAM-SHA-512".to_owned())),
        Some(other) => {
            return Err(format!(
                "this local host has no authenticationMode {other}; use Plain or Scram"
            ));
        }
        None => {}
    }
    for (name, property) in [
        ("username", "sasl.username"),
        ("password", "sasl.password"),
        ("sslKeyPassword", "ssl.key.password"),
    ] {
        if let Some(value) = secure_setting(&section.at(name), app)? {
            client.push((property, value));
        }
    }
    for (name, property) in [
        ("sslCaLocation", "ssl.ca.location"),
        ("sslCertificateLocation", "ssl.certificate.location"),
        ("sslKeyLocation", "ssl.key.location"),
    ] {
        if let Some(value) = secure_setting(&section.at(name), app)? {
            client.push((property, existing_file(name, &value, &app.root)?));
        }
    }
    for (name, property, block) in [
        ("sslCaPEM", "ssl.ca.pem", "CERTIFICATE"),
        ("sslCertificatePEM", "ssl.certificate.pem", "CERTIFICATE"),
        ("sslKeyPEM", "ssl.key.pem", "PRIVATE KEY"),
        (
            "sslCertificateandKeyPEM",
            "ssl.certificate.pem",
            "CERTIFICATE",
        ),
        ("sslCertificateandKeyPEM", "ssl.key.pem", "PRIVATE KEY"),
    ] {
        if let Some(value) = secure_setting(&section.at(name), app)? {
            client.push((property, first_block(name, &value, block)?));
        }
    }
    Ok(client)
}

/// A property that must be there and not empty.
fn required(section: &Section<'_>, name: &str, app: &App) -> Result<String, String> {
    secure_setting(&section.at(name), app)?
        .filter(|value| !value.is_empty())
        .ok_or_else(|| wrong(section.at(name).unusable("a value")))
}

/// A property's value as the Kafka extension takes it: `%NAME%` replaced, or all of it the name of a
/// setting. The second is what turns a topic called `home` into a folder.
fn secure_setting(section: &Section<'_>, app: &App) -> Result<Option<String>, String> {
    let Some(text) = section.text().map_err(wrong)? else {
        return Ok(None);
    };
    if let Some(value) = app.settings.get(&text) {
        return Ok(Some(value.to_owned()));
    }
    app.settings
        .resolve(&text)
        .map(Some)
        .map_err(|error| error.to_string())
}

/// The file as given, or by its name in the script root.
fn existing_file(name: &str, value: &str, root: &Path) -> Result<String, String> {
    let given = Path::new(value);
    let by_name = root.join(given.file_name().unwrap_or_default());
    [given.to_owned(), by_name]
        .into_iter()
        .find(|path| path.is_file())
        .map(|path| path.to_string_lossy().into_owned())
        .ok_or_else(|| format!("{name} names {value}, which does not exist"))
}

/// The first block of that kind; line breaks may be written as backslash and n.
fn first_block(name: &str, pem: &str, kind: &str) -> Result<String, String> {
    let pem = pem.replace("\\n", "\n");
    let (begin, end) = (
        format!("-----BEGIN {kind}-----"),
        format!("-----END {kind}-----"),
    );
    let from = pem.find(&begin);
    let to = from.and_then(|from| Some(from + pem[from..].find(&end)? + end.len()));
    match (from, to) {
        (Some(from), Some(to)) => Ok(format!("{}\n", &pem[from..to])),
        _ => Err(format!("{name} holds no block {kind}")),
    }
}

fn wrong(error: Unusable) -> String {
    error.to_string()
}

fn is_function_name(name: &str) -> bool {
    is_name(name, |c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
        && !name.eq_ignore_ascii_case("host")
}

fn is_binding_name(name: &str) -> bool {
    name == "$return" || is_name(name, |c| c.is_ascii_alphanumeric())
}

fn is_name(name: &str, rest: impl Fn(char) -> bool) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic()) && chars.all(rest) && name.len() <= 128
}
