//! Requests and answers on the wire, for the server's document and for the client of a remote one.
//!
//! The server itself reads requests more leniently than these types say: see [`crate::request`].

use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;

use super::schema;
use crate::detector::{
    EntireVerdict, Granularity, Impute, LastVerdict, Model, Options, PointVerdict,
};
use crate::series::Timestamp;

/// What is asked of `entire` and `last`.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DetectRequest {
    /// The points, in ascending order.
    #[schema(schema_with = schema::series)]
    pub series: Vec<SeriesPoint>,
    /// Unit of the time grid; absent: `none`.
    #[schema(schema_with = schema::granularity, required = false)]
    #[serde(serialize_with = "word")]
    pub granularity: Granularity,
    /// Granules from one point to the next; absent: 1.
    #[schema(schema_with = schema::custom_interval, required = false)]
    pub custom_interval: u32,
    /// Points per season; 0: not seasonal; absent: searched for.
    #[schema(schema_with = schema::period)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period: Option<u32>,
    /// Most points that may be anomalies, as a share of the series; absent: 0.25.
    #[schema(schema_with = schema::max_anomaly_ratio, required = false)]
    pub max_anomaly_ratio: f64,
    /// A larger one gives narrower margins and flags more points; absent: 99.
    #[schema(schema_with = schema::sensitivity, required = false)]
    pub sensitivity: u8,
    /// What stands in for missing points; absent: `auto`.
    #[schema(schema_with = schema::impute_mode, required = false)]
    pub impute_mode: &'static str,
    /// The value for missing points under `fixed`.
    #[schema(schema_with = schema::impute_fixed_value)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub impute_fixed_value: Option<f64>,
}

/// What is asked of `changepoint`.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChangePointRequest {
    /// The points, in ascending order.
    #[schema(schema_with = schema::series)]
    pub series: Vec<SeriesPoint>,
    /// Unit of the time grid; absent: `none`.
    #[schema(schema_with = schema::granularity, required = false)]
    #[serde(serialize_with = "word")]
    pub granularity: Granularity,
    /// Granules from one point to the next; absent: 1.
    #[schema(schema_with = schema::custom_interval, required = false)]
    pub custom_interval: u32,
    /// Points per season; 0: not seasonal; absent: searched for.
    #[schema(schema_with = schema::period)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period: Option<u32>,
    /// Points over which a trend has to be stable, below half of the series; absent: by granularity.
    #[schema(schema_with = schema::stable_trend_window)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stable_trend_window: Option<u32>,
    /// How much of a trend error is tolerated; a lower one accepts fewer points. Absent: 0.9, for
    /// hourly series 0.91.
    #[schema(schema_with = schema::threshold)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
}

/// One measurement.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct SeriesPoint {
    /// When it was measured, as ISO 8601 or `M/D/YYYY h:mm:ss AM`; UTC unless it says otherwise. Neither
    /// needed nor read without a granularity.
    #[schema(schema_with = schema::timestamp)]
    #[serde(serialize_with = "iso", skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Timestamp>,
    /// What was measured: a number, or a text that holds one.
    #[schema(schema_with = schema::value)]
    pub value: f64,
}

/// The answer of `last`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastAnswer {
    /// Points per season; 0: none.
    #[schema(minimum = 0)]
    pub period: u32,
    /// Points to send next time.
    #[schema(minimum = 1)]
    pub suggested_window: u32,
    /// The value that the series led to expect.
    pub expected_value: f64,
    /// Step of the band above the expected value.
    #[schema(minimum = 0.0)]
    pub upper_margin: f64,
    /// Step of the band below it.
    #[schema(minimum = 0.0)]
    pub lower_margin: f64,
    /// The point is an anomaly, negative or positive.
    pub is_anomaly: bool,
    /// It lies below what was expected.
    pub is_negative_anomaly: bool,
    /// It lies above what was expected.
    pub is_positive_anomaly: bool,
    /// How far off it is; absent in v1.0.
    #[schema(schema_with = schema::severity, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<f64>,
}

/// The answer of `entire`; every list is as long as the series, in its order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EntireAnswer {
    /// Points per season; 0: none.
    #[schema(minimum = 0)]
    pub period: u32,
    /// The values that the series led to expect.
    #[schema(schema_with = schema::expected_values)]
    pub expected_values: Vec<f64>,
    /// Steps of the band above the expected values.
    #[schema(schema_with = schema::upper_margins)]
    pub upper_margins: Vec<f64>,
    /// Steps of the band below them.
    #[schema(schema_with = schema::lower_margins)]
    pub lower_margins: Vec<f64>,
    /// Which points are anomalies, negative or positive.
    #[schema(schema_with = schema::flags)]
    pub is_anomaly: Vec<bool>,
    /// Which lie below what was expected.
    #[schema(schema_with = schema::flags)]
    pub is_negative_anomaly: Vec<bool>,
    /// Which lie above it.
    #[schema(schema_with = schema::flags)]
    pub is_positive_anomaly: Vec<bool>,
    /// How far off they are, 0 where there is no anomaly; absent in v1.0.
    #[schema(schema_with = schema::severities, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<Vec<f64>>,
}

/// The answer of `changepoint`; both lists are as long as the series, in its order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChangePointAnswer {
    /// Points per season; 0: none.
    #[schema(minimum = 0)]
    pub period: u32,
    /// At which points the trend changes.
    #[schema(schema_with = schema::flags)]
    pub is_change_point: Vec<bool>,
    /// How sure that is.
    #[schema(schema_with = schema::confidence_scores)]
    pub confidence_scores: Vec<f64>,
}

