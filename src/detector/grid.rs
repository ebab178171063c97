//! Stage 1: timestamps to positions on the time grid.
//!
//! Point `i` belongs to slot `k` when its timestamp is the first one plus `k` times
//! `custom_interval` granules. Whether it does is decided in the arithmetic of the service: in
//! binary64 seconds for granules of fixed length, by calendar date for months and years.

use std::num::NonZeroU32;

use super::error::DetectError;
use super::options::Granularity;
use crate::series::{MICROS_PER_SECOND, Timestamp, Zoned};

/// The grid of a series: where it starts and how far its slots are apart.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    granularity: Granularity,
    interval: NonZeroU32,
    origin: Zoned,
}

impl Grid {
    /// The grid through `origin`. Its offset from UTC matters to months and years alone.
    pub fn new(granularity: Granularity, interval: NonZeroU32, origin: Zoned) -> Self {
        Self {
            granularity,
            interval,
            origin,
        }
    }

    /// The slot of `at`: 0 for the origin, negative before it, `None` off the grid. Without a
    /// granularity there is no grid, and nothing is on it.
    pub fn index_of(&self, at: Zoned) -> Option<i64> {
        match self.granularity {
            Granularity::None => None,
            Granularity::Monthly | Granularity::Yearly => {
                if at.instant < self.origin.instant {
                    let months = calendar_months(self.origin.civil_date(), at.civil_date())?;
                    whole(-(months as f64) / self.months_per_slot())
                } else {
                    let months = calendar_months(at.civil_date(), self.origin.civil_date())?;
                    whole(months as f64 / self.months_per_slot())
                }
            }
            Granularity::Microsecond => {
                let step = (0.001 * f64::from(self.interval.get()) * 1000.0).trunc();
                whole((milliseconds(at.instant) - milliseconds(self.origin.instant)) / step)
            }
            _ => {
                let step = self.granule_seconds() * f64::from(self.interval.get());
                whole((seconds(at.instant) - seconds(self.origin.instant)) / step)
            }
        }
    }

    /// Microseconds from one slot to the next; `None` for months, years and no granularity.
    pub fn step_micros(&self) -> Option<i64> {
        let granule = match self.granularity {
            Granularity::None | Granularity::Monthly | Granularity::Yearly => return None,
            Granularity::Microsecond => 1000,
            _ => self.granule_seconds() as i64 * MICROS_PER_SECOND,
        };
        Some(granule * i64::from(self.interval.get()))
    }

    fn granule_seconds(&self) -> f64 {
        match self.granularity {
            Granularity::Weekly => 604_800.0,
            Granularity::Daily => 86_400.0,
            Granularity::Hourly => 3_600.0,
            Granularity::Minutely => 60.0,
            _ => 1.0,
        }
    }

    fn months_per_slot(&self) -> f64 {
        let interval = f64::from(self.interval.get());
        if self.granularity == Granularity::Yearly {
            interval * 12.0
        } else {
            interval
        }
    }
}

/// The slots of a whole series into `indices`, relative to its first point; strictly ascending.
/// Timestamps are taken in their order and must ascend strictly already. `offsets`, minutes east of
/// UTC of each, matter to months and years alone.
pub(crate) fn indices(
    granularity: Granularity,
    interval: NonZeroU32,
    timestamps: &[Timestamp],
    offsets: Option<&[i16]>,
    indices: &mut Vec<i64>,
) -> Result<(), DetectError> {
    let zoned = |i: usize| Zoned {
        instant: timestamps[i],
        offset_minutes: offsets.map_or(0, |offsets| offsets[i]),
    };
    indices.clear();
    let Some(&first) = timestamps.first() else {
        return Ok(());
    };
    debug_assert!(timestamps.is_sorted() && first <= timestamps[timestamps.len() - 1]);
    let grid = Grid::new(granularity, interval, zoned(0));
    if matches!(granularity, Granularity::Monthly | Granularity::Yearly) {
        // The service looked at the alignment of every point before it divided by the interval, so
        // a misaligned point is reported before an earlier one that only falls between two slots.
        let origin = grid.origin.civil_date();
        for i in 0..timestamps.len() {
            if calendar_months(zoned(i).civil_date(), origin).is_none() {
                return Err(DetectError::off_grid(i, granularity, interval));
            }
        }
    }
    for i in 0..timestamps.len() {
        let index = grid
            .index_of(zoned(i))
            .ok_or_else(|| DetectError::off_grid(i, granularity, interval))?;
        // Two instants of one day fall into the same month, and so do the 28th and the 31st of a March
        // that follows the 28th of a February.
        if indices.last().is_some_and(|last| *last >= index) {
            return Err(DetectError::duplicate_timestamp());
        }
        indices.push(index);
    }
    Ok(())
}

/// Seconds since the epoch, to the microsecond.
fn seconds(at: Timestamp) -> f64 {
    at.micros() as f64 / MICROS_PER_SECOND as f64
}

fn milliseconds(at: Timestamp) -> f64 {
    (seconds(at) * 1000.0).trunc()
}

fn whole(quotient: f64) -> Option<i64> {
    (quotient.fract() == 0.0).then_some(quotient as i64)
}

