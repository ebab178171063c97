//! Seasonal-trend decomposition by loess (Cleveland, Cleveland, McRae and Terpenning, Journal of Official
//! Statistics 6, 1990), in the robust and almost periodic form that the reference calls it in.
//!
//! Sixteen passes, every one but the first with weights that discount outliers. What a pass needs of the
//! length and the period alone (the loess weights) is made once and kept; a pass then is dot products.

use super::stats;

/// Passes of a decomposition.
const PASSES: usize = 16;

/// Decomposes series; owns its scratch memory and the tables of the shapes it met last.
#[derive(Debug, Default)]
pub(super) struct Stl {
    shapes: Vec<Shape>,
    robustness: Vec<f64>,
    detrended: Vec<f64>,
    cycles: Vec<f64>,
    means: Vec<f64>,
    low_pass: Vec<f64>,
    smoothed: Vec<f64>,
    weighted: Vec<f64>,
    ends: Ends,
    deviations: Vec<f64>,
}

/// How many shapes are kept: the series and the series with one more point, and the same for another
/// period.
const KEPT_SHAPES: usize = 4;

impl Stl {
    /// Decomposes `y`, longer than two periods, into `seasonal` and `trend`, each as long; the remainder
    /// is what is left of `y`.
    pub(super) fn decompose(
        &mut self,
        y: &[f64],
        period: usize,
        seasonal: &mut Vec<f64>,
        trend: &mut Vec<f64>,
    ) {
        let n = y.len();
        let shape = self.take_shape(n, period);
        self.robustness.clear();
        self.robustness.resize(n, 1.0);
        for out in [&mut *seasonal, &mut *trend] {
            out.clear();
            out.resize(n, 0.0);
        }
        for pass in 0..PASSES {
            if pass > 0 {
                self.weigh(y, seasonal, trend);
            }
            self.detrended.clear();
            self.detrended
                .extend(y.iter().zip(&*trend).map(|(y, trend)| y - trend));
            self.smooth_cycles(&shape);
            self.filter_low_pass(&shape);
            for (((seasonal, cycle), low), (detrended, y)) in seasonal
                .iter_mut()
                .zip(&self.cycles[period..])
                .zip(&self.low_pass)
                .zip(self.detrended.iter_mut().zip(y))
            {
                *seasonal = cycle - low;
                *detrended = y - *seasonal;
            }
            self.smooth_trend(&shape, trend);
        }
        self.shapes.push(shape);
    }

    /// The tables for `n` points and `period`, the ones kept if they fit.
    fn take_shape(&mut self, n: usize, period: usize) -> Shape {
        let kept = self
            .shapes
            .iter()
            .position(|shape| (shape.n, shape.period) == (n, period));
        if let Some(kept) = kept {
            return self.shapes.remove(kept);
        }
        if self.shapes.len() >= KEPT_SHAPES {
            self.shapes.remove(0);
        }
        Shape::new(n, period)
    }

    /// Bisquare weights of the residuals, six median deviations wide.
    fn weigh(&mut self, y: &[f64], seasonal: &[f64], trend: &[f64]) {
        for (((weight, y), seasonal), trend) in
            self.robustness.iter_mut().zip(y).zip(seasonal).zip(trend)
        {
            *weight = (y - (trend + seasonal)).abs();
        }
        self.deviations.clear();
        self.deviations.extend_from_slice(&self.robustness);
        let width = 6.0 * stats::median(&mut self.deviations);
        let (inner, outer) = (0.001 * width, 0.999 * width);
        for weight in &mut self.robustness {
            let deviation = *weight;
            let share = deviation / width;
            let bisquare = 1.0 - share * share;
            *weight = if deviation <= inner {
                1.0
            } else if deviation <= outer {
                bisquare * bisquare
            } else {
                0.0
            };
        }
    }

