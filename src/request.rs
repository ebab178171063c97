//! A JSON request to the detector, checked: the retired service's names, order of checks, codes and
//! texts. Users match on which fault is reported first.
//!
//! There are two readings of the same members. The [`Package`](Profile::Package) reading is that of the
//! vendor's published package, which golden files hold to; the [`Service`](Profile::Service) reading is
//! that of the REST API, more lenient in names and timestamps and stricter in values. What they share is
//! here once: [`Body::grid`], [`Body::points`] and the checks under them.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU32;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::detector::{
    Boundary, DetectError, ErrorCode, Granularity, Impute, MAX_MAGNITUDE, MAX_POINTS, Manual,
    Options, Sensitivity, Series, check_length,
};
use crate::series::{Timestamp, Zoned};

/// How a request's members are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// As the published package does: exact names, `null` is a bad value, all timestamps in the form of
    /// the first, values that Python's `float` takes; all of the package's options.
    Package,
    /// As the REST API did: names without regard to case, `null` is absent, timestamps in any form; the
    /// public options alone.
    Service,
}

/// A request as it came, before any of its members is checked.
#[derive(Debug)]
pub struct Body {
    profile: Profile,
    members: Vec<(String, Value)>,
    series: RawSeries,
    is_pascal_case: bool,
}

/// A checked request: a series and what is asked about it. The series itself (length, order, grid) is
/// checked by the detector.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The points.
    pub points: Points,
    /// What is asked.
    pub options: Options,
}

/// The points of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Points {
    /// One per value; empty without a granularity.
    pub timestamps: Vec<Timestamp>,
    /// Minutes east of UTC in which each timestamp was written.
    pub offsets: Vec<i16>,
    /// The measurements.
    pub values: Vec<f64>,
}

/// The members that describe the time grid and the season.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GridMembers {
    /// Unit of the grid.
    pub granularity: Granularity,
    /// Granules from point to point.
    pub custom_interval: NonZeroU32,
    /// Points per season; `None`: to be searched for.
    pub period: Option<u32>,
}

impl Points {
    /// The points as the detector takes them.
    pub fn series(&self) -> Series<'_> {
        Series {
            timestamps: &self.timestamps,
            offsets: Some(&self.offsets),
            values: &self.values,
        }
    }
}

impl Request {
    /// Reads and checks a request.
    pub fn parse(json: &[u8], profile: Profile) -> Result<Self, DetectError> {
        Body::parse(json, profile)?.request()
    }
}

impl Body {
    /// Reads a request without checking its members; it must be a JSON object.
    pub fn parse(json: &[u8], profile: Profile) -> Result<Self, DetectError> {
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let body = BodySeed(profile)
            .deserialize(&mut deserializer)
            .and_then(|body| deserializer.end().map(|()| body));
        body.map_err(|error| {
            let text = if json.trim_ascii().is_empty() {
                "Invalid Json Format, input data is Empty.".to_owned()
            } else {
                format!("Invalid Json Format: {error}.")
            };
            DetectError::new(ErrorCode::InvalidJsonFormat, text)
        })
    }

    /// Whether the series is spelled `Series`, as some tools name members; they read answers likewise.
    pub fn is_pascal_case(&self) -> bool {
        self.is_pascal_case
    }

    /// The member called `name`; the last one if there are several. `series` is none of them.
    pub fn member(&self, name: &str) -> Option<&Value> {
        let found = self
            .members
            .iter()
            .rev()
            .find(|(key, _)| self.profile.is_called(key, name))
            .map(|(_, value)| value);
        match self.profile {
            Profile::Package => found,
            Profile::Service => found.filter(|value| !value.is_null()),
        }
    }

