//! Two known methods to measure against: PELT and Bayesian online change point detection.
//!
//! Both are written out here because the crates that have them pull in linear algebra of many times
//! their size.

use std::fmt;

use crate::labelled::Labelled;
use crate::score::Score;

/// A method with its settings.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rival {
    /// [`pelt`]; the penalty is this many times the variance of the noise times the logarithm of the
    /// points, the noise measured by the median absolute difference of neighbours.
    Pelt {
        /// What a segment is.
        model: SegmentModel,
        /// Multiple of variance and logarithm.
        penalty: f64,
        /// Least length of a segment, in points.
        shortest: usize,
    },
    /// [`bayesian_online`].
    BayesianOnline {
        /// Expected points from one change to the next.
        expected_run: f64,
        /// Pseudo-observations of the prior mean.
        strength: f64,
        /// Scale of the prior variance, as a share of the variance of the series.
        scale: f64,
    },
}

impl Rival {
    /// The change points of `values`.
    pub(crate) fn find(&self, values: &[f64]) -> Vec<usize> {
        match *self {
            Self::Pelt {
                model,
                penalty,
                shortest,
            } => {
                let unit = noise_variance(values) * (values.len() as f64).ln();
                pelt(values, model, penalty * unit, shortest)
            }
            Self::BayesianOnline {
                expected_run,
                strength,
                scale,
            } => bayesian_online(values, expected_run, strength, scale),
        }
    }
}

impl fmt::Display for Rival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pelt {
                penalty, shortest, ..
            } => write!(
                f,
                "penalty {penalty} σ² ln n, segments of {shortest} and more"
            ),
            Self::BayesianOnline {
                expected_run,
                strength,
                scale,
            } => write!(
                f,
                "runs of {expected_run:e}, prior strength {strength}, scale {scale}"
            ),
        }
    }
}

/// The methods by name, each with all settings that are tried.
pub(crate) fn families() -> Vec<(&'static str, Vec<Rival>)> {
    let pelt = |model| {
        let mut settings = vec![];
        for penalty in [
            1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 96.0, 128.0,
        ] {
            for shortest in [5, 10, 20, 30] {
                settings.push(Rival::Pelt {
                    model,
                    penalty,
                    shortest,
                });
            }
        }
        settings
    };
    let mut bayesian = vec![];
    for expected_run in [250.0, 1e4, 1e8, 1e12, 1e16] {
        for strength in [0.01, 0.1, 1.0, 10.0] {
            for scale in [0.01, 0.1, 1.0, 10.0] {
                bayesian.push(Rival::BayesianOnline {
                    expected_run,
                    strength,
                    scale,
                });
            }
        }
    }
    vec![
        ("PELT, means", pelt(SegmentModel::Mean)),
        ("PELT, lines", pelt(SegmentModel::Line)),
        ("Bayesian online", bayesian),
    ]
}

/// The one of `settings` that scores the best F1 on `set`, each series being given as `data`.
pub(crate) fn tune(set: &[Labelled], data: &[Vec<f64>], settings: &[Rival]) -> (Rival, Score) {
    let scored = settings.iter().map(|rival| {
        let mut score = Score::default();
        for (series, values) in set.iter().zip(data) {
            score.add(&series.changes, &rival.find(values), values.len());
        }
        (*rival, score)
    });
    scored
        .max_by(|a, b| a.1.f1().total_cmp(&b.1.f1()))
        .expect("there are settings")
}

/// The series less the season of its true period: per phase the median off the mean of the period
/// around.
pub(crate) fn without_season(series: &Labelled) -> Vec<f64> {
    let (values, period) = (&series.values, series.period as usize);
    let n = values.len();
    if period < 2 || n < period {
        return values.clone();
    }
    let mut phases: Vec<Vec<f64>> = vec![vec![]; period];
    for (i, value) in values.iter().enumerate() {
        let from = i.saturating_sub(period / 2).min(n - period);
        let mean = values[from..from + period].iter().sum::<f64>() / period as f64;
        phases[i % period].push(value - mean);
    }
    let shape: Vec<f64> = phases.into_iter().map(median).collect();
    let values = values.iter().enumerate();
    values.map(|(i, value)| value - shape[i % period]).collect()
}

fn noise_variance(values: &[f64]) -> f64 {
    let differences = values.windows(2).map(|pair| (pair[1] - pair[0]).abs());
    let deviation = 1.4826 * median(differences.collect()) / 2f64.sqrt();
    // A series that mostly repeats itself still has a price for a change.
    let largest = values.iter().fold(0.0, |most: f64, v| most.max(v.abs()));
    deviation.max(1e-6 * largest).powi(2).max(f64::MIN_POSITIVE)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What a segment of PELT is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SegmentModel {
    /// A constant: squared deviations from the mean.
    Mean,
    /// A straight line: squared deviations from the least squares line.
    Line,
}

/// The change points of `values` by PELT (Killick, Fearnhead and Eckley, 2012): the segmentation of
/// least squared error plus `penalty` for each change, segments no shorter than `shortest`.
pub(crate) fn pelt(
    values: &[f64],
    model: SegmentModel,
    penalty: f64,
    shortest: usize,
) -> Vec<usize> {
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
/// (mean 0, `strength` pseudo-observations, shape 1, `prior_scale`), a constant hazard of one change in
/// `expected_run` points, on the standardised series. The changes are those of the most probable run
/// lengths, walked back from the last point.
pub(crate) fn bayesian_online(
    values: &[f64],
    expected_run: f64,
    strength: f64,
    prior_scale: f64,
) -> Vec<usize> {
    let n = values.len();
    let mean = values.iter().sum::<f64>() / n as f64;
    let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64).sqrt();
    let scale = if deviation > 0.0 { deviation } else { 1.0 };
    let hazard = 1.0 / expected_run;

    // One entry per run length that is not all but impossible.
    let mut runs = vec![Run::prior(1.0, strength, prior_scale)];
    let mut likeliest = Vec::with_capacity(n);
    for &value in values {
        let x = (value - mean) / scale;
        let weighted: Vec<f64> = runs
            .iter()
            .map(|run| run.probability * run.predictive(x))
            .collect();
        let total: f64 = weighted.iter().sum();
        let mut next = vec![Run::prior(hazard, strength, prior_scale)];
        for (run, weight) in runs.iter().zip(&weighted) {
            // A value that no run could have predicted starts a new one.
            let probability = if total > 0.0 { weight / total } else { 0.0 };
            if probability > LEAST_PROBABILITY {
                next.push(run.with(x, probability * (1.0 - hazard)));
            }
        }
        let longest = next
            .iter()
            .max_by(|a, b| a.probability.total_cmp(&b.probability));
        likeliest.push(longest.map_or(0, |run| run.length));
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

/// Run lengths less probable than this are given up.
const LEAST_PROBABILITY: f64 = 1e-20;

/// A run length of the Bayesian method: how probable, and the posterior of its segment.
#[derive(Clone, Copy)]
struct Run {
    length: usize,
    probability: f64,
    mean: f64,
    strength: f64,
    shape: f64,
    scale: f64,
}

impl Run {
    fn prior(probability: f64, strength: f64, scale: f64) -> Self {
        Self {
            length: 0,
            probability,
            mean: 0.0,
            strength,
            shape: 1.0,
            scale,
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
            length: self.length + 1,
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