    /// Smooths the sub-series of every phase by weighted means and extends it by one cycle at either end:
    /// `cycles` then is two periods longer than the series.
    ///
    /// The span is so wide that only the two ends of a sub-series are fitted; the middle lies on the line
    /// between them. All phases are done side by side, one cycle after another.
    fn smooth_cycles(&mut self, shape: &Shape) {
        let period = shape.period;
        self.cycles.clear();
        self.cycles.resize(shape.n + 2 * period, 0.0);
        let ends = &mut self.ends;
        ends.clear(period);
        let (full, rest) = (shape.n / period, shape.n % period);
        for (phases, weights, count) in [
            (0..rest, &shape.long_phase, full + 1),
            (rest..period, &shape.short_phase, full),
        ] {
            if phases.is_empty() {
                continue;
            }
            for (cycle, weights) in weights.iter().enumerate() {
                let at = cycle * period;
                ends.add(
                    phases.clone(),
                    &self.detrended[at..],
                    &self.robustness[at..],
                    *weights,
                );
            }
            for phase in phases.clone() {
                ends.settle(phase, |cycle| self.detrended[cycle * period + phase], count);
            }
            for cycle in 0..count {
                let at = (cycle + 1) * period;
                let step = cycle as f64;
                for phase in phases.clone() {
                    self.cycles[at + phase] = ends.first[phase] + ends.slope[phase] * step;
                }
            }
            for phase in phases {
                self.cycles[phase] = ends.before[phase];
                self.cycles[(count + 1) * period + phase] = ends.after[phase];
            }
        }
    }

    /// The low-pass filter: three running means, then loess.
    fn filter_low_pass(&mut self, shape: &Shape) {
        let period = shape.period;
        running_mean(&self.cycles, period, &mut self.means);
        running_mean(&self.means, period, &mut self.low_pass);
        self.smoothed.clear();
        self.smoothed.extend(
            self.low_pass
                .windows(3)
                .map(|three| (three[0] + three[1] + three[2]) / 3.0),
        );
        shape.low_pass.smooth(&self.smoothed, &mut self.low_pass);
    }

    /// The trend: loess of the deseasonalised series under the robustness weights.
    fn smooth_trend(&mut self, shape: &Shape, trend: &mut Vec<f64>) {
        self.weighted.clear();
        self.weighted.extend(
            self.detrended
                .iter()
                .zip(&self.robustness)
                .map(|(y, weight)| y * weight),
        );
        shape
            .trend
            .smooth(&self.detrended, &self.robustness, &self.weighted, trend);
    }
}

/// Weighted sums of the four fits of each phase: at its first and last point, one before and one after.
#[derive(Debug, Default)]
struct Ends {
    sums: [Vec<f64>; 4],
    weights: [Vec<f64>; 4],
    before: Vec<f64>,
    first: Vec<f64>,
    slope: Vec<f64>,
    after: Vec<f64>,
}

impl Ends {
    fn clear(&mut self, period: usize) {
        for lane in self.sums.iter_mut().chain(&mut self.weights) {
            lane.clear();
            lane.resize(period, 0.0);
        }
        for out in [
            &mut self.before,
            &mut self.first,
            &mut self.slope,
            &mut self.after,
        ] {
            out.resize(period, 0.0);
        }
    }

    /// Adds one cycle to the sums of `phases`.
    fn add(
        &mut self,
        phases: std::ops::Range<usize>,
        y: &[f64],
        robustness: &[f64],
        weights: [f64; 4],
    ) {
        let (y, robustness) = (&y[phases.clone()], &robustness[phases.clone()]);
        for (fit, weight) in weights.into_iter().enumerate() {
            let sums = &mut self.sums[fit][phases.clone()];
            let totals = &mut self.weights[fit][phases.clone()];
            for (((sum, total), y), robustness) in
                sums.iter_mut().zip(totals).zip(y).zip(robustness)
            {
                let weight = weight * robustness;
                *sum += weight * y;
                *total += weight;
            }
        }
    }

    /// Makes the fits of one phase of `count` points; one without weight takes the point itself, beyond
    /// the ends the fit at the end.
    fn settle(&mut self, phase: usize, y: impl Fn(usize) -> f64, count: usize) {
        let fit = |fit: usize| -> Option<f64> {
            let total = self.weights[fit][phase];
            (total > 0.0).then(|| self.sums[fit][phase] / total)
        };
        let first = fit(1).unwrap_or_else(|| y(0));
        let last = fit(2).unwrap_or_else(|| y(count - 1));
        let (before, after) = (fit(0).unwrap_or(first), fit(3).unwrap_or(last));
        self.before[phase] = before;
        self.first[phase] = first;
        self.slope[phase] = (last - first) / (count - 1) as f64;
        self.after[phase] = after;
    }
}

