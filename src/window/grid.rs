//! Where the points of a series may lie: every so many granules from the first one.
//!
//! Only what a window needs to sort an arriving point; the detector has its own arithmetic for whole
//! series and the two agree on what is on the grid.

use chrono::{Months, NaiveDate};

use crate::series::{Timestamp, Zoned};

/// The grid of a series, anchored at any of its points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grid {
    /// No grid (granularity `none`): any order-preserving timestamp fits and gaps have no length.
    None,
    /// A fixed step.
    Fixed {
        /// Microseconds from one slot to the next.
        step: i64,
        /// Timestamps are cut to a multiple of so many microseconds before they are compared.
        resolution: i64,
    },
    /// So many calendar months; the day of the month is kept, or the month's last when it is shorter.
    Calendar {
        /// Months from one slot to the next; twelve for each year.
        months: i64,
    },
}

/// Why there is no such grid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidGrid {
    /// No such unit.
    #[error(
        "expected yearly, monthly, weekly, daily, hourly, minutely, secondly, microsecond or none"
    )]
    Granularity,
    /// An interval that makes no step.
    #[error("expected a whole number from 1 to 1000000")]
    Interval,
}

const SECOND: i64 = crate::series::MICROS_PER_SECOND;

impl Grid {
    /// The grid of `interval` granules of the unit that the service called `granularity`.
    ///
    /// `microsecond` counts milliseconds, as the service did, with its rounding of the step.
    pub fn new(granularity: &str, interval: u32) -> Result<Self, InvalidGrid> {
        if !(1..=1_000_000).contains(&interval) {
            return Err(InvalidGrid::Interval);
        }
        let fixed = |granule: i64| Self::Fixed {
            step: granule * i64::from(interval),
            resolution: 1,
        };
        Ok(match granularity.trim().to_ascii_lowercase().as_str() {
            "none" => Self::None,
            "microsecond" => Self::Fixed {
                step: (0.001 * f64::from(interval) * 1000.0).trunc().max(1.0) as i64 * 1000,
                resolution: 1000,
            },
            "secondly" => fixed(SECOND),
            "minutely" => fixed(60 * SECOND),
            "hourly" => fixed(3_600 * SECOND),
            "daily" => fixed(86_400 * SECOND),
            "weekly" => fixed(604_800 * SECOND),
            "monthly" => Self::Calendar {
                months: i64::from(interval),
            },
            "yearly" => Self::Calendar {
                months: 12 * i64::from(interval),
            },
            _ => return Err(InvalidGrid::Granularity),
        })
    }

    /// Slots from `origin` to `at`, negative when it is earlier; `None` off the grid. Without a grid
    /// every instant is on it, one slot from any other.
    pub fn index(self, origin: Timestamp, at: Timestamp) -> Option<i64> {
        match self {
            Self::None => Some(at.micros().cmp(&origin.micros()) as i64),
            Self::Fixed { step, resolution } => {
                let distance = at.micros() / resolution - origin.micros() / resolution;
                let step = step / resolution;
                (distance % step == 0).then_some(distance / step)
            }
            Self::Calendar { months } => {
                let (a, b) = (Day::of(at), Day::of(origin));
                let distance = a.months() - b.months();
                (aligned(a, b) && distance % months == 0).then_some(distance / months)
            }
        }
    }

    /// Whole steps that lie between `from` and a later `to`, whatever their phases; 0 without a grid.
    pub fn elapsed(self, from: Timestamp, to: Timestamp) -> u64 {
        let steps = match self {
            Self::None => 0,
            Self::Fixed { step, resolution } => {
                (to.micros() / resolution - from.micros() / resolution) / (step / resolution)
            }
            Self::Calendar { months } => {
                let (a, b) = (Day::of(to), Day::of(from));
                let short = i64::from(a.day < b.day && !a.is_last());
                (a.months() - b.months() - short) / months
            }
        };
        steps.max(0) as u64
    }

    /// The slot nearest to `at`, the later of two that are equally near.
    pub fn nearest(self, origin: Timestamp, at: Timestamp) -> Timestamp {
        match self {
            Self::None => at,
            Self::Fixed { step, .. } => {
                let distance = at.micros() - origin.micros();
                let slots = (distance + step / 2).div_euclid(step);
                Timestamp::from_micros(origin.micros() + slots * step)
            }
            Self::Calendar { months } => {
                let slots = (Day::of(at).months() - Day::of(origin).months()).div_euclid(months);
                let distance = |slot: &Timestamp| (slot.micros() - at.micros()).abs();
                (slots - 1..=slots + 1)
                    .rev()
                    .filter_map(|slot| months_after(origin, slot * months))
                    .min_by_key(distance)
                    .unwrap_or(at)
            }
        }
    }
}

