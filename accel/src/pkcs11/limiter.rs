//! How many operations a slot may run at once: found by trying, not configured.
//!
//! A device runs some number of operations side by side. Fewer at a time leave it idle; more only wait
//! inside it. The rate at which it answers is, by Little's law, the number in flight divided by their mean
//! latency, and that needs no knowledge of how the latency looks without load. What is looked for is the
//! least number at which the device answers as fast as it ever does. Two numbers are compared by running
//! with one and the other in turn, so that what changes meanwhile, a busy network, say, changes both:
//!
//! ```text
//! rising:   settled against twice as many -- too few? settled = twice, again
//!              | as fast
//!              v
//! falling:  half-way to what was too few, against settled -- as fast? settled = that number
//!              | nothing between any more                    too few? look above it
//!              v
//! trimming: one fewer against settled -- does the last place give much less than its share? settled = one fewer
//!              |
//!              v
//! resting:  run as settled, longer after each round; then against a quarter more, an eighth fewer, one fewer
//!              | too few: rising       as fast with fewer: falling       neither: rest
//! ```
//!
//! Trimming is for devices that are away. Between two operations each place stands still for the time that an
//! answer takes to get here and the next request to get there, so one place more than the device is wide always
//! adds a little: it fills the gaps of the others, and every operation then waits in the device for its turn. A
//! place that is needed gives its whole share, one in so many; that one gives less than three quarters of it.
//!
//! Only operations that found others waiting, or most places taken, are counted: below that the limit does
//! not bind, and says nothing. (Clients that keep exactly as many requests under way as there are places never
//! leave one waiting, and still wait for each other inside the device.)

use std::time::Duration;

/// A number that answers this much slower than the best is as good, for its shorter latency.
const TIE: f64 = 0.98;
/// How much less than that will do between two numbers that are far apart: few rounds are fought, and what is
/// too few is then far slower.
const FAR_SLACK: f64 = 0.03;
/// And how much less still when chance may have decided: a look at what is near will put it right.
const DOUBT: f64 = 0.1;
/// The last place is one too many when it gives less than this part of its share, one in so many, and no less than
/// so much of the speed is left without it.
const SHARE: f64 = 0.75;
const TRIMMED: f64 = 0.955;
/// Below this part of the rate before, the device has changed, and the search begins anew.
const CHANGED: f64 = 0.8;
/// Operations in a window, for each place in the limit, and the bounds of that.
const SAMPLES_PER_PLACE: usize = 8;
const MIN_SAMPLES: usize = 128;
const MAX_SAMPLES: usize = 256;
/// Rounds, a window with each of two numbers, before they are judged: at least, and at most when they are far
/// apart or close together. What counts is the middle one: a machine that stands still for a moment spoils a
/// round, and must not decide.
const MIN_ROUNDS: usize = 3;
const MAX_ROUNDS_FAR: usize = 5;
const MAX_ROUNDS_NEAR: usize = 13;
/// So many standard errors away from a tie, the judgement can be made early.
const CERTAIN: f64 = 3.0;
/// Standard error of the middle one of many, as a multiple of their median deviation from it divided by the
/// root of their number: 1.48 (deviation of a normal distribution) times 1.25 (median in place of the mean).
const ERROR_OF_MEDIAN: f64 = 1.85;
/// A latency counts as at most this multiple of the mean so far: one hiccup must not decide.
const OUTLIER: f64 = 8.0;
/// First and longest rest between rounds, in windows.
const FIRST_REST: u32 = 8;
const MAX_REST: u32 = 128;

/// Finds the concurrency at which a device answers fastest with the least waiting.
#[derive(Debug)]
pub(super) struct Limiter {
    /// What applies now.
    limit: usize,
    /// The best number known.
    settled: usize,
    /// Most that is allowed: the sessions that could be opened.
    cap: usize,
    stage: Stage,
    duel: Duel,
    /// Speed at the settled number as part of that where falling began: small losses must not add up.
    kept: f64,
    /// Speed at the settled number as part of that with the place that was trimmed.
    trimmed: f64,
    /// A number whose last place is known to give its share.
    needed: usize,
    /// Rate at the settled number while resting, in operations per second.
    rate: f64,
    last_rest: u32,
    /// It has just been made to shrink, and nothing has come back since.
    shrunk: bool,
    /// Completions still to be passed over: they began under another limit.
    skip: usize,
    window: Window,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Is so much (of 100) more faster? Last, so many were too few.
    Rising { too_few: usize, percent: usize },
    /// Is there a number between that is as fast?
    Falling { too_few: usize },
    /// Does the last place give much less than its share? If not, a rest of so many windows follows.
    Trimming { rest: u32 },
    /// Windows to go.
    Resting { windows: u32 },
    /// Is a quarter more faster now?
    LookingUp,
    /// Is an eighth fewer as fast now?
    LookingDown,
}

