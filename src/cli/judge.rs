//! `lapwing judge`: series on standard input, verdicts on standard output.
//!
//! JSON Lines in, JSON Lines out, one for one and in order. A line is a case of a golden file (`name`,
//! `mode`, `request`) or a bare request, which is judged in its last point.

use std::cell::RefCell;
use std::io::{self, BufRead, BufReader, Read, Write};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Failure;
use crate::detector::{DetectError, EntireVerdict, ErrorCode, LastVerdict, Workspace};
use crate::request::{Profile, Request};

/// Judge series given as JSON Lines
///
/// Every line of standard input is a request, or an object with a request in it
/// (`{"name", "mode": "last" | "entire", "request"}`); its verdict is written as one line.
#[derive(Debug, clap::Args)]
pub(crate) struct Judge {}

/// Lines judged at a time; memory holds so many and their answers.
const BATCH_LINES: usize = 256;
/// Bytes of lines judged at a time, the last line not counted.
const BATCH_BYTES: usize = 16 << 20;

impl Judge {
    /// Judges every line until the input ends.
    pub(crate) fn run(self) -> Result<(), Failure> {
        json_lines(io::stdin().lock(), io::stdout().lock()).map_err(Failure::from)
    }
}

/// Judges the lines of `input` in batches side by side and writes the answers to `output` in order.
fn json_lines(input: impl Read, mut output: impl Write) -> io::Result<()> {
    let mut input = BufReader::with_capacity(1 << 20, input);
    let mut batch = Vec::new();
    loop {
        read_batch(&mut input, &mut batch)?;
        if batch.is_empty() {
            return output.flush();
        }
        let answers: Vec<Vec<u8>> = batch.par_iter().map(|line| answer(line)).collect();
        for answer in answers {
            output.write_all(&answer)?;
        }
        output.flush()?;
    }
}

/// Reads the lines that are there: at least one, unless the input has ended, and no more than a batch.
fn read_batch(input: &mut BufReader<impl Read>, batch: &mut Vec<Vec<u8>>) -> io::Result<()> {
    batch.clear();
    let mut bytes = 0;
    while batch.len() < BATCH_LINES && bytes < BATCH_BYTES {
        let complete = input.buffer().contains(&b'\n');
        if !batch.is_empty() && !complete && !input.buffer().is_empty() {
            // The rest of this line may be long in coming; what is there is answered first.
            break;
        }
        if !batch.is_empty() && input.buffer().is_empty() {
            break;
        }
        let mut line = Vec::new();
        if input.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if !line.trim_ascii().is_empty() {
            bytes += line.len();
            batch.push(line);
        }
    }
    Ok(())
}

/// A case as it comes; the request inside, or the line itself.
#[derive(Deserialize)]
struct Case<'a> {
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    mode: Option<&'a RawValue>,
    #[serde(borrow)]
    request: Option<&'a RawValue>,
}

/// What is asked about a series.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Last,
    Entire,
}

/// One line out.
#[derive(Serialize)]
struct Answer<'a> {
    name: Option<&'a RawValue>,
    mode: Mode,
    #[serde(skip_serializing_if = "Option::is_none")]
    expect: Option<Expect>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorLine>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Expect {
    Last(LastLine),
    Entire(EntireLine),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LastLine {
    is_anomaly: bool,
    is_positive_anomaly: bool,
    is_negative_anomaly: bool,
    expected_value: f64,
    upper_margin: f64,
    lower_margin: f64,
    severity: f64,
    period: u32,
    suggested_window: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EntireLine {
    is_anomaly: Vec<bool>,
    is_positive_anomaly: Vec<bool>,
    is_negative_anomaly: Vec<bool>,
    expected_values: Vec<f64>,
    upper_margins: Vec<f64>,
    lower_margins: Vec<f64>,
    severity: Vec<f64>,
    period: u32,
}

#[derive(Serialize)]
struct ErrorLine {
    code: &'static str,
    message: String,
}

thread_local! {
    /// The scratch memory of each thread of the pool, warm from line to line.
    static WORKSPACE: RefCell<Workspace> = RefCell::new(Workspace::new());
}

/// The answer to one line, with its line end.
fn answer(line: &[u8]) -> Vec<u8> {
    let case: Case<'_> = serde_json::from_slice(line).unwrap_or(Case {
        name: None,
        mode: None,
        request: None,
    });
    let (mode, asked) = match case.mode.map(RawValue::get) {
        None | Some("\"last\"" | "null") => (Mode::Last, Ok(())),
        Some("\"entire\"") => (Mode::Entire, Ok(())),
        Some(other) => {
            let text = format!("The 'mode' field must be \"last\" or \"entire\", not {other}.");
            (
                Mode::Last,
                Err(DetectError::new(ErrorCode::BadArgument, text)),
            )
        }
    };
    let request = case
        .request
        .map_or(line, |request| request.get().as_bytes());
    let judged = asked.and_then(|()| judge(request, mode));
    let mut answer = Answer {
        name: case.name,
        mode,
        expect: None,
        model: None,
        error: None,
    };
    match judged {
        Ok((expect, model)) => {
            answer.expect = Some(expect);
            answer.model = Some(model);
        }
        Err(error) => {
            answer.error = Some(ErrorLine {
                code: error.code.as_str(),
                message: error.message,
            });
        }
    }
    let mut out = serde_json::to_vec(&answer).expect("plain fields always become JSON");
    out.push(b'\n');
    out
}

fn judge(request: &[u8], mode: Mode) -> Result<(Expect, &'static str), DetectError> {
    let request = Request::parse(request, Profile::Package)?;
    let (series, options) = (request.points.series(), &request.options);
    WORKSPACE.with_borrow_mut(|workspace| match mode {
        Mode::Last => {
            let verdict = workspace.last_of(series, options)?;
            let model = verdict.model.as_str();
            Ok((Expect::Last(verdict.into()), model))
        }
        Mode::Entire => {
            let verdict = workspace.entire_of(series, options)?;
            let model = verdict.model.as_str();
            Ok((Expect::Entire(verdict.into()), model))
        }
    })
}

impl From<LastVerdict> for LastLine {
    fn from(verdict: LastVerdict) -> Self {
        Self {
            is_anomaly: verdict.is_anomaly,
            is_positive_anomaly: verdict.is_positive_anomaly,
            is_negative_anomaly: verdict.is_negative_anomaly,
            expected_value: verdict.expected_value,
            upper_margin: verdict.upper_margin,
            lower_margin: verdict.lower_margin,
            severity: verdict.severity,
            period: verdict.period,
            suggested_window: verdict.suggested_window,
        }
    }
}

impl From<EntireVerdict> for EntireLine {
    fn from(verdict: EntireVerdict) -> Self {
        let points = &verdict.points;
        Self {
            is_anomaly: points.iter().map(|p| p.is_anomaly).collect(),
            is_positive_anomaly: points.iter().map(|p| p.is_positive_anomaly).collect(),
            is_negative_anomaly: points.iter().map(|p| p.is_negative_anomaly).collect(),
            expected_values: points.iter().map(|p| p.expected_value).collect(),
            upper_margins: points.iter().map(|p| p.upper_margin).collect(),
            lower_margins: points.iter().map(|p| p.lower_margin).collect(),
            severity: points.iter().map(|p| p.severity).collect(),
            period: verdict.period,
        }
    }
}
