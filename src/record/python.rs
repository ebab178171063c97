//! A JSON row as Python prints a dict: the line format of the tutorial's `anomalies.txt`.
//!
//! What `json.loads` and `repr` would make of the text, followed digit by digit: whole numbers keep
//! all their digits, other numbers are rounded to the nearest double and printed in its shortest form,
//! a key given twice keeps its first place and its last value. The text is read directly and not through
//! [`serde_json::Value`], which has neither the order of keys nor such whole numbers, nor half a
//! surrogate pair.

use std::collections::HashMap;
use std::fmt::Write;

use serde_json::value::RawValue;

/// Nested deeper than this a row is written as the JSON that it is. Python itself gives up near 1,000;
/// a row is flat.
const MAX_DEPTH: usize = 128;

/// The line of `anomalies.txt` for `row`, without a line feed.
///
/// ```
/// use serde_json::value::RawValue;
/// let row = r#"{"timestamp": "2014-03-02 17:36:00", "value": "90.4"}"#;
/// let row = RawValue::from_string(row.to_owned()).unwrap();
/// assert_eq!(
///     lapwing::record::python::anomaly_line(&row),
///     "Anomaly detected: {'timestamp': '2014-03-02 17:36:00', 'value': '90.4'}"
/// );
/// ```
pub fn anomaly_line(row: &RawValue) -> String {
    // A row nested so deep is still somebody's anomaly: shown as it came, on one line all the same,
    // because inside JSON a line break is only ever blank space.
    let row = repr(row.get()).unwrap_or_else(|| row.get().replace(['\n', '\r'], " "));
    format!("Anomaly detected: {row}")
}

/// What Python's `repr(json.loads(json))` gives. `None` when `json` is no JSON, or is nested more than
/// 128 deep.
pub fn repr(json: &str) -> Option<String> {
    let mut reader = Reader { rest: json };
    let mut out = String::with_capacity(json.len() + json.len() / 8);
    reader.value(&mut out, 0)?;
    reader.blank();
    reader.rest.is_empty().then_some(out)
}

/// What is left of a JSON text.
struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    /// Reads one value and writes it as Python would.
    fn value(&mut self, out: &mut String, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.blank();
        match self.rest.as_bytes().first()? {
            b'{' => self.object(out, depth),
            b'[' => self.array(out, depth),
            b'"' => self.string().map(|text| write_string(out, &text)),
            b'-' | b'0'..=b'9' => {
                let number = self.number()?;
                write_number(out, number)
            }
            _ => {
                let words = [("true", "True"), ("false", "False"), ("null", "None")];
                let (json, python) = words.iter().find(|(w, _)| self.rest.starts_with(w))?;
                self.rest = &self.rest[json.len()..];
                out.push_str(python);
                Some(())
            }
        }
    }

    fn object(&mut self, out: &mut String, depth: usize) -> Option<()> {
        let mut members: Vec<(Vec<u32>, String)> = Vec::new();
        let mut places: HashMap<Vec<u32>, usize> = HashMap::new();
        self.take('{')?;
        self.blank();
        if self.take('}').is_none() {
            loop {
                self.blank();
                let key = self.string()?;
                self.blank();
                self.take(':')?;
                let mut value = String::new();
                self.value(&mut value, depth + 1)?;
                match places.get(&key) {
                    Some(&place) => members[place].1 = value,
                    None => {
                        places.insert(key.clone(), members.len());
                        members.push((key, value));
                    }
                }
                self.blank();
                if self.take('}').is_some() {
                    break;
                }
                self.take(',')?;
            }
        }
        out.push('{');
        for (index, (key, value)) in members.iter().enumerate() {
            if index > 0 {
                out.push_str(", ");
            }
            write_string(out, key);
            out.push_str(": ");
            out.push_str(value);
        }
        out.push('}');
        Some(())
    }

    fn array(&mut self, out: &mut String, depth: usize) -> Option<()> {
        self.take('[')?;
        out.push('[');
        self.blank();
        if self.take(']').is_none() {
            loop {
                self.value(out, depth + 1)?;
                self.blank();
                if self.take(']').is_some() {
                    break;
                }
                self.take(',')?;
                out.push_str(", ");
            }
        }
        out.push(']');
        Some(())
    }

    /// The code points of a string; half of a surrogate pair stands for itself, as in Python.
    fn string(&mut self) -> Option<Vec<u32>> {
        self.take('"')?;
        let mut text = Vec::new();
        loop {
            match self.next()? {
                '"' => return Some(text),
                '\\' => {
                    let escape = self.next()?;
                    text.push(match escape {
                        '"' | '\\' | '/' => escape.into(),
                        'b' => 0x08,
                        'f' => 0x0c,
                        'n' => 0x0a,
                        'r' => 0x0d,
                        't' => 0x09,
                        'u' => self.code_point()?,
                        _ => return None,
                    });
                }
                '\0'..='\x1f' => return None,
                plain => text.push(plain.into()),
            }
        }
    }

    /// After `\u`: one code unit, or a pair that stands for one code point.
    fn code_point(&mut self) -> Option<u32> {
        let unit = self.code_unit()?;
        if (0xd800..0xdc00).contains(&unit) && self.rest.starts_with("\\u") {
            let mut ahead = Reader {
                rest: &self.rest[2..],
            };
            let low = ahead.code_unit()?;
            if (0xdc00..0xe000).contains(&low) {
                self.rest = ahead.rest;
                return Some(0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00));
            }
        }
        Some(unit)
    }

    fn code_unit(&mut self) -> Option<u32> {
        let digits = self.rest.get(..4)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        self.rest = &self.rest[4..];
        u32::from_str_radix(digits, 16).ok()
    }

    /// The text of a number, by JSON's grammar.
    fn number(&mut self) -> Option<&'a str> {
        let text = self.rest;
        self.take('-');
        if self.take('0').is_none() {
            self.digits()?;
        }
        if self.take('.').is_some() {
            self.digits()?;
        }
        if self.take('e').or_else(|| self.take('E')).is_some() {
            if self.take('+').is_none() {
                self.take('-');
            }
            self.digits()?;
        }
        Some(&text[..text.len() - self.rest.len()])
    }

    fn digits(&mut self) -> Option<()> {
        let after = self.rest.trim_start_matches(|c: char| c.is_ascii_digit());
        (after.len() < self.rest.len()).then(|| self.rest = after)
    }

    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let next = chars.next()?;
        self.rest = chars.as_str();
        Some(next)
    }

    fn take(&mut self, wanted: char) -> Option<()> {
        self.rest = self.rest.strip_prefix(wanted)?;
        Some(())
    }

    fn blank(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }
}

