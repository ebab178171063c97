//! The chart of one series as shapes in pixels, from the back to the front: what SVG and PNG draw alike.

use std::ops::Range;

use super::scale::{self, Scale};
use super::{Point, Series, Side};

/// Width of a chart in pixels.
pub(super) const WIDTH: f64 = 1200.0;
/// Height of a chart in pixels.
pub(super) const HEIGHT: f64 = 440.0;
/// The plot inside: left, top, right and bottom edge.
const PLOT: (f64, f64, f64, f64) = (72.0, 48.0, 1184.0, 402.0);

/// What a shape stands for, which decides its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The sheet.
    Ground,
    /// Lines at the ticks.
    Grid,
    /// Ordinary text.
    Text,
    /// The name of the series.
    Title,
    /// Time without points.
    Gap,
    /// Time without verdicts.
    Unjudged,
    /// Between lower and upper bound.
    Band,
    /// Expected values.
    Expected,
    /// Measured values.
    Value,
    /// An anomaly on that side.
    Anomaly(Side),
    /// A change of the trend.
    Change,
}

/// Something to draw, in pixels from the upper left corner.
#[derive(Clone, Debug)]
pub(super) enum Shape<'a> {
    /// A filled rectangle: left, top, width, height.
    Box(Role, [f64; 4]),
    /// A filled area.
    Area(Role, Vec<(f64, f64)>),
    /// A line through points, of that width.
    Line(Role, f64, Vec<(f64, f64)>),
    /// A filled circle of that radius, for a point of the series.
    Dot(Role, f64, (f64, f64), &'a Point),
    /// Text of that size, anchored at its base line: 0 at its left end, 0.5 in its middle, 1 at its right end.
    Text(Role, f64, (f64, f64), f64, String),
}

impl Role {
    /// Red, green, blue and opacity, 0 to 255: dark on white, told apart without colour vision, too.
    pub(super) fn colour(self) -> [u8; 4] {
        match self {
            Self::Ground => [0xff, 0xff, 0xff, 0xff],
            Self::Grid => [0xe4, 0xe8, 0xee, 0xff],
            Self::Text => [0x5b, 0x66, 0x75, 0xff],
            Self::Title => [0x16, 0x1d, 0x29, 0xff],
            Self::Gap => [0xf3, 0xd9, 0x9b, 0x80],
            Self::Unjudged => [0x8a, 0x96, 0xa8, 0x24],
            Self::Band => [0x3b, 0x82, 0xf6, 0x38],
            Self::Expected => [0x12, 0xa5, 0x94, 0xff],
            Self::Value => [0x22, 0x57, 0xc4, 0xff],
            Self::Anomaly(Side::High) => [0xd9, 0x2d, 0x20, 0xff],
            Self::Anomaly(Side::Low) => [0xe0, 0x7b, 0x00, 0xff],
            Self::Change => [0x8b, 0x3f, 0xd1, 0xff],
        }
    }
}

