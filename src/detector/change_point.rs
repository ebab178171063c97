//! Change points: where the trend of a series breaks, in level or in slope, and stays broken.
//!
//! The service never published its method, so this one is Lapwing's own, on the detector's period
//! search and robust STL: the season is taken off, what is left is cut into straight pieces
//! ([`segmentation`]), the season is fitted again around the pieces, and so on until they stand still.
//! A change point is the first point of a new piece. Method, sources and figures:
//! `docs/change-points.md`.

mod noise;
mod segmentation;

use std::num::NonZeroU32;

use self::segmentation::{Costs, Points, Segmentation};
use super::decomposition::{Decomposition, Kind, Parts};
use super::error::{DetectError, ErrorCode};
use super::fill::Gaps;
use super::options::{Granularity, Impute, Options};
use super::sliding_median::SlidingMedian;
use super::{MOST_MISSING, Series, Workspace, stats};
use crate::series::Timestamp;

/// Least window that can be asked for, in points.
const SHORTEST_WINDOW: u32 = 3;
/// A default window is at most this part of the series.
const WINDOWS_PER_SERIES: usize = 8;
/// Thresholds that can be asked for.
const THRESHOLDS: std::ops::RangeInclusive<f64> = 0.01..=0.99;
/// Points this many standard deviations off the sliding median count for no piece.
const OUTLIER_DEVIATIONS: f64 = 5.0;
/// Price of a slope, in units of the variance and of the logarithm of the points: half of what a
/// change costs by default.
const SLOPE_PRICE: f64 = 1.5;
/// Least part of a period that may take its place, in points.
const SHORTEST_CYCLE: usize = 4;
/// Seasons that a piece must span before it may slope: less is as well a season of another shape.
const SEASONS_PER_SLOPE: usize = 2;
/// Most times that season and pieces are fitted in turn.
const ROUNDS: usize = 5;

/// What can be asked of the change point search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChangePointOptions {
    /// Unit of the time grid.
    pub granularity: Granularity,
    /// Granules from one point of the grid to the next.
    pub custom_interval: NonZeroU32,
    /// Points per season; 0 or 1: not seasonal; `None`: searched for.
    pub period: Option<u32>,
    /// For how many points a trend has to hold to be one: 3 and more, less than half of the series. A
    /// piece has at least half as many points. `None`: by granularity, and at most an eighth of the
    /// series.
    pub stable_trend_window: Option<u32>,
    /// From 0.01 to 0.99; a lower one tolerates a larger error of the trend and so accepts fewer change
    /// points. `None`: 0.9, hourly 0.91.
    pub threshold: Option<f64>,
}

impl Default for ChangePointOptions {
    /// What the service took for a request without options.
    fn default() -> Self {
        Self {
            granularity: Granularity::None,
            custom_interval: NonZeroU32::MIN,
            period: None,
            stable_trend_window: None,
            threshold: None,
        }
    }
}

/// The change points of a series.
#[derive(Clone, Debug, PartialEq)]
pub struct ChangePoints {
    /// Points per season; 0: none.
    pub period: u32,
    /// Per point of the series: a new trend begins with it.
    pub is_change_point: Vec<bool>,
    /// Per point of the series: how probable it is that a new trend begins with it, 0..=1. At least 0.5
    /// where one does.
    pub confidence_scores: Vec<f64>,
}

impl Workspace {
    /// Finds the change points of the series whose points are `values` at `timestamps`.
    pub fn change_point(
        &mut self,
        timestamps: &[Timestamp],
        values: &[f64],
        options: &ChangePointOptions,
    ) -> Result<ChangePoints, DetectError> {
        self.change_point_of(
            Series {
                timestamps,
                offsets: None,
                values,
            },
            options,
        )
    }

