//! Numbers with a unit: `"250ms"`, `"256KiB"`, `"1%"`. A number without one is never right, so that
//! nobody has to know whether a time-out is in seconds or milliseconds.

use std::time::Duration;

/// Reads `"10s"`; units are us, ms, s, min, h and d.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    match unit {
        "us" => Some(Duration::from_micros(number)),
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "min" => seconds(number, 60),
        "h" => seconds(number, 3600),
        "d" => seconds(number, 86_400),
        _ => None,
    }
}

/// Reads `"256KiB"` into bytes; units are B, KiB, MiB and GiB.
pub(super) fn size(text: &str) -> Option<usize> {
    let (number, unit) = split(text)?;
    let factor: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    usize::try_from(number.checked_mul(factor)?).ok()
}

/// Reads `"1%"` or `"0.1%"` into thousandths; at most one digit after the point, at most 100%.
pub(super) fn permille(text: &str) -> Option<u16> {
    let number = text.strip_suffix('%')?.trim_end();
    let (whole, tenths) = number.split_once('.').unwrap_or((number, "0"));
    if tenths.len() != 1 {
        return None;
    }
    let value = digits(whole)?
        .checked_mul(10)?
        .checked_add(digits(tenths)?)?;
    u16::try_from(value)
        .ok()
        .filter(|permille| *permille <= 1000)
}

fn seconds(number: u64, factor: u64) -> Option<Duration> {
    number.checked_mul(factor).map(Duration::from_secs)
}

fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|character: char| !character.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(end)?;
    Some((digits(number)?, unit.trim_start()))
}

/// Digits only: `parse` alone would take a sign.
fn digits(text: &str) -> Option<u64> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("10s"), Some(Duration::from_secs(10)));
        assert_eq!(duration("250 ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("2min"), Some(Duration::from_secs(120)));
        assert_eq!(duration("1d"), Some(Duration::from_secs(86_400)));
        for wrong in [
            "10",
            "s",
            "",
            "-1s",
            "1.5s",
            "10 m",
            "10sec",
            "99999999999999999999s",
            "9999999999999999999d",
        ] {
            assert_eq!(duration(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn sizes_need_a_unit() {
        assert_eq!(size("256KiB"), Some(262_144));
        assert_eq!(size("70000B"), Some(70_000));
        for wrong in ["256", "256K", "256kb", "18446744073709551615GiB", "+1B"] {
            assert_eq!(size(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn shares_are_percentages() {
        for (text, expected) in [
            ("0%", 0),
            ("1%", 10),
            ("0.1%", 1),
            ("100%", 1000),
            ("99.9%", 999),
        ] {
            assert_eq!(permille(text), Some(expected), "{text}");
        }
        for wrong in ["1", "101%", "0.01%", "-1%", "%", "1.%", ".5%%"] {
            assert_eq!(permille(wrong), None, "{wrong:?}");
        }
    }
}
