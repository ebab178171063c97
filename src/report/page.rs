//! The page: numbers, charts that can be zoomed, and tables of what was found.
//!
//! A chart is drawn once, in units of its own, into an inner `<svg>` that is stretched over the plot; to
//! zoom is to change that element's view box. Lines and marks keep their width, because their strokes do
//! not scale.

use std::fmt::Write;

use serde::Serialize;

use super::chart::judged;
use super::scale::{self, Scale, moment, number};
use super::{DeadLetter, Point, Report, Series, Side, escaped};

/// Units across a plot.
const WIDE: f64 = 1e6;
/// Units down a plot.
const TALL: f64 = 1e4;
/// The plot inside the chart: left edge, top edge, width, height.
const PLOT: (f64, f64, f64, f64) = (72.0, 10.0, 1116.0, 350.0);
/// Rows of a table; what is beyond them is only counted.
const MOST_ROWS: usize = 2000;

/// The page: one HTML document that needs nothing else.
pub fn html(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a String never fails.
    let _ = write_page(&mut out, report);
    out
}

fn write_page(out: &mut String, report: &Report) -> std::fmt::Result {
    let title = escaped(&report.title);
    write!(
        out,
        "<!doctype html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">
<title>{title}</title>
<style>
{}</style>
</head>
<body>
<main>
<header>
<h1>{title}</h1>
<p>{}</p>
</header>
",
        include_str!("page.css"),
        escaped(&covered(report)),
    )?;
    write_numbers(out, report)?;
    for series in &report.series {
        write_series(out, report, series)?;
    }
    write_anomalies(out, report)?;
    write_dead_letters(out, &report.dead_letters)?;
    write!(
        out,
        "<footer>Made by Lapwing {}. Times are UTC.</footer>
</main>
<script>
{}</script>
</body>
</html>
",
        env!("CARGO_PKG_VERSION"),
        include_str!("page.js"),
    )
}

/// From when to when the series go.
fn covered(report: &Report) -> String {
    let times = || {
        report
            .series
            .iter()
            .flat_map(|s| &s.points)
            .map(|p| p.timestamp)
    };
    match (times().min(), times().max()) {
        (Some(first), Some(last)) => format!("{} to {}", moment(first), moment(last)),
        _ => "no points".to_owned(),
    }
}

fn write_numbers(out: &mut String, report: &Report) -> std::fmt::Result {
    if report.summary.is_empty() {
        return Ok(());
    }
    out.push_str("<ul class=\"numbers\">\n");
    for (label, value) in &report.summary {
        let (label, value) = (escaped(label), escaped(value));
        writeln!(out, "<li><b>{value}</b><span>{label}</span></li>")?;
    }
    out.push_str("</ul>\n");
    Ok(())
}

fn write_series(out: &mut String, report: &Report, series: &Series) -> std::fmt::Result {
    let name = escaped(&series.name);
    let scale = Scale::of(&series.points);
    let dead: Vec<&DeadLetter> = report
        .dead_letters
        .iter()
        .filter(|letter| match &letter.series {
            Some(of) => *of == series.name,
            None => report.series.len() == 1,
        })
        .collect();
    writeln!(
        out,
        "<section class=\"card series\" data-series=\"{name}\">\n<div class=\"top\">\n<h2>{name}</h2>"
    )?;
    write_legend(out, series, !dead.is_empty())?;
    let (left, top, width, height) = PLOT;
    write!(
        out,
        "</div>
<svg class=\"chart\" viewBox=\"0 0 1200 390\" role=\"img\" aria-label=\"{name}: values, expected values and anomalies\">
<g class=\"ticks\">
"
    )?;
    write_ticks(out, &scale, !series.points.is_empty())?;
    write!(
        out,
        "</g>
<svg class=\"plot\" x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {WIDE} {TALL}\" preserveAspectRatio=\"none\">
"
    )?;
    write_plot(out, &series.points, &scale, &dead)?;
    let (bottom, low) = (top + height, 48);
    write!(
        out,
        "</svg>
<line class=\"cross\" y1=\"{top}\" y2=\"{bottom}\"/>
<rect class=\"brush selection\" y=\"{top}\" width=\"0\" height=\"{height}\"/>
</svg>
<svg class=\"overview\" viewBox=\"0 0 1200 {}\" aria-hidden=\"true\">
<svg class=\"plot\" x=\"{left}\" y=\"2\" width=\"{width}\" height=\"{low}\" viewBox=\"0 0 {WIDE} {TALL}\" preserveAspectRatio=\"none\">
</svg>
<rect class=\"brush\" x=\"{left}\" y=\"1\" width=\"{width}\" height=\"{}\"/>
</svg>
<p class=\"hint\">Drag over the chart to look closer, drag the strip below it to move, double-click for all of it.</p>
<div class=\"tip\"></div>
<script type=\"application/json\">{}</script>
</section>
",
        low + 6,
        low + 2,
        details(&series.points, &scale),
    )
}

