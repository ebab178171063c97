//! Unit-root tests: is a series stationary, or must it be differenced first?
//!
//! The augmented Dickey-Fuller test (constant, lags by Akaike's criterion) and the KPSS test (level,
//! automatic bandwidth), as the `arch` package makes them. Only whether they reject matters.

use super::stats::{dot, mean, sum};

/// Statistic below which Dickey-Fuller rejects a unit root at 5 %, by MacKinnon's response surface.
const DICKEY_FULLER: f64 = -2.861_592_763_096_976_6;
/// Statistic up to which KPSS accepts stationarity at 5 %.
const KPSS: f64 = 0.4614;
/// How near to a decision the normal equations are trusted, relative.
const TRUST: f64 = 1e-6;

/// A regression that cannot be made; the reference then takes the series for stationary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Degenerate;

/// Tests series; owns its scratch memory.
#[derive(Debug, Default)]
pub(super) struct Stationarity {
    levels: Vec<f64>,
    steps: Vec<f64>,
    equations: NormalEquations,
    exact: Orthogonal,
}

impl Stationarity {
    /// Whether `y` counts as stationary: Dickey-Fuller rejects a unit root or KPSS accepts, or one of
    /// them cannot be made. KPSS is asked second and only if need be.
    pub(super) fn holds(&mut self, y: &[f64]) -> bool {
        match self.rejects_unit_root(y) {
            Ok(true) | Err(Degenerate) => true,
            Ok(false) => accepts_level(y, &mut self.levels).unwrap_or(true),
        }
    }

    fn rejects_unit_root(&mut self, y: &[f64]) -> Result<bool, Degenerate> {
        let n = y.len();
        // The constant takes up any shift of the levels, so the mean is taken off for accuracy.
        let center = mean(y);
        self.levels.clear();
        self.levels.extend(y.iter().map(|value| value - center));
        self.steps.clear();
        self.steps
            .extend(y.windows(2).map(|pair| pair[1] - pair[0]));
        let most = most_lags(n);
        let regression = Regression {
            levels: &self.levels,
            steps: &self.steps,
        };
        let lags = match self.equations.best_lags(regression, most) {
            Some(lags) => lags,
            None => self.exact.best_lags(regression, most)?,
        };
        if let Some(statistic) = self.equations.statistic(regression, lags) {
            return Ok(statistic < DICKEY_FULLER);
        }
        Ok(self.exact.statistic(regression, lags)? < DICKEY_FULLER)
    }
}

/// Schwert's rule for the most lags, bounded by what the length allows.
fn most_lags(n: usize) -> usize {
    let rule = (12.0 * (n as f64 / 100.0).powf(0.25)).ceil() as usize;
    let room = ((n - 1) / 2).saturating_sub(1).saturating_sub(1);
    rule.min(room)
}

/// Steps regressed on the level before, the steps before that, and a constant.
#[derive(Clone, Copy)]
struct Regression<'a> {
    levels: &'a [f64],
    /// First differences of the levels.
    steps: &'a [f64],
}

impl<'a> Regression<'a> {
    /// The rows `from..` that a regression with up to `from` lags can use: the step that is explained.
    fn target(self, from: usize) -> &'a [f64] {
        &self.steps[from..]
    }

    /// The level before each step.
    fn level(self, from: usize) -> &'a [f64] {
        &self.levels[from..self.levels.len() - 1]
    }

    /// The step `lag` before each step.
    fn lagged(self, from: usize, lag: usize) -> &'a [f64] {
        &self.steps[from - lag..self.steps.len() - lag]
    }

    /// The level and all lagged steps of the rows `from..`.
    fn columns(self, from: usize, lags: usize) -> impl Iterator<Item = &'a [f64]> {
        std::iter::once(self.level(from)).chain((1..=lags).map(move |lag| self.lagged(from, lag)))
    }
}

fn is_constant(column: &[f64]) -> bool {
    column.iter().all(|value| *value == column[0])
}

