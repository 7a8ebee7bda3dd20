//! How many operations a slot may run at once: found by trying, not configured.
//!
//! A device runs some number of operations side by side. Fewer at a time leave it idle; more only wait
//! inside it. The rate at which it answers is, by Little's law, the number in flight divided by their mean
//! latency, and that needs no knowledge of how the latency looks without load. So the limiter compares rates:
//!
//! ```text
//! settled at L --try L + step--> clearly faster? -- yes --> stay there, double the step, try up again
//!      ^                              | no: back to L
//!      |                              v
//!      |                        try L - step --> as fast as ever? -- yes --> stay, double the step, try down
//!      |                              | no: back to L, halve the step
//!      +---- step is at its least: rest, longer after each such round ----+
//! ```
//!
//! Only operations that found others waiting, or most places taken, are counted: below that the limit does
//! not bind, and says nothing. (Clients that keep exactly as many requests under way as there are places never
//! leave one waiting, and still wait for each other inside the device.)

use std::time::Duration;

/// A higher limit must answer this much faster to be kept.
const GAIN: f64 = 1.02;
/// A lower limit may answer this much slower than the best rate seen, and is kept for its shorter latency.
const TIE: f64 = 0.97;
/// Below this part of the settled rate the device has changed, and the search begins anew.
const CHANGED: f64 = 0.8;
/// Operations judged per place in the limit.
const SAMPLES_PER_PLACE: u32 = 4;
/// Least operations judged.
const MIN_SAMPLES: u32 = 32;
/// A latency counts as at most this multiple of the mean so far: one hiccup must not decide.
const OUTLIER: f64 = 8.0;
/// Longest rest between rounds of trials, in windows.
const MAX_REST: u32 = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trial {
    /// Measuring the settled limit.
    Settled,
    /// Measuring `settled + step`.
    Up,
    /// Measuring `settled - step`.
    Down,
}

/// Finds the concurrency at which a device answers fastest with the least waiting.
#[derive(Debug)]
pub(super) struct Limiter {
    /// What applies now.
    limit: usize,
    /// The limit that trials return to.
    settled: usize,
    /// Most that is allowed: the sessions that could be opened.
    cap: usize,
    trial: Trial,
    step: usize,
    /// Rate at the settled limit, in operations per second.
    rate: f64,
    /// Windows to go until the next trial, and how long the last rest was.
    rest: u32,
    last_rest: u32,
    /// It has just been made to shrink, and nothing has come back since.
    shrunk: bool,
    window: Window,
}

/// Completions since the limit last changed, or since the last judgement.
#[derive(Debug, Default)]
struct Window {
    /// Completions still to be passed over: they began under another limit.
    skip: usize,
    count: u32,
    latency_s: f64,
    in_flight: f64,
}

impl Limiter {
    pub(super) fn new(start: usize, cap: usize) -> Self {
        let limit = start.clamp(1, cap.max(1));
        Self {
            limit,
            settled: limit,
            cap: cap.max(1),
            trial: Trial::Settled,
            step: (limit / 2).max(1),
            rate: 0.0,
            rest: 0,
            last_rest: 1,
            shrunk: false,
            window: Window::default(),
        }
    }

    /// How many operations may be in flight.
    pub(super) const fn limit(&self) -> usize {
        self.limit
    }

    /// Sets how many sessions there are to use.
    pub(super) fn set_cap(&mut self, cap: usize) {
        self.cap = cap.max(1);
        self.settled = self.settled.min(self.cap);
        if self.limit > self.cap {
            self.change(self.settled, Trial::Settled);
        }
    }

    /// The device says that it has too much to do: a quarter less, at once. That all who were in flight are
    /// told so at the same time counts once.
    pub(super) fn shrink(&mut self) {
        if std::mem::replace(&mut self.shrunk, true) {
            return;
        }
        let less = (self.limit - self.limit.div_ceil(4)).max(1);
        self.settled = less;
        self.rate = 0.0;
        self.step = (less / 4).max(1);
        self.change(less, Trial::Settled);
    }

    /// One operation is done. `in_flight` counts it too; `waited` says whether others were waiting for a place.
    pub(super) fn completed(&mut self, latency: Duration, in_flight: usize, waited: bool) {
        self.shrunk = false;
        if !waited && 4 * in_flight < 3 * self.limit {
            // The limit does not bind.
            return;
        }
        if self.window.skip > 0 {
            self.window.skip -= 1;
            return;
        }
        let window = &mut self.window;
        let mut latency = latency.as_secs_f64();
        if window.count >= 8 {
            latency = latency.min(OUTLIER * window.latency_s / f64::from(window.count));
        }
        window.count += 1;
        window.latency_s += latency;
        window.in_flight += f64::from(u32::try_from(in_flight).unwrap_or(u32::MAX));
        let wanted = u32::try_from(self.limit).unwrap_or(u32::MAX);
        let wanted = wanted.saturating_mul(SAMPLES_PER_PLACE).max(MIN_SAMPLES);
        if window.count >= wanted && window.latency_s > 0.0 {
            // L / W with both as means over the same operations.
            let rate = window.in_flight / window.latency_s;
            self.window = Window::default();
            self.judge(rate);
        }
    }

