//! An invocation as the Functions host sends it, and the answer that the host takes.
//!
//! The host's encoding rule: objects are nested, everything else is a string, and (dates and bytes
//! apart) that string is JSON once more. How often a value is quoted is known per trigger and form;
//! it is unquoted by those counts, never "until it stops", because a message may itself be a JSON
//! string.

pub mod kafka;
pub mod timer;

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The body of `POST /<function>`.
#[derive(Debug, Deserialize)]
pub struct Invocation<'a> {
    /// One entry per input binding; ours have the trigger alone.
    #[serde(rename = "Data", borrow)]
    pub data: BTreeMap<Cow<'a, str>, Datum<'a>>,
    /// What the trigger says beside its data.
    #[serde(rename = "Metadata", default, borrow)]
    pub metadata: BTreeMap<Cow<'a, str>, Datum<'a>>,
}

/// A value of `Data` or `Metadata`: mostly a string, borrowed where it has no escapes (a batch is
/// megabytes of base64 that need not be copied).
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Datum<'a> {
    /// Text, to be parsed by the counts of its trigger.
    #[serde(borrow)]
    Text(Cow<'a, str>),
    /// A nested object (and whatever a newer host may nest).
    Nested(Value),
}

/// What an invocation's payload lacks or has wrong: the host and this handler do not understand each
/// other, which no retry cures and no dead letter explains.
#[derive(Debug, thiserror::Error)]
#[error("the invocation's {what}: {why}")]
pub struct PayloadError {
    what: String,
    why: String,
}

impl PayloadError {
    pub(crate) fn new(what: impl Into<String>, why: impl std::fmt::Display) -> Self {
        Self {
            what: what.into(),
            why: why.to_string(),
        }
    }
}

impl<'a> Invocation<'a> {
    /// Reads the body of an invocation.
    pub fn parse(body: &'a [u8]) -> Result<Self, PayloadError> {
        serde_json::from_slice(body)
            .map_err(|error| PayloadError::new("body is not as the host sends it", error))
    }

    /// The trigger's value: the only input binding there is.
    pub fn trigger(&self) -> Result<&Datum<'a>, PayloadError> {
        let mut values = self.data.values();
        match (values.next(), values.next()) {
            (Some(value), None) => Ok(value),
            (None, _) => Err(PayloadError::new(
                "Data",
                "it is empty; the trigger's value is missing",
            )),
            (Some(_), Some(_)) => Err(PayloadError::new(
                "Data",
                "it has several input bindings; this function takes its trigger alone, so remove the others from function.json",
            )),
        }
    }

    /// How often the host has tried this invocation before under a retry policy; 0 without one.
    pub fn retry_count(&self) -> u64 {
        match self.metadata.get("RetryContext") {
            Some(Datum::Nested(context)) => context
                .get("RetryCount")
                .and_then(Value::as_u64)
                .unwrap_or(0),
            _ => 0,
        }
    }
}

/// The answer to an invocation. Always an object: an empty body would hang the host until its function
/// timeout.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Outcome {
    /// Output bindings; our functions write with clients of their own and have none.
    pub outputs: BTreeMap<String, Value>,
    /// Lines that the host logs under the invocation's own category.
    pub logs: Vec<String>,
    /// For a binding named `$return`; we have none.
    pub return_value: Option<Value>,
}

impl Outcome {
    /// An answer that writes nothing and leaves these lines in the host's log.
    pub fn logged(logs: Vec<String>) -> Self {
        Self {
            logs,
            ..Self::default()
        }
    }
}