    /// Checks all members of an `entire` or `last` request.
    pub fn request(self) -> Result<Request, DetectError> {
        let package = self.profile == Profile::Package;
        if package && self.series.is_no_data() {
            return Err(DetectError::no_data());
        }
        let grid = self.grid()?;
        let mut options = Options {
            granularity: grid.granularity,
            custom_interval: grid.custom_interval,
            period: grid.period,
            ..Options::default()
        };
        if package && let Some(alpha) = self.member("alpha") {
            options.alpha = number(alpha)
                .filter(|alpha| *alpha > 0.0)
                .ok_or_else(DetectError::alpha)?;
        }
        if let Some(ratio) = self.member("maxAnomalyRatio") {
            options.max_anomaly_ratio = ratio
                .as_f64()
                .filter(|_| ratio.is_f64())
                .filter(|ratio| *ratio > 0.0 && *ratio <= 0.49)
                .ok_or_else(DetectError::anomaly_ratio)?;
        }
        if let Some(sensitivity) = self.member("sensitivity") {
            options.sensitivity = Profile::integer(sensitivity)
                .and_then(|number| Sensitivity::try_from(number).ok())
                .ok_or_else(DetectError::sensitivity)?;
        }
        if package && let Some(threshold) = self.member("threshold") {
            options.threshold = threshold
                .as_f64()
                .filter(|_| threshold.is_f64())
                .ok_or_else(DetectError::threshold)?;
        }
        options.impute = self.impute()?;
        if package {
            options.boundary = self.boundary()?;
            if let Some(Value::Object(detector)) = self.member("detector") {
                let (manual, period) = manual(detector)?;
                options.manual = Some(manual);
                options.period = period.or(options.period);
            }
        }
        let points = self.points(options.granularity)?;
        Ok(Request { points, options })
    }

    /// Checks granularity, interval and period, in that order.
    pub fn grid(&self) -> Result<GridMembers, DetectError> {
        let granularity = match self.member("granularity") {
            None => Granularity::None,
            Some(word) => word
                .as_str()
                .and_then(|word| word.parse().ok())
                .ok_or_else(DetectError::granularity)?,
        };
        let custom_interval = match self.member("customInterval") {
            None => NonZeroU32::MIN,
            Some(interval) => Profile::integer(interval)
                .and_then(|interval| u32::try_from(interval).ok())
                .and_then(NonZeroU32::new)
                .ok_or_else(DetectError::custom_interval)?,
        };
        let period = match self.member("period") {
            None => None,
            Some(period) => {
                let period = Profile::integer(period)
                    .filter(|period| *period >= 0)
                    .ok_or_else(DetectError::period)?;
                // No series is long enough for a larger one.
                Some(u32::try_from(period).unwrap_or(u32::MAX))
            }
        };
        Ok(GridMembers {
            granularity,
            custom_interval,
            period,
        })
    }

    /// Checks that the series is a list of a permitted length and every point can be read. Without a
    /// granularity timestamps are not looked at.
    pub fn points(self, granularity: Granularity) -> Result<Points, DetectError> {
        let points = match self.series {
            RawSeries::Absent if self.profile == Profile::Service => {
                let text = "The 'series' field is required in request.";
                return Err(DetectError::new(ErrorCode::RequiredSeries, text));
            }
            RawSeries::Points(points) => points,
            _ => return Err(DetectError::series_type()),
        };
        check_length(points.len())?;
        if self.profile == Profile::Service {
            all_readable(&points, granularity)?;
        }
        let values = self
            .profile
            .values(&points)
            .ok_or_else(DetectError::series_format)?;
        let (timestamps, offsets) = if granularity == Granularity::None {
            (Vec::new(), vec![0; values.len()])
        } else {
            self.profile
                .timestamps(&points)
                .ok_or_else(DetectError::series_format)?
        };
        Ok(Points {
            timestamps,
            offsets,
            values,
        })
    }

