//! One Kafka message as its producer sent it, whichever way it reached us.

use std::sync::Arc;

/// A message and where it stands in its topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Topic it came from.
    pub topic: Arc<str>,
    /// Partition of the topic.
    pub partition: i32,
    /// Offset in the partition.
    pub offset: i64,
    /// Broker's timestamp in milliseconds since 1970, when there is one.
    pub broker_time_ms: Option<i64>,
    /// Key, as bytes; `None` for a null key.
    pub key: Option<Vec<u8>>,
    /// Value, as bytes; `None` for a tombstone. The host's binary form cannot tell a null value from
    /// an empty one, so both can be empty here.
    pub value: Option<Vec<u8>>,
}