/// The body of `/status` and `/ready`.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Health {
    /// One word, or what is missing.
    pub status: String,
}

impl DetectRequest {
    /// Asks about `values` at `timestamps`, which may be empty without a granularity. The margins that
    /// `options` name are not in it: the version in the path chooses them.
    pub fn new(timestamps: &[Timestamp], values: &[f64], options: &Options) -> Self {
        let (impute_mode, impute_fixed_value) = match options.impute {
            Impute::Auto => ("auto", None),
            Impute::Previous => ("previous", None),
            Impute::Linear => ("linear", None),
            Impute::Fixed(value) => ("fixed", Some(value)),
            Impute::NotFill => ("notFill", None),
        };
        let series = values
            .iter()
            .enumerate()
            .map(|(i, value)| SeriesPoint {
                timestamp: timestamps.get(i).copied(),
                value: *value,
            })
            .collect();
        Self {
            series,
            granularity: options.granularity,
            custom_interval: options.custom_interval.get(),
            period: options.period,
            max_anomaly_ratio: options.max_anomaly_ratio,
            sensitivity: options.sensitivity.get(),
            impute_mode,
            impute_fixed_value,
        }
    }
}

impl LastAnswer {
    /// The answer that tells `verdict`.
    pub fn new(verdict: &LastVerdict, has_severity: bool) -> Self {
        Self {
            period: verdict.period,
            suggested_window: verdict.suggested_window,
            expected_value: verdict.expected_value,
            upper_margin: verdict.upper_margin,
            lower_margin: verdict.lower_margin,
            is_anomaly: verdict.is_anomaly,
            is_negative_anomaly: verdict.is_negative_anomaly,
            is_positive_anomaly: verdict.is_positive_anomaly,
            severity: has_severity.then_some(verdict.severity),
        }
    }

    /// The verdict that the answer tells. It does not tell the model, and v1.0 no severity: 0 stands for it.
    pub fn into_verdict(self, model: Model) -> LastVerdict {
        LastVerdict {
            is_anomaly: self.is_anomaly,
            is_positive_anomaly: self.is_positive_anomaly,
            is_negative_anomaly: self.is_negative_anomaly,
            expected_value: self.expected_value,
            upper_margin: self.upper_margin,
            lower_margin: self.lower_margin,
            severity: self.severity.unwrap_or_default(),
            period: self.period,
            suggested_window: self.suggested_window,
            model,
        }
    }

    /// Whether every number can be written: JSON has neither NaN nor infinity.
    pub(crate) fn is_finite(&self) -> bool {
        let severity = self.severity.unwrap_or_default();
        [
            self.expected_value,
            self.upper_margin,
            self.lower_margin,
            severity,
        ]
        .iter()
        .all(|number| number.is_finite())
    }
}

impl EntireAnswer {
    /// The answer that tells `verdict`.
    pub fn new(verdict: &EntireVerdict, has_severity: bool) -> Self {
        let points = &verdict.points;
        Self {
            period: verdict.period,
            expected_values: points.iter().map(|p| p.expected_value).collect(),
            upper_margins: points.iter().map(|p| p.upper_margin).collect(),
            lower_margins: points.iter().map(|p| p.lower_margin).collect(),
            is_anomaly: points.iter().map(|p| p.is_anomaly).collect(),
            is_negative_anomaly: points.iter().map(|p| p.is_negative_anomaly).collect(),
            is_positive_anomaly: points.iter().map(|p| p.is_positive_anomaly).collect(),
            severity: has_severity.then(|| points.iter().map(|p| p.severity).collect()),
        }
    }

    /// The verdict that the answer tells of a series of so many points; `None` where its lists have other
    /// lengths. It does not tell the model, and v1.0 no severity: 0 stands for it.
    pub fn into_verdict(self, points: usize, model: Model) -> Option<EntireVerdict> {
        let severity = self.severity.unwrap_or_else(|| vec![0.0; points]);
        let lengths = [
            self.expected_values.len(),
            self.upper_margins.len(),
            self.lower_margins.len(),
            self.is_anomaly.len(),
            self.is_negative_anomaly.len(),
            self.is_positive_anomaly.len(),
            severity.len(),
        ];
        if lengths.iter().any(|length| *length != points) {
            return None;
        }
        let points = (0..points).map(|i| PointVerdict {
            is_anomaly: self.is_anomaly[i],
            is_positive_anomaly: self.is_positive_anomaly[i],
            is_negative_anomaly: self.is_negative_anomaly[i],
            expected_value: self.expected_values[i],
            upper_margin: self.upper_margins[i],
            lower_margin: self.lower_margins[i],
            severity: severity[i],
        });
        Some(EntireVerdict {
            points: points.collect(),
            period: self.period,
            model,
        })
    }

    /// Whether every number can be written: JSON has neither NaN nor infinity.
    pub(crate) fn is_finite(&self) -> bool {
        let lists = [
            &self.expected_values,
            &self.upper_margins,
            &self.lower_margins,
        ];
        lists
            .into_iter()
            .chain(&self.severity)
            .flatten()
            .all(|number| number.is_finite())
    }
}

fn word<S: Serializer>(granularity: &Granularity, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(granularity.as_str())
}

fn iso<S: Serializer>(timestamp: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match timestamp {
        Some(timestamp) => serializer.collect_str(timestamp),
        None => serializer.serialize_none(),
    }
}
