//! Two known methods to measure against: PELT and Bayesian online change point detection.
//!
//! Both are written out here because the crates that have them pull in linear algebra of many times
//! their size; they were checked against those crates (`docs/change-points.md`).

/// What a segment of PELT is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentModel {
    /// A constant: squared deviations from the mean.
    Mean,
    /// A straight line: squared deviations from the least squares line.
    Line,
}

/// The change points of `values` by PELT (Killick, Fearnhead and Eckley, 2012): the segmentation of
/// least squared error plus `penalty` for each change, segments no shorter than `shortest`.
pub fn pelt(values: &[f64], model: SegmentModel, penalty: f64, shortest: usize) -> Vec<usize> {
    let n = values.len();
    let sums = sums(values);
    let cost = |from: usize, to: usize| segment_cost(&sums, model, from, to);
    let mut best = vec![f64::INFINITY; n + 1];
    best[0] = -penalty;
    let mut before = vec![0; n + 1];
    let mut candidates: Vec<usize> = vec![0];
    for end in shortest..=n {
        for &start in &candidates {
            let total = best[start] + cost(start, end) + penalty;
            if total < best[end] {
                (best[end], before[end]) = (total, start);
            }
        }
        candidates.retain(|&start| best[start] + cost(start, end) <= best[end]);
        // The start that becomes long enough with the next end.
        let next = end + 1 - shortest;
        if next >= shortest {
            candidates.push(next);
        }
    }
    let mut changes = vec![];
    let mut at = before[n];
    while at > 0 {
        changes.push(at);
        at = before[at];
    }
    changes.reverse();
    changes
}

/// Running sums of 1, t, t², y, ty and y² before each point.
fn sums(values: &[f64]) -> Vec<[f64; 5]> {
    let mut running = [0.0; 5];
    let mut sums = vec![running];
    for (i, &y) in values.iter().enumerate() {
        let t = i as f64;
        for (sum, term) in running.iter_mut().zip([t, t * t, y, t * y, y * y]) {
            *sum += term;
        }
        sums.push(running);
    }
    sums
}

fn segment_cost(sums: &[[f64; 5]], model: SegmentModel, from: usize, to: usize) -> f64 {
    let count = (to - from) as f64;
    let [t, tt, y, ty, yy] = std::array::from_fn(|k| sums[to][k] - sums[from][k]);
    let around_mean = yy - y * y / count;
    let spread = tt - t * t / count;
    if model == SegmentModel::Mean || spread <= 0.0 {
        return around_mean.max(0.0);
    }
    let slope_part = ty - t * y / count;
    (around_mean - slope_part * slope_part / spread).max(0.0)
}

/// The change points of `values` by Bayesian online change point detection (Adams and MacKay, 2007):
/// Gaussian segments of unknown mean and variance under the normal-inverse-gamma prior
/// (mean 0, `strength` pseudo-observations, shape 1, scale 1), a constant hazard of one change in
/// `expected_run` points, on the standardised series. The changes are those of the most probable run
/// lengths, walked back from the last point.
pub fn bayesian_online(values: &[f64], expected_run: f64, strength: f64) -> Vec<usize> {
    let n = values.len();
    let mean = values.iter().sum::<f64>() / n as f64;
    let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64).sqrt();
    let scale = if deviation > 0.0 { deviation } else { 1.0 };
    let hazard = 1.0 / expected_run;

    // One entry per run length: probability and posterior parameters.
    let mut runs = vec![Run::prior(1.0, strength)];
    let mut likeliest = Vec::with_capacity(n);
    for &value in values {
        let x = (value - mean) / scale;
        let weighted: Vec<f64> = runs
            .iter()
            .map(|run| run.probability * run.predictive(x))
            .collect();
        let total: f64 = weighted.iter().sum();
        let mut next = Vec::with_capacity(runs.len() + 1);
        next.push(Run::prior(hazard, strength));
        for (run, weight) in runs.iter().zip(&weighted) {
            let probability = if total > 0.0 { weight / total } else { 0.0 };
            next.push(run.with(x, probability * (1.0 - hazard)));
        }
        if total <= 0.0 {
            next[0].probability = 1.0;
        }
        let longest = (0..next.len())
            .max_by(|&a, &b| next[a].probability.total_cmp(&next[b].probability))
            .unwrap_or(0);
        likeliest.push(longest);
        runs = next;
    }
    let mut changes = vec![];
    let mut end = n;
    while end > 0 {
        let run = likeliest[end - 1].clamp(1, end);
        let start = end - run;
        if start > 0 {
            changes.push(start);
        }
        end = start;
    }
    changes.reverse();
    changes
}

/// A run length of the Bayesian method: how probable, and the posterior of its segment.
#[derive(Clone, Copy)]
struct Run {
    probability: f64,
    mean: f64,
    strength: f64,
    shape: f64,
    scale: f64,
}

impl Run {
    fn prior(probability: f64, strength: f64) -> Self {
        Self {
            probability,
            mean: 0.0,
            strength,
            shape: 1.0,
            scale: 1.0,
        }
    }

    /// The density of `x` next: Student's t.
    fn predictive(&self, x: f64) -> f64 {
        let freedom = 2.0 * self.shape;
        let variance = self.scale * (self.strength + 1.0) / (self.shape * self.strength);
        let z = (x - self.mean).powi(2) / variance;
        let log = ln_gamma((freedom + 1.0) / 2.0)
            - ln_gamma(freedom / 2.0)
            - 0.5 * (freedom * std::f64::consts::PI * variance).ln()
            - (freedom + 1.0) / 2.0 * (z / freedom).ln_1p();
        log.exp()
    }

    fn with(&self, x: f64, probability: f64) -> Self {
        let strength = self.strength + 1.0;
        let off = x - self.mean;
        Self {
            probability,
            mean: self.mean + off / strength,
            strength,
            shape: self.shape + 0.5,
            scale: self.scale + 0.5 * self.strength * off * off / strength,
        }
    }
}

/// Logarithm of the gamma function by Stirling's series, exact to 1e-10 for the shapes used here.
fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut shift) = (x, 0.0);
    while x < 8.0 {
        shift -= x.ln();
        x += 1.0;
    }
    let inverse = 1.0 / x;
    let square = inverse * inverse;
    shift + (x - 0.5) * x.ln() - x
        + 0.5 * std::f64::consts::TAU.ln()
        + inverse / 12.0 * (1.0 - square / 30.0 * (1.0 - square * 2.0 / 7.0))
}
