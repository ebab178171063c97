//! Cubic splines over equally spaced points: one that smooths by least squares, and one that
//! interpolates.

/// Least-squares cubic splines on the abscissae `0..n`, unit weights.
///
/// What depends on the abscissae alone is kept from one fit to the next: the values of the basis and
/// the factor of the normal equations. With knots this even the equations are well conditioned, and
/// their solution is good to about 1e-12.
#[derive(Debug, Default)]
pub(super) struct SmoothingSpline {
    n: usize,
    segments: usize,
    /// The four basis functions that are not zero at each point, and the first one's number.
    basis: Vec<([f64; 4], usize)>,
    /// Cholesky factor of the normal equations by rows: what is left of the diagonal, diagonal last,
    /// which is kept as its inverse.
    factor: Vec<[f64; 4]>,
    coefficients: Vec<f64>,
}

impl SmoothingSpline {
    /// Fits a spline of `segments` segments to `y` and evaluates it at every point into `out`.
    pub(super) fn smooth(&mut self, y: &[f64], segments: usize, out: &mut Vec<f64>) {
        if (self.n, self.segments) != (y.len(), segments) {
            self.prepare(y.len(), segments);
        }
        let c = &mut self.coefficients;
        c.clear();
        c.resize(self.factor.len(), 0.0);
        for (value, (basis, first)) in y.iter().zip(&self.basis) {
            for (coefficient, b) in c[*first..first + 4].iter_mut().zip(basis) {
                *coefficient += b * value;
            }
        }
        for i in 0..c.len() {
            let row = &self.factor[i];
            let reach = i.min(3);
            let known: f64 = (1..=reach).map(|k| row[3 - k] * c[i - k]).sum();
            c[i] = (c[i] - known) * row[3];
        }
        for i in (0..c.len()).rev() {
            let reach = (c.len() - 1 - i).min(3);
            let known: f64 = (1..=reach)
                .map(|k| self.factor[i + k][3 - k] * c[i + k])
                .sum();
            c[i] = (c[i] - known) * self.factor[i][3];
        }
        out.clear();
        out.extend(self.basis.iter().map(|(basis, first)| {
            let c = &c[*first..first + 4];
            basis[0] * c[0] + basis[1] * c[1] + basis[2] * c[2] + basis[3] * c[3]
        }));
    }

    fn prepare(&mut self, n: usize, segments: usize) {
        (self.n, self.segments) = (n, segments);
        let knots = knots(n, segments);
        let count = knots.len() - 4;
        self.basis.clear();
        let mut interval = 3;
        for i in 0..n {
            let x = i as f64;
            while interval < count - 1 && x >= knots[interval + 1] {
                interval += 1;
            }
            self.basis.push((basis(&knots, interval, x), interval - 3));
        }
        self.factor.clear();
        self.factor.resize(count, [0.0; 4]);
        for (basis, first) in &self.basis {
            for row in 0..4 {
                for column in 0..=row {
                    self.factor[first + row][3 - (row - column)] += basis[row] * basis[column];
                }
            }
        }
        for i in 0..count {
            // Row i of the factor: its element k left of the diagonal, then the diagonal.
            for k in (0..=i.min(3)).rev() {
                let column = i - k;
                let mut value = self.factor[i][3 - k];
                for shared in (k + 1)..=i.min(3) {
                    value -= self.factor[i][3 - shared] * self.factor[column][3 - (shared - k)];
                }
                self.factor[i][3 - k] = if k == 0 {
                    1.0 / value.sqrt()
                } else {
                    value * self.factor[column][3]
                };
            }
        }
    }
}

/// The knots of the reference's trend: the interior ones would split `0..=n-1` evenly if there were one
/// more of them; the one nearest to the right end is left out, so that the spline is stiffer there.
/// Expected values depend on it.
fn knots(n: usize, segments: usize) -> Vec<f64> {
    let last = (n - 1) as f64;
    let parts = (segments + 1).max(2);
    let step = last / (parts + 1) as f64;
    let mut knots = vec![0.0; 4];
    knots.extend((1..parts).map(|k| step * k as f64));
    knots.extend([last; 4]);
    knots
}

/// The four cubic B-splines that are not zero on `knots[interval]..knots[interval + 1]`, at `x`: the
/// recurrence of Cox and de Boor.
fn basis(knots: &[f64], interval: usize, x: f64) -> [f64; 4] {
    let mut b = [1.0, 0.0, 0.0, 0.0];
    for degree in 1..4 {
        let mut carried = 0.0;
        for r in 0..degree {
            let right = knots[interval + r + 1];
            let left = knots[interval + r + 1 - degree];
            let share = b[r] / (right - left);
            b[r] = carried + (right - x) * share;
            carried = (x - left) * share;
        }
        b[degree] = carried;
    }
    b
}

