//! Reading JSON configuration as .NET reads it: names without regard to case, values also as text.

use std::time::Duration;

use serde_json::Value;

use super::settings::timespan;

/// An object of a configuration file, or the absence of one, and where it stands there.
#[derive(Clone, Debug)]
pub(crate) struct Section<'a> {
    value: Option<&'a Value>,
    path: String,
}

/// A value that is there and cannot be used: where, and what it should be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{path}` is {value}, expected {expected}")]
pub(crate) struct Unusable {
    path: String,
    value: String,
    expected: String,
}

impl<'a> Section<'a> {
    /// The top of a file.
    pub(crate) fn root(value: &'a Value) -> Self {
        Self {
            value: Some(value),
            path: String::new(),
        }
    }

    /// The member `name`; absent and null are the same.
    pub(crate) fn at(&self, name: &str) -> Self {
        let members = self.value.and_then(Value::as_object);
        let value = members.and_then(|members| {
            let mut all = members.iter();
            members.get(name).or_else(|| {
                all.find(|(known, _)| known.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value)
            })
        });
        let dot = if self.path.is_empty() { "" } else { "." };
        Self {
            value: value.filter(|value| !value.is_null()),
            path: format!("{}{dot}{name}", self.path),
        }
    }

    /// Whether anything is there.
    pub(crate) fn exists(&self) -> bool {
        self.value.is_some()
    }

    /// The value as it stands.
    pub(crate) fn raw(&self) -> Option<&'a Value> {
        self.value
    }

    /// The elements of an array; none when it is absent.
    pub(crate) fn list(&self) -> Result<Vec<Section<'a>>, Unusable> {
        let Some(value) = self.value else {
            return Ok(Vec::new());
        };
        let elements = value
            .as_array()
            .ok_or_else(|| self.unusable("an array"))?
            .iter()
            .enumerate();
        Ok(elements
            .map(|(i, value)| Section {
                value: Some(value),
                path: format!("{}[{i}]", self.path),
            })
            .collect())
    }

    /// Text; a number or a bool counts as its text.
    pub(crate) fn text(&self) -> Result<Option<String>, Unusable> {
        match self.value {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Object(_) | Value::Array(_)) => Err(self.unusable("text")),
            Some(scalar) => Ok(Some(scalar.to_string())),
        }
    }

    /// `true`, `false` or their text.
    pub(crate) fn bool(&self) -> Result<Option<bool>, Unusable> {
        self.parsed("true or false", |text| {
            text.to_ascii_lowercase().parse().ok()
        })
    }

    /// A whole number or its text.
    pub(crate) fn int(&self) -> Result<Option<i64>, Unusable> {
        self.parsed("a whole number", |text| text.parse().ok())
    }

    /// A span such as `00:05:00`.
    pub(crate) fn timespan(&self) -> Result<Option<Duration>, Unusable> {
        self.parsed("a span such as 00:05:00", timespan)
    }

    /// One of `names`, without regard to case.
    pub(crate) fn choice(&self, names: &[&'static str]) -> Result<Option<&'static str>, Unusable> {
        self.parsed(&format!("one of {}", names.join(", ")), |text| {
            let mut all = names.iter();
            all.find(|name| name.eq_ignore_ascii_case(text)).copied()
        })
    }

    fn parsed<T>(
        &self,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Unusable> {
        match self.text()? {
            None => Ok(None),
            Some(text) => parse(text.trim())
                .map(Some)
                .ok_or_else(|| self.unusable(expected)),
        }
    }

    /// The complaint that this value is not `expected`.
    pub(crate) fn unusable(&self, expected: &str) -> Unusable {
        let value = self.value.map_or("missing".to_owned(), Value::to_string);
        Unusable {
            path: self.path.clone(),
            value,
            expected: expected.to_owned(),
        }
    }
}

/// Puts `text` at `path` of `root`, making the objects on the way: what a setting does that overrides
/// a value of `host.json`.
pub(crate) fn put(root: &mut Value, path: &[&str], text: &str) {
    let Some((name, rest)) = path.split_first() else {
        *root = Value::String(text.to_owned());
        return;
    };
    if let (Value::Array(elements), Ok(index)) = (&mut *root, name.parse::<usize>()) {
        if index >= elements.len() {
            elements.push(Value::Null);
        }
        let last = elements.len() - 1;
        return put(&mut elements[index.min(last)], rest, text);
    }
    if !root.is_object() {
        *root = Value::Object(serde_json::Map::new());
    }
    if let Value::Object(members) = root {
        let known = members.keys().find(|key| key.eq_ignore_ascii_case(name));
        let key = known.cloned().unwrap_or_else(|| (*name).to_owned());
        put(members.entry(key).or_insert(Value::Null), rest, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_scalars_are_forgiving() {
        let json = serde_json::json!({"Extensions": {"Kafka": {"maxRetries": "-1", "x": true}}});
        let kafka = Section::root(&json).at("extensions").at("kafka");
        assert_eq!(kafka.at("MaxRetries").int(), Ok(Some(-1)));
        assert_eq!(kafka.at("x").bool(), Ok(Some(true)));
        assert_eq!(kafka.at("absent").int(), Ok(None));
        assert_eq!(
            kafka.at("x").int().unwrap_err().to_string(),
            "`extensions.kafka.x` is true, expected a whole number"
        );
    }

    #[test]
    fn an_override_replaces_or_makes() {
        let mut json = serde_json::json!({"a": {"B": 1}, "list": ["x"]});
        put(&mut json, &["A", "b"], "2");
        put(&mut json, &["new", "deep"], "3");
        put(&mut json, &["list", "0"], "y");
        assert_eq!(
            json,
            serde_json::json!({"a": {"B": "2"}, "list": ["y"], "new": {"deep": "3"}})
        );
    }
}
