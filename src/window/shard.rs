//! The windows of one topic-partition, the fence against redelivery, and how a batch changes them.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::{Effect, Push, Rules, Window};
use crate::series::Point;

/// Names a shard: one partition of one topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId {
    /// Name of the topic.
    pub topic: String,
    /// Number of the partition.
    pub partition: i32,
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

impl FromStr for ShardId {
    type Err = &'static str;

    /// Reads `topic/partition`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected TOPIC/PARTITION, such as metrics/0";
        let (topic, partition) = text.rsplit_once('/').ok_or(EXPECTED)?;
        let partition = partition.parse().map_err(|_| EXPECTED)?;
        if topic.is_empty() || partition < 0 {
            return Err(EXPECTED);
        }
        Ok(Self {
            topic: topic.to_owned(),
            partition,
        })
    }
}

/// How far a partition was absorbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    /// How often the topic was found to have begun afresh; part of every record id.
    pub epoch: u32,
    /// The last offset absorbed, and the newest broker timestamp seen in this epoch or before it.
    pub reached: Boundary,
    /// How far the epoch before this one was absorbed.
    pub before: Option<Boundary>,
}

/// A point in a partition's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boundary {
    /// The last offset.
    pub offset: i64,
    /// The newest broker timestamp, in milliseconds since 1970; `None` if no message had one.
    pub broker_ms: Option<i64>,
}

impl Fence {
    /// The fence behind a message, and whether the message is fresh. `folds` says that a message with a
    /// lower offset follows it in its batch.
    ///
    /// An offset at or below the last is a redelivery, unless its broker timestamp is newer than any seen:
    /// then the topic was made again, or its broker started afresh, and a new epoch begins. An equal
    /// timestamp is what a redelivery of the newest message has, so it never opens one; without a
    /// timestamp nothing can be told and the message counts as redelivered.
    ///
    /// A batch can hold the end of one epoch and the start of the next. Delivered again after it was
    /// absorbed, its first half has offsets above the fence; it is known by what `before` says.
    fn behind(
        fence: Option<Self>,
        offset: i64,
        broker_ms: Option<i64>,
        folds: bool,
    ) -> Option<Self> {
        let Some(fence) = fence else {
            let reached = Boundary { offset, broker_ms };
            return Some(Self {
                epoch: 0,
                reached,
                before: None,
            });
        };
        let reached = Boundary {
            offset,
            broker_ms: broker_ms.max(fence.reached.broker_ms),
        };
        if offset > fence.reached.offset {
            let of_before = folds
                && fence
                    .before
                    .is_some_and(|b| offset <= b.offset && broker_ms <= b.broker_ms);
            (!of_before).then_some(Self { reached, ..fence })
        } else {
            (broker_ms > fence.reached.broker_ms).then_some(Self {
                epoch: fence.epoch + 1,
                reached,
                before: Some(fence.reached),
            })
        }
    }
}

/// A message of the partition as it arrived.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// Its offset.
    pub offset: i64,
    /// Its broker timestamp, in milliseconds since 1970.
    pub broker_ms: Option<i64>,
    /// Its series and point; `None` if it is no point.
    pub point: Option<(&'a str, Point)>,
}

/// What the fence says to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The epoch that the message belongs to, for its record id.
    pub epoch: u32,
    /// Whether the message opened that epoch, which deserves a warning.
    pub opens_epoch: bool,
    /// Whether it comes in.
    pub entry: Entry,
}

/// Whether a message comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Never seen before.
    Fresh,
    /// Absorbed earlier: nothing to do.
    Absorbed,
    /// Never seen before, but of a series too many for the shard: dead letter `too-many-series`.
    NoRoom,
}

/// What a batch comes to, before anything is changed.
#[derive(Debug)]
pub struct Plan {
    /// One per arrival, in their order.
    pub admissions: Vec<Admission>,
    /// One per series with fresh points, each to be [run](SeriesWork::run) once; independent of each
    /// other.
    pub work: Vec<SeriesWork>,
    fence: Option<Fence>,
    fresh: bool,
}

/// The fresh points of one series and a copy of its window.
#[derive(Debug)]
pub struct SeriesWork {
    number: u32,
    /// Only of a series that the shard does not know yet.
    name: Option<Arc<str>>,
    window: Window,
    arrivals: Vec<(usize, Point)>,
    effects: Vec<Effect>,
}