/// Two numbers that take turns.
#[derive(Debug, Default)]
struct Duel {
    fewer: usize,
    more: usize,
    /// Rate with more in this round.
    rate_with_more: f64,
    /// Speed with fewer as part of the speed with more, in each round.
    ratios: Vec<f64>,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
struct Judgement {
    /// Speed with fewer as part of the speed with more, at the best that it may be.
    ratio: f64,
    /// Fewer are as fast as more, but for what may be given up.
    enough: bool,
    /// That is not by chance.
    certain: bool,
}

/// Completions under one limit.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    count: usize,
    latency_s: f64,
    in_flight: f64,
}

impl Window {
    fn add(&mut self, latency: f64, in_flight: usize) {
        let mut latency = latency;
        if self.count >= 8 {
            latency = latency.min(OUTLIER * self.mean());
        }
        self.count += 1;
        self.latency_s += latency;
        self.in_flight += float(in_flight);
    }

    fn mean(&self) -> f64 {
        self.latency_s / float(self.count.max(1))
    }

    /// L / W with both as means over the same operations.
    fn rate(&self) -> f64 {
        self.in_flight / self.latency_s.max(f64::MIN_POSITIVE)
    }
}

fn float(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

impl Duel {
    /// Whether there is much between the two.
    const fn is_far(&self) -> bool {
        self.fewer < self.more - self.more / 4
    }

    /// How fewer compare with more; `None` while it is too early to tell.
    fn judgement(&self, tie: f64) -> Option<Judgement> {
        let rounds = self.ratios.len();
        if rounds < MIN_ROUNDS {
            return None;
        }
        let ratio = median(self.ratios.clone());
        let deviation = median(self.ratios.iter().map(|one| (one - ratio).abs()).collect());
        let error = CERTAIN * ERROR_OF_MEDIAN * deviation / float(rounds).sqrt();
        let certain = (ratio - tie).abs() > error;
        let most = if self.is_far() {
            MAX_ROUNDS_FAR
        } else {
            MAX_ROUNDS_NEAR
        };
        (certain || rounds >= most).then_some(Judgement {
            ratio: ratio + error,
            enough: ratio >= tie || (self.is_far() && !certain && ratio >= tie - DOUBT),
            certain,
        })
    }
}

/// So fast with one fewer than `more`, and the last place is one too many.
fn trim_tie(more: usize) -> f64 {
    (1.0 - SHARE / float(more)).max(TRIMMED)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

impl Limiter {
    pub(super) fn new(start: usize, cap: usize) -> Self {
        let settled = start.clamp(1, cap.max(1));
        let mut limiter = Self {
            limit: settled,
            settled,
            cap: cap.max(1),
            stage: Stage::Resting { windows: 0 },
            duel: Duel::default(),
            kept: 1.0,
            trimmed: 1.0,
            needed: 0,
            rate: 0.0,
            last_rest: FIRST_REST,
            shrunk: false,
            skip: 2 * settled,
            window: Window::default(),
        };
        limiter.rise(0, 100);
        limiter
    }

    /// How many operations may be in flight.
    pub(super) const fn limit(&self) -> usize {
        self.limit
    }

    /// The best number known; while another is being tried, [`Self::limit`] differs.
    pub(super) const fn settled(&self) -> usize {
        self.settled
    }

    /// Sets how many sessions there are to use.
    pub(super) fn set_cap(&mut self, cap: usize) {
        self.cap = cap.max(1);
        if self.limit.max(self.duel.more).max(self.settled) > self.cap {
            self.settled = self.settled.min(self.cap);
            self.rest(FIRST_REST);
        }
    }

    /// The device says that it has too much to do: a quarter less, at once. That all who were in flight are
    /// told so at the same time counts once.
    pub(super) fn shrink(&mut self) {
        if std::mem::replace(&mut self.shrunk, true) {
            return;
        }
        self.settled = (self.limit - self.limit.div_ceil(4)).max(1);
        self.rest(self.last_rest);
    }

    /// One operation is done. `in_flight` counts it too; `waited` says whether others were waiting for a place.
    pub(super) fn completed(&mut self, latency: Duration, in_flight: usize, waited: bool) {
        self.shrunk = false;
        if !waited && 4 * in_flight < 3 * self.limit {
            // The limit does not bind.
            return;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return;
        }
        self.window.add(latency.as_secs_f64(), in_flight);
        let wanted = (self.limit * SAMPLES_PER_PLACE).clamp(MIN_SAMPLES, MAX_SAMPLES);
        if self.window.count >= wanted {
            let window = std::mem::take(&mut self.window);
            match self.stage {
                Stage::Resting { windows } => self.rested(&window, windows),
                _ => self.fought(&window),
            }
        }
    }

    /// A window at the settled number.
    fn rested(&mut self, window: &Window, windows: u32) {
        let rate = window.rate();
        if rate < self.rate * CHANGED {
            self.last_rest = FIRST_REST;
            self.needed = 0;
            self.rise(0, 100);
            return;
        }
        self.rate = rate;
        match windows.checked_sub(1) {
            Some(windows) => self.stage = Stage::Resting { windows },
            None if self.settled < self.cap => {
                let more = self.settled + (self.settled / 4).max(1);
                self.fight(Stage::LookingUp, self.settled, more.min(self.cap));
            }
            None => self.look_down(),
        }
    }

    /// A window of one of the two that take turns.
    fn fought(&mut self, window: &Window) {
        let duel = &mut self.duel;
        if self.limit == duel.more {
            duel.rate_with_more = window.rate();
            let fewer = duel.fewer;
            self.change(fewer);
            return;
        }
        let ratio = window.rate() / duel.rate_with_more.max(f64::MIN_POSITIVE);
        duel.ratios.push(ratio);
        // Where falling began, the speed was 1.
        let tie = match self.stage {
            Stage::Falling { .. } => TIE / self.kept,
            Stage::LookingUp => TIE * self.trimmed,
            Stage::Trimming { .. } => trim_tie(duel.more) / self.trimmed,
            _ => TIE,
        };
        let tie = if duel.is_far() { tie - FAR_SLACK } else { tie };
        let Some(judgement) = duel.judgement(tie) else {
            let more = duel.more;
            self.change(more);
            return;
        };
        let (fewer, more) = (duel.fewer, duel.more);
        self.decide(fewer, more, judgement);
    }

    fn decide(&mut self, fewer: usize, more: usize, judgement: Judgement) {
        let Judgement {
            ratio,
            enough,
            certain,
        } = judgement;
        if fewer + 1 == more && certain && ratio < trim_tie(more) {
            self.needed = more;
        }
        match self.stage {
            Stage::Rising { percent, .. } if !enough => {
                self.settled = more;
                self.rise(fewer, percent.saturating_mul(2).min(100));
            }
            Stage::Rising { too_few, .. } => {
                self.kept = 1.0;
                self.fall(too_few);
            }
            Stage::Falling { too_few } => {
                if enough {
                    self.settled = fewer;
                    self.kept *= ratio.min(1.0);
                    self.fall(too_few);
                } else {
                    self.fall(fewer);
                }
            }
            Stage::Trimming { .. } if enough && certain => {
                self.settled = fewer;
                self.trimmed *= ratio.min(1.0);
                self.rest(FIRST_REST);
            }
            Stage::Trimming { rest } => self.rest(rest),
            // It is looked at often: by chance alone, a search would begin now and then.
            Stage::LookingUp if !enough && certain => {
                self.needed = 0;
                self.settled = more;
                self.rise(fewer, 50);
            }
            Stage::LookingUp => self.look_down(),
            Stage::LookingDown if enough => {
                self.settled = fewer;
                self.trimmed = 1.0;
                self.needed = 0;
                self.kept = ratio.min(1.0);
                self.fall(0);
            }
            Stage::LookingDown | Stage::Resting { .. } => {
                let longer = self.last_rest.saturating_mul(2).min(MAX_REST);
                self.trim(longer);
            }
        }
    }

    /// Tries so much (of 100) more than the settled number, knowing that `too_few` was too few.
    fn rise(&mut self, too_few: usize, percent: usize) {
        self.trimmed = 1.0;
        if self.settled < self.cap {
            let step = (self.settled * percent / 100).max(1);
            let more = self.settled.saturating_add(step).min(self.cap);
            self.fight(Stage::Rising { too_few, percent }, self.settled, more);
        } else {
            self.kept = 1.0;
            self.fall(too_few);
        }
    }

    /// Tries the middle between what is too few and the settled number.
    fn fall(&mut self, too_few: usize) {
        let middle = usize::midpoint(too_few, self.settled);
        if middle > too_few && middle < self.settled {
            self.fight(Stage::Falling { too_few }, middle, self.settled);
        } else {
            self.trim(FIRST_REST);
        }
    }

    /// Tries one fewer than the settled number; if that is too few, it rests for so many windows.
    fn trim(&mut self, rest: u32) {
        if self.settled > 1 && self.settled != self.needed {
            let fewer = self.settled - 1;
            self.fight(Stage::Trimming { rest }, fewer, self.settled);
        } else {
            self.rest(rest);
        }
    }

    fn look_down(&mut self) {
        let fewer = self.settled - (self.settled / 8).max(1);
        if fewer > 0 {
            self.fight(Stage::LookingDown, fewer, self.settled);
        } else {
            self.rest(self.last_rest.saturating_mul(2).min(MAX_REST));
        }
    }

    fn rest(&mut self, windows: u32) {
        self.stage = Stage::Resting { windows };
        self.last_rest = windows;
        self.rate = 0.0;
        self.duel = Duel::default();
        self.change(self.settled);
    }

    fn fight(&mut self, stage: Stage, fewer: usize, more: usize) {
        self.stage = stage;
        self.duel = Duel {
            fewer,
            more,
            ..Duel::default()
        };
        self.change(more);
    }

    fn change(&mut self, limit: usize) {
        // What is in flight now began under the old limit, and what waits in the device behind it, too.
        if limit != self.limit {
            self.skip = 2 * self.limit.max(limit);
        }
        self.limit = limit;
        self.window = Window::default();
    }
}

#[cfg(test)]
mod tests;
