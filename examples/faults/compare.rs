//! What a run wrote against what it should have written.

use std::collections::BTreeMap;
use std::fmt;

/// Things that should be there, by name: the identity of an event or of a window, and its content.
pub(crate) type Expected = BTreeMap<String, String>;

/// The last line of the harness. All three zero means that the promise was kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Expected and not there.
    pub(crate) lost: usize,
    /// There more than once: the number of copies too many.
    pub(crate) doubled: usize,
    /// There with another content, or there and expected by nobody.
    pub(crate) differing: usize,
}

impl Tally {
    /// Nothing lost, nothing twice, nothing other.
    pub(crate) fn is_clean(self) -> bool {
        self == Self::default()
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.differing += other.differing;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            lost,
            doubled,
            differing,
        } = self;
        write!(
            f,
            "lost: {lost}, doubled: {doubled}, differing: {differing}"
        )
    }
}

/// A tally and the first few findings, for the person who has to look for the cause.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    /// The counts.
    pub(crate) tally: Tally,
    /// One line a finding, at most [`SHOWN`] of each kind.
    pub(crate) findings: Vec<String>,
}

/// Findings of one kind that are told in words.
const SHOWN: usize = 5;

/// Compares what was found (name and content, copies included) with what was expected.
pub(crate) fn compare(
    what: &str,
    expected: &Expected,
    found: impl IntoIterator<Item = (String, String)>,
) -> Comparison {
    let mut comparison = Comparison::default();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for (name, content) in found {
        let copies = seen.entry(name.clone()).or_default();
        *copies += 1;
        match expected.get(&name) {
            _ if *copies > 1 => {
                comparison.tally.doubled += 1;
                note(&mut comparison.findings, comparison.tally.doubled, || {
                    format!("{what} {name} is there {copies} times")
                });
            }
            None => {
                comparison.tally.differing += 1;
                note(&mut comparison.findings, comparison.tally.differing, || {
                    format!("{what} {name} should not be there: {}", shown(&content))
                });
            }
            Some(wanted) if *wanted != content => {
                comparison.tally.differing += 1;
                note(&mut comparison.findings, comparison.tally.differing, || {
                    let (content, wanted) = (shown(&content), shown(wanted));
                    format!("{what} {name} is {content}, expected {wanted}")
                });
            }
            Some(_) => {}
        }
    }
    for name in expected.keys().filter(|name| !seen.contains_key(*name)) {
        comparison.tally.lost += 1;
        note(&mut comparison.findings, comparison.tally.lost, || {
            format!("{what} {name} is missing")
        });
    }
    comparison
}

/// The beginning of a content: a window has thousands of digits.
fn shown(content: &str) -> &str {
    let end = content.char_indices().nth(400);
    end.map_or(content, |(end, _)| &content[..end])
}

fn note(findings: &mut Vec<String>, count: usize, line: impl FnOnce() -> String) {
    if count <= SHOWN {
        findings.push(line());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, content)| (name.to_string(), content.to_string()))
            .collect()
    }

    #[test]
    fn each_kind_of_difference_is_counted_as_itself() {
        let expected: Expected = pairs(&[("a", "1"), ("b", "2"), ("c", "3")])
            .into_iter()
            .collect();
        let same = compare(
            "event",
            &expected,
            pairs(&[("c", "3"), ("a", "1"), ("b", "2")]),
        );
        assert!(same.tally.is_clean() && same.findings.is_empty());

        let other = compare(
            "event",
            &expected,
            pairs(&[("a", "1"), ("a", "1"), ("a", "9"), ("b", "9"), ("d", "4")]),
        );
        assert_eq!(other.tally.to_string(), "lost: 1, doubled: 2, differing: 2");
        assert_eq!(other.findings.len(), 5);
    }

    #[test]
    fn findings_are_bounded_and_counts_are_not() {
        let expected: Expected = (0..100).map(|n| (n.to_string(), String::new())).collect();
        let none = compare("window", &expected, []);
        assert_eq!((none.tally.lost, none.findings.len()), (100, SHOWN));
    }
}
