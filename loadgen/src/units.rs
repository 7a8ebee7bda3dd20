//! Quantities as people write them on a command line, and as they read them in a report.

use std::time::Duration;

/// Nanoseconds in a second.
pub const NS_PER_S: u64 = 1_000_000_000;

/// Parses a duration with its unit: `250us`, `500ms`, `10s`, `2m`, `1h`; fractions such as `1.5s` are fine.
///
/// # Errors
/// A sentence that says what was wrong and shows the accepted form.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let seconds_per_unit = match unit {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "" => {
            return Err(format!(
                "`{text}` has no unit; write for example {text}s or {text}ms"
            ));
        }
        other => {
            return Err(format!(
                "`{other}` is not a unit of time; use ns, us, ms, s, m or h"
            ));
        }
    };
    let value: f64 = number
        .parse()
        .map_err(|_| format!("`{text}` is not a duration; write for example 10s or 500ms"))?;
    Duration::try_from_secs_f64(value * seconds_per_unit)
        .map_err(|_| format!("`{text}` is too long a time"))
}

/// Parses a count per second or a plain count: `500`, `20k`, `1.5M`, with or without `/s`.
///
/// # Errors
/// A sentence that says what was wrong and shows the accepted form.
pub fn parse_rate(text: &str) -> Result<f64, String> {
    let bare = text.strip_suffix("/s").unwrap_or(text);
    let (number, factor) = if let Some(thousands) = bare.strip_suffix(['k', 'K']) {
        (thousands, 1e3)
    } else if let Some(millions) = bare.strip_suffix('M') {
        (millions, 1e6)
    } else {
        (bare, 1.0)
    };
    let value: f64 = number
        .parse()
        .map_err(|_| format!("`{text}` is not a rate; write for example 500, 20k or 1.5M"))?;
    let rate = value * factor;
    if !rate.is_finite() || rate <= 0.0 {
        return Err(format!("`{text}` is not above zero"));
    }
    if rate > 1e8 {
        return Err(format!(
            "`{text}` is more than this tool can mean to send (limit 100M/s)"
        ));
    }
    Ok(rate)
}

/// Parses a count of requests: `5000`, `20k`, `1M`.
///
/// # Errors
/// As [`parse_rate`], and when the count is not whole.
pub fn parse_count(text: &str) -> Result<u64, String> {
    let value = parse_rate(text)?;
    if value.fract() != 0.0 {
        return Err(format!("`{text}` is not a whole number of requests"));
    }
    Ok(ns_from_f64(value))
}

/// Parses a share: `0.01%` is 0.0001; a bare number such as `0.001` is a fraction.
///
/// # Errors
/// A sentence that says what was wrong, also when the share lies outside 0 to 100 %.
pub fn parse_share(text: &str) -> Result<f64, String> {
    let (number, divisor) = match text.strip_suffix('%') {
        Some(number) => (number, 100.0),
        None => (text, 1.0),
    };
    let value: f64 = number
        .trim()
        .parse()
        .map_err(|_| format!("`{text}` is not a share; write for example 0.01%"))?;
    let share = value / divisor;
    if !(0.0..=1.0).contains(&share) {
        return Err(format!("`{text}` is not between 0% and 100%"));
    }
    Ok(share)
}

/// A non-negative number as whole nanoseconds (or whole anything): rounds to nearest, saturates at the ends.
#[must_use]
pub fn ns_from_f64(value: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`as` from f64 saturates, which is what a clamp to the u64 range means"
    )]
    let whole = value.round() as u64;
    whole
}

/// A count as a float, for rates and means. Exact below 2^53, and nothing here counts higher.
#[must_use]
pub fn float(value: u64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts and nanoseconds of a run stay below 2^53"
    )]
    let float = value as f64;
    float
}

/// A duration in whole nanoseconds, saturating (u64 holds 584 years).
#[must_use]
pub fn duration_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds for people: three significant digits and the unit that fits, `87.1 us`.
#[must_use]
pub fn human_ns(ns: u64) -> String {
    let (value, unit) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => (float(ns) / 1e3, "us"),
        1_000_000..NS_PER_S => (float(ns) / 1e6, "ms"),
        _ => (float(ns) / 1e9, "s"),
    };
    let digits = if value < 10.0 {
        2
    } else {
        usize::from(value < 100.0)
    };
    format!("{value:.digits$} {unit}")
}

/// A count with thousands separated: `1,234,567`.
#[must_use]
pub fn human_count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate per second for people: whole numbers with separators from 100 on, two decimals below.
#[must_use]
pub fn human_rate(per_second: f64) -> String {
    if per_second >= 100.0 {
        human_count(ns_from_f64(per_second))
    } else {
        format!("{per_second:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_and_take_fractions() {
        assert_eq!(parse_duration("10s").unwrap(), Duration::from_secs(10));
        assert_eq!(
            parse_duration("1.5ms").unwrap(),
            Duration::from_micros(1500)
        );
        assert_eq!(parse_duration("250us").unwrap(), Duration::from_micros(250));
        assert_eq!(parse_duration("2m").unwrap(), Duration::from_secs(120));
        assert!(parse_duration("10").unwrap_err().contains("10s"));
        for bad in ["", "s", "-1s", "1d", "1.2.3s", "99999999999999999999h"] {
            assert!(parse_duration(bad).is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn rates_take_suffixes() {
        for (text, rate) in [
            ("500", 500.0),
            ("20k", 20_000.0),
            ("1.5M", 1.5e6),
            ("3k/s", 3000.0),
        ] {
            assert!((parse_rate(text).unwrap() - rate).abs() < 1e-9, "{text}");
        }
        for bad in ["", "k", "0", "-5", "nan", "inf", "1e99", "20kk", "ten"] {
            assert!(parse_rate(bad).is_err(), "{bad} was accepted");
        }
        assert_eq!(parse_count("20k").unwrap(), 20_000);
        assert!(parse_count("1.5").unwrap_err().contains("whole"));
    }

    #[test]
    fn shares_are_percentages_or_fractions() {
        assert!((parse_share("0.01%").unwrap() - 0.0001).abs() < 1e-12);
        assert!((parse_share("0.5").unwrap() - 0.5).abs() < 1e-12);
        for bad in ["101%", "-1%", "two", "1.5", "%"] {
            assert!(parse_share(bad).is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(human_ns(999), "999 ns");
        assert_eq!(human_ns(87_123), "87.1 us");
        assert_eq!(human_ns(1_234_000), "1.23 ms");
        assert_eq!(human_ns(250_000_000), "250 ms");
        assert_eq!(human_count(0), "0");
        assert_eq!(human_count(1_234_567), "1,234,567");
        assert_eq!(human_rate(99.5), "99.50");
        assert_eq!(human_rate(20_003.2), "20,003");
    }
}