impl SeriesWork {
    /// Pushes the points in their order; `visit` gets, after each, the index of its arrival, what became
    /// of it, and the window as it is then.
    pub fn run(&mut self, rules: &Rules, mut visit: impl FnMut(usize, Push, &Window)) {
        for (arrival, point) in std::mem::take(&mut self.arrivals) {
            let effects = &mut self.effects;
            let push = self
                .window
                .push_noting(rules, point, |effect| effects.push(effect));
            visit(arrival, push, &self.window);
        }
    }
}

/// What a batch did to a shard: what is saved, and then applied.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    pub(crate) fence: Option<Fence>,
    /// Ascending by number; the numbers of new series follow those of the known without a gap.
    pub(crate) series: Vec<SeriesChange>,
    /// When it was saved.
    pub(crate) time: ShardTime,
    empty: bool,
}

/// What a batch did to one series.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesChange {
    pub(crate) number: u32,
    /// Only of a new series.
    pub(crate) name: Option<Arc<str>>,
    pub(crate) effects: Vec<Effect>,
}

impl Change {
    /// Collects what the work of a plan did; work that was not run did nothing.
    pub fn new(plan: Plan) -> Self {
        let mut series: Vec<_> = plan
            .work
            .into_iter()
            // A new series stays even so: the numbers after its own count on it.
            .filter(|work| !work.effects.is_empty() || work.name.is_some())
            .map(|work| SeriesChange {
                number: work.number,
                name: work.name,
                effects: work.effects,
            })
            .collect();
        series.sort_unstable_by_key(|change| change.number);
        Self {
            fence: plan.fence,
            series,
            time: ShardTime::default(),
            empty: !plan.fresh,
        }
    }

    pub(crate) fn from_parts(
        fence: Option<Fence>,
        series: Vec<SeriesChange>,
        time: ShardTime,
    ) -> Self {
        Self {
            fence,
            series,
            time,
            empty: false,
        }
    }

    /// Whether there is nothing to save: every message was absorbed before.
    pub fn is_empty(&self) -> bool {
        self.empty
    }
}

/// The clocks of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ShardTime {
    /// When it was saved last, in seconds since 1970.
    pub(crate) wall_s: u64,
    /// How long it has lived, in seconds: the wall clock without its jumps. Silence is measured by it, so
    /// that one wrong clock does not make a shard forget everything.
    pub(crate) age_s: u64,
}

/// The windows of one topic-partition.
#[derive(Clone, Debug, Default)]
pub struct Shard {
    pub(crate) fence: Option<Fence>,
    pub(crate) time: ShardTime,
    /// By number.
    pub(crate) series: Vec<Series>,
    numbers: HashMap<Arc<str>, u32>,
}

/// A series, its window, and when it was heard of last, by the age of the shard.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) name: Arc<str>,
    pub(crate) window: Window,
    pub(crate) heard_s: u64,
}

impl Shard {
    /// How far the partition was absorbed; `None` if nothing was.
    pub fn fence(&self) -> Option<&Fence> {
        self.fence.as_ref()
    }

    /// Number of series.
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether there is no series.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// The window of a series.
    pub fn window(&self, name: &str) -> Option<&Window> {
        self.number(name)
            .map(|number| &self.series[number as usize].window)
    }