fn write_legend(out: &mut String, series: &Series, has_dead: bool) -> std::fmt::Result {
    let points = &series.points;
    let count = |side| points.iter().filter(|p| p.anomaly() == Some(side)).count();
    out.push_str("<div class=\"legend\">\n");
    let mut entry = |kind: &str, colour: &str, label: &str| {
        writeln!(
            out,
            "<span><i class=\"{kind}\" style=\"background:var(--{colour})\"></i>{label}</span>"
        )
    };
    entry("", "value", "value")?;
    entry("", "expected", "expected")?;
    entry("area", "band", "band")?;
    for side in [Side::High, Side::Low] {
        entry(
            "dot",
            side.name(),
            &format!("{} {}", count(side), side.name()),
        )?;
    }
    if points.iter().any(|point| point.is_change_point) {
        entry("", "change", "change")?;
    }
    if has_dead {
        entry("dot", "dead", "dead letter")?;
    }
    if !scale::gaps(points).is_empty() {
        entry("area", "gap", "gap")?;
    }
    if !scale::unjudged(points).is_empty() {
        entry("area", "unjudged", "not judged")?;
    }
    out.push_str("</div>\n");
    Ok(())
}

fn write_ticks(out: &mut String, scale: &Scale, has_points: bool) -> std::fmt::Result {
    let (left, top, width, height) = PLOT;
    let (right, bottom) = (left + width, top + height);
    for (value, label) in scale.value_ticks(6) {
        let y = top + scale.down(value) * height;
        writeln!(
            out,
            "<line class=\"grid\" x1=\"{left}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            left - 10.0,
            y + 4.0
        )?;
    }
    let times = if has_points {
        scale.time_ticks(10)
    } else {
        Vec::new()
    };
    for (timestamp, label) in times {
        let x = left + scale.across(timestamp) * width;
        writeln!(
            out,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top}\" y2=\"{bottom}\"/><text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
            bottom + 20.0
        )?;
    }
    Ok(())
}