    fn impute(&self) -> Result<Impute, DetectError> {
        let package = self.profile == Profile::Package;
        let given = |name| self.member(name).filter(|value| !value.is_null());
        let fixed = |name, code| {
            self.member(name)
                .and_then(|value| match value {
                    Value::Bool(_) if !package => None,
                    value => number(value),
                })
                .map(Impute::Fixed)
                .ok_or_else(|| DetectError::impute_value(code))
        };
        if let Some(mode) = given("imputeMode") {
            return match mode.as_str() {
                Some("auto") => Ok(Impute::Auto),
                Some("previous") => Ok(Impute::Previous),
                Some("linear") => Ok(Impute::Linear),
                Some("zero") => Ok(Impute::Fixed(0.0)),
                Some("notFill") => Ok(Impute::NotFill),
                Some("last") if package => Ok(Impute::Previous),
                Some("no") if package => Ok(Impute::NotFill),
                // The package reads this value only to check it and then forgets it; what is meant is to
                // fill with it.
                Some("fixed") => fixed("imputeFixedValue", ErrorCode::InvalidImputeFixedValue),
                _ => Err(DetectError::impute_mode(ErrorCode::InvalidImputeMode)),
            };
        }
        if !package {
            return Ok(Impute::Auto);
        }
        match given("fillUpMode") {
            None => Ok(Impute::Auto),
            Some(mode) => match mode.as_str() {
                Some("auto") => Ok(Impute::Auto),
                Some("previous" | "last") => Ok(Impute::Previous),
                Some("linear") => Ok(Impute::Linear),
                // In the older contract `zero` does not fill at all.
                Some("no" | "notFill" | "zero") => Ok(Impute::NotFill),
                Some("fixed") => fixed("fixedValue", ErrorCode::InvalidFixedValue),
                _ => Err(DetectError::impute_mode(ErrorCode::InvalidFillUpMode)),
            },
        }
    }

    fn boundary(&self) -> Result<Boundary, DetectError> {
        match self.member("boundaryVersion") {
            None | Some(Value::Null) => Ok(Boundary::V1),
            Some(version) => match version.as_str() {
                Some("V1") => Ok(Boundary::V1),
                Some("V2") => Ok(Boundary::V2),
                Some("V3") => Ok(Boundary::V3),
                _ => Err(DetectError::boundary_version()),
            },
        }
    }
}

/// Says which point cannot be read, which the package's own text does not. A missing value is looked for
/// last, after the sizes of the others: so the package does, to which it is a number that is none.
fn all_readable(points: &[RawPoint], granularity: Granularity) -> Result<(), DetectError> {
    let malformed = |index: usize, member: &str, wanted: &str| {
        let text =
            format!("The '{member}' at index {index} is missing or malformed: expected {wanted}.");
        Err(DetectError::new(ErrorCode::BadArgument, text))
    };
    let number = "a number, or a text that holds one";
    let mut missing = None;
    let mut huge = false;
    for (index, point) in points.iter().enumerate() {
        match point.value {
            RawValue::Number(value) | RawValue::Text(value) => huge |= value.abs() > MAX_MAGNITUDE,
            RawValue::Null | RawValue::Absent => missing = missing.or(Some(index)),
            _ => return malformed(index, "value", number),
        }
        if granularity != Granularity::None && point.timestamp.is_none() {
            return malformed(index, "timestamp", "a text such as 2014-03-01T17:36:00Z");
        }
    }
    match missing {
        Some(_) if huge => Err(DetectError::value_overflow()),
        Some(index) => malformed(index, "value", number),
        None => Ok(()),
    }
}

