//! A request's bytes to an answer's bytes: the part of a call that is work for the processor.

use super::error::ApiError;
use crate::contract::{ChangePointAnswer, EntireAnswer, LastAnswer, Operation, Version, model_id};
use crate::detector::{
    ChangePointOptions, DetectError, ErrorCode, Granularity, MAX_MAGNITUDE, Workspace,
};
use crate::request::{Body, Points, Profile, Request};

/// An answer, written.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) body: Vec<u8>,
    /// The service's number for the model that judged.
    pub(crate) model_id: Option<&'static str>,
}

/// Answers the request `json`.
pub(crate) fn answer(
    json: &[u8],
    version: Version,
    operation: Operation,
    workspace: &mut Workspace,
) -> Result<Answer, ApiError> {
    let json = json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json);
    let body = Body::parse(json, Profile::Service)?;
    let pascal = body.is_pascal_case();
    let write = match operation {
        Operation::Last => last(body, version, workspace)?,
        Operation::Entire => entire(body, version, workspace)?,
        Operation::ChangePoint => change_point(body, workspace)?,
    };
    if pascal {
        return Ok(Answer {
            body: in_pascal_case(&write.body)?,
            ..write
        });
    }
    Ok(write)
}

fn last(body: Body, version: Version, workspace: &mut Workspace) -> Result<Answer, ApiError> {
    let request = request(body, version)?;
    let verdict = workspace.last_of(request.points.series(), &request.options)?;
    let answer = LastAnswer::new(&verdict, version.has_severity());
    written(&answer, answer.is_finite(), model_id(verdict.model))
}

fn entire(body: Body, version: Version, workspace: &mut Workspace) -> Result<Answer, ApiError> {
    let request = request(body, version)?;
    let verdict = workspace.entire_of(request.points.series(), &request.options)?;
    let answer = EntireAnswer::new(&verdict, version.has_severity());
    written(&answer, answer.is_finite(), model_id(verdict.model))
}

fn change_point(body: Body, workspace: &mut Workspace) -> Result<Answer, ApiError> {
    let grid = body.grid()?;
    let threshold = body.member("threshold").map(|threshold| {
        threshold
            .as_f64()
            .filter(|threshold| (0.01..=0.99).contains(threshold))
            .ok_or_else(|| {
                let text = "The 'threshold' field must be a number from 0.01 to 0.99.";
                DetectError::new(ErrorCode::InvalidModelArgument, text)
            })
    });
    let threshold = threshold.transpose()?;
    let window = body.member("stableTrendWindow").cloned();
    let points = body.points(grid.granularity)?;
    check_points(&points, grid.granularity)?;
    let window = window.map(|window| {
        window
            .as_u64()
            .and_then(|window| u32::try_from(window).ok())
            .filter(|window| *window >= 3 && 2 * (*window as usize) < points.values.len())
            .ok_or_else(|| {
                let text = format!(
                    "The 'stableTrendWindow' field must be an integer from 3 to below half of the {} points of the series.",
                    points.values.len()
                );
                DetectError::new(ErrorCode::InvalidModelArgument, text)
            })
    });
    let options = ChangePointOptions {
        granularity: grid.granularity,
        custom_interval: grid.custom_interval,
        period: grid.period,
        stable_trend_window: window.transpose()?,
        threshold,
    };
    let found = workspace.change_point_of(points.series(), &options)?;
    let finite = found
        .confidence_scores
        .iter()
        .all(|score| score.is_finite());
    let answer = ChangePointAnswer {
        period: found.period,
        is_change_point: found.is_change_point,
        confidence_scores: found.confidence_scores,
    };
    written(&answer, finite, Some("60"))
}

fn request(body: Body, version: Version) -> Result<Request, ApiError> {
    let mut request = body.request()?;
    request.options.boundary = version.boundary();
    check_points(&request.points, request.options.granularity)?;
    Ok(request)
}

/// The detector's own checks of the points, made here first because they name the index.
fn check_points(points: &Points, granularity: Granularity) -> Result<(), DetectError> {
    let invalid = |text: String| Err(DetectError::new(ErrorCode::InvalidSeries, text));
    let huge = |value: &f64| value.abs() > MAX_MAGNITUDE;
    if let Some(index) = points.values.iter().position(huge) {
        return invalid(format!(
            "The magnitude of the 'value' at index {index} is too large: expected at most 1e100."
        ));
    }
    if granularity == Granularity::None {
        return Ok(());
    }
    let pairs = points.timestamps.windows(2);
    match pairs.enumerate().find(|(_, pair)| pair[0] >= pair[1]) {
        Some((i, pair)) if pair[0] == pair[1] => invalid(format!(
            "The 'timestamp' at index {} is duplicated: every point of the series needs its own.",
            i + 1
        )),
        Some((i, _)) => invalid(format!(
            "The 'timestamp' at index {} is before the one at index {i}: the series must be sorted in ascending order.",
            i + 1
        )),
        None => Ok(()),
    }
}

fn written(
    answer: &impl serde::Serialize,
    finite: bool,
    model_id: Option<&'static str>,
) -> Result<Answer, ApiError> {
    if !finite {
        // Numbers at the end of the range may overflow on the way; no client can read the result.
        return Err(ApiError::internal(
            "The series leads to a number that is not finite; scale the values down.",
        ));
    }
    let body = serde_json::to_vec(answer)
        .map_err(|error| ApiError::internal(format!("The answer cannot be written: {error}.")))?;
    Ok(Answer { body, model_id })
}

/// The members of `json`, an object, renamed as .NET names them.
fn in_pascal_case(json: &[u8]) -> Result<Vec<u8>, ApiError> {
    let members: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(json)
        .map_err(|error| ApiError::internal(format!("The answer cannot be renamed: {error}.")))?;
    let renamed: serde_json::Map<_, _> = members
        .into_iter()
        .map(|(name, value)| (name[..1].to_ascii_uppercase() + &name[1..], value))
        .collect();
    serde_json::to_vec(&renamed)
        .map_err(|error| ApiError::internal(format!("The answer cannot be renamed: {error}.")))
}