/// What is inside the plot, in its own units.
fn write_plot(
    out: &mut String,
    points: &[Point],
    scale: &Scale,
    dead: &[&DeadLetter],
) -> std::fmt::Result {
    let x = |point: &Point| (scale.across(point.timestamp) * WIDE).round();
    let y = |value: f64| (scale.down(value) * TALL * 10.0).round() / 10.0;
    let tall = |out: &mut String, class: &str, from: f64, to: f64| {
        writeln!(
            out,
            "<rect class=\"{class}\" x=\"{from}\" y=\"0\" width=\"{}\" height=\"{TALL}\"/>",
            to - from
        )
    };
    for run in scale::unjudged(points) {
        tall(
            out,
            "unjudged",
            x(&points[run.start]),
            x(&points[run.end - 1]),
        )?;
    }
    for gap in scale::gaps(points) {
        tall(out, "gap", x(&points[gap]), x(&points[gap + 1]))?;
    }
    let pieces = scale::pieces(points);
    let (mut band, mut expected, mut value) = (String::new(), String::new(), String::new());
    for piece in pieces {
        for run in judged(points, piece.clone()) {
            let verdicts = || {
                points[run.clone()]
                    .iter()
                    .filter_map(|p| Some((x(p), p.verdict?)))
            };
            line(&mut band, verdicts().map(|(x, v)| (x, y(v.upper))))?;
            let back = verdicts().rev().map(|(x, v)| (x, y(v.lower)));
            line_on(&mut band, back)?;
            band.push('Z');
            line(&mut expected, verdicts().map(|(x, v)| (x, y(v.expected))))?;
        }
        line(&mut value, points[piece].iter().map(|p| (x(p), y(p.value))))?;
    }
    writeln!(out, "<path class=\"band\" d=\"{band}\"/>")?;
    writeln!(out, "<path class=\"value\" d=\"{value}\"/>")?;
    // Over the values: it is the thinner line, and what differs from it is what counts.
    writeln!(out, "<path class=\"expected\" d=\"{expected}\"/>")?;
    for point in points.iter().filter(|point| point.is_change_point) {
        let (x, at) = (x(point), point.timestamp);
        writeln!(
            out,
            "<line class=\"change\" x1=\"{x}\" x2=\"{x}\" y1=\"0\" y2=\"{TALL}\" data-timestamp=\"{at}\"/>"
        )?;
    }
    for letter in dead {
        let Some(timestamp) = letter.timestamp else {
            continue;
        };
        let place = scale.across(timestamp);
        if !(0.0..=1.0).contains(&place) {
            continue;
        }
        writeln!(
            out,
            "<path class=\"dead\" d=\"M{} {}h.01\" data-timestamp=\"{timestamp}\"{}><title>{}: {}</title></path>",
            (place * WIDE).round(),
            TALL * 0.985,
            data_offset(letter.offset),
            moment(timestamp),
            escaped(&letter.reason),
        )?;
    }
    let anomalies = || points.iter().filter_map(|p| Some((p, p.anomaly()?)));
    // A dot is a line of no length whose round ends do not scale.
    let mut rims = String::new();
    for (point, _) in anomalies() {
        write!(rims, "M{} {}h.01", x(point), y(point.value))?;
    }
    writeln!(out, "<path class=\"rim\" d=\"{rims}\"/>\n<g>")?;
    for (point, side) in anomalies() {
        writeln!(
            out,
            "<path class=\"mark {}\" d=\"M{} {}h.01\" data-timestamp=\"{}\"{}/>",
            side.name(),
            x(point),
            y(point.value),
            point.timestamp,
            data_offset(point.offset),
        )?;
    }
    out.push_str("</g>\n");
    Ok(())
}

fn data_offset(offset: Option<i64>) -> String {
    offset.map_or_else(String::new, |offset| format!(" data-offset=\"{offset}\""))
}

fn line(path: &mut String, points: impl Iterator<Item = (f64, f64)>) -> std::fmt::Result {
    path.push('M');
    let mut points = points;
    if let Some((x, y)) = points.next() {
        write!(path, "{x} {y}")?;
    }
    line_on(path, points)
}

fn line_on(path: &mut String, points: impl Iterator<Item = (f64, f64)>) -> std::fmt::Result {
    for (x, y) in points {
        write!(path, "L{x} {y}")?;
    }
    Ok(())
}

/// What the script needs of each point: times in milliseconds after the first, values with seven digits.
fn details(points: &[Point], scale: &Scale) -> String {
    #[derive(Serialize)]
    struct Details {
        first: i64,
        span: i64,
        low: f64,
        high: f64,
        t: Vec<i64>,
        v: Vec<Option<f64>>,
        e: Vec<Option<f64>>,
        u: Vec<Option<f64>>,
        l: Vec<Option<f64>>,
        o: Vec<Option<i64>>,
        /// One letter a point: - not judged, . normal, h high, l low.
        f: String,
    }
    let short = |value: f64| {
        format!("{value:.6e}")
            .parse()
            .ok()
            .filter(|v: &f64| v.is_finite())
    };
    let of_verdict = |value: fn(&super::Verdict) -> f64| -> Vec<Option<f64>> {
        let values = points.iter().map(|p| p.verdict.as_ref().map(value));
        values.map(|value| value.and_then(short)).collect()
    };
    let details = Details {
        first: scale.first / 1000,
        span: ((scale.last - scale.first) / 1000).max(1),
        low: scale.low,
        high: scale.high,
        t: points
            .iter()
            .map(|p| (p.timestamp.micros() - scale.first) / 1000)
            .collect(),
        v: points.iter().map(|p| short(p.value)).collect(),
        e: of_verdict(|verdict| verdict.expected),
        u: of_verdict(|verdict| verdict.upper),
        l: of_verdict(|verdict| verdict.lower),
        o: points.iter().map(|p| p.offset).collect(),
        f: points
            .iter()
            .map(|p| match (p.verdict, p.anomaly()) {
                (None, _) => '-',
                (_, None) => '.',
                (_, Some(Side::High)) => 'h',
                (_, Some(Side::Low)) => 'l',
            })
            .collect(),
    };
    // Numbers and one string of four known letters: nothing that could end the script element.
    serde_json::to_string(&details).expect("numbers and a string are always json")
}

