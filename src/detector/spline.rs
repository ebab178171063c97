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
///
/// The arithmetic is scipy's to the last bit (de Boor's recurrence, LAPACK's banded elimination, no fused
/// multiply-add): gaps are filled one way or another by comparing equal values after this spline has
/// rounded them, so verdicts on integer series with gaps hang on it.
pub(super) fn interpolate(x: &[i64], y: &[f64], out: &mut Vec<f64>) {
    let n = x.len();
    let at = |i: usize| x[i] as f64;
    let mut knots = vec![at(0); 4];
    knots.extend((2..n - 2).map(at));
    knots.extend([at(n - 1); 4]);
    let interval_of = |x: f64, mut interval: usize| {
        while interval < n - 1 && x >= knots[interval + 1] {
            interval += 1;
        }
        interval
    };
    let mut rows = vec![[0.0; BAND]; n];
    let mut interval = 3;
    for (i, row) in rows.iter_mut().enumerate() {
        interval = interval_of(at(i), interval);
        let first = interval - 3;
        for (column, value) in (first..).zip(basis(&knots, interval, at(i))) {
            // The ends lie on one basis function alone; the columns beyond the band are zero there.
            if column + BELOW >= i && column <= i + BELOW {
                row[column + BELOW - i] = value;
            }
        }
    }
    let mut coefficients = y.to_vec();
    solve_banded(&mut rows, &mut coefficients);
    out.clear();
    interval = 3;
    for step in 0..=x[n - 1] {
        let x = step as f64;
        interval = interval_of(x, interval);
        let weights = basis(&knots, interval, x);
        let c = &coefficients[interval - 3..];
        out.push(((weights[0] * c[0] + weights[1] * c[1]) + weights[2] * c[2]) + weights[3] * c[3]);
    }
}

/// Diagonals below the main one; as many above it, and as many more for what exchanging rows brings in.
const BELOW: usize = 3;
const BAND: usize = 3 * BELOW + 1;

/// Solves a banded system in place by Gaussian elimination with partial pivoting. Row `i` holds columns
/// `i - BELOW` on.
fn solve_banded(rows: &mut [[f64; BAND]], right: &mut [f64]) {
    let n = rows.len();
    // Last column that any row up to now reaches.
    let mut reach = 0;
    for j in 0..n {
        let below = BELOW.min(n - 1 - j);
        let element = |rows: &[[f64; BAND]], i: usize, column: usize| rows[i][column + BELOW - i];
        let mut pivot = j;
        for i in j + 1..=j + below {
            if element(rows, i, j).abs() > element(rows, pivot, j).abs() {
                pivot = i;
            }
        }
        reach = reach.max((pivot + BELOW).min(n - 1));
        if pivot != j {
            for column in j..=reach {
                let upper = element(rows, j, column);
                rows[j][column + BELOW - j] = element(rows, pivot, column);
                rows[pivot][column + BELOW - pivot] = upper;
            }
            right.swap(j, pivot);
        }
        let reciprocal = 1.0 / rows[j][BELOW];
        for i in j + 1..=j + below {
            let factor = rows[i][j + BELOW - i] * reciprocal;
            for column in j + 1..=reach {
                let upper = rows[j][column + BELOW - j];
                let value = &mut rows[i][column + BELOW - i];
                *value -= factor * upper;
            }
            right[i] -= factor * right[j];
        }
    }
    for j in (0..n).rev() {
        right[j] /= rows[j][BELOW];
        for i in j.saturating_sub(2 * BELOW)..j {
            right[i] -= rows[i][j + BELOW - i] * right[j];
        }
    }
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
