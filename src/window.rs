//! Rolling windows: what becomes of an arriving point, and what is kept of its series. Pure: no I/O, no
//! clock.
//!
//! # For the author of a pipeline
//!
//! A [`Shard`] holds the windows of one topic-partition and the fence that tells fresh offsets from
//! redelivered ones. It is never changed by looking: a batch makes a [`Plan`], the plan's [`SeriesWork`]
//! runs on copies of the touched windows (each piece on its own, so in parallel), and what the work did is
//! collected in a [`Change`]. The change is saved first and applied afterwards; a save that fails leaves
//! the shard as it was.
//!
//! ```
//! use lapwing::series::{Point, Timestamp};
//! use lapwing::window::{Arrival, Change, Entry, Rules, Shard};
//!
//! let rules = Rules { points: 12, min_points: 12, ..Rules::default() };
//! let mut shard = Shard::default();
//! let arrivals: Vec<Arrival> = (0..12)
//!     .map(|i| Arrival {
//!         offset: i,
//!         broker_ms: Some(1_700_000_000_000 + i),
//!         // `None` for a message that is no point: its offset counts all the same.
//!         point: Some(("eth0", Point {
//!             timestamp: Timestamp::from_micros(i * 300_000_000),
//!             value: i as f64,
//!         })),
//!     })
//!     .collect();
//!
//! let mut plan = shard.plan(&rules, &arrivals);
//! assert!(plan.admissions.iter().all(|a| a.entry == Entry::Fresh && a.epoch == 0));
//!
//! // One piece of work a series; `par_iter_mut` does as well.
//! let (mut timestamps, mut values) = (Vec::new(), Vec::new());
//! for work in &mut plan.work {
//!     work.run(&rules, |arrival, push, window| {
//!         if push.is_kept() && window.len() >= rules.min_points {
//!             window.copy_to(&mut timestamps, &mut values); // and judge the newest of them
//!             assert_eq!((arrival, values.len()), (11, 12));
//!         }
//!     });
//! }
//!
//! let change = Change::new(plan);
//! // save it (`store::Ledger::commit` does both), then:
//! shard.apply(&change, &rules);
//! assert_eq!(shard.window("eth0").unwrap().len(), 12);
//! ```

pub mod codec;
mod grid;
mod shard;
mod timeline;

use std::collections::VecDeque;
use std::time::Duration;

use crate::config::{self, InvalidSetting, Settings, Span};
use crate::series::{Point, Timestamp};

pub use grid::{Grid, InvalidGrid};
pub use shard::{
    Admission, Arrival, Boundary, Change, Entry, Fence, Plan, SeriesChange, SeriesWork, Shard,
    ShardId,
};
use timeline::{Run, Timeline};

/// Points in a row that have to share another phase before the window takes it over: as many as the
/// shortest series that the detector takes.
pub const PHASE_RUN: u8 = 12;

/// What a window keeps, and where its points may lie.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Points kept of a series, the newest; 12 to 8640.
    pub points: usize,
    /// Points from which on the newest is judged; 12 to `points`.
    pub min_points: usize,
    /// Where points may lie.
    pub grid: Grid,
    /// What becomes of a point that lies elsewhere.
    pub off_grid: OffGrid,
    /// Series kept per shard.
    pub max_series: usize,
    /// Silence after which a series leaves the store.
    pub forget_after: Duration,
}

/// What becomes of a point off the window's grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffGrid {
    /// It is refused.
    Reject,
    /// It goes to the nearest slot.
    Snap,
}

impl Default for Rules {
    /// What holds without any setting.
    fn default() -> Self {
        Self {
            points: 288,
            min_points: 288,
            grid: Grid::Fixed {
                step: 300_000_000,
                resolution: 1,
            },
            off_grid: OffGrid::Reject,
            max_series: 100_000,
            forget_after: Duration::from_secs(30 * 86_400),
        }
    }
}

