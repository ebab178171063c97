//! Critical values of the generalised ESD test, from Student's distribution.

use std::f64::consts::PI;

/// Critical values by the number of points left, for one significance; each is computed once.
#[derive(Debug, Default)]
pub(super) struct CriticalValues {
    alpha: f64,
    /// NaN where not computed yet.
    values: Vec<f32>,
}

impl CriticalValues {
    /// The values for significance `alpha`.
    pub(super) fn for_alpha(&mut self, alpha: f64) -> &mut Self {
        if self.alpha != alpha {
            self.alpha = alpha;
            self.values.clear();
        }
        self
    }

    /// How many standard deviations off the most extreme of `m` points must be (Rosner 1983).
    pub(super) fn get(&mut self, m: usize) -> f32 {
        if self.values.len() <= m {
            self.values.resize(m + 1, f32::NAN);
        }
        if self.values[m].is_nan() {
            self.values[m] = critical(self.alpha, m);
        }
        self.values[m]
    }
}

fn critical(alpha: f64, m: usize) -> f32 {
    let usual = super::stats::is_close(alpha, 0.05);
    if m < 3 {
        // No degrees of freedom are left. The reference's table for the usual significance has 0 here;
        // its formula for any other one has no value, which no deviation exceeds.
        return if usual { 0.0 } else { f32::INFINITY };
    }
    let alpha = f64::from(if usual { 0.05_f32 } else { alpha as f32 });
    let (m, freedom) = (m as f64, (m - 2) as f64);
    let tail = 1.0 - (1.0 - alpha / m);
    if tail >= 1.0 {
        return f32::INFINITY;
    }
    let t = upper_quantile(tail, freedom);
    (t * (m - 1.0) / ((m - 2.0 + t * t) * m).sqrt()) as f32
}

/// The `t` that Student's variable with `freedom` degrees of freedom exceeds with probability `tail`.
fn upper_quantile(tail: f64, freedom: f64) -> f64 {
    if tail > 0.5 {
        return -upper_quantile(1.0 - tail, freedom);
    }
    if tail == 0.5 {
        return 0.0;
    }
    // Bracket, then Newton on the logarithm of the tail, which is nearly linear far out and falls
    // everywhere; bisection catches what leaves the bracket.
    let (mut low, mut high) = (0.0, 1.0);
    while upper_tail(high, freedom) > tail {
        low = high;
        high *= 2.0;
    }
    let mut t = 0.5 * (low + high);
    for _ in 0..100 {
        let found = upper_tail(t, freedom);
        if found > tail {
            low = t;
        } else {
            high = t;
        }
        let mut next = t + (found / tail).ln() * found / density(t, freedom);
        if !(low < next && next < high) {
            next = 0.5 * (low + high);
        }
        if (next - t).abs() <= 1e-15 * t {
            return next;
        }
        t = next;
    }
    t
}

fn density(t: f64, freedom: f64) -> f64 {
    (log_gamma_ratio(freedom / 2.0)
        - 0.5 * (freedom * PI).ln()
        - (freedom + 1.0) / 2.0 * (t * t / freedom).ln_1p())
    .exp()
}

/// Probability that Student's variable exceeds `t >= 0`: half the incomplete beta function at
/// `freedom/(freedom + t²)` with parameters `freedom/2` and 1/2.
fn upper_tail(t: f64, freedom: f64) -> f64 {
    let (a, b) = (freedom / 2.0, 0.5);
    let t2 = t * t;
    // x^a (1-x)^b / B(a, b)
    let front = (log_gamma_ratio(a) - 0.5 * PI.ln() - a * (t2 / freedom).ln_1p()).exp()
        * (t2 / (freedom + t2)).sqrt();
    let x = freedom / (freedom + t2);
    if x < (a + 1.0) / (a + b + 2.0) {
        0.5 * front * continued_fraction(a, b, x) / a
    } else {
        0.5 - 0.5 * front * continued_fraction(b, a, t2 / (freedom + t2)) / b
    }
}

/// The continued fraction of the incomplete beta function, by Lentz's method.
fn continued_fraction(a: f64, b: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let nonzero = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / nonzero(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for step in 1..10_000 {
        let m = f64::from(step);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / nonzero(1.0 + even * d);
        c = nonzero(1.0 + even / c);
        fraction *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / nonzero(1.0 + odd * d);
        c = nonzero(1.0 + odd / c);
        let change = d * c;
        fraction *= change;
        if (change - 1.0).abs() < 1e-16 {
            break;
        }
    }
    fraction
}

/// `ln(Γ(a + 1/2) / Γ(a))`, `a` a multiple of 1/2: shifted up to where its asymptotic series is exact to
/// the last digit. (A difference of two logarithms of Γ would lose digits as `a` grows.)
fn log_gamma_ratio(mut a: f64) -> f64 {
    let mut shift = 1.0;
    while a < 20.0 {
        shift *= a / (a + 0.5);
        a += 1.0;
    }
    // Γ(a + 1/2)/Γ(a) = √a · exp(-1/(8a) + 1/(192a³) - 1/(640a⁵) + 17/(14336a⁷) - 31/(18432a⁹) + …)
    let r = 1.0 / a;
    let r2 = r * r;
    let series = -1.0 / 8.0
        + r2 * (1.0 / 192.0
            + r2 * (-1.0 / 640.0 + r2 * (17.0 / 14_336.0 + r2 * (-31.0 / 18_432.0))));
    0.5 * a.ln() + r * series + shift.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn critical_values_are_those_of_the_reference() {
        let usual = [
            (1, 0.0),
            (2, 0.0),
            (3, 1.1531180143356323),
            (10, 2.1760683059692383),
            (11, 2.233907699584961),
            (12, 2.2849531173706055),
            (18_000, 4.541395664215088),
        ];
        let mut values = CriticalValues::default();
        for (m, value) in usual {
            assert_eq!(f64::from(values.for_alpha(0.05).get(m)), value, "{m}");
        }
        let found = values.for_alpha(0.01).get(100);
        assert_eq!(f64::from(found), 3.600196123123169);
    }
}