/// The model asked for by hand and the period given with it.
fn manual(detector: &serde_json::Map<String, Value>) -> Result<(Manual, Option<u32>), DetectError> {
    let parameters = detector
        .get("parameters")
        .ok_or_else(DetectError::detector_parameters_missing)?
        .as_object()
        .ok_or_else(DetectError::detector_parameters)?;
    let name = detector
        .get("name")
        .ok_or_else(DetectError::detector_name_missing)?
        .as_str()
        .unwrap_or_default();
    let known = [
        "spectral_residual",
        "hbos",
        "seasonal_series",
        "dynamic_threshold",
    ];
    if !known.contains(&name.to_lowercase().as_str()) {
        return Err(DetectError::detector_name());
    }
    let parameter = |name| {
        parameters
            .get(name)
            .and_then(number)
            .ok_or_else(DetectError::detector_parameters)
    };
    let period = match parameters.get("period") {
        None | Some(Value::Null) => None,
        Some(period) => Some(
            Profile::integer(period)
                .and_then(|period| u32::try_from(period).ok())
                .ok_or_else(DetectError::detector_parameters)?,
        ),
    };
    // Checked in any case above, matched exactly here; the histogram model needs a package that the
    // reference does not install, so there is nothing it would answer.
    let manual = match name {
        "seasonal_series" => Manual::Seasonal {
            alpha: parameter("alpha")?,
            max_anomaly_ratio: parameter("maxAnomalyRatio")?,
        },
        "spectral_residual" => Manual::SpectralResidual {
            threshold: parameter("threshold")?,
            max_anomaly_ratio: parameter("maxAnomalyRatio")?,
        },
        "dynamic_threshold" if period.is_none_or(|period| period == 0) => {
            Manual::DynamicThreshold {
                alpha: parameter("alpha")?,
                max_anomaly_ratio: parameter("maxAnomalyRatio")?,
            }
        }
        _ => return Err(DetectError::detector_combination(name)),
    };
    Ok((manual, period))
}

impl Profile {
    fn is_called(self, key: &str, name: &str) -> bool {
        match self {
            Self::Package => key == name,
            Self::Service => key.eq_ignore_ascii_case(name),
        }
    }

    /// An integer as written: `5`, not `5.0`. To Python, in which the service was written, a truth value
    /// is one too.
    fn integer(value: &Value) -> Option<i64> {
        match value {
            Value::Bool(truth) => Some(i64::from(*truth)),
            Value::Number(number) if number.is_u64() => Some(number.as_i64().unwrap_or(i64::MAX)),
            value => value.as_i64(),
        }
    }

    /// The values of all points; NaN stands for a missing one where the package lets it pass on to a
    /// later check.
    fn values(self, points: &[RawPoint]) -> Option<Vec<f64>> {
        match self {
            Self::Service => points
                .iter()
                .map(|point| match point.value {
                    RawValue::Number(value) | RawValue::Text(value) => Some(value),
                    _ => None,
                })
                .collect(),
            Self::Package => {
                // The package puts the values into a column first: a null becomes NaN among numbers and
                // stays what it is among anything else.
                let any = |wanted: fn(&RawValue) -> bool| points.iter().any(|p| wanted(&p.value));
                let plain = any(|value| matches!(value, RawValue::Number(_)));
                let mixed = any(|value| matches!(value, RawValue::Text(_) | RawValue::Bool(_)));
                let some = plain || mixed;
                points
                    .iter()
                    .map(|point| match point.value {
                        RawValue::Number(value) | RawValue::Text(value) => Some(value),
                        RawValue::Bool(truth) => Some(f64::from(u8::from(truth))),
                        RawValue::NotANumber => Some(f64::NAN),
                        RawValue::Null => (plain && !mixed).then_some(f64::NAN),
                        RawValue::Absent => some.then_some(f64::NAN),
                        RawValue::Unreadable => None,
                    })
                    .collect()
            }
        }
    }

    fn timestamps(self, points: &[RawPoint]) -> Option<(Vec<Timestamp>, Vec<i16>)> {
        let form = points.first()?.timestamp?.form;
        points
            .iter()
            .map(|point| {
                let stamp = point.timestamp?;
                let accepted = self == Self::Service || stamp.form == form;
                accepted.then_some((stamp.zoned.instant, stamp.zoned.offset_minutes))
            })
            .collect()
    }
}

/// A number, to Python: a truth value is one.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(truth) => Some(f64::from(u8::from(*truth))),
        value => value.as_f64(),
    }
}

/// The `series` member as it came.
#[derive(Debug)]
enum RawSeries {
    Absent,
    Null,
    /// Something that is no list; true if it has no members.
    Other {
        empty: bool,
    },
    Points(Vec<RawPoint>),
}