    /// [`Workspace::change_point`] for a series that may carry the offsets it was written in.
    pub fn change_point_of(
        &mut self,
        series: Series<'_>,
        options: &ChangePointOptions,
    ) -> Result<ChangePoints, DetectError> {
        let threshold = options.threshold()?;
        let values = series.values;
        let detector = options.detector();
        self.validate(&series, &detector)?;
        let window = options.window(values.len())?;
        let period = match options.period {
            Some(period) if self.gaps().slots() < 2 * i64::from(period) + 1 => {
                return Err(DetectError::insufficient_points());
            }
            Some(period) => period as usize,
            None if self.gaps().missing_ratio() > MOST_MISSING => 0,
            None => self.find_period(values, &detector)?,
        };
        let gaps = self.gaps();
        if period > 1 && gaps.missing_ratio() > MOST_MISSING {
            let wanted = (MOST_MISSING * gaps.slots() as f64).ceil() as u64;
            return Err(DetectError::too_many_gaps(wanted, values.len()));
        }
        let mut search = Search::new(values, &self.indices, period, window, threshold);
        search.run();
        Ok(search.verdict())
    }

    fn gaps(&self) -> Gaps<'_> {
        Gaps {
            indices: &self.indices,
        }
    }
}

impl ChangePointOptions {
    fn threshold(&self) -> Result<f64, DetectError> {
        let hourly = self.granularity == Granularity::Hourly;
        let threshold = self.threshold.unwrap_or(if hourly { 0.91 } else { 0.9 });
        if THRESHOLDS.contains(&threshold) {
            return Ok(threshold);
        }
        let text = format!(
            "The 'threshold' field must be between {} and {}, but is {threshold}.",
            THRESHOLDS.start(),
            THRESHOLDS.end()
        );
        Err(DetectError::new(ErrorCode::InvalidModelArgument, text))
    }

    /// The stable trend window for a series of `n` points.
    fn window(&self, n: usize) -> Result<usize, DetectError> {
        let Some(window) = self.stable_trend_window else {
            let usual = match self.granularity {
                Granularity::Yearly | Granularity::Weekly => 3,
                Granularity::Daily => 5,
                Granularity::Monthly => 6,
                Granularity::Hourly => 24,
                Granularity::Minutely | Granularity::Secondly => 72,
                Granularity::Microsecond | Granularity::None => 100,
            };
            let most = (n / WINDOWS_PER_SERIES).max(SHORTEST_WINDOW as usize);
            return Ok(usual.min(most));
        };
        if window >= SHORTEST_WINDOW && 2 * (window as usize) < n {
            return Ok(window as usize);
        }
        let text = format!(
            "The 'stableTrendWindow' field must be an integer >= {SHORTEST_WINDOW} and less than half of the {n} points of 'series', but is {window}."
        );
        Err(DetectError::new(ErrorCode::InvalidModelArgument, text))
    }

    /// What the checks of the series and the period search want to know.
    fn detector(&self) -> Options {
        Options {
            granularity: self.granularity,
            custom_interval: self.custom_interval,
            ..Options::default()
        }
    }
}

/// One search: the series in units of its own spread, and what is known of it so far.
struct Search<'a> {
    indices: &'a [i64],
    period: usize,
    /// Points after which the season repeats: the period, or a part of it.
    cycle: usize,
    window: usize,
    threshold: f64,
    x: Vec<f64>,
    y: Vec<f64>,
    season: Vec<f64>,
    /// What is left without the season.
    level: Vec<f64>,
    counts: Vec<bool>,
    changes: Vec<usize>,
    pieces: Option<Segmentation>,
}

