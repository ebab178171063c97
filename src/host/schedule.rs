//! When a timer fires: NCRONTAB with six or five fields, or a TimeSpan.

use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Local};

use super::settings::timespan;

/// The schedule of a timer.
#[derive(Clone, Debug)]
pub struct Schedule {
    text: String,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Cron(Box<cron::Schedule>),
    Every(Duration),
}

impl Schedule {
    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The first occurrence after `time`; `None` for a date that never comes.
    pub fn next_after(&self, time: DateTime<Local>) -> Option<DateTime<Local>> {
        match &self.kind {
            Kind::Cron(cron) => cron.after(&time).next(),
            Kind::Every(span) => time.checked_add_signed(chrono::Duration::from_std(*span).ok()?),
        }
    }

    /// Whether the clock's change between summer and winter moves it: no for a plain interval.
    pub fn adjusts_for_dst(&self) -> bool {
        matches!(self.kind, Kind::Cron(_))
    }

    /// Whether any two occurrences are less than a minute apart, which switches the monitor off.
    pub(crate) fn is_below_a_minute(&self) -> bool {
        match &self.kind {
            Kind::Every(span) => *span < Duration::from_secs(60),
            // A schedule that fires at one second of the minute is never below one.
            Kind::Cron(cron) => {
                use cron::TimeUnitSpec;
                cron.seconds().count() > 1
            }
        }
    }
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = |reason: String| {
            format!(
                "schedule {text:?} is not understood: {reason}; write six fields from second to day of week, or a span such as 00:05:00"
            )
        };
        let kind = if text.contains(':') {
            match timespan(text.trim()) {
                Some(span) if span > Duration::ZERO => Kind::Every(span),
                _ => return Err(refused("no positive span".to_owned())),
            }
        } else {
            let mut fields: Vec<&str> = text.split_whitespace().collect();
            if fields.len() == 5 {
                fields.insert(0, "0");
            }
            let [second, minute, hour, day, month, weekday] = fields[..] else {
                return Err(refused(format!("{} fields", fields.len())));
            };
            let weekday = sunday_is_one(weekday).map_err(&refused)?;
            let fields = format!("{second} {minute} {hour} {day} {month} {weekday}");
            let cron = cron::Schedule::from_str(&fields);
            Kind::Cron(Box::new(cron.map_err(|error| refused(error.to_string()))?))
        };
        Ok(Self {
            text: text.to_owned(),
            kind,
        })
    }
}

/// NCRONTAB counts days of the week from Sunday = 0, the cron crate from Sunday = 1. Steps stay.
fn sunday_is_one(field: &str) -> Result<String, String> {
    let (mut shifted, mut number, mut is_step) = (String::new(), String::new(), false);
    for c in field.chars().chain([',']) {
        if c.is_ascii_digit() {
            number.push(c);
            continue;
        }
        if !number.is_empty() {
            match (number.parse::<u8>(), is_step) {
                (Ok(_), true) => shifted.push_str(&number),
                (Ok(day @ 0..=6), false) => shifted.push_str(&(day + 1).to_string()),
                _ => {
                    return Err(format!(
                        "{number} is no day of the week (0 to 6, Sunday is 0)"
                    ));
                }
            }
            number.clear();
        }
        is_step = c == '/';
        shifted.push(c);
    }
    shifted.pop();
    Ok(shifted)
}

#[cfg(test)]
mod tests {
    use chrono::{Datelike, TimeZone, Timelike};

    use super::*;

    fn after(schedule: &str, day: u32, hour: u32, minute: u32) -> DateTime<Local> {
        let time = Local
            .with_ymd_and_hms(2026, 8, day, hour, minute, 30)
            .unwrap();
        let schedule: Schedule = schedule.parse().unwrap();
        schedule.next_after(time).unwrap()
    }

    #[test]
    fn six_fields_five_fields_and_spans() {
        let six = after("0 */5 * * * *", 21, 14, 58);
        assert_eq!((six.hour(), six.minute(), six.second()), (15, 0, 0));
        assert_eq!(six, after("*/5 * * * *", 21, 14, 58));
        let span = after("00:05:00", 21, 14, 58);
        assert_eq!((span.minute(), span.second()), (3, 30));
    }

    #[test]
    fn sunday_is_day_zero() {
        use chrono::Weekday;
        assert_eq!(after("0 0 9 * * 0", 21, 0, 0).weekday(), Weekday::Sun);
        assert_eq!(after("0 0 9 * * 1-5", 22, 0, 0).weekday(), Weekday::Mon);
        assert_eq!(after("0 0 9 * * Sat", 21, 0, 0).weekday(), Weekday::Sat);
        assert_eq!(sunday_is_one("1-5/2,6").unwrap(), "2-6/2,7");
        assert!("0 0 9 * * 7".parse::<Schedule>().is_err());
    }

    #[test]
    fn what_is_below_a_minute_is_not_monitored() {
        for (schedule, below) in [
            ("*/10 * * * * *", true),
            ("* * * * * *", true),
            ("30 * * * * *", false),
            ("00:00:59", true),
            ("00:01:00", false),
        ] {
            let schedule: Schedule = schedule.parse().unwrap();
            assert_eq!(schedule.is_below_a_minute(), below, "{schedule:?}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for wrong in ["", "every day", "* * *", "0 0 0 32 * *", "00:00:00"] {
            assert!(wrong.parse::<Schedule>().is_err(), "{wrong}");
        }
    }
}