impl RawSeries {
    /// Nothing that the package would make a table of.
    fn is_no_data(&self) -> bool {
        match self {
            Self::Absent | Self::Null => true,
            Self::Other { empty } => *empty,
            Self::Points(points) => points.iter().all(|point| point.empty),
        }
    }
}

/// One element of the series.
#[derive(Clone, Copy, Debug)]
struct RawPoint {
    /// `None` where it is absent or cannot be read.
    timestamp: Option<RawStamp>,
    value: RawValue,
    /// An object without members.
    empty: bool,
}

#[derive(Clone, Copy, Debug)]
struct RawStamp {
    zoned: Zoned,
    form: Form,
}

/// What the package compares of two timestamps' texts: it takes only the form of the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Form {
    separator: Option<u8>,
    american: bool,
    colons: usize,
    fraction: bool,
    zone: bool,
}

#[derive(Clone, Copy, Debug)]
enum RawValue {
    Absent,
    Null,
    Bool(bool),
    Number(f64),
    /// A text that holds a number, infinity included.
    Text(f64),
    /// The text `nan`.
    NotANumber,
    Unreadable,
}

impl RawStamp {
    fn parse(text: &str) -> Option<Self> {
        let zoned = Zoned::parse(text).ok()?;
        let text = text.trim_ascii().as_bytes();
        let (date, time) = text.split_at(text.len().min(10));
        let time_of_day = time
            .iter()
            .skip(1)
            .position(|byte| matches!(byte, b'Z' | b'z' | b'+' | b'-'))
            .map_or(time, |zone| &time[..=zone]);
        let form = Form {
            separator: time.first().copied(),
            american: date.contains(&b'/'),
            colons: time_of_day.iter().filter(|byte| **byte == b':').count(),
            fraction: time_of_day.contains(&b'.') || time_of_day.contains(&b','),
            zone: time_of_day.len() < time.len(),
        };
        Some(Self { zoned, form })
    }
}

impl RawValue {
    fn parse(text: &str, profile: Profile) -> Self {
        let text = text.trim_ascii();
        let digits = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
        let plain = text.bytes().all(digits);
        match text.parse::<f64>() {
            Ok(value) if plain => Self::Text(value),
            Ok(value) if profile == Profile::Package && value.is_nan() => Self::NotANumber,
            Ok(value) if profile == Profile::Package => Self::Text(value),
            _ => Self::Unreadable,
        }
    }
}

/// Reads a request object.
struct BodySeed(Profile);

impl<'de> DeserializeSeed<'de> for BodySeed {
    type Value = Body;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Body, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for BodySeed {
    type Value = Body;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Body, A::Error> {
        let mut body = Body {
            profile: self.0,
            members: Vec::new(),
            series: RawSeries::Absent,
            is_pascal_case: false,
        };
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            if self.0.is_called(&key, "series") {
                body.series = map.next_value_seed(SeriesSeed(self.0))?;
                body.is_pascal_case = key == "Series";
            } else {
                body.members.push((key.into_owned(), map.next_value()?));
            }
        }
        Ok(body)
    }
}

/// Reads the series, whatever it is.
struct SeriesSeed(Profile);

impl<'de> DeserializeSeed<'de> for SeriesSeed {
    type Value = RawSeries;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<RawSeries, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for SeriesSeed {
    type Value = RawSeries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of points")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<RawSeries, A::Error> {
        let mut points = Vec::new();
        while let Some(point) = list.next_element_seed(PointSeed(self.0))? {
            points.push(point);
            if points.len() > MAX_POINTS {
                // Too many already; how many more there are changes nothing, and would cost memory.
                while list.next_element::<IgnoredAny>()?.is_some() {}
            }
        }
        Ok(RawSeries::Points(points))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawSeries, A::Error> {
        let mut empty = true;
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            empty = false;
        }
        Ok(RawSeries::Other { empty })
    }