/// Akaike's criterion less what is the same for all lag counts.
fn akaike(rss: f64, rows: usize, lags: usize) -> f64 {
    rows as f64 * (rss / rows as f64).ln() + 2.0 * lags as f64
}

/// The regressions by normal equations: fast, and trusted only where they are well conditioned and the
/// answer is not close; otherwise the orthogonal factorisation below is asked. A verdict never hangs on
/// which of them answered.
#[derive(Debug, Default)]
struct NormalEquations {
    /// Gram matrix of the centred columns, the target last, by rows; then its Cholesky factor.
    gram: Vec<f64>,
    sums: Vec<f64>,
    inverse: Vec<f64>,
}

impl NormalEquations {
    /// The lag count, 0..=`most`, of least Akaike criterion.
    fn best_lags(&mut self, regression: Regression<'_>, most: usize) -> Option<usize> {
        let size = self.factor(regression, most, most, true)?;
        let rows = regression.target(most).len();
        let last = size * (size + 1);
        let projections = &self.gram[last..last + size];
        let total = 1.0;
        let mut rss = total - projections[0] * projections[0];
        let (mut best, mut second) = ((akaike(rss, rows, 0), 0), f64::INFINITY);
        for (lags, projection) in projections.iter().enumerate().skip(1) {
            rss -= projection * projection;
            if rss < 1e-6 * total {
                return None;
            }
            let criterion = akaike(rss, rows, lags);
            if criterion < best.0 {
                second = best.0;
                best = (criterion, lags);
            } else {
                second = second.min(criterion);
            }
        }
        (rss >= 1e-6 * total && second - best.0 > TRUST).then_some(best.1)
    }

    /// The statistic of the level's coefficient with `lags` lags.
    fn statistic(&mut self, regression: Regression<'_>, lags: usize) -> Option<f64> {
        let size = self.factor(regression, lags, lags, false)?;
        let rows = regression.target(lags).len();
        let last = size * (size + 1);
        let projections = &self.gram[last..last + size];
        let rss = 1.0 - dot(projections, projections);
        if rss < 1e-6 {
            return None;
        }
        // The level is the last column here, so its coefficient over its error is its projection.
        let statistic = projections[size - 1] / (rss / (rows as f64 - (size + 1) as f64)).sqrt();
        ((statistic - DICKEY_FULLER).abs() > TRUST).then_some(statistic)
    }

    /// Factors the Gram matrix of the rows `from..` with columns of unit length: level and lags (the
    /// level first or last), then the target, whose row then holds its projections. `None` if a column is
    /// constant or the columns are too nearly dependent.
    fn factor(
        &mut self,
        regression: Regression<'_>,
        from: usize,
        lags: usize,
        level_first: bool,
    ) -> Option<usize> {
        let target = regression.target(from);
        let rows = target.len();
        let size = lags + 1;
        if rows <= size + 1 || regression.columns(from, lags).any(is_constant) {
            return None;
        }
        self.fill_gram(regression, from, lags, level_first);
        let full = size + 1;
        let scales: Vec<f64> = (0..full).map(|i| self.gram[i * full + i].sqrt()).collect();
        if scales
            .iter()
            .any(|scale| !(*scale > 0.0 && scale.is_finite()))
        {
            return None;
        }
        for i in 0..full {
            for j in 0..=i {
                self.gram[i * full + j] /= scales[i] * scales[j];
            }
        }
        for i in 0..full {
            for j in 0..=i.min(size - 1) {
                let (row, column) = (&self.gram[i * full..], &self.gram[j * full..]);
                let known: f64 = (0..j).map(|k| row[k] * column[k]).sum();
                let value = row[j] - known;
                self.gram[i * full + j] = if i == j {
                    value.sqrt()
                } else {
                    value / self.gram[j * full + j]
                };
            }
            let pivot = self.gram[i * full + i];
            if i < size && (pivot.is_nan() || pivot < 1e-4) {
                return None;
            }
        }
        self.is_well_conditioned(size, full).then_some(size)
    }