impl Rules {
    /// The rules that the settings ask for.
    pub fn from_settings(settings: &Settings) -> Result<Self, InvalidSetting> {
        let points: usize = settings.required(&config::WINDOW_POINTS)?;
        let wrong = |setting, value: usize, reason: String| {
            InvalidSetting::new(setting, &value.to_string(), reason)
        };
        if !(12..=8640).contains(&points) {
            let reason = "expected 12 to 8640, the lengths that the detector takes".to_owned();
            return Err(wrong(&config::WINDOW_POINTS, points, reason));
        }
        let min_points = settings
            .parsed(&config::WINDOW_MIN_POINTS)?
            .unwrap_or(points);
        if !(12..=points).contains(&min_points) {
            let reason = format!("expected 12 to {points}, the value of Window__Points");
            return Err(wrong(&config::WINDOW_MIN_POINTS, min_points, reason));
        }
        let max_series = settings.required(&config::WINDOW_MAX_SERIES)?;
        if !(1..=10_000_000).contains(&max_series) {
            let reason = "expected 1 to 10000000".to_owned();
            return Err(wrong(&config::WINDOW_MAX_SERIES, max_series, reason));
        }
        let granularity: String = settings.required(&config::DETECTOR_GRANULARITY)?;
        let interval: u32 = settings.required(&config::DETECTOR_CUSTOM_INTERVAL)?;
        let grid = Grid::new(&granularity, interval).map_err(|error| match error {
            InvalidGrid::Granularity => {
                InvalidSetting::new(&config::DETECTOR_GRANULARITY, &granularity, error)
            }
            InvalidGrid::Interval => {
                let value = interval.to_string();
                InvalidSetting::new(&config::DETECTOR_CUSTOM_INTERVAL, &value, error)
            }
        })?;
        let off_grid: String = settings.required(&config::WINDOW_OFF_GRID)?;
        let off_grid = match off_grid.to_ascii_lowercase().as_str() {
            "reject" => OffGrid::Reject,
            "snap" => OffGrid::Snap,
            _ => {
                return Err(InvalidSetting::new(
                    &config::WINDOW_OFF_GRID,
                    &off_grid,
                    "expected reject or snap",
                ));
            }
        };
        let Span(forget_after) = settings.required(&config::WINDOW_FORGET_AFTER)?;
        Ok(Self {
            points,
            min_points,
            grid,
            off_grid,
            max_series,
            forget_after,
        })
    }
}

/// What became of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Push {
    /// On the grid, after the newest: it is the newest now.
    Kept,
    /// Off the grid and moved to the slot given, as [`OffGrid::Snap`] asks.
    Snapped(Timestamp),
    /// Kept; everything before it was dropped.
    Restarted(Restart),
    /// Its slot is taken; the first one stays.
    Repeated,
    /// Older than the newest.
    Late,
    /// Off the grid.
    OffGrid,
}

/// Why a window started anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// The point came as many slots after the newest as the window is long, or more.
    Gap,
    /// It was the twelfth in a row of one other phase. The eleven before it were refused (or snapped)
    /// one by one as they came and stay so: each point has one fate.
    Phase,
}

impl Push {
    /// Whether the point is the window's newest now.
    pub fn is_kept(self) -> bool {
        matches!(self, Self::Kept | Self::Snapped(_) | Self::Restarted(_))
    }

    /// The dead-letter reason of a point that was not kept.
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Self::Kept | Self::Snapped(_) | Self::Restarted(_) => None,
            Self::Repeated => Some("repeated"),
            Self::Late => Some("late"),
            Self::OffGrid => Some("off-grid"),
        }
    }
}

/// What a push did to a window: enough to do it again without any rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Effect {
    /// The point was appended, and ended any run of another phase.
    Keep(Point),
    /// The point was appended at the slot given; a run of another phase goes on.
    Snap(Point),
    /// Everything was dropped and the point is the first.
    Restart(Point),
    /// A point off the grid that shares no phase with the ones before it.
    Stray(Timestamp),
    /// A point off the grid that shares the phase of the run.
    NextStray(Timestamp),
}

/// The newest points of one series.
///
/// Full and without gaps it takes 8 bytes a point and about 150 besides.
#[derive(Clone, Debug, Default)]
pub struct Window {
    times: Timeline,
    values: VecDeque<f64>,
    stray: Option<StrayRun>,
}

/// Points off the grid that came one after the other and share one phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct StrayRun {
    anchor: Timestamp,
    last: Timestamp,
    count: u8,
}

impl Window {
    /// Points held.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The oldest timestamp.
    pub fn first(&self) -> Option<Timestamp> {
        self.times.first()
    }

    /// The newest timestamp.
    pub fn newest(&self) -> Option<Timestamp> {
        self.times.newest()
    }

