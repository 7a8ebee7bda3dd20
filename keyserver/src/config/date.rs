//! A day of the calendar, in UTC. Enough for "until when does this grant count".

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A day of the proleptic Gregorian calendar. Ordered by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date {
    year: u16,
    month: u8,
    day: u8,
}

impl Date {
    /// The day with these numbers, if the calendar has it.
    #[must_use]
    pub fn new(year: u16, month: u8, day: u8) -> Option<Self> {
        let leap = year.is_multiple_of(if year.is_multiple_of(100) { 400 } else { 4 });
        let days = match month {
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            4 | 6 | 9 | 11 => 30,
            2 if leap => 29,
            2 => 28,
            _ => return None,
        };
        (1..=days)
            .contains(&day)
            .then_some(Self { year, month, day })
    }

    /// Reads `2027-06-30`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let mut part = |width: usize| {
            let digits = parts.next().filter(|digits| digits.len() == width)?;
            digits
                .bytes()
                .all(|byte| byte.is_ascii_digit())
                .then(|| digits.parse::<u16>().ok())?
        };
        let (year, month, day) = (part(4)?, part(2)?, part(2)?);
        if parts.next().is_some() {
            return None;
        }
        Self::new(year, u8::try_from(month).ok()?, u8::try_from(day).ok()?)
    }

    /// The day, in UTC, that `time` falls on. Before 1970 counts as its first day, and after 9999
    /// as its last: neither ever extends a grant.
    #[must_use]
    pub fn of(time: SystemTime) -> Self {
        let seconds = time
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        Self::from_days(seconds / 86_400)
    }

    /// The first moment of the day, in UTC. The inverse of [`Self::of`], by the same source as it.
    #[must_use]
    pub fn begins(self) -> SystemTime {
        let (month, day) = (u64::from(self.month), u64::from(self.day));
        let year = u64::from(self.year).saturating_sub(u64::from(month <= 2));
        let (era, year_of_era) = (year / 400, year % 400);
        let month_from_march = (month + 9) % 12;
        let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = (era * 146_097 + day_of_era).saturating_sub(719_468);
        UNIX_EPOCH + Duration::from_secs(days * 86_400)
    }

    /// Days since 1970-01-01 to a date: eras of 400 years that begin on the first of March, so
    /// that the leap day is the last of its year (Howard Hinnant, "chrono-compatible low-level
    /// date algorithms").
    #[must_use]
    pub fn from_days(days: u64) -> Self {
        let shifted = days.min(2_932_896) + 719_468;
        let era = shifted / 146_097;
        let day_of_era = shifted % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 {
            month_from_march + 3
        } else {
            month_from_march - 9
        };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        Self {
            year: u16::try_from(year).unwrap_or(9999),
            month: u8::try_from(month).unwrap_or(12),
            day: u8::try_from(day).unwrap_or(31),
        }
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(text: &str) -> Date {
        Date::parse(text).expect("a date")
    }

    #[test]
    fn reads_real_days_only() {
        assert_eq!(date("2028-02-29").to_string(), "2028-02-29");
        for wrong in [
            "2027-02-29",
            "2027-13-01",
            "2027-00-10",
            "2027-1-1",
            "27-01-01",
            "2027-01-01x",
            "",
            "2027-01-01-01",
            "+027-01-01",
        ] {
            assert_eq!(Date::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn agrees_with_known_times() {
        for (seconds, expected) in [
            (0, "1970-01-01"),
            (86_399, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (1_709_164_800, "2024-02-29"),
            (1_798_761_599, "2026-12-31"),
            (1_798_761_600, "2027-01-01"),
            (4_107_542_400, "2100-03-01"),
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(Date::of(time), date(expected), "{seconds}");
        }
    }

    #[test]
    fn counts_every_day_of_four_centuries_once() {
        let mut previous = Date::from_days(0);
        for days in 1..=146_097 {
            let next = Date::from_days(days);
            assert!(previous < next, "{previous} before {next}");
            assert_eq!(Date::new(next.year, next.month, next.day), Some(next));
            let begins = UNIX_EPOCH + Duration::from_secs(days * 86_400);
            assert_eq!(next.begins(), begins);
            previous = next;
        }
        assert_eq!(previous, date("2370-01-01"));
        assert_eq!(Date::from_days(u64::MAX), date("9999-12-31"));
    }
}