/// Whole months from the date `from` to the date `to`, which is not earlier; `None` when the days of
/// the month do not correspond. The last day of a shorter month stands in for a later day.
fn calendar_months(to: (i32, u32, u32), from: (i32, u32, u32)) -> Option<i64> {
    let months = 12 * i64::from(to.0 - from.0) + i64::from(to.1) - i64::from(from.1);
    let (to_days, from_days) = (days_in_month(to.0, to.1), days_in_month(from.0, from.1));
    let (to_end, from_end) = (to.2 == to_days, from.2 == from_days);
    let aligned = to.2 == from.2
        || months != 0
            && (to_end && from_end
                || to_days != from_days && (to_end && from.2 > to.2 || from_end && to.2 > from.2));
    aligned.then_some(months)
}

fn days_in_month(year: i32, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zoned(text: &str) -> Zoned {
        Zoned::parse(text).unwrap()
    }

    fn index(granularity: Granularity, interval: u32, from: &str, to: &str) -> Option<i64> {
        let interval = NonZeroU32::new(interval).unwrap();
        Grid::new(granularity, interval, zoned(from)).index_of(zoned(to))
    }

    #[test]
    fn months_are_counted_by_the_calendar() {
        let cases = [
            ("2019-01-31", "2019-02-28", Some(1)),
            ("2019-01-31", "2019-04-29", None),
            // Any later day of a longer month matches a start on a shorter month's end.
            ("2019-02-28", "2019-03-30", Some(1)),
            ("2019-01-30", "2019-02-27", None),
            ("2019-01-29", "2019-02-28", Some(1)),
            ("2020-02-29", "2021-02-28", Some(12)),
            ("2018-12-25", "2019-01-20", None),
            ("2019-01-05", "2019-01-05T13:00", Some(0)),
        ];
        for (from, to, months) in cases {
            let got = index(Granularity::Monthly, 1, from, to);
            assert_eq!(got, months, "{from} -> {to}");
        }
        let half_years = index(Granularity::Monthly, 6, "2019-01-31", "2019-07-31");
        assert_eq!(half_years, Some(1));
        let years = index(Granularity::Yearly, 2, "2016-02-29", "2020-02-29");
        assert_eq!(years, Some(2));
        assert_eq!(
            index(Granularity::Yearly, 1, "2016-02-29", "2020-03-29"),
            None
        );
        let back = index(Granularity::Monthly, 1, "2019-03-15", "2019-01-15");
        assert_eq!(back, Some(-2));
    }

    #[test]
    fn calendar_days_are_those_of_the_writers_offset() {
        let (from, to) = ("2019-01-01T00:30:00+02:00", "2019-02-01T00:30:00+02:00");
        assert_eq!(index(Granularity::Monthly, 1, from, to), Some(1));
        let utc = "2019-01-31T22:30:00Z";
        assert_eq!(index(Granularity::Monthly, 1, from, utc), None);
    }

    #[test]
    fn granules_of_fixed_length_must_come_out_even() {
        let minutely = |to| index(Granularity::Minutely, 5, "2014-03-01 17:36:00", to);
        assert_eq!(minutely("2014-03-01 18:36:00"), Some(12));
        assert_eq!(minutely("2014-03-01 17:31:00"), Some(-1));
        assert_eq!(minutely("2014-03-01 17:40:00"), None);
        assert_eq!(minutely("2014-03-01 17:41:00.000001"), None);
        let secondly = index(
            Granularity::Secondly,
            1,
            "2014-03-01T00:00:00.3",
            "2014-03-01T00:01:00.3",
        );
        assert_eq!(secondly, Some(60));
    }

    #[test]
    fn a_microsecond_is_a_millisecond() {
        let from = "2014-03-01T00:00:00.000";
        let at = |to| index(Granularity::Microsecond, 1, from, to);
        assert_eq!(at("2014-03-01T00:00:01"), Some(1000));
        // The step is made in binary64 seconds: 4007 intervals come out as 4006 milliseconds.
        let step = index(
            Granularity::Microsecond,
            4007,
            from,
            "2014-03-01T00:00:04.006",
        );
        assert_eq!(step, Some(1));
    }

    #[test]
    fn the_first_point_off_the_grid_is_named() {
        let stamps: Vec<Timestamp> = ["2019-01-15", "2019-02-15", "2019-03-15", "2019-04-16"]
            .iter()
            .map(|text| Timestamp::parse(text).unwrap())
            .collect();
        let two = NonZeroU32::new(2).unwrap();
        let error = indices(Granularity::Monthly, two, &stamps, None, &mut vec![]).unwrap_err();
        assert!(error.message.contains("at index 3 "), "{error}");
        let error =
            indices(Granularity::Monthly, two, &stamps[..3], None, &mut vec![]).unwrap_err();
        assert!(error.message.contains("at index 1 "), "{error}");
        let one = NonZeroU32::MIN;
        let mut found = vec![];
        indices(Granularity::Monthly, one, &stamps[..3], None, &mut found).unwrap();
        assert_eq!(found, [0, 1, 2]);
    }
}