impl<'a> Search<'a> {
    fn new(
        values: &[f64],
        indices: &'a [i64],
        period: usize,
        window: usize,
        threshold: f64,
    ) -> Self {
        let n = values.len();
        // A long grid keeps the abscissae of its points within the number of points: squares of slots
        // would swamp the sums.
        let last = indices.last().map_or(1.0, |last| *last as f64).max(1.0);
        let shrink = (n - 1) as f64 / last;
        let middle = stats::median(&mut values.to_vec());
        let largest = values
            .iter()
            .fold(0.0, |most: f64, value| most.max((value - middle).abs()));
        let unit = if largest > 0.0 { largest } else { 1.0 };
        Self {
            indices,
            period,
            cycle: 1,
            window,
            threshold,
            x: indices
                .iter()
                .map(|slot| (*slot as f64 - 0.5 * last) * shrink)
                .collect(),
            y: values.iter().map(|value| (value - middle) / unit).collect(),
            season: vec![0.0; n],
            level: vec![],
            counts: vec![true; n],
            changes: vec![],
            pieces: None,
        }
    }

    fn run(&mut self) {
        if self.period > 1 {
            self.decompose();
        }
        self.take_season_off();
        let mut variance = noise::white_variance(&self.level);
        for round in 0..ROUNDS {
            let spread = stats::variance(&self.level).sqrt();
            // A constant series, up to rounding.
            if spread <= 1e-12 {
                return;
            }
            let tolerance = 0.5 * (1.0 - self.threshold) * spread;
            self.set_outliers_aside(tolerance);
            let pieces = Segmentation::new(
                Points {
                    x: &self.x,
                    y: &self.level,
                    counts: &self.counts,
                },
                self.costs(variance.max(tolerance * tolerance)),
            );
            let changes = pieces.changes();
            let trend = self.trend(&pieces, &changes);
            let settled = round > 0 && changes == self.changes;
            self.changes = changes;
            self.pieces = Some(pieces);
            if settled {
                return;
            }
            // Once only: a variance that follows the pieces takes every change that it swallows for
            // more noise, and in a short series ends with none.
            if round == 0 {
                variance = self.noise_around(&trend);
            }
            if self.cycle > 1 {
                self.fit_season(&trend);
                self.take_season_off();
            }
        }
    }

    fn verdict(mut self) -> ChangePoints {
        let n = self.y.len();
        let mut is_change_point = vec![false; n];
        let mut confidence_scores = vec![0.0; n];
        if let Some(pieces) = &self.pieces {
            pieces.place_kinks(&mut self.changes);
            for &at in &self.changes {
                is_change_point[at] = true;
            }
            confidence_scores = pieces.probabilities(&self.changes);
        }
        ChangePoints {
            period: self.period as u32,
            is_change_point,
            confidence_scores,
        }
    }

    /// The first season: what robust STL's trend leaves of the series with its gaps filled, on the
    /// shortest cycle that does the period justice.
    ///
    /// The period search takes a day that it has verified for a week wherever two weeks are at hand, and
    /// medians over two or three weeks are poor ones. Schwarz's criterion, of absolute deviations,
    /// chooses among the parts of the period and no season.
    fn decompose(&mut self) {
        let gaps = Gaps {
            indices: self.indices,
        };
        let mut filled = vec![];
        let y = if gaps.fillable() {
            gaps.fill(&self.y, Impute::Auto, self.period, &mut filled);
            &filled
        } else {
            &self.y
        };
        let kind = Kind {
            period: self.period,
            log: false,
            last: false,
        };
        let mut parts = Parts::default();
        Decomposition::default().robust(y, kind, &mut parts);
        let slots = self.indices.iter();
        let trend: Vec<f64> = slots.map(|slot| parts.trend[*slot as usize]).collect();
        let n = self.y.len() as f64;
        let mut best = (f64::INFINITY, 1);
        for cycle in 1..=self.period {
            let listed = cycle == 1 || cycle == self.period || cycle >= SHORTEST_CYCLE;
            if !listed || !self.period.is_multiple_of(cycle) {
                continue;
            }
            self.cycle = cycle;
            self.fit_season(&trend);
            let deviations: f64 = (0..self.y.len())
                .map(|i| (self.y[i] - trend[i] - self.season[i]).abs())
                .sum();
            let criterion = 2.0 * n * (deviations / n).ln() + cycle as f64 * n.ln();
            if criterion < best.0 {
                best = (criterion, cycle);
            }
        }
        self.cycle = best.1;
        self.fit_season(&trend);
    }

