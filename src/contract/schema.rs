//! Schemas of the request's and answers' members: their types, bounds and words.
//!
//! They say what is really taken, so that a generator of requests knows no more and no less: `null` for
//! any option, truth values for integers. Bounds that hang on another member are in the descriptions.

use utoipa::PartialSchema;
use utoipa::openapi::schema::{
    AnyOfBuilder, Array, ArrayBuilder, Object, ObjectBuilder, Schema, SchemaType, Type,
};

use super::model::SeriesPoint;
use crate::detector::{Granularity, MAX_MAGNITUDE, MAX_POINTS, MIN_POINTS};

pub(super) fn series() -> Array {
    ArrayBuilder::new()
        .items(SeriesPoint::schema())
        .min_items(Some(MIN_POINTS))
        .max_items(Some(MAX_POINTS))
        .description(Some("The points, in ascending order without repetition."))
        .build()
}

pub(super) fn timestamp() -> Object {
    let text = "When it was measured: ISO 8601 with T or a space, or M/D/YYYY h:mm:ss AM; UTC unless it says otherwise. Required and read unless granularity is none or absent; anything may stand here then.";
    ObjectBuilder::new()
        .schema_type(SchemaType::AnyValue)
        .description(Some(text))
        .build()
}

pub(super) fn value() -> Schema {
    const TEXT: &str = r"^\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*$";
    AnyOfBuilder::new()
        .item(
            ObjectBuilder::new()
                .schema_type(Type::Number)
                .minimum(Some(-MAX_MAGNITUDE))
                .maximum(Some(MAX_MAGNITUDE)),
        )
        .item(
            ObjectBuilder::new()
                .schema_type(Type::String)
                .pattern(Some(TEXT)),
        )
        .description(Some(
            "What was measured: a number, or a text that holds one.",
        ))
        .build()
        .into()
}

pub(super) fn granularity() -> Object {
    let words = Granularity::ALL.map(|granularity| Some(granularity.as_str()));
    words_or_null(words, "Unit of the time grid; absent: none.")
}

pub(super) fn custom_interval() -> Schema {
    AnyOfBuilder::new()
        .item(nullable(Type::Integer).minimum(Some(1)))
        .item(
            ObjectBuilder::new()
                .schema_type(Type::Boolean)
                .enum_values(Some([true])),
        )
        .description(Some(
            "Granules from one point to the next; absent: 1. true counts as 1.",
        ))
        .build()
        .into()
}

pub(super) fn period() -> Object {
    integer(
        "Points per season; 0: not seasonal; absent: searched for. Truth values count as 0 and 1.",
    )
    .minimum(Some(0))
    .build()
}

pub(super) fn max_anomaly_ratio() -> Object {
    nullable(Type::Number)
        .exclusive_minimum(Some(0))
        .maximum(Some(0.49))
        .description(Some(
            "Most points that may be anomalies, as a share of the series; absent: 0.25.",
        ))
        .build()
}

pub(super) fn sensitivity() -> Object {
    integer("A larger one gives narrower margins and flags more points; absent: 99. Truth values count as 0 and 1.")
        .minimum(Some(0))
        .maximum(Some(100))
        .build()
}

pub(super) fn impute_mode() -> Object {
    let words = ["auto", "previous", "linear", "fixed", "zero", "notFill"].map(Some);
    words_or_null(words, "What stands in for missing points; absent: auto.")
}

pub(super) fn impute_fixed_value() -> Object {
    let text = "The value for missing points: a number, required and read when imputeMode is fixed; anything may stand here otherwise.";
    ObjectBuilder::new()
        .schema_type(SchemaType::AnyValue)
        .description(Some(text))
        .build()
}

pub(super) fn stable_trend_window() -> Object {
    nullable(Type::Integer)
        .minimum(Some(3))
        .maximum(Some(MAX_POINTS / 2 - 1))
        .description(Some("Points over which a trend has to be stable, below half of the series; absent: by granularity."))
        .build()
}

pub(super) fn threshold() -> Object {
    nullable(Type::Number)
        .minimum(Some(0.01))
        .maximum(Some(0.99))
        .description(Some("How much of a trend error is tolerated: a lower one accepts fewer points. Absent: 0.9, for hourly series 0.91."))
        .build()
}

pub(super) fn expected_values() -> Array {
    list(
        ObjectBuilder::new().schema_type(Type::Number),
        "The values that the series led to expect.",
    )
}

pub(super) fn upper_margins() -> Array {
    list(
        ObjectBuilder::new()
            .schema_type(Type::Number)
            .minimum(Some(0)),
        "Steps of the band above the expected values.",
    )
}

pub(super) fn lower_margins() -> Array {
    list(
        ObjectBuilder::new()
            .schema_type(Type::Number)
            .minimum(Some(0)),
        "Steps of the band below the expected values.",
    )
}

pub(super) fn flags() -> Array {
    list(
        ObjectBuilder::new().schema_type(Type::Boolean),
        "One truth value per point.",
    )
}

pub(super) fn severities() -> Array {
    list(
        share(),
        "How far off the points are, 0 where there is no anomaly; absent in v1.0.",
    )
}

pub(super) fn confidence_scores() -> Array {
    list(share(), "How sure it is that the trend changes here.")
}

pub(super) fn severity() -> Object {
    share()
        .description(Some("How far off the point is; absent in v1.0."))
        .build()
}

fn share() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Number)
        .minimum(Some(0))
        .maximum(Some(1))
}

/// A list of an answer: as long as the series.
fn list(items: ObjectBuilder, description: &str) -> Array {
    ArrayBuilder::new()
        .items(items)
        .min_items(Some(MIN_POINTS))
        .max_items(Some(MAX_POINTS))
        .description(Some(description))
        .build()
}

fn nullable(kind: Type) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::from_iter([kind, Type::Null]))
}

fn integer(description: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([
            Type::Integer,
            Type::Boolean,
            Type::Null,
        ]))
        .description(Some(description))
}

fn words_or_null(
    words: impl IntoIterator<Item = Option<&'static str>>,
    description: &str,
) -> Object {
    nullable(Type::String)
        .enum_values(Some(words.into_iter().chain([None])))
        .description(Some(description))
        .build()
}