    fn visit_unit<E>(self) -> Result<RawSeries, E> {
        Ok(RawSeries::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<RawSeries, E> {
        Ok(RawSeries::Other { empty: false })
    }

    fn visit_i64<E>(self, _: i64) -> Result<RawSeries, E> {
        Ok(RawSeries::Other { empty: false })
    }

    fn visit_u64<E>(self, _: u64) -> Result<RawSeries, E> {
        Ok(RawSeries::Other { empty: false })
    }

    fn visit_f64<E>(self, _: f64) -> Result<RawSeries, E> {
        Ok(RawSeries::Other { empty: false })
    }

    fn visit_str<E>(self, _: &str) -> Result<RawSeries, E> {
        Ok(RawSeries::Other { empty: false })
    }
}

/// Reads a point or one of its two members, whatever stands there.
struct PointSeed(Profile);
struct StampSeed;
struct ValueSeed(Profile);

/// Implements a visitor that takes any JSON value: the listed kinds as said, all others as `$other`.
macro_rules! any_value {
    ($seed:ty => $out:ty, other: $other:expr, $($visit:item)*) => {
        impl<'de> DeserializeSeed<'de> for $seed {
            type Value = $out;

            fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<$out, D::Error> {
                deserializer.deserialize_any(self)
            }
        }

        impl<'de> Visitor<'de> for $seed {
            type Value = $out;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            $($visit)*

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<$out, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok($other)
            }
        }
    };
}

const NO_POINT: RawPoint = RawPoint {
    timestamp: None,
    value: RawValue::Unreadable,
    empty: false,
};

any_value! { PointSeed => RawPoint, other: NO_POINT,
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawPoint, A::Error> {
        let mut point = RawPoint {
            timestamp: None,
            value: RawValue::Absent,
            empty: true,
        };
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            point.empty = false;
            if self.0.is_called(&key, "timestamp") {
                point.timestamp = map.next_value_seed(StampSeed)?;
            } else if self.0.is_called(&key, "value") {
                point.value = map.next_value_seed(ValueSeed(self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(point)
    }

    fn visit_unit<E>(self) -> Result<RawPoint, E> {
        Ok(NO_POINT)
    }

    fn visit_bool<E>(self, _: bool) -> Result<RawPoint, E> {
        Ok(NO_POINT)
    }

    fn visit_i64<E>(self, _: i64) -> Result<RawPoint, E> {
        Ok(NO_POINT)
    }

    fn visit_u64<E>(self, _: u64) -> Result<RawPoint, E> {
        Ok(NO_POINT)
    }

    fn visit_f64<E>(self, _: f64) -> Result<RawPoint, E> {
        Ok(NO_POINT)
    }

    fn visit_str<E>(self, _: &str) -> Result<RawPoint, E> {
        Ok(NO_POINT)
    }
}

any_value! { StampSeed => Option<RawStamp>, other: None,
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<RawStamp>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Option<RawStamp>, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Option<RawStamp>, E> {
        Ok(None)
    }

    // A number would have to be taken for nanoseconds, which no one means.
    fn visit_i64<E>(self, _: i64) -> Result<Option<RawStamp>, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Option<RawStamp>, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Option<RawStamp>, E> {
        Ok(None)
    }

    fn visit_str<E>(self, text: &str) -> Result<Option<RawStamp>, E> {
        Ok(RawStamp::parse(text))
    }
}

any_value! { ValueSeed => RawValue, other: RawValue::Unreadable,
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawValue, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(RawValue::Unreadable)
    }

    fn visit_unit<E>(self) -> Result<RawValue, E> {
        Ok(RawValue::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<RawValue, E> {
        Ok(RawValue::Bool(truth))
    }

    fn visit_i64<E>(self, value: i64) -> Result<RawValue, E> {
        Ok(RawValue::Number(value as f64))
    }

    fn visit_u64<E>(self, value: u64) -> Result<RawValue, E> {
        Ok(RawValue::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<RawValue, E> {
        Ok(RawValue::Number(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<RawValue, E> {
        Ok(RawValue::parse(text, self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request of twelve daily points with further members.
    fn request(members: &str) -> String {
        let points: Vec<String> = (1..=12)
            .map(|day| format!(r#"{{"timestamp":"2021-03-{day:02}T00:00:00Z","value":{day}.5}}"#))
            .collect();
        let comma = if members.is_empty() { "" } else { "," };
        format!(r#"{{"series":[{}]{comma}{members}}}"#, points.join(","))
    }

    fn with_point(point: &str) -> String {
        let rest = request(r#""granularity":"daily""#);
        rest.replacen(
            r#"{"timestamp":"2021-03-04T00:00:00Z","value":4.5}"#,
            point,
            1,
        )
    }

    fn code(json: &str, profile: Profile) -> Result<(), &'static str> {
        Request::parse(json.as_bytes(), profile)
            .map(|_| ())
            .map_err(|error| error.code.as_str())
    }

    #[test]
    fn all_members_reach_the_options() {
        let members = r#""granularity":"minutely","customInterval":5,"period":7,"alpha":0.01,
            "maxAnomalyRatio":0.1,"sensitivity":80,"threshold":2.5,"imputeMode":"fixed",
            "imputeFixedValue":3,"boundaryVersion":"V3"}"#
            .trim_end_matches('}');
        let parsed = Request::parse(request(members).as_bytes(), Profile::Package).unwrap();
        let expected = Options {
            granularity: Granularity::Minutely,
            custom_interval: NonZeroU32::new(5).unwrap(),
            period: Some(7),
            alpha: 0.01,
            max_anomaly_ratio: 0.1,
            sensitivity: Sensitivity::try_from(80).unwrap(),
            threshold: 2.5,
            impute: Impute::Fixed(3.0),
            boundary: Boundary::V3,
            manual: None,
        };
        assert_eq!(parsed.options, expected);
        assert_eq!(parsed.points.values.len(), 12);
        assert_eq!(
            parsed.points.timestamps[3].to_string(),
            "2021-03-04T00:00:00Z"
        );
    }

    #[test]
    fn the_service_reads_names_without_case_and_null_as_absent() {
        let json =
            request(r#""Granularity":"daily","PERIOD":null,"sensitivity":1,"Sensitivity":90"#)
                .replace("series", "Series")
                .replace("timestamp", "TimeStamp");
        let parsed = Request::parse(json.as_bytes(), Profile::Service).unwrap();
        assert_eq!(parsed.options.granularity, Granularity::Daily);
        assert_eq!(parsed.options.period, None);
        assert_eq!(parsed.options.sensitivity.get(), 90, "the last one counts");
        let nulls = request(r#""period":null"#);
        assert_eq!(code(&nulls, Profile::Package), Err("InvalidPeriod"));
        let private = request(r#""alpha":-1,"boundaryVersion":7,"detector":{},"fillUpMode":1"#);
        assert_eq!(code(&private, Profile::Service), Ok(()));
    }

    #[test]
    fn the_two_readings_of_a_point() {
        let cases = [
            // point, package, service
            (
                r#"{"timestamp":"2021-03-04T00:00:00Z","value":"4.5"}"#,
                Ok(()),
                Ok(()),
            ),
            (
                r#"{"timestamp":"2021-03-04T00:00:00Z","value":" -4e0 "}"#,
                Ok(()),
                Ok(()),
            ),
            (
                r#"{"timestamp":"2021-03-04T00:00:00Z","value":true}"#,
                Ok(()),
                Err("BadArgument"),
            ),
            (
                r#"{"timestamp":"2021-03-04T00:00:00Z","value":"inf"}"#,
                Ok(()),
                Err("BadArgument"),
            ),
            (
                r#"{"timestamp":"2021-03-04T00:00:00Z","value":null}"#,
                Ok(()),
                Err("BadArgument"),
            ),
            (
                r#"{"timestamp":"2021-03-04T00:00:00Z"}"#,
                Ok(()),
                Err("BadArgument"),
            ),
            (
                r#"{"timestamp":"2021-03-04","value":4}"#,
                Err("BadArgument"),
                Ok(()),
            ),
            (
                r#"{"timestamp":"3/4/2021 12:00:00 AM","value":4}"#,
                Err("BadArgument"),
                Ok(()),
            ),
            (
                r#"{"timestamp":"2021-03-04T02:00:00+02:00","value":4}"#,
                Ok(()),
                Ok(()),
            ),
            (
                r#"{"timestamp":null,"value":4}"#,
                Err("BadArgument"),
                Err("BadArgument"),
            ),
            (
                r#"{"timestamp":1614816000,"value":4}"#,
                Err("BadArgument"),
                Err("BadArgument"),
            ),
            (
                r#"{"timestamp":"soon","value":4}"#,
                Err("BadArgument"),
                Err("BadArgument"),
            ),
            ("[]", Err("BadArgument"), Err("BadArgument")),
            ("7", Err("BadArgument"), Err("BadArgument")),
        ];
        for (point, package, service) in cases {
            let json = with_point(point);
            assert_eq!(code(&json, Profile::Package), package, "package: {point}");
            assert_eq!(code(&json, Profile::Service), service, "service: {point}");
        }
    }

    #[test]
    fn what_is_missing_altogether() {
        let cases = [
            ("", Err("InvalidJsonFormat"), Err("InvalidJsonFormat")),
            ("[1]", Err("InvalidJsonFormat"), Err("InvalidJsonFormat")),
            ("{} {}", Err("InvalidJsonFormat"), Err("InvalidJsonFormat")),
            ("{}", Err("BadArgument"), Err("RequiredSeries")),
            (r#"{"series":null}"#, Err("BadArgument"), Err("BadArgument")),
            (r#"{"series":"x"}"#, Err("BadArgument"), Err("BadArgument")),
            (r#"{"series":[]}"#, Err("BadArgument"), Err("InvalidSeries")),
            (
                r#"{"series":[{}]}"#,
                Err("BadArgument"),
                Err("InvalidSeries"),
            ),
            (
                r#"{"series":[1]}"#,
                Err("InvalidSeries"),
                Err("InvalidSeries"),
            ),
            // The package looks whether there is a series first, the service does so last.
            (
                r#"{"granularity":"x"}"#,
                Err("BadArgument"),
                Err("InvalidGranularity"),
            ),
        ];
        for (json, package, service) in cases {
            assert_eq!(code(json, Profile::Package), package, "package: {json}");
            assert_eq!(code(json, Profile::Service), service, "service: {json}");
        }
    }

    #[test]
    fn integers_are_written_as_integers() {
        for members in [
            r#""customInterval":5.0"#,
            r#""customInterval":"5""#,
            r#""customInterval":0"#,
            r#""period":7.0"#,
            r#""period":-1"#,
            r#""sensitivity":95.0"#,
            r#""maxAnomalyRatio":0.5"#,
            r#""imputeMode":"Auto""#,
        ] {
            for profile in [Profile::Package, Profile::Service] {
                assert!(code(&request(members), profile).is_err(), "{members}");
            }
        }
        // To the service, as to Python, a truth value is an integer.
        for profile in [Profile::Package, Profile::Service] {
            let members = r#""sensitivity":true"#;
            assert_eq!(code(&request(members), profile), Ok(()));
        }
    }

    #[test]
    fn the_older_zero_does_not_fill() {
        let impute = |members: &str| {
            let json = request(members);
            Request::parse(json.as_bytes(), Profile::Package)
                .unwrap()
                .options
                .impute
        };
        assert_eq!(impute(r#""fillUpMode":"zero""#), Impute::NotFill);
        assert_eq!(impute(r#""imputeMode":"zero""#), Impute::Fixed(0.0));
        assert_eq!(
            impute(r#""imputeMode":null,"fillUpMode":"last""#),
            Impute::Previous
        );
        assert_eq!(
            impute(r#""imputeMode":"linear","fillUpMode":"x""#),
            Impute::Linear
        );
    }
}
