//! Names that any place takes, for topics and documents of any name.

/// Bytes that stand for themselves.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

/// `name` with every other byte written as `~xx`; never empty, never `.` or `..`, no two alike.
pub(crate) fn escape(name: &str) -> String {
    let only_dots = name.bytes().all(|byte| byte == b'.');
    let mut escaped = String::with_capacity(name.len());
    for byte in name.bytes() {
        if is_plain(byte) && !(only_dots && byte == b'.') {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("~{byte:02x}"));
        }
    }
    if escaped.is_empty() {
        escaped.push('~');
    }
    escaped
}

/// The name that [`escape`] made `escaped` of; `None` if it made no such.
pub(crate) fn unescape(escaped: &str) -> Option<String> {
    if escaped == "~" {
        return Some(String::new());
    }
    let mut name = Vec::with_capacity(escaped.len());
    let mut rest = escaped.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'~' {
            name.push(byte);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        name.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    let name = String::from_utf8(name).ok()?;
    (escape(&name) == escaped).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_name_comes_back(name in any::<String>()) {
            let escaped = escape(&name);
            prop_assert!(escaped.bytes().all(|b| is_plain(b) || b == b'~'));
            prop_assert!(!matches!(escaped.as_str(), "" | "." | ".."));
            prop_assert_eq!(unescape(&escaped), Some(name));
        }
    }

    #[test]
    fn what_no_name_became_is_refused() {
        for escaped in ["a b", "~4", "~zz", "~41", ".", "~+1"] {
            assert_eq!(unescape(escaped), None, "{escaped}");
        }
        assert_eq!(
            escape("aws-cloudwatch_network.v1"),
            "aws-cloudwatch_network.v1"
        );
    }
}
