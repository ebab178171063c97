//! `lapwing compare`: the same windows to a remote detector, or to recordings of one, and to the embedded
//! detector.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::time::Duration;

use futures::StreamExt;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Failure;
use crate::config::{ANOMALY_DETECTOR_KEY, Settings};
use crate::contract::{EntireAnswer, LastAnswer};
use crate::detector::{
    DetectError, EntireVerdict, LastVerdict, Model, Options, PointVerdict, Workspace,
};
use crate::remote::{OnFailure, RemoteDetector, RemoteError, endpoint_url};
use crate::request::{Profile, Request};

/// Longest time for one call of the remote detector.
const DEADLINE: Duration = Duration::from_secs(60);

/// Compare a remote detector, or recordings of one, with the embedded detector
///
/// Reads JSON Lines: a request of the REST API each, or an object around one:
/// {"name", "mode": "last" | "entire", "version": "v1.0" | "v1.1", "request", "response"}. With a
/// response the recording is compared; without one the endpoint is asked. Every difference is a line
/// of its own; the exit status is 0 when there is none and 1 when there are some.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The detector to compare with, such as http://127.0.0.1:5000; its key is read from
    /// ANOMALY_DETECTOR_KEY
    #[arg(long, value_name = "URL", value_parser = endpoint_url)]
    endpoint: Option<azure_core::http::Url>,
    /// The windows [default: standard input]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Relative difference up to which two numbers are the same; margins below a millionth of the
    /// expected value are not told apart
    #[arg(long, value_name = "SHARE", default_value_t = 1e-6)]
    tolerance: f64,
    /// Calls in progress at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    calls: u16,
}

/// A line of the input.
#[derive(Deserialize)]
struct Line {
    name: Option<Value>,
    mode: Option<String>,
    version: Option<String>,
    request: Option<Box<RawValue>>,
    response: Option<Value>,
}

/// A window and what is known of it.
struct Window {
    name: String,
    entire: bool,
    request: Request,
    response: Option<Value>,
}

/// A verdict on a window: points with their period, or a refusal.
type Verdict = Result<(Vec<PointVerdict>, u32), DetectError>;

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let settings = Settings::from_env();
    let key = settings.get(&ANOMALY_DETECTOR_KEY).unwrap_or_default();
    let remote = args
        .endpoint
        .clone()
        .map(|url| RemoteDetector::new(url, key, DEADLINE, OnFailure::Fail))
        .transpose()?;
    let input: Box<dyn Read> = match &args.file {
        Some(path) => Box::new(
            std::fs::File::open(path)
                .map_err(|error| format!("cannot read {}: {error}", path.display()))?,
        ),
        None => Box::new(std::io::stdin()),
    };
    let windows = BufReader::new(input)
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.as_ref().is_ok_and(|line| line.trim().is_empty()))
        .map(|(i, line)| {
            let number = i + 1;
            let line = line.map_err(|error| format!("line {number} cannot be read: {error}"))?;
            Window::parse(&line, number)
                .map_err(|reason| Failure::from(format!("line {number} is no window: {reason}")))
        });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let (mut compared, mut differing) = (0_usize, 0_usize);
    runtime.block_on(async {
        let mut comparisons = futures::stream::iter(windows)
            .map(|window| async {
                let window = window?;
                let differences = window.differences(remote.as_ref(), args.tolerance).await?;
                Ok::<_, Failure>((window.name, differences))
            })
            .buffered(usize::from(args.calls));
        while let Some(comparison) = comparisons.next().await {
            let (name, differences) = comparison?;
            compared += 1;
            differing += usize::from(!differences.is_empty());
            for difference in differences {
                println!("{name}: {difference}");
            }
        }
        Ok::<_, Failure>(())
    })?;
    println!("{compared} windows compared, {differing} differ");
    if differing > 0 {
        return Err(format!("{differing} of {compared} windows differ").into());
    }
    if compared == 0 {
        return Err("there was no window in the input".into());
    }
    Ok(())
}

