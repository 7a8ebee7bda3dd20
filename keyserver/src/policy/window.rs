//! When in the week a grant counts. All times are UTC: no one has to know where the server stands, and no hour
//! comes twice.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::unmet::Unmet;
use crate::clock;
use crate::config::Date;

/// Minutes of a day.
const DAY: u16 = 24 * 60;

/// A time, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Days since 1970-01-01.
    pub day: u64,
    /// The same as a date.
    pub date: Date,
    weekday: Weekday,
    minute: u16,
}

impl Moment {
    /// The moment it is.
    #[must_use]
    pub fn now() -> Self {
        Self::of(clock::wall())
    }

    /// The same with the date of `day`, where that is later, and the hour and the day of the week that it has.
    pub(super) fn dated(self, day: u64) -> Self {
        if day <= self.day {
            return self;
        }
        let date = Date::from_days(day);
        Self { date, ..self }
    }

    /// The moment `time` is in. What is before 1970 counts as its first minute.
    #[must_use]
    pub fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let minutes = since.as_secs() / 60;
        let day = minutes / u64::from(DAY);
        Self {
            day,
            date: Date::of(time),
            weekday: Weekday::of_day(day),
            minute: u16::try_from(minutes % u64::from(DAY)).unwrap_or(0),
        }
    }
}

/// Reads a time of day on a day, in UTC: `2026-11-22T22:39Z`, or `2026-11-22 22:39`.
#[must_use]
pub fn read_time(text: &str) -> Option<SystemTime> {
    let (date, time) = text.split_once(['T', ' '])?;
    let minute = minute(time.strip_suffix('Z').unwrap_or(time)).filter(|minute| *minute < DAY)?;
    Some(Date::parse(date)?.begins() + Duration::from_mins(minute.into()))
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Weekday {
    /// `mon`
    Monday,
    /// `tue`
    Tuesday,
    /// `wed`
    Wednesday,
    /// `thu`
    Thursday,
    /// `fri`
    Friday,
    /// `sat`
    Saturday,
    /// `sun`
    Sunday,
}

impl Weekday {
    /// All seven, from Monday on.
    pub const ALL: [Self; 7] = [
        Self::Monday,
        Self::Tuesday,
        Self::Wednesday,
        Self::Thursday,
        Self::Friday,
        Self::Saturday,
        Self::Sunday,
    ];

    /// The name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Monday => "mon",
            Self::Tuesday => "tue",
            Self::Wednesday => "wed",
            Self::Thursday => "thu",
            Self::Friday => "fri",
            Self::Saturday => "sat",
            Self::Sunday => "sun",
        }
    }

    /// The day with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|day| day.name() == name)
    }

    /// 1970-01-01 was a Thursday.
    fn of_day(day: u64) -> Self {
        let [monday, ..] = Self::ALL;
        let place = usize::try_from((day + 3) % 7).unwrap_or(0);
        Self::ALL.get(place).copied().unwrap_or(monday)
    }

    fn before(self) -> Self {
        Self::of_day(self as u64 + 3)
    }
}

/// A time of every day, `08:00-18:00`; one that ends before it begins goes over midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    /// First minute of the day.
    from: u16,
    /// First minute after it.
    to: u16,
}

impl Hours {
    /// Reads `08:00-18:00`, up to `24:00`. Nothing for a time that begins as it ends.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (from, to) = text.split_once('-')?;
        let (from, to) = (minute(from)?, minute(to)?);
        (from < DAY && from != to).then_some(Self { from, to })
    }
}

fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let two = |digits: &str| {
        let plain = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse::<u16>().ok()).flatten()
    };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    let minute = hours * 60 + minutes;
    (minutes < 60 && minute <= DAY).then_some(minute)
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.from, self.to);
        write!(
            f,
            "{:02}:{:02}-{:02}:{:02}",
            from / 60,
            from % 60,
            to / 60,
            to % 60
        )
    }
}

/// The days and hours of a grant; empty lists do not restrict. Hours that go over midnight belong to the day on which
/// they begin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Window {
    /// `days`
    pub days: Vec<Weekday>,
    /// `hours`
    pub hours: Vec<Hours>,
}

impl Window {
    /// Whether every time is in it.
    #[must_use]
    pub const fn is_always(&self) -> bool {
        self.days.is_empty() && self.hours.is_empty()
    }

