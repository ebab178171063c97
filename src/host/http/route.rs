//! Route templates: `score/{name}`, `items/{id:int?}`, `files/{*rest}`.

use std::cmp::Ordering;

/// A route template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    text: String,
    segments: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Parameter {
        name: String,
        constraint: Option<Constraint>,
        optional: bool,
    },
    Rest(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Constraint {
    Int,
    Long,
    Bool,
    Guid,
    Alpha,
}

impl Route {
    /// Reads a template; the error is a sentence.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let trimmed = text.trim_matches('/');
        let first = trimmed.split('/').next().unwrap_or_default();
        if ["admin", "runtime"]
            .iter()
            .any(|word| first.eq_ignore_ascii_case(word))
        {
            return Err(format!(
                "route {text:?} begins with {first}, which belongs to the host"
            ));
        }
        let pieces = trimmed.split('/').filter(|piece| !piece.is_empty());
        let segments: Vec<Segment> = pieces.map(segment).collect::<Result<_, _>>()?;
        let last = segments.len().saturating_sub(1);
        for (i, segment) in segments.iter().enumerate() {
            let ends = matches!(
                segment,
                Segment::Rest(_) | Segment::Parameter { optional: true, .. }
            );
            if ends && i != last {
                return Err(format!(
                    "route {text:?} goes on after a part that must be its last"
                ));
            }
        }
        Ok(Self {
            text: trimmed.to_owned(),
            segments,
        })
    }

    /// The template as it was written, without slashes at its ends.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The parameters of `path` (no prefix, still percent-encoded), in the order of the template; an
    /// optional one that is not there is `None`. No match is `None`.
    pub(crate) fn matches(&self, path: &str) -> Option<Vec<(String, Option<String>)>> {
        let path = path.trim_matches('/');
        let pieces: Vec<&str> = match path {
            "" => Vec::new(),
            _ => path.split('/').collect(),
        };
        let mut parameters = Vec::new();
        let mut at = 0;
        for segment in &self.segments {
            let piece = pieces.get(at).map(|piece| decoded(piece));
            match segment {
                Segment::Rest(name) => {
                    let rest: Vec<String> = pieces[at.min(pieces.len())..]
                        .iter()
                        .map(|p| decoded(p))
                        .collect();
                    let rest = rest.join("/");
                    parameters.push((name.clone(), (!rest.is_empty()).then_some(rest)));
                    return Some(parameters);
                }
                Segment::Literal(text) if piece.as_ref()?.eq_ignore_ascii_case(text) => {}
                Segment::Literal(_) => return None,
                Segment::Parameter {
                    name,
                    constraint,
                    optional,
                } => match piece {
                    None if *optional => parameters.push((name.clone(), None)),
                    None => return None,
                    Some(piece) if constraint.is_some_and(|c| !c.admits(&piece)) => return None,
                    Some(piece) => parameters.push((name.clone(), Some(piece))),
                },
            }
            at += 1;
        }
        (at >= pieces.len()).then_some(parameters)
    }

    /// Which of two routes is asked first: literals before constrained parameters before others
    /// before the rest of a path.
    pub(crate) fn precedence(&self, other: &Self) -> Ordering {
        let rank = |segment: &Segment| match segment {
            Segment::Literal(_) => 1,
            Segment::Parameter {
                constraint: Some(_),
                ..
            } => 2,
            Segment::Parameter { .. } => 3,
            Segment::Rest(_) => 5,
        };
        let mine = self.segments.iter().map(rank);
        mine.cmp(other.segments.iter().map(rank))
            .then(self.text.cmp(&other.text))
    }
}

impl Constraint {
    fn admits(self, text: &str) -> bool {
        match self {
            Self::Int => text.parse::<i32>().is_ok(),
            Self::Long => text.parse::<i64>().is_ok(),
            Self::Bool => text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false"),
            Self::Guid => uuid::Uuid::parse_str(text).is_ok(),
            Self::Alpha => text.chars().all(|c| c.is_ascii_alphabetic()),
        }
    }
}

