//! The reference's cases over HTTP: the API gives the answer that `lapwing judge` gives.
//!
//! Runs with `LAPWING_SHARED=dir` on `dir/golden`, where a case uses only what the API has. The API reads
//! some requests otherwise than the reference does, as the service did; those cases are held to the
//! service's code, and each kind is counted and printed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;

use flate2::read::GzDecoder;
use lapwing::contract::{EntireAnswer, LastAnswer};
use lapwing::detector::{DetectError, Workspace};
use lapwing::request::{Profile, Request};
use serde_json::{Map, Value};

use super::{post_json, with_key};

/// The members that the API has; `boundaryVersion` becomes the version in the path.
const MEMBERS: [&str; 9] = [
    "series",
    "granularity",
    "customInterval",
    "period",
    "maxAnomalyRatio",
    "sensitivity",
    "imputeMode",
    "imputeFixedValue",
    "boundaryVersion",
];

/// What a case should come to.
enum Expected {
    /// This answer, without its severity.
    Answer(Value),
    /// A refusal with this code.
    Code(&'static str),
    /// It is no case for the API, for this reason.
    LeftOut(&'static str),
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_cases_get_the_same_answers_over_http() {
    let Some(shared) = std::env::var_os("LAPWING_SHARED") else {
        println!("LAPWING_SHARED is not set; the cases of its golden folder are not run");
        return;
    };
    let folder = Path::new(&shared).join("golden");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .expect("LAPWING_SHARED names a folder with golden/")
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".jsonl.gz"))
        .filter(|path| !path.ends_with("stages.jsonl.gz"))
        .collect();
    files.sort();
    assert!(files.len() >= 9, "{files:?}");
    let router = with_key();
    let mut workspace = Workspace::new();
    let mut tally: BTreeMap<&'static str, usize> = BTreeMap::new();
    let mut differences = Vec::new();
    for file in files {
        let unzipped = BufReader::new(GzDecoder::new(std::fs::File::open(&file).unwrap()));
        for line in unzipped.lines() {
            let case: Value = serde_json::from_str(&line.unwrap()).unwrap();
            let request = case["request"].as_object().unwrap();
            let mode = case["mode"].as_str().unwrap();
            let kind = match expected(request, mode, &mut workspace) {
                Expected::LeftOut(reason) => reason,
                Expected::Code(code) => {
                    let answer = ask(&router, request, mode).await;
                    if answer.status != 400 || answer.body["code"] != code {
                        differences.push(format!("{}: not {code}: {}", case["name"], answer.body));
                    }
                    "refused with the contract's code"
                }
                Expected::Answer(expected) => {
                    let mut answer = ask(&router, request, mode).await;
                    if let Some(members) = answer.body.as_object_mut() {
                        members.remove("severity");
                    }
                    if answer.status != 200 || answer.body != expected {
                        let told = answer.body.to_string();
                        let told: String = told.chars().take(300).collect();
                        differences.push(format!("{}: {told}", case["name"]));
                    }
                    "answered as lapwing judge does"
                }
            };
            *tally.entry(kind).or_default() += 1;
        }
    }
    for (kind, count) in &tally {
        println!("{count:5} {kind}");
    }
    assert!(
        differences.is_empty(),
        "{}:\n{}",
        differences.len(),
        differences.join("\n")
    );
    assert!(tally["answered as lapwing judge does"] > 3000);
    assert!(tally["refused with the contract's code"] > 200);
}

async fn ask(router: &axum::Router, request: &Map<String, Value>, mode: &str) -> super::Answer {
    let version = match request.get("boundaryVersion") {
        None | Some(Value::Null) => "v1.0",
        Some(version) if version == "V1" => "v1.0",
        Some(_) => "v1.1",
    };
    let path = format!("/anomalydetector/{version}/timeseries/{mode}/detect");
    let mut body = request.clone();
    body.remove("boundaryVersion");
    post_json(router, &path, &Value::Object(body)).await
}

fn expected(request: &Map<String, Value>, mode: &str, workspace: &mut Workspace) -> Expected {
    if request.keys().any(|name| !MEMBERS.contains(&name.as_str())) {
        return Expected::LeftOut("left out: it uses members that the API does not have");
    }
    let version = request.get("boundaryVersion").unwrap_or(&Value::Null);
    let versions = [Value::Null, "V1".into(), "V2".into(), "V3".into()];
    if !versions.contains(version) {
        return Expected::LeftOut("left out: its boundaryVersion is no version of the API");
    }
    let is_null = |name: &&str| request.get(*name) == Some(&Value::Null);
    if MEMBERS[1..8]
        .iter()
        .any(|name| is_null(name) && *name != "imputeFixedValue")
    {
        return Expected::LeftOut(
            "left out: null is absent to the API, and a bad value to the reference",
        );
    }
    let judged = judge(request, mode, workspace);
    let mode_word = request.get("imputeMode").and_then(Value::as_str);
    if matches!(mode_word, Some("last" | "no")) {
        // Words of the reference that the contract does not have; whatever failed before them still does.
        return match judged {
            Err(error)
                if error.code.as_str() != "InvalidSeries"
                    && error.code.as_str() != "BadArgument" =>
            {
                Expected::Code(error.code.as_str())
            }
            _ => Expected::Code("InvalidImputeMode"),
        };
    }
    match judged {
        Ok(answer) => Expected::Answer(answer),
        Err(error) => refused(request, &error),
    }
}

/// What the API says where the reference's own reading is an error.
fn refused(request: &Map<String, Value>, error: &DetectError) -> Expected {
    let series = request.get("series");
    let empty = series.and_then(Value::as_array).is_some_and(Vec::is_empty);
    let options_fail = request.get("granularity").is_some_and(|word| {
        word.as_str()
            .is_none_or(|word| word.parse::<lapwing::detector::Granularity>().is_err())
    });
    match error.code.as_str() {
        // To the reference no data is its first check; the API looks at options first.
        "BadArgument" if options_fail => Expected::Code("InvalidGranularity"),
        "BadArgument" if series.is_none() => Expected::Code("RequiredSeries"),
        "BadArgument" if empty => Expected::Code("InvalidSeries"),
        "BadArgument" if all_readable(series) => Expected::LeftOut(
            "left out: timestamps of several forms, which the reference does not take and the API does",
        ),
        code => Expected::Code(code),
    }
}

/// Whether every point has a value and a timestamp that the API takes.
fn all_readable(series: Option<&Value>) -> bool {
    series.and_then(Value::as_array).is_some_and(|points| {
        points.iter().all(|point| {
            let stamp = point["timestamp"].as_str().unwrap_or_default();
            point["value"].is_number() && lapwing::series::Timestamp::parse(stamp).is_ok()
        })
    })
}

/// What `lapwing judge` says.
fn judge(
    request: &Map<String, Value>,
    mode: &str,
    workspace: &mut Workspace,
) -> Result<Value, DetectError> {
    let text = serde_json::to_vec(request).unwrap();
    let request = Request::parse(&text, Profile::Package)?;
    let (series, options) = (request.points.series(), &request.options);
    let answer = if mode == "last" {
        let verdict = workspace.last_of(series, options)?;
        serde_json::to_value(LastAnswer::new(&verdict, false))
    } else {
        let verdict = workspace.entire_of(series, options)?;
        serde_json::to_value(EntireAnswer::new(&verdict, false))
    };
    Ok(answer.unwrap())
}