    /// What of it does not hold at a moment.
    #[must_use]
    pub fn unmet(&self, at: Moment) -> Option<Unmet> {
        let on = |day: Weekday| self.days.is_empty() || self.days.contains(&day);
        if self.hours.is_empty() {
            return (!on(at.weekday)).then_some(Unmet::Days);
        }
        // The day on which each of the hours that it is now began.
        let mut begun = self.hours.iter().filter_map(|hours| {
            let after_begin = at.minute >= hours.from;
            let before_end = at.minute < hours.to;
            match (hours.from < hours.to, after_begin, before_end) {
                (true, true, true) | (false, true, _) => Some(at.weekday),
                (false, false, true) => Some(at.weekday.before()),
                _ => None,
            }
        });
        let Some(first) = begun.next() else {
            return Some(Unmet::Hours);
        };
        (!on(first) && !begun.any(on)).then_some(Unmet::Days)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-23 is a Monday.
    fn at(day_of_november: u64, hour: u64, minute: u64) -> Moment {
        let days = 20_757 + day_of_november;
        let time = UNIX_EPOCH + Duration::from_secs((days * 24 + hour) * 3600 + minute * 60);
        let moment = Moment::of(time);
        assert_eq!(
            moment.date,
            Date::new(2026, 11, u8::try_from(day_of_november).unwrap()).unwrap()
        );
        moment
    }

    fn window(days: &[&str], hours: &[&str]) -> Window {
        Window {
            days: days
                .iter()
                .map(|day| Weekday::from_name(day).unwrap())
                .collect(),
            hours: hours
                .iter()
                .map(|hours| Hours::parse(hours).unwrap())
                .collect(),
        }
    }

    #[test]
    fn times_are_read_to_the_minute() {
        for text in ["2026-11-23T22:39Z", "2026-11-23 22:39"] {
            assert_eq!(Moment::of(read_time(text).unwrap()), at(23, 22, 39));
        }
        for text in [
            "",
            "2026-11-23",
            "2026-11-31T00:00Z",
            "2026-11-23T24:00Z",
            "2026-11-23T1:00Z",
            "now",
        ] {
            assert_eq!(read_time(text), None, "{text}");
        }
    }

    #[test]
    fn the_week_is_the_calendars() {
        assert_eq!(at(23, 0, 0).weekday, Weekday::Monday);
        assert_eq!(at(29, 23, 59).weekday, Weekday::Sunday);
        assert_eq!(Moment::of(UNIX_EPOCH).weekday, Weekday::Thursday);
        assert_eq!(Weekday::Monday.before(), Weekday::Sunday);
        assert_eq!(Weekday::Sunday.before(), Weekday::Saturday);
    }

    #[test]
    fn days_and_hours_are_kept_to_the_minute() {
        let office = window(&["mon", "fri"], &["08:00-12:00", "13:00-18:00"]);
        for (moment, unmet) in [
            (at(23, 8, 0), None),
            (at(23, 11, 59), None),
            (at(23, 12, 0), Some(Unmet::Hours)),
            (at(23, 17, 59), None),
            (at(23, 18, 0), Some(Unmet::Hours)),
            (at(24, 9, 0), Some(Unmet::Days)),
            (at(27, 13, 0), None),
        ] {
            assert_eq!(office.unmet(moment), unmet, "{moment:?}");
        }
        assert_eq!(window(&[], &[]).unmet(at(24, 9, 0)), None);
        assert_eq!(window(&["tue"], &[]).unmet(at(24, 23, 59)), None);
        assert_eq!(window(&["tue"], &[]).unmet(at(25, 0, 0)), Some(Unmet::Days));
        assert_eq!(window(&[], &["00:00-24:00"]).unmet(at(25, 23, 59)), None);
    }

    #[test]
    fn a_night_belongs_to_the_day_it_begins_on() {
        let night = window(&["fri"], &["22:00-06:00"]);
        for (moment, unmet) in [
            (at(27, 21, 59), Some(Unmet::Hours)),
            (at(27, 22, 0), None),
            (at(28, 5, 59), None),
            (at(28, 6, 0), Some(Unmet::Hours)),
            (at(28, 22, 0), Some(Unmet::Days)),
            (at(27, 5, 0), Some(Unmet::Days)),
        ] {
            assert_eq!(night.unmet(moment), unmet, "{moment:?}");
        }
    }

    #[test]
    fn hours_are_written_in_one_way() {
        for good in ["00:00-24:00", "08:00-18:30", "22:00-06:00"] {
            assert_eq!(Hours::parse(good).unwrap().to_string(), good);
        }
        for bad in [
            "",
            "8:00-18:00",
            "08:00",
            "08:00-08:00",
            "24:00-06:00",
            "08:60-09:00",
            "08:00-24:01",
            "+8:00-09:00",
            "08:00-09:00-10:00",
        ] {
            assert_eq!(Hours::parse(bad), None, "{bad:?}");
        }
    }
}