    /// The next season: per phase the median of what the pieces leave.
    fn fit_season(&mut self, trend: &[f64]) {
        let mut phases: Vec<Vec<f64>> = vec![vec![]; self.cycle];
        for i in 0..self.y.len() {
            if self.counts[i] {
                phases[self.phase(i)].push(self.y[i] - trend[i]);
            }
        }
        let mut shape: Vec<f64> = phases
            .iter_mut()
            .map(|phase| {
                if phase.is_empty() {
                    0.0
                } else {
                    stats::median(phase)
                }
            })
            .collect();
        let mean = stats::mean(&shape);
        shape.iter_mut().for_each(|value| *value -= mean);
        for i in 0..self.season.len() {
            self.season[i] = shape[self.phase(i)];
        }
    }

    fn phase(&self, i: usize) -> usize {
        (self.indices[i] % self.cycle as i64) as usize
    }

    fn take_season_off(&mut self) {
        self.level.clear();
        self.level
            .extend(self.y.iter().zip(&self.season).map(|(y, s)| y - s));
    }

    /// Leaves out what stands far off the sliding median: runs of up to a quarter of a window, which
    /// are no trend.
    fn set_outliers_aside(&mut self, tolerance: f64) {
        let scale = noise::white_variance(&self.level)
            .sqrt()
            .max(0.3 * tolerance);
        let medians = sliding_median(&self.level, (self.window / 4).max(1));
        for ((counts, level), median) in self.counts.iter_mut().zip(&self.level).zip(&medians) {
            *counts = (level - median).abs() <= OUTLIER_DEVIATIONS * scale;
        }
    }

    fn costs(&self, variance: f64) -> Costs {
        let logarithm = (self.y.len() as f64).ln();
        Costs {
            variance,
            // 3 at the default threshold; 6.6 and 2.6 at its ends.
            change: (6.6 - 4.0 * self.threshold) * logarithm,
            slope: SLOPE_PRICE * logarithm,
            shortest: self.window.div_ceil(2),
            shortest_slope: self.window.max(SEASONS_PER_SLOPE * self.cycle),
        }
    }

    fn trend(&self, pieces: &Segmentation, changes: &[usize]) -> Vec<f64> {
        let mut trend = Vec::with_capacity(self.y.len());
        for (from, to) in segmentation::spans(changes, self.y.len()) {
            let (base, slope) = pieces.line(from, to);
            trend.extend(self.x[from..to].iter().map(|x| base + slope * x));
        }
        trend
    }

    /// The long-run variance of what the pieces leave. Each piece fits a line, the season its phases.
    fn noise_around(&self, trend: &[f64]) -> f64 {
        let n = self.y.len();
        let fitted = self.cycle - 1 + 2 * (self.changes.len() + 1);
        let mut begins = vec![false; n];
        for (from, _) in segmentation::spans(&self.changes, n) {
            begins[from] = true;
        }
        let residuals: Vec<f64> = self.level.iter().zip(trend).map(|(y, t)| y - t).collect();
        noise::long_run_variance(&residuals, &self.counts, &begins, fitted)
    }
}

/// The median of the `2·half + 1` points around each, fewer towards the ends, as many on both sides.
fn sliding_median(y: &[f64], half: usize) -> Vec<f64> {
    let mut single = vec![];
    SlidingMedian::default().filter(y, 2 * half + 1, &mut single);
    let mut medians: Vec<f64> = single.iter().map(|value| f64::from(*value)).collect();
    let n = y.len();
    for i in 0..half.min(n / 2) {
        medians[i] = stats::median(&mut y[..2 * i + 1].to_vec());
        medians[n - 1 - i] = stats::median(&mut y[n - 2 * i - 1..].to_vec());
    }
    medians
}