/// Single quotes, unless only double ones need no backslash.
fn write_string(out: &mut String, text: &[u32]) {
    let has = |quote: char| text.contains(&quote.into());
    let quote = if has('\'') && !has('"') { '"' } else { '\'' };
    out.push(quote);
    for &code in text {
        match (code, char::from_u32(code)) {
            (_, Some('\\')) => out.push_str("\\\\"),
            (_, Some('\n')) => out.push_str("\\n"),
            (_, Some('\r')) => out.push_str("\\r"),
            (_, Some('\t')) => out.push_str("\\t"),
            (_, Some(c)) if c == quote => out.extend(['\\', c]),
            (_, Some(c)) if is_printable(c) => out.push(c),
            (0..=0xff, _) => write_infallibly(out, format_args!("\\x{code:02x}")),
            (0..=0xffff, _) => write_infallibly(out, format_args!("\\u{code:04x}")),
            _ => write_infallibly(out, format_args!("\\U{code:08x}")),
        }
    }
    out.push(quote);
}

/// Python's `str.isprintable`: no control, format, surrogate, private or unassigned code point, and no
/// separator but the space. Rust's own escaping goes by the same categories; the letter before `c`
/// keeps it from also escaping a combining mark, which it does at the start of a text.
fn is_printable(c: char) -> bool {
    if matches!(c, '\'' | '"' | '\\') {
        return true;
    }
    let mut buffer = [b'a', 0, 0, 0, 0];
    let length = c.encode_utf8(&mut buffer[1..]).len();
    let text = std::str::from_utf8(&buffer[..=length]).unwrap_or_default();
    text.escape_debug().nth(1) == Some(c)
}

/// A whole number keeps its digits; any other is a double in the shortest form that reads back the
/// same, with an exponent below 1e-4 and from 1e16 on.
fn write_number(out: &mut String, number: &str) -> Option<()> {
    if !number.contains(['.', 'e', 'E']) {
        out.push_str(if number == "-0" { "0" } else { number });
        return Some(());
    }
    let number: f64 = number.parse().ok()?;
    if number.is_infinite() {
        out.push_str(if number > 0.0 { "inf" } else { "-inf" });
        return Some(());
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e')?;
    let exponent: i32 = exponent.parse().ok()?;
    if (-4..16).contains(&exponent) {
        // `{:?}` keeps the `.0` that `{}` drops, and has no exponent in this range.
        write_infallibly(out, format_args!("{number:?}"));
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        let exponent = exponent.unsigned_abs();
        write_infallibly(out, format_args!("{digits}e{sign}{exponent:02}"));
    }
    Some(())
}

fn write_infallibly(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text)
        .expect("a String takes whatever is written to it");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_python_does() {
        // Left JSON, right what CPython 3.11 printed; more of them in tests/python_repr.rs.
        let pairs = [
            (
                r#"{"b": 1, "a": null, "b": [true, {}]}"#,
                "{'b': [True, {}], 'a': None}",
            ),
            (r#""it's""#, r#""it's""#),
            (r#""it's \"so\"""#, r#"'it\'s "so"'"#),
            (r#""\u00e9\ud83d\ude00\ud800""#, "'\u{e9}\u{1f600}\\ud800'"),
            (r#""\u200b\u0007\u00a0""#, r"'\u200b\x07\xa0'"),
            ("-0", "0"),
            (
                "[-0.0, 1e16, 1E15, 0.0001, 12e-6, 1e400]",
                "[-0.0, 1e+16, 1000000000000000.0, 0.0001, 1.2e-05, inf]",
            ),
            (
                "123456789012345678901234567890",
                "123456789012345678901234567890",
            ),
        ];
        for (json, python) in pairs {
            assert_eq!(repr(json).as_deref(), Some(python), "{json}");
        }
    }

    #[test]
    fn what_is_no_json_is_refused() {
        let texts = [
            "",
            "{",
            r#"{"a" 1}"#,
            "[1,]",
            "01",
            "1.",
            "nul",
            "'a'",
            "\"a",
            r#""\x""#,
            r#""\u12""#,
            "\"a\nb\"",
            "1 2",
            "{,}",
            "1e",
            "-",
        ];
        for text in texts {
            assert_eq!(repr(text), None, "{text}");
        }
    }

    #[test]
    fn a_row_nested_too_deep_is_shown_as_it_came() {
        let deep = format!("{}\n{}", "[".repeat(120), "]".repeat(120));
        assert!(repr(&deep).is_some());
        let deep = format!("{}\n{}", "[".repeat(10_000), "]".repeat(10_000));
        let row: &RawValue = match serde_json::from_str(&deep) {
            Ok(row) => row,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(
            anomaly_line(row),
            format!("Anomaly detected: {}", deep.replace('\n', " "))
        );
    }
}