/// A calendar day, UTC.
#[derive(Clone, Copy)]
struct Day {
    year: i32,
    month: u32,
    day: u32,
}

impl Day {
    fn of(at: Timestamp) -> Self {
        let zoned = Zoned {
            instant: at,
            offset_minutes: 0,
        };
        let (year, month, day) = zoned.civil_date();
        Self { year, month, day }
    }

    fn months(self) -> i64 {
        i64::from(self.year) * 12 + i64::from(self.month)
    }

    fn month_length(self) -> u32 {
        match self.month {
            2 if self.year % 4 == 0 && (self.year % 100 != 0 || self.year % 400 == 0) => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    fn is_last(self) -> bool {
        self.day == self.month_length()
    }
}

/// Whether two days are the same day of their months, as far as the months have it: the reference
/// detector's own rule, month ends of unlike length included.
fn aligned(a: Day, b: Day) -> bool {
    if a.day == b.day {
        return true;
    }
    if a.months() == b.months() {
        return false;
    }
    let shortened = a.month_length() != b.month_length()
        && ((a.is_last() && b.day > a.day) || (b.is_last() && a.day > b.day));
    (a.is_last() && b.is_last()) || shortened
}

fn months_after(origin: Timestamp, months: i64) -> Option<Timestamp> {
    const DAY: i64 = 86_400 * SECOND;
    let day = i32::try_from(origin.micros().div_euclid(DAY)).ok()?;
    let date = NaiveDate::from_epoch_days(day)?;
    let span = Months::new(u32::try_from(months.unsigned_abs()).ok()?);
    let moved = if months < 0 {
        date.checked_sub_months(span)?
    } else {
        date.checked_add_months(span)?
    };
    let micros = i64::from(moved.to_epoch_days()) * DAY + origin.micros().rem_euclid(DAY);
    Some(Timestamp::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn fixed_steps_count_slots() {
        let grid = Grid::new("minutely", 5).unwrap();
        let origin = at("2014-03-01 17:36:00");
        assert_eq!(grid.index(origin, at("2014-03-01 17:46:00")), Some(2));
        assert_eq!(grid.index(origin, at("2014-03-01 17:31:00")), Some(-1));
        assert_eq!(grid.index(origin, at("2014-03-01 17:40:00")), None);
        assert_eq!(grid.elapsed(origin, at("2014-03-02 17:35:59")), 287);
        assert_eq!(
            grid.nearest(origin, at("2014-03-01 17:38:30")),
            at("2014-03-01 17:41:00")
        );
        assert_eq!(
            grid.nearest(origin, at("2014-03-01 17:38:29")),
            at("2014-03-01 17:36:00")
        );
    }

    #[test]
    fn microseconds_are_milliseconds() {
        let grid = Grid::new("microsecond", 10).unwrap();
        let origin = at("2024-01-01T00:00:00.001");
        assert_eq!(
            grid.index(origin, at("2024-01-01T00:00:00.011900")),
            Some(1)
        );
        assert_eq!(grid.index(origin, at("2024-01-01T00:00:00.012")), None);
        // The reference's own rounding loses one millisecond here.
        assert_eq!(
            Grid::new("microsecond", 4007),
            Ok(Grid::Fixed {
                step: 4_006_000,
                resolution: 1000
            })
        );
    }

    #[test]
    fn months_keep_their_day_as_far_as_they_have_it() {
        let monthly = Grid::new("monthly", 1).unwrap();
        let cases = [
            ("2019-01-31", "2019-02-28", Some(1)),
            ("2019-01-31", "2019-04-29", None),
            ("2019-02-28", "2019-03-30", Some(1)),
            ("2019-01-30", "2019-02-27", None),
            ("2019-01-29", "2019-02-28", Some(1)),
            ("2020-02-29", "2021-02-28", Some(12)),
            ("2018-12-25", "2019-01-20", None),
        ];
        for (origin, later, months) in cases {
            assert_eq!(monthly.index(at(origin), at(later)), months, "{later}");
        }
        let yearly = Grid::new("yearly", 2).unwrap();
        assert_eq!(yearly.index(at("2010-05-05"), at("2014-05-05")), Some(2));
        assert_eq!(yearly.index(at("2010-05-05"), at("2013-05-05")), None);
        assert_eq!(
            monthly.nearest(at("2019-01-31 06:00"), at("2019-02-27")),
            at("2019-02-28 06:00")
        );
        assert_eq!(monthly.elapsed(at("2019-01-31"), at("2020-01-30")), 11);
        assert_eq!(monthly.elapsed(at("2019-01-31"), at("2019-02-28")), 1);
    }

    #[test]
    fn refuses_what_makes_no_grid() {
        assert_eq!(Grid::new("fortnightly", 1), Err(InvalidGrid::Granularity));
        assert_eq!(Grid::new("daily", 0), Err(InvalidGrid::Interval));
    }
}