    /// Whether the inverse of the factor is small.
    fn is_well_conditioned(&mut self, size: usize, full: usize) -> bool {
        let mut squares = 0.0;
        self.inverse.clear();
        self.inverse.resize(size, 0.0);
        for column in 0..size {
            for i in column..size {
                let unit = if i == column { 1.0 } else { 0.0 };
                let known: f64 = (column..i)
                    .map(|k| self.gram[i * full + k] * self.inverse[k])
                    .sum();
                self.inverse[i] = (unit - known) / self.gram[i * full + i];
                squares += self.inverse[i] * self.inverse[i];
            }
        }
        squares < 1e6
    }

    /// The lower triangle of the Gram matrix of the centred columns. Lagged steps are one series at
    /// different places, so their products follow from each other.
    fn fill_gram(
        &mut self,
        regression: Regression<'_>,
        from: usize,
        lags: usize,
        level_first: bool,
    ) {
        let steps = regression.steps;
        let (level, target) = (regression.level(from), regression.target(from));
        let (rows, full) = (target.len(), lags + 2);
        let level_at = if level_first { 0 } else { lags };
        // Lag 0 is the target, which comes last.
        let at = |lag: usize| match lag {
            0 => lags + 1,
            _ if level_first => lag,
            _ => lag - 1,
        };
        self.gram.clear();
        self.gram.resize(full * full, 0.0);
        self.sums.clear();
        self.sums.resize(full, 0.0);
        self.sums[level_at] = sum(level);
        let mut running = sum(target);
        self.sums[at(0)] = running;
        for lag in 1..=lags {
            running += steps[from - lag] - steps[steps.len() - lag];
            self.sums[at(lag)] = running;
        }
        let gram = &mut self.gram;
        let mut put = |i: usize, j: usize, value: f64| gram[i.max(j) * full + i.min(j)] = value;
        put(level_at, level_at, dot(level, level));
        for lag in 0..=lags {
            put(level_at, at(lag), dot(level, regression.lagged(from, lag)));
            // Σ d_{t-i} d_{t-j} for j - i = lag, one pair after another.
            let mut product = dot(target, regression.lagged(from, lag));
            put(at(0), at(lag), product);
            for first in 1..=lags - lag {
                let second = first + lag;
                product += steps[from - first] * steps[from - second]
                    - steps[steps.len() - first] * steps[steps.len() - second];
                put(at(first), at(second), product);
            }
        }
        for i in 0..full {
            for j in 0..=i {
                self.gram[i * full + j] -= self.sums[i] * self.sums[j] / rows as f64;
            }
        }
    }
}

/// The regressions by Householder's orthogonal factorisation; finds dependent columns as the reference
/// does.
#[derive(Debug, Default)]
struct Orthogonal {
    /// Columns one after another, `rows` long; reduced to the triangle.
    columns: Vec<f64>,
    target: Vec<f64>,
    rows: usize,
}

impl Orthogonal {
    fn best_lags(&mut self, regression: Regression<'_>, most: usize) -> Result<usize, Degenerate> {
        self.start(regression.target(most));
        // A constant column takes the place of the constant.
        let constant = regression
            .columns(most, most)
            .filter(|column| is_constant(column));
        let (mut constants, mut zeros) = (0, 0);
        for column in constant {
            constants += 1;
            zeros += usize::from(column[0] == 0.0);
        }
        let with_constant = constants == zeros;
        if constants + usize::from(with_constant) > 1 {
            return Err(Degenerate);
        }
        if with_constant {
            self.columns.resize(self.rows, 1.0);
        }
        for column in regression.columns(most, most) {
            self.columns.extend_from_slice(column);
        }
        let count = self.columns.len() / self.rows;
        if count > self.rows || self.columns.iter().any(|value| !value.is_finite()) {
            return Err(Degenerate);
        }
        self.reduce(count);
        if !self.has_full_rank(count) {
            return Err(Degenerate);
        }
        let base = count - most;
        let mut rss: f64 = self.target[count..].iter().map(|value| value * value).sum();
        let mut criteria = vec![0.0; most + 1];
        for lags in (0..=most).rev() {
            criteria[lags] = akaike(rss, self.rows, lags);
            if lags > 0 {
                let projection = self.target[base + lags - 1];
                rss += projection * projection;
            }
        }
        let mut best = 0;
        for lags in 1..=most {
            if criteria[lags] < criteria[best] {
                best = lags;
            }
        }
        Ok(best)
    }