impl Window {
    fn parse(line: &str, number: usize) -> Result<Self, Failure> {
        let wrapped: Line = serde_json::from_str(line)?;
        let text = wrapped.request.as_deref().map_or(line, RawValue::get);
        let mut request = Request::parse(text.as_bytes(), Profile::Service)?;
        request.options.boundary = match wrapped.version.as_deref() {
            None => Options::v1_1().boundary,
            Some(version) => crate::contract::Version::parse(version)
                .ok_or_else(|| format!("no version is called {version:?}"))?
                .boundary(),
        };
        let entire = match wrapped.mode.as_deref() {
            None | Some("last") => false,
            Some("entire") => true,
            Some(other) => return Err(format!("no mode is called {other:?}").into()),
        };
        let name = match wrapped.name {
            Some(Value::String(name)) => name,
            Some(other) => other.to_string(),
            None => format!("line {number}"),
        };
        Ok(Self {
            name,
            entire,
            request,
            response: wrapped.response,
        })
    }

    async fn differences(
        &self,
        remote: Option<&RemoteDetector>,
        tolerance: f64,
    ) -> Result<Vec<String>, Failure> {
        let theirs = match (&self.response, remote) {
            (Some(response), _) => self.recorded(response)?,
            (None, Some(remote)) => self.asked(remote).await?,
            (None, None) => {
                let text = "has no response; give an --endpoint to ask";
                return Err(format!("{}: {text}", self.name).into());
            }
        };
        let ours = tokio::task::block_in_place(|| self.embedded());
        Ok(differences(&theirs, &ours, tolerance))
    }

    fn embedded(&self) -> Verdict {
        let (series, options) = (self.request.points.series(), &self.request.options);
        let mut workspace = Workspace::new();
        if self.entire {
            workspace.entire_of(series, options).map(entire)
        } else {
            workspace.last_of(series, options).map(last)
        }
    }

    async fn asked(&self, remote: &RemoteDetector) -> Result<Verdict, RemoteError> {
        let (points, options) = (&self.request.points, &self.request.options);
        let (timestamps, values) = (&points.timestamps, &points.values);
        let answer = if self.entire {
            remote.entire(timestamps, values, options).await.map(entire)
        } else {
            remote
                .last_remote(timestamps, values, options)
                .await
                .map(last)
        };
        match answer {
            Ok(verdict) => Ok(Ok(verdict)),
            Err(RemoteError::Refused(refusal)) => Ok(Err(refusal)),
            Err(error) => Err(error),
        }
    }

    fn recorded(&self, response: &Value) -> Result<Verdict, Failure> {
        let unreadable = |error| format!("{}: its response is no verdict: {error}", self.name);
        if self.entire {
            let answer: EntireAnswer =
                serde_json::from_value(response.clone()).map_err(unreadable)?;
            let verdict = answer
                .into_verdict(self.request.points.values.len(), Model::AnomalyDetector)
                .ok_or_else(|| {
                    format!("{}: its response is not as long as the series", self.name)
                })?;
            return Ok(Ok(entire(verdict)));
        }
        let answer: LastAnswer = serde_json::from_value(response.clone()).map_err(unreadable)?;
        Ok(Ok(last(answer.into_verdict(Model::AnomalyDetector))))
    }
}

fn last(verdict: LastVerdict) -> (Vec<PointVerdict>, u32) {
    let point = PointVerdict {
        is_anomaly: verdict.is_anomaly,
        is_positive_anomaly: verdict.is_positive_anomaly,
        is_negative_anomaly: verdict.is_negative_anomaly,
        expected_value: verdict.expected_value,
        upper_margin: verdict.upper_margin,
        lower_margin: verdict.lower_margin,
        severity: verdict.severity,
    };
    (vec![point], verdict.period)
}

