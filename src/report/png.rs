//! The chart as a PNG image, drawn without any font of the machine: its letters come with the program.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};
use tiny_skia::{
    FillRule, LineCap, LineJoin, Paint, Path, PathBuilder, Pixmap, PremultipliedColorU8, Rect,
    Stroke, Transform,
};

use super::Series;
use super::chart::{self, HEIGHT, Role, Shape, WIDTH};

/// Pixels of the image per pixel of the chart.
const DENSITY: f32 = 2.0;
/// Letters for text of 13 pixels, twice as dense.
const SMALL: RasterHeight = RasterHeight::Size24;
/// Letters for larger text.
const LARGE: RasterHeight = RasterHeight::Size32;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
#[error("the chart cannot be written as png: {0}")]
pub struct PngError(String);

/// The chart of `series`, 2400 by 880 pixels, on white. Letters outside ASCII show as `?`.
pub fn png(series: &Series) -> Result<Vec<u8>, PngError> {
    let (width, height) = (WIDTH as f32 * DENSITY, HEIGHT as f32 * DENSITY);
    let mut image = Pixmap::new(width as u32, height as u32)
        .ok_or_else(|| PngError("no memory for the image".to_owned()))?;
    for shape in chart::shapes(series) {
        draw(&mut image, &shape);
    }
    image
        .encode_png()
        .map_err(|error| PngError(error.to_string()))
}

/// A shape without extent draws nothing.
fn draw(image: &mut Pixmap, shape: &Shape<'_>) {
    match shape {
        Shape::Box(role, [x, y, width, height]) => {
            let rect = Rect::from_xywh(*x as f32, *y as f32, *width as f32, *height as f32);
            if let Some(rect) = rect {
                image.fill_rect(rect, &paint(*role), scaled(), None);
            }
        }
        Shape::Area(role, corners) => {
            if let Some(path) = path(corners) {
                image.fill_path(&path, &paint(*role), FillRule::Winding, scaled(), None);
            }
        }
        Shape::Line(role, width, points) => {
            if let Some(path) = path(points) {
                let stroke = Stroke {
                    width: *width as f32,
                    line_cap: LineCap::Round,
                    line_join: LineJoin::Round,
                    ..Stroke::default()
                };
                image.stroke_path(&path, &paint(*role), &stroke, scaled(), None);
            }
        }
        Shape::Dot(role, radius, (x, y), _) => {
            for (radius, role) in [(radius + 1.0, Role::Ground), (*radius, *role)] {
                let circle = PathBuilder::from_circle(*x as f32, *y as f32, radius as f32);
                if let Some(circle) = circle {
                    image.fill_path(&circle, &paint(role), FillRule::Winding, scaled(), None);
                }
            }
        }
        Shape::Text(role, size, at, anchor, text) => {
            write(image, *role, *size, *at, *anchor, text);
        }
    }
}

fn write(image: &mut Pixmap, role: Role, size: f64, at: (f64, f64), anchor: f64, text: &str) {
    let height = if size > 14.0 { LARGE } else { SMALL };
    let advance = get_raster_width(FontWeight::Regular, height);
    let length = text.chars().count() * advance;
    let left = at.0 * f64::from(DENSITY) - anchor * length as f64;
    // The base line lies a good fifth above the lower edge of a letter's box.
    let top = at.1 * f64::from(DENSITY) - height.val() as f64 * 0.79;
    for (index, letter) in text.chars().enumerate() {
        let raster = get_raster(letter, FontWeight::Regular, height)
            .or_else(|| get_raster('?', FontWeight::Regular, height));
        let Some(raster) = raster else { continue };
        for (row, line) in raster.rows().enumerate() {
            for (column, &coverage) in line.iter().enumerate() {
                let x = left as i64 + (index * advance + column) as i64;
                blend(image, x, top as i64 + row as i64, role, coverage);
            }
        }
    }
}

/// Lays a letter's pixel over what is there, which is opaque.
fn blend(image: &mut Pixmap, x: i64, y: i64, role: Role, coverage: u8) {
    let (width, height) = (i64::from(image.width()), i64::from(image.height()));
    if coverage == 0 || !(0..width).contains(&x) || !(0..height).contains(&y) {
        return;
    }
    let Ok(place) = usize::try_from(y * width + x) else {
        return;
    };
    let [red, green, blue, _] = role.colour();
    let pixel = &mut image.pixels_mut()[place];
    let mix = |over: u8, under: u8| {
        let (over, under, share) = (u32::from(over), u32::from(under), u32::from(coverage));
        // At most 255, because the shares add up to 255.
        ((over * share + under * (255 - share)) / 255) as u8
    };
    let mixed = PremultipliedColorU8::from_rgba(
        mix(red, pixel.red()),
        mix(green, pixel.green()),
        mix(blue, pixel.blue()),
        255,
    );
    if let Some(mixed) = mixed {
        *pixel = mixed;
    }
}

fn paint(role: Role) -> Paint<'static> {
    let [red, green, blue, opacity] = role.colour();
    let mut paint = Paint::default();
    paint.set_color_rgba8(red, green, blue, opacity);
    paint.anti_alias = true;
    paint
}

fn path(points: &[(f64, f64)]) -> Option<Path> {
    let mut builder = PathBuilder::new();
    for (index, (x, y)) in points.iter().enumerate() {
        match index {
            0 => builder.move_to(*x as f32, *y as f32),
            _ => builder.line_to(*x as f32, *y as f32),
        }
    }
    builder.finish()
}

fn scaled() -> Transform {
    Transform::from_scale(DENSITY, DENSITY)
}