    /// Every series with its window, in the order of their first points.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Window)> {
        self.series
            .iter()
            .map(|series| (&*series.name, &series.window))
    }

    /// Sorts a batch: what is fresh, what each series has to do, and where the fence will stand.
    pub fn plan(&self, rules: &Rules, arrivals: &[Arrival<'_>]) -> Plan {
        // Whether a lower offset follows: the running minimum, from the back.
        let mut lowest_after = i64::MAX;
        let mut folds = vec![false; arrivals.len()];
        for (fold, arrival) in folds.iter_mut().zip(arrivals).rev() {
            *fold = lowest_after < arrival.offset;
            lowest_after = lowest_after.min(arrival.offset);
        }

        let mut plan = Plan {
            admissions: Vec::with_capacity(arrivals.len()),
            work: Vec::new(),
            fence: self.fence,
            fresh: false,
        };
        let mut known_work: HashMap<u32, usize> = HashMap::new();
        let mut new_numbers: HashMap<&str, u32> = HashMap::new();
        for (index, (arrival, folds)) in arrivals.iter().zip(folds).enumerate() {
            let epoch = plan.fence.map_or(0, |fence| fence.epoch);
            let behind = Fence::behind(plan.fence, arrival.offset, arrival.broker_ms, folds);
            let Some(fence) = behind else {
                plan.admissions.push(Admission {
                    epoch,
                    opens_epoch: false,
                    entry: Entry::Absorbed,
                });
                continue;
            };
            plan.fence = Some(fence);
            plan.fresh = true;
            let mut admission = Admission {
                epoch: fence.epoch,
                opens_epoch: fence.epoch != epoch,
                entry: Entry::Fresh,
            };
            if let Some((name, point)) = arrival.point {
                let number = self
                    .number(name)
                    .or_else(|| new_numbers.get(name).copied())
                    .or_else(|| {
                        let number = self.series.len() + new_numbers.len();
                        (number < rules.max_series).then(|| {
                            new_numbers.insert(name, number as u32);
                            number as u32
                        })
                    });
                match number {
                    None => admission.entry = Entry::NoRoom,
                    Some(number) => {
                        let work = *known_work.entry(number).or_insert_with(|| {
                            plan.work.push(self.work(number, name));
                            plan.work.len() - 1
                        });
                        plan.work[work].arrivals.push((index, point));
                    }
                }
            }
            plan.admissions.push(admission);
        }
        plan
    }

    /// Does what a batch did. The change has to come from a plan of this very state.
    pub fn apply(&mut self, change: &Change, rules: &Rules) {
        self.apply_keeping(change, rules.points);
    }

    pub(crate) fn apply_keeping(&mut self, change: &Change, points: usize) {
        if change.empty {
            return;
        }
        self.fence = change.fence;
        self.time = change.time;
        for part in &change.series {
            if let Some(name) = &part.name {
                self.insert(Series {
                    name: Arc::clone(name),
                    window: Window::default(),
                    heard_s: 0,
                });
            }
            let series = &mut self.series[part.number as usize];
            series.heard_s = change.time.age_s;
            for &effect in &part.effects {
                series.window.apply(effect, points);
            }
        }
    }

    /// The clocks when something is saved at `wall_s`, seconds since 1970.
    pub(crate) fn time_at(&self, wall_s: u64, forget_after: Duration) -> ShardTime {
        // No single step of the clock is worth more than an eighth of the silence that makes a series
        // forgotten.
        let most = (forget_after.as_secs() / 8).max(1);
        let step = match self.time.wall_s {
            0 => 0,
            last => wall_s.saturating_sub(last).min(most),
        };
        ShardTime {
            wall_s,
            age_s: self.time.age_s + step,
        }
    }

    /// Drops the series that were silent for longer than `forget_after`, by the age of the shard, and says
    /// how many those were. Numbers close up.
    pub(crate) fn forget(&mut self, forget_after: Duration) -> usize {
        let (before, age_s) = (self.series.len(), self.time.age_s);
        let silent =
            |series: &Series| age_s.saturating_sub(series.heard_s) > forget_after.as_secs();
        if self.series.iter().any(silent) {
            self.retain(|series| !silent(series));
        }
        before - self.series.len()
    }

    /// Puts `window` in the place of the series' window, or drops the series. For repairs by hand: no
    /// batch does this.
    pub fn set_window(&mut self, name: &str, window: Option<Window>) {
        let heard_s = self.time.age_s;
        match (self.number(name), window) {
            (Some(number), Some(window)) => {
                let series = &mut self.series[number as usize];
                series.window = window;
                series.heard_s = heard_s;
            }
            (None, Some(window)) => self.insert(Series {
                name: name.into(),
                window,
                heard_s,
            }),
            (Some(_), None) => self.retain(|series| &*series.name != name),
            (None, None) => {}
        }
    }

    /// Drops every window and keeps the fence.
    pub fn clear(&mut self) {
        self.series.clear();
        self.numbers.clear();
    }

    /// The shard as if it had been saved at one instant: what two runs that absorbed the same messages
    /// have in common.
    pub fn without_clocks(&self) -> Self {
        let mut shard = self.clone();
        shard.time = ShardTime::default();
        shard
            .series
            .iter_mut()
            .for_each(|series| series.heard_s = 0);
        shard
    }

    pub(crate) fn number(&self, name: &str) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    pub(crate) fn insert(&mut self, series: Series) {
        let number = self.series.len() as u32;
        self.numbers.insert(Arc::clone(&series.name), number);
        self.series.push(series);
    }

    fn retain(&mut self, keep: impl Fn(&Series) -> bool) {
        let all = std::mem::take(&mut self.series);
        self.numbers.clear();
        all.into_iter()
            .filter(keep)
            .for_each(|series| self.insert(series));
    }

    fn work(&self, number: u32, name: &str) -> SeriesWork {
        let known = self.series.get(number as usize);
        SeriesWork {
            number,
            name: known.is_none().then(|| name.into()),
            window: known
                .map(|series| series.window.clone())
                .unwrap_or_default(),
            arrivals: Vec::new(),
            effects: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
