//! A line per second on standard error, so that nobody has to wonder whether it hangs. On a terminal the line is written
//! over; in a log each second has its own.

use std::io::{self, IsTerminal as _, Write as _};

use crate::collect::Second;
use crate::units::{NS_PER_S, float, human_count, human_ns, human_rate};

/// Width cleared before a line is written over.
const LINE_WIDTH: usize = 110;

/// Writes progress, or nothing.
#[derive(Debug)]
pub struct Progress {
    enabled: bool,
    is_terminal: bool,
}

impl Progress {
    /// Progress on standard error, if wanted.
    #[must_use]
    pub fn new(enabled: bool) -> Self {
        Self {
            enabled,
            is_terminal: io::stderr().is_terminal(),
        }
    }

    /// A word about what goes on.
    pub fn note(&mut self, what: &str) {
        self.show(what);
    }

    /// A second of the measurement.
    pub fn second(&mut self, second: &Second) {
        self.show(&second_line(second));
    }

    /// How far the check of the answers is.
    pub fn checking(&mut self, done: u64, of: u64) {
        if of > 0 {
            self.show(&format!(
                "checking answers: {} of {}",
                human_count(done),
                human_count(of)
            ));
        }
    }

    /// Removes the line from a terminal before something else is written.
    pub fn clear(&mut self) {
        if self.enabled && self.is_terminal {
            write(&format!("\r{:LINE_WIDTH$}\r", ""));
        }
    }

    fn show(&mut self, line: &str) {
        if !self.enabled {
        } else if self.is_terminal {
            write(&format!("\r{line:LINE_WIDTH$}"));
        } else {
            write(&format!("{line}\n"));
        }
    }
}

/// Progress that cannot be written is no reason to end the run.
fn write(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr
        .write_all(text.as_bytes())
        .and_then(|()| stderr.flush());
}

fn second_line(second: &Second) -> String {
    let length_s = float(second.length_ns.max(1)) / float(NS_PER_S);
    format!(
        "{:>4} s  offered {:>9}/s  answered {:>9}/s  errors {:>5}  p50 {:>8}  p99 {:>8}  max {:>8}",
        (second.start_ns + second.length_ns).div_ceil(NS_PER_S),
        human_rate(float(second.offered) / length_s),
        human_rate(float(second.completed) / length_s),
        human_count(second.errors),
        human_ns(second.p50_ns),
        human_ns(second.p99_ns),
        human_ns(second.max_ns),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_reads_in_one_line() {
        let second = Second {
            start_ns: 4 * NS_PER_S,
            length_ns: NS_PER_S,
            offered: 20_013,
            completed: 20_001,
            errors: 0,
            p50_ns: 87_100,
            p99_ns: 1_250_000,
            max_ns: 21_000_000,
            send_lag_p999_ns: 900,
            response_hdr: String::new(),
        };
        let line = second_line(&second);
        assert!(
            line.contains("5 s") && line.contains("20,013/s") && line.contains("1.25 ms"),
            "{line}"
        );
        assert!(line.len() <= LINE_WIDTH, "{}", line.len());
    }
}