/// The chart of `series`.
pub(super) fn shapes(series: &Series) -> Vec<Shape<'_>> {
    let points = &series.points;
    let scale = Scale::of(points);
    let (left, top, right, bottom) = PLOT;
    let x = |point: &Point| left + scale.across(point.timestamp) * (right - left);
    let y = |value: f64| top + scale.down(value) * (bottom - top);
    let tall = |role, from: f64, to: f64| {
        Shape::Box(role, [from, top, (to - from).max(1.0), bottom - top])
    };

    let mut shapes = vec![Shape::Box(Role::Ground, [0.0, 0.0, WIDTH, HEIGHT])];
    for run in scale::unjudged(points) {
        shapes.push(tall(
            Role::Unjudged,
            x(&points[run.start]),
            x(&points[run.end - 1]),
        ));
    }
    for gap in scale::gaps(points) {
        shapes.push(tall(Role::Gap, x(&points[gap]), x(&points[gap + 1])));
    }
    for (value, label) in scale.value_ticks(6) {
        let at = y(value);
        shapes.push(Shape::Line(Role::Grid, 1.0, vec![(left, at), (right, at)]));
        shapes.push(Shape::Text(
            Role::Text,
            13.0,
            (left - 10.0, at + 4.5),
            1.0,
            label,
        ));
    }
    if !points.is_empty() {
        for (timestamp, label) in scale.time_ticks(10) {
            let at = left + scale.across(timestamp) * (right - left);
            shapes.push(Shape::Line(Role::Grid, 1.0, vec![(at, top), (at, bottom)]));
            shapes.push(Shape::Text(
                Role::Text,
                13.0,
                (at, bottom + 20.0),
                0.5,
                label,
            ));
        }
    }
    let mut expected = Vec::new();
    for piece in scale::pieces(points) {
        for judged in judged(points, piece.clone()) {
            let run = &points[judged];
            let upper = run.iter().filter_map(|p| Some((x(p), y(p.verdict?.upper))));
            let lower = run
                .iter()
                .rev()
                .filter_map(|p| Some((x(p), y(p.verdict?.lower))));
            shapes.push(Shape::Area(Role::Band, upper.chain(lower).collect()));
            let line = run
                .iter()
                .filter_map(|p| Some((x(p), y(p.verdict?.expected))));
            expected.push(Shape::Line(Role::Expected, 1.0, line.collect()));
        }
        let values = points[piece].iter().map(|p| (x(p), y(p.value)));
        shapes.push(Shape::Line(Role::Value, 1.4, values.collect()));
    }
    // Over the values: it is the thinner line, and what differs from it is what counts.
    shapes.append(&mut expected);
    for point in points {
        if point.is_change_point {
            let at = x(point);
            shapes.push(Shape::Line(
                Role::Change,
                1.6,
                vec![(at, top), (at, bottom)],
            ));
        }
        if let Some(side) = point.anomaly() {
            shapes.push(Shape::Dot(
                Role::Anomaly(side),
                4.5,
                (x(point), y(point.value)),
                point,
            ));
        }
    }
    heading(&mut shapes, series);
    shapes
}

/// Runs of judged points within `piece`.
pub(super) fn judged(points: &[Point], piece: Range<usize>) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for index in piece.filter(|index| points[*index].verdict.is_some()) {
        match runs.last_mut() {
            Some(run) if run.end == index => run.end += 1,
            _ => runs.push(index..index + 1),
        }
    }
    runs
}

/// The name on the left, the legend on the right.
fn heading(shapes: &mut Vec<Shape<'_>>, series: &Series) {
    let name: String = series.name.chars().take(60).collect();
    shapes.push(Shape::Text(Role::Title, 17.0, (PLOT.0, 28.0), 0.0, name));
    let count = |side| {
        series
            .points
            .iter()
            .filter(|p| p.anomaly() == Some(side))
            .count()
    };
    let mut entries = vec![
        (Role::Value, "value".to_owned()),
        (Role::Expected, "expected, with band".to_owned()),
        (
            Role::Anomaly(Side::High),
            format!("{} high", count(Side::High)),
        ),
        (
            Role::Anomaly(Side::Low),
            format!("{} low", count(Side::Low)),
        ),
    ];
    if series.points.iter().any(|point| point.is_change_point) {
        entries.push((Role::Change, "change".to_owned()));
    }
    let width = |label: &str| 20.0 + label.chars().count() as f64 * 7.3;
    let widths: f64 = entries.iter().map(|(_, label)| width(label) + 18.0).sum();
    let mut left = PLOT.2 - widths + 18.0;
    for (role, label) in entries {
        shapes.push(Shape::Box(role, [left, 20.0, 14.0, 5.0]));
        let next = left + width(&label) + 18.0;
        shapes.push(Shape::Text(
            Role::Text,
            13.0,
            (left + 20.0, 27.0),
            0.0,
            label,
        ));
        left = next;
    }
}