    /// The points, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = Point> + '_ {
        self.times
            .iter()
            .zip(&self.values)
            .map(|(timestamp, &value)| Point { timestamp, value })
    }

    /// Replaces what the buffers hold by the timestamps and the values, oldest first.
    pub fn copy_to(&self, timestamps: &mut Vec<Timestamp>, values: &mut Vec<f64>) {
        timestamps.clear();
        timestamps.extend(self.times.iter());
        let (front, back) = self.values.as_slices();
        values.clear();
        values.extend_from_slice(front);
        values.extend_from_slice(back);
    }

    /// Takes a point in, or says why not.
    pub fn push(&mut self, rules: &Rules, point: Point) -> Push {
        self.push_noting(rules, point, |_| ())
    }

    /// Takes a point in and hands `note` each effect that this had.
    pub(crate) fn push_noting(
        &mut self,
        rules: &Rules,
        point: Point,
        mut note: impl FnMut(Effect),
    ) -> Push {
        let (push, stray) = self.sort(rules, point);
        let kept = match push {
            Push::Kept => Some(Effect::Keep(point)),
            Push::Restarted(_) => Some(Effect::Restart(point)),
            Push::Snapped(timestamp) => Some(Effect::Snap(Point { timestamp, ..point })),
            Push::Repeated | Push::Late | Push::OffGrid => None,
        };
        for effect in stray.into_iter().chain(kept) {
            self.apply(effect, rules.points);
            note(effect);
        }
        push
    }

    /// Does what a push did; `capacity` is the most points kept.
    pub(crate) fn apply(&mut self, effect: Effect, capacity: usize) {
        match effect {
            Effect::Keep(point) => {
                self.stray = None;
                self.append(point, capacity);
            }
            Effect::Snap(point) => self.append(point, capacity),
            Effect::Restart(point) => {
                self.stray = None;
                self.times.clear();
                self.values.clear();
                self.append(point, capacity);
            }
            Effect::Stray(at) => {
                self.stray = Some(StrayRun {
                    anchor: at,
                    last: at,
                    count: 1,
                });
            }
            Effect::NextStray(at) => {
                if let Some(run) = &mut self.stray {
                    run.last = at;
                    run.count = run.count.saturating_add(1);
                }
            }
        }
    }

    /// What becomes of a point, and what it does to the run of another phase; nothing is changed yet.
    fn sort(&self, rules: &Rules, point: Point) -> (Push, Option<Effect>) {
        let at = point.timestamp;
        let (Some(first), Some(newest)) = (self.first(), self.newest()) else {
            return (Push::Kept, None);
        };
        if at <= newest {
            let slot = match rules.off_grid {
                OffGrid::Snap if rules.grid.index(first, at).is_none() => {
                    rules.grid.nearest(first, at)
                }
                _ => at,
            };
            let taken = self.times.contains(at) || self.times.contains(slot);
            return (if taken { Push::Repeated } else { Push::Late }, None);
        }
        // A gap this long leaves nothing to judge by, so that the grid starts anew as well.
        if rules.grid.elapsed(newest, at) >= rules.points as u64 {
            return (Push::Restarted(Restart::Gap), None);
        }
        if let Some(index) = rules.grid.index(first, at) {
            // Two instants of one slot: calendar days and milliseconds are coarser than timestamps.
            let taken =
                rules.grid.index(first, newest) == Some(index) && !matches!(rules.grid, Grid::None);
            return (if taken { Push::Repeated } else { Push::Kept }, None);
        }
        let stray = self.next_stray(rules.grid, at);
        let run = self.stray.map_or(0, |run| run.count);
        if matches!(stray, Some(Effect::NextStray(_))) && run + 1 >= PHASE_RUN {
            return (Push::Restarted(Restart::Phase), None);
        }
        let push = match rules.off_grid {
            OffGrid::Reject => Push::OffGrid,
            OffGrid::Snap => match rules.grid.nearest(first, at) {
                slot if slot > newest => Push::Snapped(slot),
                _ => Push::Repeated,
            },
        };
        (push, stray)
    }

    /// What a point off the grid does to the run of another phase. One that repeats a slot of the run, or
    /// goes back in it, neither counts nor breaks it: twelve copies of one stray point are no new phase.
    fn next_stray(&self, grid: Grid, at: Timestamp) -> Option<Effect> {
        let Some(run) = self.stray else {
            return Some(Effect::Stray(at));
        };
        match grid.index(run.anchor, at) {
            None => Some(Effect::Stray(at)),
            shared if at > run.last && shared != grid.index(run.anchor, run.last) => {
                Some(Effect::NextStray(at))
            }
            Some(_) => None,
        }
    }

    fn append(&mut self, point: Point, capacity: usize) {
        self.trim(capacity.saturating_sub(1));
        if self.values.len() == self.values.capacity() {
            // Doubling would end above the capacity and waste up to half.
            let room = capacity.saturating_sub(self.values.len());
            self.values
                .reserve_exact(self.values.len().clamp(8, room.max(8)).min(room));
        }
        self.times.push(point.timestamp);
        self.values.push_back(point.value);
    }

    /// Drops the oldest points until at most `points` are left.
    fn trim(&mut self, points: usize) {
        while self.values.len() > points {
            self.values.pop_front();
            self.times.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