fn write_anomalies(out: &mut String, report: &Report) -> std::fmt::Result {
    let all: Vec<(&Series, &Point, Side)> = report
        .series
        .iter()
        .flat_map(|series| {
            let found = series.points.iter().filter_map(|p| Some((p, p.anomaly()?)));
            found.map(move |(point, side)| (series, point, side))
        })
        .collect();
    let has_names = report.series.len() > 1;
    writeln!(
        out,
        "<section class=\"card\">\n<h2>{}</h2>",
        counted(all.len(), "anomaly", "anomalies")
    )?;
    if !all.is_empty() {
        writeln!(
            out,
            "<div class=\"wide\"><table class=\"anomalies\">\n<thead><tr>{}<th>time</th><th class=\"right\">value</th><th class=\"right\">expected</th><th class=\"right\">band</th><th>side</th><th>severity</th><th class=\"right\">offset</th></tr></thead>\n<tbody>",
            if has_names { "<th>series</th>" } else { "" }
        )?;
        for (series, point, side) in all.iter().take(MOST_ROWS) {
            let Some(verdict) = point.verdict else {
                continue;
            };
            let name = escaped(&series.name);
            let cell = if has_names {
                format!("<td>{name}</td>")
            } else {
                String::new()
            };
            let offset = point
                .offset
                .map(|offset| offset.to_string())
                .unwrap_or_default();
            let side = side.name();
            writeln!(
                out,
                "<tr data-series=\"{name}\" data-at=\"{}\">{cell}<td>{}</td><td class=\"right\">{}</td><td class=\"right\">{}</td><td class=\"right\">{} to {}</td><td><span class=\"{side}\">{side}</span></td><td><span class=\"bar\"><i style=\"width:{:.0}%\"></i></span>{:.2}</td><td class=\"right\">{offset}</td></tr>",
                point.timestamp,
                moment(point.timestamp),
                number(point.value),
                number(verdict.expected),
                number(verdict.lower),
                number(verdict.upper),
                verdict.severity.clamp(0.0, 1.0) * 100.0,
                verdict.severity,
            )?;
        }
        out.push_str("</tbody>\n</table></div>\n");
    }
    write_rest(out, all.len())?;
    out.push_str("</section>\n");
    Ok(())
}

fn write_dead_letters(out: &mut String, letters: &[DeadLetter]) -> std::fmt::Result {
    if letters.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "<section class=\"card\">\n<h2>{}</h2>\n<div class=\"wide\"><table class=\"dead-letters\">\n<thead><tr><th class=\"right\">offset</th><th>reason</th><th>detail</th><th>message</th></tr></thead>\n<tbody>",
        counted(letters.len(), "dead letter", "dead letters")
    )?;
    for letter in letters.iter().take(MOST_ROWS) {
        let message: String = letter.message.chars().take(200).collect();
        let cut = if message.len() < letter.message.len() {
            "…"
        } else {
            ""
        };
        writeln!(
            out,
            "<tr{}><td class=\"right\">{}</td><td>{}</td><td>{}</td><td><code>{}{cut}</code></td></tr>",
            data_offset(letter.offset),
            letter
                .offset
                .map(|offset| offset.to_string())
                .unwrap_or_default(),
            escaped(&letter.reason),
            escaped(&letter.detail),
            escaped(&message),
        )?;
    }
    out.push_str("</tbody>\n</table></div>\n");
    write_rest(out, letters.len())?;
    out.push_str("</section>\n");
    Ok(())
}

fn write_rest(out: &mut String, count: usize) -> std::fmt::Result {
    match count.saturating_sub(MOST_ROWS) {
        0 => Ok(()),
        rest => writeln!(out, "<p>… and {rest} more; the records have them all.</p>"),
    }
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