/// Running means of `length` points into `out`, which is `length - 1` shorter.
fn running_mean(x: &[f64], length: usize, out: &mut Vec<f64>) {
    let mut sum = stats::sum(&x[..length]);
    let count = length as f64;
    out.clear();
    out.push(sum / count);
    out.extend(x[length..].iter().zip(x).map(|(entering, leaving)| {
        sum += entering - leaving;
        sum / count
    }));
}

/// What a decomposition needs of the length and the period alone.
#[derive(Debug)]
struct Shape {
    n: usize,
    period: usize,
    /// Weight of each cycle in the four fits of a phase: before, first, last, after.
    short_phase: Vec<[f64; 4]>,
    long_phase: Vec<[f64; 4]>,
    low_pass: Kernels,
    trend: Moments,
}

impl Shape {
    fn new(n: usize, period: usize) -> Self {
        let span = 10 * n + 1;
        let trend = (1.5 * period as f64 / (1.0 - 1.5 / span as f64)).ceil() as usize;
        let trend = next_odd(trend).max(3);
        let low_pass = next_odd(period).max(3);
        Self {
            n,
            period,
            short_phase: phase_weights(n / period, span),
            long_phase: phase_weights(n / period + 1, span),
            low_pass: Kernels::new(&Positions::new(n, low_pass)),
            trend: Moments::new(&Positions::new(n, trend)),
        }
    }
}

fn next_odd(n: usize) -> usize {
    n + 1 - n % 2
}

/// Weights of the `count` points of a phase in its four fits of degree 0.
fn phase_weights(count: usize, span: usize) -> Vec<[f64; 4]> {
    let stretch = (span - count.min(span)) / 2;
    let (inside, outside) = ((count - 1 + stretch) as f64, (count + stretch) as f64);
    (0..count)
        .map(|i| {
            let mirrored = count - 1 - i;
            [
                tricube((i + 1) as f64, outside),
                tricube(i as f64, inside),
                tricube(mirrored as f64, inside),
                tricube((mirrored + 1) as f64, outside),
            ]
        })
        .collect()
}

/// Tricube weight at `distance` from the middle of a neighbourhood of half-width `reach`.
fn tricube(distance: f64, reach: f64) -> f64 {
    if distance <= 0.001 * reach {
        1.0
    } else if distance <= 0.999 * reach {
        let share = distance / reach;
        let inner = 1.0 - share * share * share;
        inner * inner * inner
    } else {
        0.0
    }
}

/// Where a loess smoother is fitted, and over which points; between, it is interpolated.
#[derive(Debug)]
struct Positions {
    n: usize,
    /// Points from one fit to the next.
    jump: usize,
    fits: Vec<Fit>,
}

/// A fit at `x` over `start..end` (from 0) with half-width `reach`.
#[derive(Clone, Copy, Debug)]
struct Fit {
    x: usize,
    start: usize,
    end: usize,
    reach: f64,
}

impl Positions {
    /// `n` points smoothed over spans of `span`: every tenth of a span is fitted, and the last point with
    /// the neighbourhood of the one fitted before it.
    fn new(n: usize, span: usize) -> Self {
        let jump = span.div_ceil(10).min(n - 1);
        let window = |x: usize| {
            if span >= n {
                (0, n)
            } else {
                let start = (x + 1).saturating_sub(span.div_ceil(2)).min(n - span);
                (start, start + span)
            }
        };
        let fit = |x: usize, (start, end): (usize, usize)| {
            let reach = (x - start).max(end - 1 - x.min(end - 1));
            let stretch = span.saturating_sub(n) / 2;
            Fit {
                x,
                start,
                end,
                reach: (reach + stretch) as f64,
            }
        };
        let mut fits: Vec<Fit> = (0..n).step_by(jump).map(|x| fit(x, window(x))).collect();
        let last = fits[fits.len() - 1].x;
        if last != n - 1 {
            fits.push(fit(n - 1, window(last)));
        }
        Self { n, jump, fits }
    }

    /// Whether the line between neighbours may be tilted at all, by the spread `square` of the weights.
    fn tilts(n: usize, reach: f64, square: f64) -> bool {
        reach > 0.0 && square.sqrt() > 0.001 * (n - 1) as f64
    }
}

