//! Service level objectives: `p99<5ms`, `p99.9<20ms`, `mean<1ms`, `max<50ms`, `errors<0.01%`.

use std::fmt;
use std::str::FromStr;

use crate::units::{duration_ns, float, parse_duration, parse_share};

/// One objective, as given on the command line.
#[derive(Clone, Debug, PartialEq)]
pub struct Slo {
    /// The text it was written as; it is repeated in reports.
    pub text: String,
    /// What is measured and the limit it must stay below.
    pub limit: Limit,
}

/// What an objective bounds. Latencies are those of the `response` clock, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// This quantile (0.99 for p99) lies below so many nanoseconds.
    Quantile {
        /// Between 0 and 1, both excluded.
        quantile: f64,
        /// The bound.
        below_ns: u64,
    },
    /// The mean lies below so many nanoseconds.
    Mean {
        /// The bound.
        below_ns: u64,
    },
    /// The worst answer took less than so many nanoseconds.
    Max {
        /// The bound.
        below_ns: u64,
    },
    /// The share of requests that failed stays below this fraction; `errors<0%` means none at all.
    Errors {
        /// The bound, between 0 and 1.
        below: f64,
    },
}

impl Slo {
    /// The latency bound, if it is one.
    #[must_use]
    pub fn below_ns(&self) -> Option<u64> {
        match self.limit {
            Limit::Quantile { below_ns, .. }
            | Limit::Mean { below_ns }
            | Limit::Max { below_ns } => Some(below_ns),
            Limit::Errors { .. } => None,
        }
    }

    /// Whether a measured value keeps the objective: nanoseconds for latencies, a fraction for errors.
    #[must_use]
    pub fn is_met_by(&self, observed: f64) -> bool {
        match self.limit {
            // "Fewer than none" cannot be met; whoever writes errors<0% means zero.
            Limit::Errors { below } if below <= 0.0 => observed <= 0.0,
            Limit::Errors { below } => observed < below,
            Limit::Quantile { below_ns, .. }
            | Limit::Mean { below_ns }
            | Limit::Max { below_ns } => observed < float(below_ns),
        }
    }
}

impl FromStr for Slo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str =
            "write for example p99<5ms, p99.9<20ms, mean<1ms, max<50ms or errors<0.01%";
        let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let (what, bound) = compact.split_once('<').ok_or_else(|| {
            format!("`{text}` has no `<`; {FORM} (in quotes, because of the shell)")
        })?;
        let below_ns = || match parse_duration(bound).map(duration_ns) {
            Ok(0) => Err(format!("nothing is faster than `{bound}`")),
            other => other,
        };
        let limit = match what {
            "errors" => Limit::Errors {
                below: parse_share(bound)?,
            },
            "mean" => Limit::Mean {
                below_ns: below_ns()?,
            },
            "max" => Limit::Max {
                below_ns: below_ns()?,
            },
            percentile => {
                let percent = percentile
                    .strip_prefix('p')
                    .and_then(|digits| digits.parse::<f64>().ok())
                    .filter(|percent| *percent > 0.0 && *percent < 100.0)
                    .ok_or_else(|| format!("`{what}` is not something to bound; {FORM}"))?;
                Limit::Quantile {
                    quantile: percent / 100.0,
                    below_ns: below_ns()?,
                }
            }
        };
        Ok(Self {
            text: compact,
            limit,
        })
    }
}

impl fmt::Display for Slo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(text: &str) -> Limit {
        text.parse::<Slo>().unwrap().limit
    }

    #[test]
    fn objectives_parse() {
        assert_eq!(
            limit("p99<5ms"),
            Limit::Quantile {
                quantile: 0.99,
                below_ns: 5_000_000
            }
        );
        assert_eq!(
            limit("p50 < 250us"),
            Limit::Quantile {
                quantile: 0.5,
                below_ns: 250_000
            }
        );
        let Limit::Quantile { quantile, .. } = limit("p99.9<20ms") else {
            panic!("not a quantile")
        };
        assert!((quantile - 0.999).abs() < 1e-12);
        assert_eq!(
            limit("mean<1ms"),
            Limit::Mean {
                below_ns: 1_000_000
            }
        );
        assert_eq!(
            limit("max<1s"),
            Limit::Max {
                below_ns: 1_000_000_000
            }
        );
        let Limit::Errors { below } = limit("errors<0.01%") else {
            panic!("not errors")
        };
        assert!((below - 0.0001).abs() < 1e-12);
    }

    #[test]
    fn nonsense_is_refused_with_the_form_to_use() {
        for bad in [
            "",
            "p99",
            "p99=5ms",
            "p99<",
            "p99<5",
            "p0<5ms",
            "p100<5ms",
            "p<5ms",
            "q99<5ms",
            "errors<5ms",
            "p99<0ms",
            "p99>5ms",
        ] {
            assert!(bad.parse::<Slo>().is_err(), "{bad} was accepted");
        }
        assert!("q99<5ms".parse::<Slo>().unwrap_err().contains("p99<5ms"));
    }

    #[test]
    fn the_bound_itself_is_a_miss() {
        let slo: Slo = "p99<5ms".parse().unwrap();
        assert!(slo.is_met_by(4_999_999.0));
        assert!(!slo.is_met_by(5_000_000.0));
        let none: Slo = "errors<0%".parse().unwrap();
        assert!(none.is_met_by(0.0));
        assert!(!none.is_met_by(1e-9));
    }
}
