//! Points in time and what names a series; depends on nothing else here.
//!
//! A [`Timestamp`] is an instant. What a caller wrote beside it (an offset from UTC) matters to
//! calendar granules alone, so parsing hands it back separately, in [`Zoned`].

use std::fmt;

/// An instant: microseconds since 1970-01-01T00:00:00Z, years 1 to 9999.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// One measurement of a series; the value is finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// When it was measured.
    pub timestamp: Timestamp,
    /// What was measured, in the unit of the series.
    pub value: f64,
}

/// An instant together with the offset it was written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zoned {
    /// The instant.
    pub instant: Timestamp,
    /// Minutes east of UTC in which the text gave it; 0 for `Z` and for none.
    pub offset_minutes: i16,
}

/// Why a text is no timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no timestamp: expected a date such as 2014-03-01 or a date and time such as 2014-03-01 17:36:00, with or without a fraction and a zone"
)]
pub struct InvalidTimestamp;

/// Microseconds in a second.
pub const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

impl Timestamp {
    /// The instant `micros` microseconds after 1970-01-01T00:00:00Z.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Parses every form that the service took: `2014-03-01`, `2014-03-01 17:36`,
    /// `2014-03-01T17:36:00.1234567Z`, offsets `+hh:mm`, `+hhmm` and `+hh`, and the American
    /// `3/1/2014 5:36:00 PM`; blanks around it. Without a zone it is UTC. Digits past the microsecond
    /// are rounded.
    ///
    /// ```
    /// use lapwing::series::Timestamp;
    /// let tutorial = Timestamp::parse("2014-03-01 17:36:00").unwrap();
    /// assert_eq!(tutorial, Timestamp::parse("2014-03-01T18:36:00.000+01:00").unwrap());
    /// assert_eq!(tutorial.to_string(), "2014-03-01T17:36:00Z");
    /// ```
    pub fn parse(text: &str) -> Result<Self, InvalidTimestamp> {
        Zoned::parse(text).map(|zoned| zoned.instant)
    }
}

impl fmt::Display for Timestamp {
    /// ISO 8601 in UTC; a fraction (three or six digits) only where there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = self.0.div_euclid(MICROS_PER_DAY);
        let in_day = self.0.rem_euclid(MICROS_PER_DAY);
        let (year, month, day) = civil_from_days(days);
        let (seconds, micros) = (in_day / MICROS_PER_SECOND, in_day % MICROS_PER_SECOND);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
        )?;
        match micros {
            0 => {}
            m if m % 1000 == 0 => write!(f, ".{:03}", m / 1000)?,
            m => write!(f, ".{m:06}")?,
        }
        f.write_str("Z")
    }
}

impl Zoned {
    /// Parses as [`Timestamp::parse`] does and keeps the offset.
    pub fn parse(text: &str) -> Result<Self, InvalidTimestamp> {
        let mut rest = Reader(text.trim_matches([' ', '\t', '\r', '\n']).as_bytes());
        let zoned = if rest.0.iter().take(3).any(|b| *b == b'/') {
            rest.american()
        } else {
            rest.iso()
        }
        .ok_or(InvalidTimestamp)?;
        if rest.0.is_empty() {
            Ok(zoned)
        } else {
            Err(InvalidTimestamp)
        }
    }

    /// Year, month 1..=12 and day 1..=31 as the text gave them, in its own offset.
    pub fn civil_date(self) -> (i32, u32, u32) {
        let local = self.instant.0 + i64::from(self.offset_minutes) * 60 * MICROS_PER_SECOND;
        civil_from_days(local.div_euclid(MICROS_PER_DAY))
    }
}