    fn judge(&mut self, rate: f64) {
        match self.trial {
            Trial::Settled => {
                if rate < self.rate * CHANGED {
                    self.step = (self.settled / 2).max(1);
                    self.rest = 0;
                    self.last_rest = 1;
                }
                self.rate = rate;
                if self.rest > 0 {
                    self.rest -= 1;
                } else {
                    self.try_up();
                }
            }
            Trial::Up if rate >= self.rate * GAIN => {
                self.settled = self.limit;
                self.rate = rate;
                self.step = self.step.saturating_mul(2);
                self.last_rest = 1;
                self.try_up();
            }
            Trial::Up => self.try_down(),
            Trial::Down if rate >= self.rate * TIE => {
                self.settled = self.limit;
                // Not `rate`: small losses must not add up.
                self.rate = self.rate.max(rate);
                self.step = self.step.saturating_mul(2);
                self.last_rest = 1;
                self.try_down();
            }
            Trial::Down => self.narrow(),
        }
    }

    fn try_up(&mut self) {
        let higher = self.settled.saturating_add(self.step).min(self.cap);
        if higher > self.settled {
            self.change(higher, Trial::Up);
        } else {
            self.try_down();
        }
    }

    fn try_down(&mut self) {
        self.step = self.step.min((self.settled / 2).max(1));
        if self.settled > self.step {
            self.change(self.settled - self.step, Trial::Down);
        } else {
            self.narrow();
        }
    }

    /// Neither way was better: look closer, or rest.
    fn narrow(&mut self) {
        let least = (self.settled / 8).max(1);
        if self.step > least {
            self.step = (self.step / 2).max(least);
        } else {
            self.rest = self.last_rest;
            self.last_rest = self.last_rest.saturating_mul(2).min(MAX_REST);
        }
        self.change(self.settled, Trial::Settled);
    }

    fn change(&mut self, limit: usize, trial: Trial) {
        // What is in flight now began under the old limit, and what waits in the device behind it, too.
        let skip = 2 * self.limit.max(limit);
        self.limit = limit;
        self.trial = trial;
        self.window = Window {
            skip,
            ..Window::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device that runs `width` at once, each for `service` seconds; the rest wait inside it, in order.
    /// Completions come one by one. Returns the limits after each of the last completions.
    fn simulate(
        limiter: &mut Limiter,
        width: usize,
        service: f64,
        operations: usize,
    ) -> Vec<usize> {
        let mut noise = 1_u64;
        let (mut now, mut running) = (0.0_f64, Vec::<(f64, f64)>::new());
        let mut servers = vec![0.0_f64; width];
        let mut seen = Vec::new();
        for _ in 0..operations {
            while running.len() < limiter.limit() {
                noise = noise
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let jitter =
                    0.95 + 0.1 * f64::from(u32::try_from(noise >> 40).unwrap()) / 16_777_216.0;
                let free = servers.iter_mut().min_by(|a, b| a.total_cmp(b)).unwrap();
                let end = free.max(now) + service * jitter;
                *free = end;
                running.push((end, now));
            }
            let first = running
                .iter()
                .enumerate()
                .min_by(|a, b| a.1.0.total_cmp(&b.1.0))
                .map(|(at, _)| at)
                .unwrap();
            let in_flight = running.len();
            let (end, begun) = running.swap_remove(first);
            now = end;
            limiter.completed(Duration::from_secs_f64(end - begun), in_flight, true);
            seen.push(limiter.limit());
        }
        seen.split_off(operations / 2)
    }

    fn median(mut values: Vec<usize>) -> usize {
        values.sort_unstable();
        values[values.len() / 2]
    }

    #[test]
    fn it_finds_the_width_of_the_device_from_both_sides() {
        for start in [1, 4, 8, 16, 30, 64] {
            for width in [1, 2, 8, 16, 32] {
                let mut limiter = Limiter::new(start, 64);
                let found = median(simulate(&mut limiter, width, 0.005, 40_000));
                assert!(
                    found >= width && found <= width + width / 4 + 1,
                    "from {start}: {found} for a device of {width}"
                );
            }
        }
    }

    #[test]
    fn it_follows_a_device_that_changes() {
        let mut limiter = Limiter::new(16, 64);
        assert_eq!(median(simulate(&mut limiter, 16, 0.005, 20_000)) / 2, 8);
        let found = median(simulate(&mut limiter, 4, 0.005, 20_000));
        assert!((4..=6).contains(&found), "{found}");
        let found = median(simulate(&mut limiter, 32, 0.005, 80_000));
        assert!((30..=40).contains(&found), "{found}");
    }

    #[test]
    fn without_a_queue_nothing_is_concluded() {
        let mut limiter = Limiter::new(16, 64);
        for _ in 0..10_000 {
            limiter.completed(Duration::from_millis(5), 3, false);
        }
        assert_eq!(limiter.limit(), 16);
    }

    #[test]
    fn a_busy_device_gets_less_at_once_and_the_cap_is_kept() {
        let mut limiter = Limiter::new(16, 64);
        limiter.shrink();
        assert_eq!(limiter.limit(), 12);
        limiter.set_cap(5);
        assert_eq!(limiter.limit(), 5);
        limiter.shrink();
        assert_eq!(limiter.limit(), 5, "told twice at once");
        for _ in 0..10 {
            limiter.completed(Duration::from_millis(5), 5, true);
            limiter.shrink();
        }
        assert_eq!(limiter.limit(), 1);
        limiter.set_cap(0);
        assert_eq!(limiter.limit(), 1);
    }
}