    fn statistic(&mut self, regression: Regression<'_>, lags: usize) -> Result<f64, Degenerate> {
        let is_other_constant = |column: &[f64]| is_constant(column) && column[0] != 0.0;
        if regression.columns(lags, lags).any(is_other_constant) {
            return Err(Degenerate);
        }
        self.start(regression.target(lags));
        self.columns.resize(self.rows, 1.0);
        for lag in 1..=lags {
            self.columns.extend_from_slice(regression.lagged(lags, lag));
        }
        self.columns.extend_from_slice(regression.level(lags));
        let count = lags + 2;
        if count > self.rows {
            return Err(Degenerate);
        }
        self.reduce(count);
        let rss: f64 = self.target[count..].iter().map(|value| value * value).sum();
        let deviation = (rss / (self.rows - count) as f64).sqrt();
        let diagonal = self.columns[(count - 1) * self.rows + count - 1];
        Ok(self.target[count - 1] * diagonal.signum() / deviation)
    }

    fn start(&mut self, target: &[f64]) {
        self.rows = target.len();
        self.target.clear();
        self.target.extend_from_slice(target);
        self.columns.clear();
    }

    /// Reflects columns and target until the first `count` columns are triangular.
    fn reduce(&mut self, count: usize) {
        let rows = self.rows;
        for k in 0..count {
            let (done, rest) = self.columns.split_at_mut((k + 1) * rows);
            let pivot = &mut done[k * rows + k..];
            let norm = dot(pivot, pivot).sqrt();
            if norm == 0.0 {
                continue;
            }
            let alpha = if pivot[0] > 0.0 { -norm } else { norm };
            pivot[0] -= alpha;
            let square = dot(pivot, pivot);
            let reflect = |column: &mut [f64]| {
                let share = 2.0 * dot(pivot, column) / square;
                for (value, direction) in column.iter_mut().zip(&*pivot) {
                    *value -= share * direction;
                }
            };
            rest.chunks_mut(rows)
                .map(|column| &mut column[k..])
                .chain(std::iter::once(&mut self.target[k..]))
                .for_each(reflect);
            pivot[0] = alpha;
        }
    }

    /// Whether no singular value of the triangle is lost in rounding (numpy's `matrix_rank`).
    fn has_full_rank(&self, count: usize) -> bool {
        let triangle: Vec<Vec<f64>> = (0..count)
            .map(|column| self.columns[column * self.rows..][..=column].to_vec())
            .collect();
        let singular = singular_values(triangle, count);
        let greatest = singular.iter().copied().fold(0.0, f64::max);
        let bound = greatest * self.rows.max(count) as f64 * f64::EPSILON;
        singular.iter().all(|value| *value > bound)
    }
}

