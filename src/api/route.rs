//! Paths of the public server: which operation, in which version of the API.
//!
//! Matching is as forgiving as the service's gateway was: any case, repeated slashes (SDKs append their
//! path to an endpoint that ends in one), a slash at the end.

use crate::contract::{Operation, Version};

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Univariate(Version, Operation),
    Multivariate,
    Root,
    Status,
    Ready,
    Swagger,
    OpenApi,
}

impl Route {
    /// The route of `path`, which comes without its query.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let mut segments = [""; 6];
        let mut count = 0;
        for segment in path.split('/').filter(|segment| !segment.is_empty()) {
            // Only the multivariate routes are open-ended; they are told apart by their third segment.
            if let Some(slot) = segments.get_mut(count) {
                *slot = segment;
            }
            count += 1;
        }
        let is = |segment: &str, word: &str| segment.eq_ignore_ascii_case(word);
        if count == 0 {
            return Some(Self::Root);
        }
        if !is(segments[0], "anomalydetector") {
            return match (count, segments[0]) {
                (1, word) if is(word, "status") => Some(Self::Status),
                (1, word) if is(word, "ready") => Some(Self::Ready),
                (1, word) if is(word, "swagger") => Some(Self::Swagger),
                (1, word) if is(word, "openapi.json") => Some(Self::OpenApi),
                _ => None,
            };
        }
        let version = Version::parse(segments[1])?;
        if is(segments[2], "multivariate") && count > 3 && version != Version::V1_0 {
            return Some(Self::Multivariate);
        }
        if count != 5 || !is(segments[2], "timeseries") || !is(segments[4], "detect") {
            return None;
        }
        Operation::ALL
            .into_iter()
            .find(|operation| is(segments[3], operation.as_str()))
            .map(|operation| Self::Univariate(version, operation))
    }

    /// The value of `Allow`; `None`: any method.
    pub(crate) fn methods(self) -> Option<&'static str> {
        match self {
            Self::Univariate(..) => Some("POST"),
            Self::Multivariate => None,
            _ => Some("GET, HEAD"),
        }
    }

    /// Whether callers need a key.
    pub(crate) fn is_guarded(self) -> bool {
        matches!(self, Self::Univariate(..) | Self::Multivariate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::path;

    #[test]
    fn paths_are_forgiven_what_clients_do_to_them() {
        let last = Some(Route::Univariate(Version::V1_1, Operation::Last));
        for path in [
            "/anomalydetector/v1.1/timeseries/last/detect",
            "//anomalydetector/v1.1/timeseries/last/detect",
            "/anomalydetector///v1.1/timeseries/last/detect/",
            "/ANOMALYDETECTOR/V1.1/TIMESERIES/LAST/DETECT",
        ] {
            assert_eq!(Route::parse(path), last, "{path}");
        }
        let change = Some(Route::Univariate(Version::V1_0, Operation::ChangePoint));
        let path = "/anomalydetector/v1.0/timeseries/changePoint/detect";
        assert_eq!(Route::parse(path), change);
        let alias = "/anomalydetector/v1.1-preview.2/timeseries/entire/detect";
        let preview = Route::Univariate(Version::V1_1Preview1, Operation::Entire);
        assert_eq!(Route::parse(alias), Some(preview));
    }

    #[test]
    fn other_paths_lead_nowhere() {
        for path in [
            "/anomalydetector",
            "/anomalydetector/v1.1",
            "/anomalydetector/v1.2/timeseries/last/detect",
            "/anomalydetector/v1.1/timeseries/first/detect",
            "/anomalydetector/v1.1/timeseries/last",
            "/anomalydetector/v1.1/timeseries/last/detect/more",
            "/anomalydetector/v1.1/timeseries/last/detect/more/still",
            "/anomalydetector/v1.0/multivariate/models",
            "/anomalydetector/v1.1/multivariate",
            "/detect",
            "/replay",
            "/status/x",
        ] {
            assert_eq!(Route::parse(path), None, "{path}");
        }
        for path in ["/", "", "//"] {
            assert_eq!(Route::parse(path), Some(Route::Root), "{path:?}");
        }
        let deep = "/anomalydetector/v1.1/multivariate/models/a:detect-last/b/c/d";
        assert_eq!(Route::parse(deep), Some(Route::Multivariate));
    }

    #[test]
    fn every_path_that_is_written_is_read() {
        for version in Version::ALL {
            for operation in Operation::ALL {
                let route = Route::Univariate(version, operation);
                assert_eq!(Route::parse(&path(version, operation)), Some(route));
            }
        }
    }
}