/// What is left of a text that is being parsed.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn iso(&mut self) -> Option<Zoned> {
        let year = self.digits(4)?;
        self.byte(b'-')?;
        let month = self.digits(2)?;
        self.byte(b'-')?;
        let day = self.digits(2)?;
        let date = micros_of_date(year, month, day)?;
        match self.0.first() {
            None => {
                return Some(Zoned {
                    instant: Timestamp(date),
                    offset_minutes: 0,
                });
            }
            Some(b'T' | b't' | b' ') => self.0 = &self.0[1..],
            Some(_) => return None,
        }
        let hour = self.digits(2)?;
        self.byte(b':')?;
        let minute = self.digits(2)?;
        let mut second = 0;
        let mut fraction = 0;
        if self.byte(b':').is_some() {
            second = self.digits(2)?;
            if self.byte(b'.').or_else(|| self.byte(b',')).is_some() {
                fraction = self.fraction()?;
            }
        }
        let time = micros_of_time(hour, minute, second)? + fraction;
        let offset_minutes = self.offset()?;
        let micros = date + time - i64::from(offset_minutes) * 60 * MICROS_PER_SECOND;
        in_range(micros).map(|instant| Zoned {
            instant,
            offset_minutes,
        })
    }

    /// `3/1/2014` or `3/1/2014 5:36[:00] [AM|PM]`.
    fn american(&mut self) -> Option<Zoned> {
        let month = self.up_to_two_digits()?;
        self.byte(b'/')?;
        let day = self.up_to_two_digits()?;
        self.byte(b'/')?;
        let year = self.digits(4)?;
        let date = micros_of_date(year, month, day)?;
        if self.0.is_empty() {
            return Some(Zoned {
                instant: Timestamp(date),
                offset_minutes: 0,
            });
        }
        self.byte(b' ')?;
        let mut hour = self.up_to_two_digits()?;
        self.byte(b':')?;
        let minute = self.digits(2)?;
        let second = if self.byte(b':').is_some() {
            self.digits(2)?
        } else {
            0
        };
        while self.byte(b' ').is_some() {}
        if !self.0.is_empty() {
            let half = self.0;
            if !(1..=12).contains(&hour) || half.len() != 2 {
                return None;
            }
            hour %= 12;
            match [half[0].to_ascii_uppercase(), half[1].to_ascii_uppercase()] {
                [b'A', b'M'] => {}
                [b'P', b'M'] => hour += 12,
                _ => return None,
            }
            self.0 = &[];
        }
        let micros = date + micros_of_time(hour, minute, second)?;
        in_range(micros).map(|instant| Zoned {
            instant,
            offset_minutes: 0,
        })
    }

    fn byte(&mut self, wanted: u8) -> Option<()> {
        let (first, rest) = self.0.split_first()?;
        (*first == wanted).then(|| self.0 = rest)
    }

    fn digits(&mut self, count: usize) -> Option<i64> {
        let text = self.0.get(..count)?;
        self.0 = &self.0[count..];
        text.iter().try_fold(0, |number, byte| {
            byte.is_ascii_digit()
                .then(|| number * 10 + i64::from(byte - b'0'))
        })
    }

    fn up_to_two_digits(&mut self) -> Option<i64> {
        let count = self
            .0
            .iter()
            .take(2)
            .take_while(|b| b.is_ascii_digit())
            .count();
        if count == 0 { None } else { self.digits(count) }
    }

    /// One to nine digits after the point, as microseconds rounded to the nearest.
    fn fraction(&mut self) -> Option<i64> {
        let count = self.0.iter().take_while(|b| b.is_ascii_digit()).count();
        if !(1..=9).contains(&count) {
            return None;
        }
        let nanos = self.digits(count)? * 10_i64.pow(9 - count as u32);
        Some((nanos + 500) / 1000)
    }

    fn offset(&mut self) -> Option<i16> {
        let sign = match self.0.first() {
            None => return Some(0),
            Some(b'Z' | b'z') => {
                self.0 = &self.0[1..];
                return Some(0);
            }
            Some(b'+') => 1,
            Some(b'-') => -1,
            Some(_) => return None,
        };
        self.0 = &self.0[1..];
        let hours = self.digits(2)?;
        let minutes = if self.0.is_empty() {
            0
        } else {
            let _colon = self.byte(b':');
            self.digits(2)?
        };
        if hours > 23 || minutes > 59 {
            return None;
        }
        i16::try_from(sign * (hours * 60 + minutes)).ok()
    }
}