/// Draws lines between the fitted values, `jump` points apart but for the last; `values` holds them in
/// order.
fn interpolate(values: impl Iterator<Item = f64>, n: usize, jump: usize, out: &mut Vec<f64>) {
    out.clear();
    if jump == 1 {
        out.extend(values);
        return;
    }
    let mut last = 0.0;
    for value in values {
        if out.is_empty() {
            out.push(value);
        } else {
            let distance = jump.min(n - out.len());
            let slope = (value - last) / distance as f64;
            out.extend((1..distance).map(|step| last + slope * step as f64));
            out.push(value);
        }
        last = value;
    }
}

/// A loess smoother without robustness weights: every fit is a dot product with a kernel, and all fits
/// away from the ends share one.
#[derive(Debug)]
struct Kernels {
    n: usize,
    jump: usize,
    /// First point and kernel of each fit; kernels lie in `weights` one after another.
    fits: Vec<(usize, std::ops::Range<usize>)>,
    weights: Vec<f64>,
}

impl Kernels {
    fn new(positions: &Positions) -> Self {
        let mut weights: Vec<f64> = Vec::new();
        let mut fits: Vec<(usize, std::ops::Range<usize>)> = Vec::new();
        let mut shared: Option<(Fit, std::ops::Range<usize>)> = None;
        for fit in &positions.fits {
            let same = shared.as_ref().filter(|(known, _)| same_shape(known, fit));
            let range = match same {
                Some((_, range)) => range.clone(),
                None => {
                    let start = weights.len();
                    weights.extend(kernel(positions.n, fit));
                    start..weights.len()
                }
            };
            shared = Some((*fit, range.clone()));
            fits.push((fit.start, range));
        }
        Self {
            n: positions.n,
            jump: positions.jump,
            fits,
            weights,
        }
    }

    fn smooth(&self, y: &[f64], out: &mut Vec<f64>) {
        let values = self.fits.iter().map(|(start, range)| {
            let weights = &self.weights[range.clone()];
            stats::dot(weights, &y[*start..start + weights.len()])
        });
        interpolate(values, self.n, self.jump, out);
    }
}

/// Whether two fits look at their neighbourhoods from the same place.
fn same_shape(a: &Fit, b: &Fit) -> bool {
    (a.x - a.start, a.end - a.start, a.reach) == (b.x - b.start, b.end - b.start, b.reach)
}

/// Weights of a local line of degree 1; they sum to 1.
fn kernel(n: usize, fit: &Fit) -> Vec<f64> {
    let offset = |j: usize| j as f64 - fit.x as f64;
    let mut weights: Vec<f64> = (fit.start..fit.end)
        .map(|j| tricube(offset(j).abs(), fit.reach))
        .collect();
    let total = stats::sum(&weights);
    for weight in &mut weights {
        *weight /= total;
    }
    let places: Vec<f64> = (fit.start..fit.end).map(offset).collect();
    let center = stats::dot(&weights, &places);
    let square: f64 = weights
        .iter()
        .zip(&places)
        .map(|(weight, place)| weight * (place - center) * (place - center))
        .sum();
    if Positions::tilts(n, fit.reach, square) {
        for (weight, place) in weights.iter_mut().zip(&places) {
            *weight *= 1.0 - center / square * (place - center);
        }
    }
    weights
}

/// A loess smoother of degree 1 under robustness weights, by weighted moments about the fitted point.
#[derive(Debug)]
struct Moments {
    n: usize,
    jump: usize,
    fits: Vec<(Fit, std::ops::Range<usize>)>,
    /// Tricube weight times the offset from the fitted point to the power 0, 1 and 2.
    weights: [Vec<f64>; 3],
}

impl Moments {
    fn new(positions: &Positions) -> Self {
        let mut weights = [Vec::new(), Vec::new(), Vec::new()];
        let mut fits: Vec<(Fit, std::ops::Range<usize>)> = Vec::new();
        for fit in &positions.fits {
            let range = match fits.last() {
                Some((known, range)) if same_shape(known, fit) => range.clone(),
                _ => {
                    let start = weights[0].len();
                    for j in fit.start..fit.end {
                        let offset = j as f64 - fit.x as f64;
                        let weight = tricube(offset.abs(), fit.reach);
                        weights[0].push(weight);
                        weights[1].push(weight * offset);
                        weights[2].push(weight * offset * offset);
                    }
                    start..weights[0].len()
                }
            };
            fits.push((*fit, range));
        }
        Self {
            n: positions.n,
            jump: positions.jump,
            fits,
            weights,
        }
    }

