//! The settings of a grant that say from where, when, how often and until when it may be used.

use std::time::Duration;

use super::conditions::filled;
use super::date::Date;
use super::raw::{Section, Value};
use crate::policy::{Hours, Limits, Prefix, Rate, Weekday, Window};

/// Uses in a second, a minute or an hour: more than a server can do.
const RATE_MAX: u64 = 10_000_000;

/// The same for a day.
const DAILY_MAX: u64 = 1_000_000_000_000;

/// Reads a day, in UTC, through which something counts.
pub(super) fn last_day(entry: &Section<'_>, key: &'static str, meaning: &str) -> Option<Date> {
    let value = entry.optional(key)?;
    let text = value.date_text()?;
    let date = Date::parse(&text);
    if date.is_none() {
        let what = format!("`{}` = {} is not a day", value.name(), text.escape_debug());
        value.problem(what, format!("give {meaning}, in UTC, like 2027-06-30"));
    }
    date
}

/// Reads the networks that a grant may be used from.
pub(super) fn sources(entry: &Section<'_>) -> Vec<Prefix> {
    let wanted = "addresses or networks that clients connect from, like [\"192.0.2.7\", \"10.1.0.0/16\", \
                  \"2001:db8::/32\"], with no bit set behind the prefix, and IPv4 not mapped into IPv6";
    read_all(entry.optional("source").as_ref(), wanted, Prefix::parse)
}

/// Reads the days and hours at which a grant counts.
pub(super) fn window(entry: &Section<'_>) -> Window {
    let days = "days of the week, like [\"mon\", \"tue\"]";
    let hours = "times of day in UTC, like \"08:00-18:00\"; \"22:00-06:00\" goes over midnight";
    Window {
        days: read_all(entry.optional("days").as_ref(), days, Weekday::from_name),
        hours: read_all(entry.optional("hours").as_ref(), hours, Hours::parse),
    }
}

/// The items of a list that must not be empty.
fn read_all<T>(
    value: Option<&Value<'_>>,
    wanted: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Vec<T> {
    let items = value.map(|value| filled(value, wanted)).unwrap_or_default();
    items
        .iter()
        .filter_map(|item| item.text(wanted, &read))
        .collect()
}

/// Reads how often a grant may be used.
pub(super) fn limits(entry: &Section<'_>) -> Limits {
    let rate = entry.optional("rate");
    let burst = entry.optional("burst");
    if let (None, Some(burst)) = (&rate, &burst) {
        burst.problem(
            format!("`{}` is nothing without `rate`", burst.name()),
            "add `rate = \"100/s\"`, or remove it",
        );
    }
    let burst = burst.and_then(|burst| burst.integer(1..RATE_MAX + 1));
    let rate = rate.and_then(|rate| {
        let wanted = "a number of uses and a time, like \"100/s\", \"600/min\" or \"1000/h\"";
        let (count, period) = rate.text(wanted, uses)?;
        // Without a burst: what a second brings, which a client that keeps to the rate may send at once.
        let burst = burst.and_then(|burst| u32::try_from(burst).ok());
        let in_a_second = u64::from(count) / period.as_secs().max(1);
        let burst = burst.unwrap_or_else(|| u32::try_from(in_a_second).unwrap_or(u32::MAX).max(1));
        Some(Rate {
            count,
            period,
            burst,
        })
    });
    let daily = entry.optional("daily");
    Limits {
        rate,
        daily: daily.and_then(|daily| daily.integer(1..DAILY_MAX + 1)),
    }
}

/// Reads `600/min`.
fn uses(text: &str) -> Option<(u32, Duration)> {
    let (count, unit) = text.split_once('/')?;
    let plain = count.bytes().all(|byte| byte.is_ascii_digit());
    let count = plain.then(|| count.parse::<u32>().ok()).flatten()?;
    let seconds = match unit {
        "s" => 1,
        "min" => 60,
        "h" => 3600,
        _ => return None,
    };
    let sound = (1..=RATE_MAX).contains(&u64::from(count));
    sound.then_some((count, Duration::from_secs(seconds)))
}