fn in_range(micros: i64) -> Option<Timestamp> {
    let year = civil_from_days(micros.div_euclid(MICROS_PER_DAY)).0;
    (1..=9999).contains(&year).then_some(Timestamp(micros))
}

fn micros_of_date(year: i64, month: i64, day: i64) -> Option<i64> {
    let date = chrono::NaiveDate::from_ymd_opt(
        i32::try_from(year).ok().filter(|y| *y >= 1)?,
        u32::try_from(month).ok()?,
        u32::try_from(day).ok()?,
    )?;
    Some(date.and_time(chrono::NaiveTime::MIN).and_utc().timestamp() * MICROS_PER_SECOND)
}

fn micros_of_time(hour: i64, minute: i64, second: i64) -> Option<i64> {
    (hour < 24 && minute < 60 && second < 60)
        .then_some((hour * 3600 + minute * 60 + second) * MICROS_PER_SECOND)
}

/// Year, month and day of the day `days` after 1970-01-01.
fn civil_from_days(days: i64) -> (i32, u32, u32) {
    use chrono::Datelike;
    let date = i32::try_from(days)
        .ok()
        .and_then(chrono::NaiveDate::from_epoch_days)
        .unwrap_or(if days < 0 {
            chrono::NaiveDate::MIN
        } else {
            chrono::NaiveDate::MAX
        });
    (date.year(), date.month(), date.day())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn iso(text: &str) -> Option<String> {
        Timestamp::parse(text).ok().map(|t| t.to_string())
    }

    #[test]
    fn takes_every_form_of_the_contract() {
        let forms = [
            ("2014-03-01 17:36:00", "2014-03-01T17:36:00Z"),
            ("2014-03-01t17:36", "2014-03-01T17:36:00Z"),
            ("2014-03-01", "2014-03-01T00:00:00Z"),
            (" 2014-03-01T17:36:00Z ", "2014-03-01T17:36:00Z"),
            ("2014-03-01T17:36:00z", "2014-03-01T17:36:00Z"),
            ("2014-03-01T17:36:00.0000000Z", "2014-03-01T17:36:00Z"),
            (
                "2014-03-01T17:36:00.123456789Z",
                "2014-03-01T17:36:00.123457Z",
            ),
            ("2014-03-01T17:36:00.5", "2014-03-01T17:36:00.500Z"),
            ("2014-03-01T17:36:00+02:00", "2014-03-01T15:36:00Z"),
            ("2014-03-01T17:36:00-0230", "2014-03-01T20:06:00Z"),
            ("2014-03-01 17:36:00+01", "2014-03-01T16:36:00Z"),
            ("3/1/2014 5:36:00 PM", "2014-03-01T17:36:00Z"),
            ("03/01/2014 12:00 AM", "2014-03-01T00:00:00Z"),
            ("3/1/2014", "2014-03-01T00:00:00Z"),
            ("0001-01-01T00:00:00", "0001-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59", "9999-12-31T23:59:59Z"),
        ];
        for (text, expected) in forms {
            assert_eq!(iso(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_timestamp() {
        let texts = [
            "",
            "abc",
            "2014",
            "2014-3-1",
            "2014-02-30",
            "2014-13-01",
            "2014-03-01 24:00:00",
            "2014-03-01 17:60:00",
            "2014-03-01 17:36:60",
            "2014-03-01 17:36:00.",
            "2014-03-01T",
            "2014-03-01 17:36:00 UTC",
            "2014-03-01T17:36:00.1234567890Z",
            "0000-01-01",
            "2014-03-01T17:36:00+24:00",
            "13/1/2014",
            "3/1/2014 13:00 PM",
            "1393695360",
            "2014-03-01  17:36:00",
            "0001-01-01T00:00:00+01:00",
        ];
        for text in texts {
            assert_eq!(iso(text), None, "{text}");
        }
    }

    #[test]
    fn calendar_dates_are_those_of_the_writers_offset() {
        let zoned = Zoned::parse("2014-03-01T00:30:00+02:00").unwrap();
        assert_eq!(zoned.civil_date(), (2014, 3, 1));
        assert_eq!(zoned.instant.to_string(), "2014-02-28T22:30:00Z");
    }
}