/// Singular values of the matrix with the given columns (shorter ones end in zeros), by one-sided Jacobi
/// rotations.
fn singular_values(mut columns: Vec<Vec<f64>>, rows: usize) -> Vec<f64> {
    for column in &mut columns {
        column.resize(rows, 0.0);
    }
    for _ in 0..60 {
        let mut rotated = false;
        for i in 0..columns.len() {
            for j in i + 1..columns.len() {
                let (head, tail) = columns.split_at_mut(j);
                let (a, b) = (&mut head[i], &mut tail[0]);
                let (aa, bb, ab) = (dot(a, a), dot(b, b), dot(a, b));
                if ab.abs() <= 1e-15 * (aa * bb).sqrt() {
                    continue;
                }
                rotated = true;
                let cotangent = (bb - aa) / (2.0 * ab);
                let t =
                    cotangent.signum() / (cotangent.abs() + (1.0 + cotangent * cotangent).sqrt());
                let c = 1.0 / (1.0 + t * t).sqrt();
                let s = c * t;
                for (x, y) in a.iter_mut().zip(b) {
                    (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
                }
            }
        }
        if !rotated {
            break;
        }
    }
    columns
        .iter()
        .map(|column| dot(column, column).sqrt())
        .collect()
}

/// Whether KPSS accepts that `y` is stationary around a level. `scratch` is overwritten.
fn accepts_level(y: &[f64], scratch: &mut Vec<f64>) -> Result<bool, Degenerate> {
    let n = y.len();
    let center = mean(y);
    scratch.clear();
    scratch.extend(y.iter().map(|value| value - center));
    let u = &*scratch;
    let size = n as f64;
    let squares = dot(u, u);
    let lagged = |lag: usize| dot(&u[lag..], &u[..n - lag]);
    let (mut s0, mut s1) = (squares / size, 0.0);
    for lag in 1..=size.powf(2.0 / 9.0) as usize {
        let product = lagged(lag) / (size / 2.0);
        s0 += product;
        s1 += lag as f64 * product;
    }
    if s0.is_nan() || s0 <= 0.0 {
        return Err(Degenerate);
    }
    let ratio = s1 / s0;
    let bandwidth =
        ((1.1447 * (ratio * ratio).powf(1.0 / 3.0) * size.powf(1.0 / 3.0)) as usize).min(n);
    let mut long_run = squares;
    for lag in 1..=bandwidth.min(n - 1) {
        long_run += 2.0 * (1.0 - lag as f64 / (bandwidth + 1) as f64) * lagged(lag);
    }
    long_run /= size;
    let mut running = 0.0;
    let mut total = 0.0;
    for value in u {
        running += value;
        total += running * running;
    }
    Ok(total / (size * size) / long_run <= KPSS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detector::tests::{series_a, series_b};

    fn cumulated() -> Vec<f64> {
        let a = series_a();
        let center = mean(&a);
        a.iter()
            .scan(0.0, |sum, value| {
                *sum += value - center;
                Some(*sum)
            })
            .collect()
    }

    #[test]
    fn statistics_are_those_of_the_reference_either_way() {
        let cases = [
            (series_a(), 4, -1.4554583357040591),
            (series_b(), 6, -1.8669350327380967),
            (cumulated(), 5, -0.7467383722673189),
        ];
        for (y, lags, statistic) in cases {
            let steps: Vec<f64> = y.windows(2).map(|pair| pair[1] - pair[0]).collect();
            let regression = Regression {
                levels: &y,
                steps: &steps,
            };
            let most = most_lags(y.len());
            let mut exact = Orthogonal::default();
            assert_eq!(exact.best_lags(regression, most), Ok(lags));
            let found = exact.statistic(regression, lags).unwrap();
            assert!((found - statistic).abs() < 1e-10, "{found}");
            let mut equations = NormalEquations::default();
            if let Some(quick) = equations.best_lags(regression, most) {
                assert_eq!(quick, lags);
            }
            let found = equations.statistic(regression, lags).unwrap();
            assert!((found - statistic).abs() < 1e-8, "{found}");
        }
    }

    // Of a straight line every lagged step is constant, which the reference's test fails on and so takes
    // the line for stationary.
    #[test]
    fn what_cannot_be_tested_counts_as_stationary() {
        let line: Vec<f64> = (0..60).map(f64::from).collect();
        assert!(Stationarity::default().holds(&line));
        assert!(Stationarity::default().holds(&[5.0; 60]));
    }

    #[test]
    fn levels_accepted() {
        let mut scratch = vec![];
        assert_eq!(accepts_level(&series_a(), &mut scratch), Ok(true));
        let drift: Vec<f64> = (0..200)
            .map(|i| f64::from(i) + f64::from(i * 7 % 5))
            .collect();
        assert_eq!(accepts_level(&drift, &mut scratch), Ok(false));
    }
}