fn segment(piece: &str) -> Result<Segment, String> {
    let Some(inner) = piece.strip_prefix('{').and_then(|p| p.strip_suffix('}')) else {
        return match piece.contains(['{', '}']) {
            true => Err(format!(
                "route part {piece:?} mixes text and parameter; this local host takes one or the other"
            )),
            false => Ok(Segment::Literal(piece.to_owned())),
        };
    };
    if let Some(name) = inner.strip_prefix('*') {
        return Ok(Segment::Rest(name.trim_start_matches('*').to_owned()));
    }
    let (inner, optional) = match inner.strip_suffix('?') {
        Some(inner) => (inner, true),
        None => (inner, false),
    };
    let (name, constraint) = match inner.split_once(':') {
        None => (inner, None),
        Some((name, "int")) => (name, Some(Constraint::Int)),
        Some((name, "long")) => (name, Some(Constraint::Long)),
        Some((name, "bool")) => (name, Some(Constraint::Bool)),
        Some((name, "guid")) => (name, Some(Constraint::Guid)),
        Some((name, "alpha")) => (name, Some(Constraint::Alpha)),
        Some((_, other)) => {
            return Err(format!(
                "route constraint {other:?} is not known to this local host (int, long, bool, guid, alpha)"
            ));
        }
    };
    if name.is_empty() {
        return Err(format!("route part {piece:?} has no name"));
    }
    Ok(Segment::Parameter {
        name: name.to_owned(),
        constraint,
        optional,
    })
}

/// Percent-decoded; what is no UTF-8 then is replaced, as .NET does.
fn decoded(piece: &str) -> String {
    let bytes = piece.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = piece
            .get(i + 1..i + 3)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[i], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                i += 3;
            }
            (byte, _) => {
                out.push(byte);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(route: &str, path: &str) -> Option<Vec<Option<String>>> {
        let found = Route::parse(route).unwrap().matches(path)?;
        Some(found.into_iter().map(|(_, value)| value).collect())
    }

    fn some(values: &[&str]) -> Option<Vec<Option<String>>> {
        Some(values.iter().map(|v| Some((*v).to_owned())).collect())
    }

    #[test]
    fn parameters_are_taken_from_the_path() {
        assert_eq!(
            parameters("score/{name}", "/Score/c%20pu/"),
            some(&["c pu"])
        );
        assert_eq!(parameters("score/{name}", "score"), None);
        assert_eq!(parameters("score/{name}", "score/a/b"), None);
        assert_eq!(parameters("items/{id:int?}", "items"), Some(vec![None]));
        assert_eq!(parameters("items/{id:int?}", "items/x"), None);
        assert_eq!(parameters("a/{*rest}", "a/b/c%2Fd"), some(&["b/c/d"]));
        assert_eq!(parameters("a/{*rest}", "a"), Some(vec![None]));
        assert_eq!(parameters("", "/"), Some(vec![]));
    }

    #[test]
    fn the_most_literal_route_is_asked_first() {
        let mut routes: Vec<Route> = ["{*all}", "a/{x}", "a/{x:int}", "a/b"]
            .iter()
            .map(|text| Route::parse(text).unwrap())
            .collect();
        routes.sort_by(Route::precedence);
        let order: Vec<&str> = routes.iter().map(Route::text).collect();
        assert_eq!(order, ["a/b", "a/{x:int}", "a/{x}", "{*all}"]);
    }

    #[test]
    fn routes_that_cannot_be_are_refused() {
        for wrong in [
            "admin/x",
            "Runtime",
            "{*rest}/x",
            "{a?}/b",
            "{}",
            "a{b}",
            "{a:regex(x)}",
        ] {
            assert!(Route::parse(wrong).is_err(), "{wrong}");
        }
    }
}
