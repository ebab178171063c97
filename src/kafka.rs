//! How to reach the Kafka cluster: brokers and security, from the settings that the trigger of `detect`
//! is staged with, in the words of the Functions Kafka extension. Producer and consumer share them.
//!
//! For Event Hubs' Kafka endpoint: `KafkaBrokers` is `NAMESPACE.servicebus.windows.net:9093`,
//! `KafkaProtocol` `SaslSsl`, `KafkaAuthenticationMode` `Plain`, `KafkaUsername` `$ConnectionString` and
//! `KafkaPassword` the connection string.

use rdkafka::ClientConfig;

use crate::config::{self, InvalidSetting, Setting, Settings};

/// The words of `KafkaProtocol`, and librdkafka's for them.
const PROTOCOLS: [(&str, &str); 4] = [
    ("Plaintext", "plaintext"),
    ("Ssl", "ssl"),
    ("SaslPlaintext", "sasl_plaintext"),
    ("SaslSsl", "sasl_ssl"),
];
/// The words of `KafkaAuthenticationMode`, and librdkafka's for them.
const MODES: [(&str, &str); 3] = [
    ("Plain", "PLAIN"),
    ("ScramSha256", "SCRAM-SHA-256"),
    ("ScramSha512", "SCRAM-SHA-512"),
];

/// Brokers and security of the cluster that the settings name; what a consumer or producer adds comes
/// on top.
///
/// # Errors
/// A word that is none of the setting's, or a mode of authentication without user name and password.
pub fn cluster(settings: &Settings) -> Result<ClientConfig, InvalidSetting> {
    let mut cluster = ClientConfig::new();
    let brokers: String = settings.required(&config::KAFKA_BROKERS)?;
    cluster.set("bootstrap.servers", brokers);
    if let Some(protocol) = word(settings, &config::KAFKA_PROTOCOL, &PROTOCOLS)? {
        cluster.set("security.protocol", protocol);
    }
    if let Some(mode) = word(settings, &config::KAFKA_AUTHENTICATION_MODE, &MODES)? {
        cluster.set("sasl.mechanism", mode);
        for (setting, property) in [
            (&config::KAFKA_USERNAME, "sasl.username"),
            (&config::KAFKA_PASSWORD, "sasl.password"),
        ] {
            let value = settings.get(setting).ok_or_else(|| {
                InvalidSetting::new(setting, "", "KafkaAuthenticationMode needs it; set it")
            })?;
            cluster.set(property, value);
        }
    }
    if let Some(path) = settings.get(&config::KAFKA_SSL_CA_LOCATION) {
        cluster.set("ssl.ca.location", path);
    }
    Ok(cluster)
}

/// librdkafka's word for the one that the setting holds; `None` for none and for `NotSet`.
fn word(
    settings: &Settings,
    setting: &'static Setting,
    words: &[(&str, &'static str)],
) -> Result<Option<&'static str>, InvalidSetting> {
    let Some(value) = settings.get(setting) else {
        return Ok(None);
    };
    if value.eq_ignore_ascii_case("NotSet") {
        return Ok(None);
    }
    let known = words
        .iter()
        .find(|(ours, _)| ours.eq_ignore_ascii_case(value));
    known.map(|(_, theirs)| Some(*theirs)).ok_or_else(|| {
        let ours: Vec<&str> = words.iter().map(|(ours, _)| *ours).collect();
        InvalidSetting::new(setting, value, format!("expected {}", ours.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(pairs: &[(&str, &str)]) -> Result<ClientConfig, String> {
        cluster(&Settings::from_pairs(pairs.iter().copied())).map_err(|error| error.to_string())
    }

    #[test]
    fn without_security_only_the_brokers_are_named() {
        let cluster = built(&[("KafkaProtocol", "NotSet")]).unwrap();
        assert_eq!(cluster.config_map().len(), 1);
        assert_eq!(cluster.get("bootstrap.servers"), Some("localhost:9092"));
    }

    #[test]
    fn event_hubs_are_reached_by_connection_string() {
        let cluster = built(&[
            ("KafkaBrokers", "ns.servicebus.windows.net:9093"),
            ("KafkaProtocol", "SaslSsl"),
            ("KafkaAuthenticationMode", "plain"),
            ("KafkaUsername", "$ConnectionString"),
            (
                "KafkaPassword",
                "Endpoint=sb://ns.servicebus.windows.net/;…",
            ),
            ("KafkaSslCaLocation", "ca.pem"),
        ])
        .unwrap();
        let set = |property| cluster.get(property).unwrap();
        assert_eq!(set("security.protocol"), "sasl_ssl");
        assert_eq!(set("sasl.mechanism"), "PLAIN");
        assert_eq!(set("sasl.username"), "$ConnectionString");
        assert!(set("sasl.password").starts_with("Endpoint="));
        assert_eq!(set("ssl.ca.location"), "ca.pem");
    }

    #[test]
    fn what_is_wrong_is_named_and_no_password_shown() {
        let error = built(&[("KafkaProtocol", "https")]).unwrap_err();
        assert_eq!(
            error,
            "setting KafkaProtocol is \"https\": expected Plaintext, Ssl, SaslPlaintext, SaslSsl"
        );
        let error = built(&[("KafkaAuthenticationMode", "Plain"), ("KafkaUsername", "u")]);
        assert_eq!(
            error.unwrap_err(),
            "setting KafkaPassword is \"\": KafkaAuthenticationMode needs it; set it"
        );
    }
}