    /// Smooths `y` under the weights `robustness` into `out`; `weighted` is their product.
    fn smooth(&self, y: &[f64], robustness: &[f64], weighted: &[f64], out: &mut Vec<f64>) {
        let values = self.fits.iter().map(|(fit, range)| {
            let [w0, w1, w2] = [0, 1, 2].map(|power| &self.weights[power][range.clone()]);
            let (robust, product) = (
                &robustness[fit.start..fit.end],
                &weighted[fit.start..fit.end],
            );
            let [total, first, second, value, tilt] = five_sums(w0, w1, w2, robust, product);
            if total <= 0.0 {
                return y[fit.x];
            }
            let center = first / total;
            let square = second / total - center * center;
            let mean = value / total;
            if Positions::tilts(self.n, fit.reach, square.max(0.0)) {
                mean - center / square * (tilt / total - center * mean)
            } else {
                mean
            }
        });
        interpolate(values, self.n, self.jump, out);
    }
}

/// `Σ w0·r, Σ w1·r, Σ w2·r, Σ w0·p, Σ w1·p`, four points at a time.
fn five_sums(w0: &[f64], w1: &[f64], w2: &[f64], r: &[f64], p: &[f64]) -> [f64; 5] {
    const LANES: usize = 4;
    fn split(x: &[f64]) -> (&[[f64; LANES]], &[f64]) {
        x.as_chunks()
    }
    let n = w0.len();
    let [w0, w1, w2, r, p] = [w0, &w1[..n], &w2[..n], &r[..n], &p[..n]].map(split);
    let mut lanes = [[0.0; LANES]; 5];
    let chunks = w0.0.iter().zip(w1.0).zip(w2.0).zip(r.0.iter().zip(p.0));
    for (((w0, w1), w2), (r, p)) in chunks {
        for i in 0..LANES {
            lanes[0][i] += w0[i] * r[i];
            lanes[1][i] += w1[i] * r[i];
            lanes[2][i] += w2[i] * r[i];
            lanes[3][i] += w0[i] * p[i];
            lanes[4][i] += w1[i] * p[i];
        }
    }
    let mut sums = lanes.map(|lane| (lane[0] + lane[1]) + (lane[2] + lane[3]));
    for i in 0..w0.1.len() {
        sums[0] += w0.1[i] * r.1[i];
        sums[1] += w1.1[i] * r.1[i];
        sums[2] += w2.1[i] * r.1[i];
        sums[3] += w0.1[i] * p.1[i];
        sums[4] += w1.1[i] * p.1[i];
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detector::tests::series_b;

    #[test]
    fn the_decomposition_is_that_of_the_reference() {
        let (mut seasonal, mut trend) = (vec![], vec![]);
        Stl::default().decompose(&series_b(), 7, &mut seasonal, &mut trend);
        let expected = [
            (0, -0.724596909068304, 10.53946242003198),
            (30, 3.2945514247685663, 12.213365388698175),
            (59, 2.341604506984235, 13.695175076531015),
        ];
        for (i, s, t) in expected {
            assert!((seasonal[i] - s).abs() < 1e-9, "{i}: {}", seasonal[i]);
            assert!((trend[i] - t).abs() < 1e-9, "{i}: {}", trend[i]);
        }
    }

    #[test]
    fn moments_and_kernels_smooth_alike() {
        let y: Vec<f64> = (0..100).map(|i| f64::from(i * 37 % 23)).collect();
        let ones = vec![1.0; 100];
        for span in [3, 7, 25, 61] {
            let positions = Positions::new(100, span);
            let (mut by_kernel, mut by_moments) = (vec![], vec![]);
            Kernels::new(&positions).smooth(&y, &mut by_kernel);
            Moments::new(&positions).smooth(&y, &ones, &y, &mut by_moments);
            assert_eq!(by_kernel.len(), 100);
            for (a, b) in by_kernel.iter().zip(&by_moments) {
                assert!((a - b).abs() < 1e-12);
            }
        }
    }
}