/// Evaluates the cubic spline through the points `(x_i, y_i)`, `x` strictly ascending integers from 0, at
/// `0, 1, …, x_last` into `out`. The third derivative has no jump at the second and the last but one
/// point ("not a knot"). At least four points.
pub(super) fn interpolate(x: &[i64], y: &[f64], out: &mut Vec<f64>) {
    let n = x.len();
    let width: Vec<f64> = x
        .windows(2)
        .map(|pair| (pair[1] - pair[0]) as f64)
        .collect();
    let rise: Vec<f64> = y
        .windows(2)
        .zip(&width)
        .map(|(pair, width)| (pair[1] - pair[0]) / width)
        .collect();
    let slopes = not_a_knot_slopes(&width, &rise);
    out.clear();
    for i in 0..n - 1 {
        let (h, low, high, s) = (width[i], slopes[i], slopes[i + 1], rise[i]);
        let t = (low + high - 2.0 * s) / h;
        let (cubic, square) = (t / h, (s - low) / h - t);
        for step in 0..(x[i + 1] - x[i]) {
            let d = step as f64;
            out.push(((cubic * d + square) * d + low) * d + y[i]);
        }
        if i == n - 2 {
            out.push(((cubic * h + square) * h + low) * h + y[i]);
        }
    }
}

/// Slopes of the spline at its points: a tridiagonal system but for its first and last row, solved with
/// partial pivoting inside the band.
fn not_a_knot_slopes(width: &[f64], rise: &[f64]) -> Vec<f64> {
    let n = width.len() + 1;
    // Row i holds columns i-1, i, i+1 and, in row 0 and after exchanges, one or two further to the right.
    let mut band = vec![[0.0_f64; 5]; n]; // columns i-2 ..= i+2
    let mut right = vec![0.0; n];
    let d = width[0] + width[1];
    band[0][2] = width[1];
    band[0][3] = d;
    right[0] = ((width[0] + 2.0 * d) * width[1] * rise[0] + width[0] * width[0] * rise[1]) / d;
    for i in 1..n - 1 {
        band[i][1] = width[i];
        band[i][2] = 2.0 * (width[i - 1] + width[i]);
        band[i][3] = width[i - 1];
        right[i] = 3.0 * (width[i] * rise[i - 1] + width[i - 1] * rise[i]);
    }
    let (a, b) = (width[n - 3], width[n - 2]);
    let d = a + b;
    band[n - 1][1] = d;
    band[n - 1][2] = a;
    right[n - 1] = (b * b * rise[n - 3] + (2.0 * d + b) * a * rise[n - 2]) / d;
    for i in 0..n - 1 {
        // Columns of row i+1 start one further left than those of row i.
        if band[i + 1][1].abs() > band[i][2].abs() {
            let (upper, lower) = (band[i], band[i + 1]);
            for column in 0..3 {
                band[i][2 + column] = lower[1 + column];
                band[i + 1][1 + column] = upper[2 + column];
            }
            right.swap(i, i + 1);
        }
        let factor = band[i + 1][1] / band[i][2];
        band[i + 1][1] = 0.0;
        band[i + 1][2] -= factor * band[i][3];
        band[i + 1][3] -= factor * band[i][4];
        right[i + 1] -= factor * right[i];
    }
    let mut slopes = right;
    for i in (0..n).rev() {
        let mut value = slopes[i];
        if i + 1 < n {
            value -= band[i][3] * slopes[i + 1];
        }
        if i + 2 < n {
            value -= band[i][4] * slopes[i + 2];
        }
        slopes[i] = value / band[i][2];
    }
    slopes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cubic_is_its_own_spline() {
        let cubic = |x: f64| 0.01 * x * x * x - 0.3 * x * x + x - 2.0;
        let y: Vec<f64> = (0..60).map(|i| cubic(f64::from(i))).collect();
        let mut spline = SmoothingSpline::default();
        let mut out = vec![];
        for segments in [1, 3, 9] {
            spline.smooth(&y, segments, &mut out);
            for (smooth, value) in out.iter().zip(&y) {
                assert!((smooth - value).abs() < 1e-8, "{smooth} {value}");
            }
        }
        let x: Vec<i64> = vec![0, 1, 4, 5, 9, 20, 21, 30];
        let y: Vec<f64> = x.iter().map(|x| cubic(*x as f64)).collect();
        interpolate(&x, &y, &mut out);
        assert_eq!(out.len(), 31);
        for (i, value) in out.iter().enumerate() {
            assert!((value - cubic(i as f64)).abs() < 1e-9, "{i}: {value}");
        }
    }

    #[test]
    fn the_last_knot_is_missing() {
        let knots = knots(288, 2);
        assert_eq!(&knots[4..6], &[71.75, 143.5]);
        assert_eq!(knots.len(), 10);
    }
}
