//! The chart as an SVG document of its own.

use std::fmt::Write;

use super::chart::{self, HEIGHT, Role, Shape, WIDTH};
use super::{Series, escaped, scale};

/// The chart of `series`, 1200 by 440 pixels, on white.
pub fn svg(series: &Series) -> String {
    let mut out = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" font-family="ui-sans-serif, system-ui, Helvetica, Arial, sans-serif">
"#
    );
    for shape in chart::shapes(series) {
        // Writing to a String never fails.
        let _ = write_shape(&mut out, &shape);
    }
    out.push_str("</svg>\n");
    out
}

fn write_shape(out: &mut String, shape: &Shape<'_>) -> std::fmt::Result {
    match shape {
        Shape::Box(role, [x, y, width, height]) => writeln!(
            out,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}"{}/>"#,
            paint("fill", *role)
        ),
        Shape::Area(role, corners) => {
            writeln!(
                out,
                r#"<path d="{}Z"{}/>"#,
                path(corners),
                paint("fill", *role)
            )
        }
        Shape::Line(role, width, points) => writeln!(
            out,
            r#"<path d="{}" fill="none" stroke-width="{width}" stroke-linejoin="round"{}/>"#,
            path(points),
            paint("stroke", *role)
        ),
        Shape::Dot(role, radius, (x, y), point) => {
            let offset = point
                .offset
                .map(|offset| format!(r#" data-offset="{offset}""#))
                .unwrap_or_default();
            let at = scale::moment(point.timestamp);
            writeln!(
                out,
                r##"<circle cx="{x:.1}" cy="{y:.1}" r="{radius}" stroke="#fff" data-timestamp="{}"{offset}{}><title>{at}: {}</title></circle>"##,
                point.timestamp,
                paint("fill", *role),
                scale::number(point.value)
            )
        }
        Shape::Text(role, size, (x, y), anchor, text) => {
            let anchor = match *anchor {
                a if a < 0.25 => "start",
                a if a > 0.75 => "end",
                _ => "middle",
            };
            writeln!(
                out,
                r#"<text x="{x:.1}" y="{y:.1}" font-size="{size}" text-anchor="{anchor}"{}>{}</text>"#,
                paint("fill", *role),
                escaped(text)
            )
        }
    }
}

fn paint(what: &str, role: Role) -> String {
    let [red, green, blue, opacity] = role.colour();
    let colour = format!(r##" {what}="#{red:02x}{green:02x}{blue:02x}""##);
    match opacity {
        255 => colour,
        _ => format!(
            r#"{colour} {what}-opacity="{:.2}""#,
            f64::from(opacity) / 255.0
        ),
    }
}

fn path(points: &[(f64, f64)]) -> String {
    let mut path = String::with_capacity(points.len() * 12);
    for (index, (x, y)) in points.iter().enumerate() {
        let command = if index == 0 { 'M' } else { 'L' };
        // Writing to a String never fails.
        let _ = write!(path, "{command}{x:.1} {y:.1}");
    }
    path
}