fn entire(verdict: EntireVerdict) -> (Vec<PointVerdict>, u32) {
    (verdict.points, verdict.period)
}

/// What differs, theirs first.
fn differences(theirs: &Verdict, ours: &Verdict, tolerance: f64) -> Vec<String> {
    let ((their_points, their_period), (our_points, our_period)) = match (theirs, ours) {
        (Ok(theirs), Ok(ours)) => (theirs, ours),
        (Err(theirs), Err(ours)) if theirs.code == ours.code => return Vec::new(),
        (theirs, ours) => {
            let told = |verdict: &Verdict| match verdict {
                Ok(_) => "a verdict".to_owned(),
                Err(refusal) => refusal.to_string(),
            };
            return vec![format!("{} here: {}", told(theirs), told(ours))];
        }
    };
    let mut found = Vec::new();
    if their_period != our_period {
        found.push(format!("period {their_period}, here {our_period}"));
    }
    for (i, (a, b)) in std::iter::zip(their_points, our_points).enumerate() {
        let place = if our_points.len() > 1 {
            format!("point {i}: ")
        } else {
            String::new()
        };
        let flags = [
            ("isAnomaly", a.is_anomaly, b.is_anomaly),
            (
                "isPositiveAnomaly",
                a.is_positive_anomaly,
                b.is_positive_anomaly,
            ),
            (
                "isNegativeAnomaly",
                a.is_negative_anomaly,
                b.is_negative_anomaly,
            ),
        ];
        for (name, a, b) in flags {
            if a != b {
                found.push(format!("{place}{name} {a}, here {b}"));
            }
        }
        // Margins near zero are differences of large numbers: what is left in them is rounding.
        let floor = 1e-6 * b.expected_value.abs();
        let numbers = [
            ("expectedValue", a.expected_value, b.expected_value, 0.0),
            ("upperMargin", a.upper_margin, b.upper_margin, floor),
            ("lowerMargin", a.lower_margin, b.lower_margin, floor),
        ];
        for (name, a, b, floor) in numbers {
            if (a - b).abs() > (tolerance * a.abs().max(b.abs())).max(tolerance * floor) {
                found.push(format!("{place}{name} {a}, here {b}"));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(value: f64) -> (String, Value) {
        let series: Vec<Value> = (0..30)
            .map(|i| serde_json::json!({"value": if i == 29 { value } else { f64::from(i % 4) }}))
            .collect();
        let request = serde_json::json!({ "series": series });
        let text = request.to_string();
        (text, request)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_recording_of_our_own_is_the_same_and_a_changed_one_is_not() {
        let (text, request) = window(50.0);
        let embedded = Window::parse(&text, 1).unwrap().embedded().unwrap();
        let point = embedded.0[0];
        let mut response = serde_json::json!({
            "isAnomaly": point.is_anomaly, "isPositiveAnomaly": point.is_positive_anomaly,
            "isNegativeAnomaly": point.is_negative_anomaly, "expectedValue": point.expected_value,
            "upperMargin": point.upper_margin, "lowerMargin": point.lower_margin,
            "period": embedded.1, "suggestedWindow": 1441,
        });
        let line = |response: &Value| {
            serde_json::json!({"name": "a", "version": "v1.1", "request": request, "response": response}).to_string()
        };
        let same = Window::parse(&line(&response), 1).unwrap();
        assert!(same.differences(None, 1e-9).await.unwrap().is_empty());
        response["isAnomaly"] = Value::Bool(!point.is_anomaly);
        response["expectedValue"] = serde_json::json!(point.expected_value + 1.0);
        let other = Window::parse(&line(&response), 1).unwrap();
        let found = other.differences(None, 1e-9).await.unwrap();
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn what_is_no_window_is_refused() {
        for line in [
            "{",
            "[]",
            r#"{"request": {}}"#,
            r#"{"mode": "first", "series": []}"#,
        ] {
            assert!(Window::parse(line, 1).is_err(), "{line}");
        }
    }
}
