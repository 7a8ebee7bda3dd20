//! What goes wrong, and how often what was called.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cryptoki_sys::{CK_RV, CK_SESSION_HANDLE, CK_SLOT_ID, CKR_TOKEN_NOT_PRESENT};

/// The faults of this copy of the module.
pub(crate) static FAULTS: LazyLock<Faults> = LazyLock::new(Faults::default);

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It goes to the real module.
    Pass,
    /// It returns this code at once.
    Fail(CK_RV),
}

#[derive(Debug, Default)]
pub(crate) struct Faults {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    latency: HashMap<String, Duration>,
    failures: Vec<Failure>,
    hangs: Vec<(String, Option<CK_SLOT_ID>)>,
    removed: HashSet<CK_SLOT_ID>,
    sessions: BTreeMap<CK_SESSION_HANDLE, CK_SLOT_ID>,
    /// Sessions that the real module is about to open.
    opening: usize,
    /// Most sessions; 0 for no limit.
    session_limit: usize,
    /// Most operations at once; 0 for no limit.
    width: usize,
    /// When each of the places in a device with a latency is free again; as many as its width.
    free_at: Vec<Instant>,
    running: usize,
    peak: usize,
    wrong: u64,
    /// What every operation returns until the module is initialized again.
    ailment: Option<CK_RV>,
    /// What each call in one of these sessions returns.
    spoiled: HashMap<CK_SESSION_HANDLE, CK_RV>,
    /// What the token takes as its PIN in place of its own.
    pin: Option<String>,
    /// All tokens have the same label and serial number.
    twins: bool,
    counts: HashMap<String, u64>,
}

#[derive(Debug)]
struct Failure {
    function: String,
    code: CK_RV,
    /// How often it still strikes; `None` for always.
    times: Option<u64>,
    every: u64,
    slot: Option<CK_SLOT_ID>,
    seen: u64,
}

/// A place in the device.
pub(crate) enum Turn<'a> {
    /// Held while the operation runs, and given back on drop.
    Held(&'a Faults),
    /// By the device's own clock: the operation is done at this instant, and the place is then free, whether its
    /// caller has woken up or not.
    Until(Instant),
}

impl Turn<'_> {
    /// Waits until the device is done. An operation that takes its own time, on drop, needs no waiting.
    pub(crate) fn wait(&self) {
        if let Self::Until(end) = self {
            crate::sleep::until(*end);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Self::Held(faults) = self {
            faults.lock().running -= 1;
            faults.changed.notify_all();
        }
    }
}

impl State {
    /// Gives an operation that arrives now the place that is free first; returns when it is done.
    fn schedule(&mut self, now: Instant, latency: Duration) -> Instant {
        if self.width == 0 {
            return now + latency;
        }
        self.free_at.resize(self.width, now);
        let Some(first) = self.free_at.iter_mut().min() else {
            return now + latency;
        };
        let end = now.max(*first) + latency;
        *first = end;
        let busy = self.free_at.iter().filter(|free| **free > now).count();
        self.peak = self.peak.max(busy);
        end
    }
}

impl Faults {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call, lets it take its time, and says what becomes of it.
    pub(crate) fn enter(&self, function: &str, slot: Option<CK_SLOT_ID>) -> Verdict {
        let verdict = self.enter_before_latency(function, slot);
        self.take_time(function, Instant::now());
        verdict
    }

    /// The same without the time, for operations that take theirs inside the device.
    pub(crate) fn enter_before_latency(&self, function: &str, slot: Option<CK_SLOT_ID>) -> Verdict {
        let mut state = self.lock();
        *state.counts.entry(function.to_owned()).or_default() += 1;
        while state
            .hangs
            .iter()
            .any(|(name, at)| (name == function || name == "*") && (at.is_none() || *at == slot))
        {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if function == "C_Initialize" {
            state.ailment = None;
        }
        if let (Some(code), "C_Sign" | "C_Decrypt") = (state.ailment, function) {
            return Verdict::Fail(code);
        }
        if slot.is_some_and(|slot| state.removed.contains(&slot)) {
            return Verdict::Fail(CKR_TOKEN_NOT_PRESENT);
        }
        for failure in &mut state.failures {
            let meant = (failure.function == function || failure.function == "*")
                && (failure.slot.is_none() || failure.slot == slot)
                && failure.times != Some(0);
            if !meant {
                continue;
            }
            failure.seen += 1;
            if failure.seen.is_multiple_of(failure.every) {
                failure.times = failure.times.map(|times| times - 1);
                return Verdict::Fail(failure.code);
            }
        }
        Verdict::Pass
    }

    /// Sleeps until a call that began then has taken as long as it should.
    pub(crate) fn take_time(&self, function: &str, begun: Instant) {
        let latency = self.lock().latency.get(function).copied();
        if let Some(latency) = latency {
            crate::sleep::until(begun + latency);
        }
    }

    /// Finds a place in the device, or waits for one. A function with a latency is done at a time that is known
    /// now: the next in its place begins at that very moment, as in a device, and not when a thread of this
    /// process has been woken up and has given the place back.
    pub(crate) fn turn(&self, function: &str) -> Turn<'_> {
        let mut state = self.lock();
        if let Some(latency) = state.latency.get(function).copied() {
            return Turn::Until(state.schedule(Instant::now(), latency));
        }
        while state.width > 0 && state.running >= state.width {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.running += 1;
        state.peak = state.peak.max(state.running);
        Turn::Held(self)
    }

    pub(crate) fn is_wrong(&self) -> bool {
        let mut state = self.lock();
        let wrong = state.wrong > 0;
        state.wrong = state.wrong.saturating_sub(1);
        wrong
    }

    pub(crate) fn is_removed(&self, slot: CK_SLOT_ID) -> bool {
        self.lock().removed.contains(&slot)
    }

    /// What a session that was spoiled returns.
    pub(crate) fn spoiled(&self, session: CK_SESSION_HANDLE) -> Option<CK_RV> {
        self.lock().spoiled.get(&session).copied()
    }

    /// Whether this is the PIN that was made the token's; `None` when none was.
    pub(crate) fn takes_pin(&self, pin: &[u8]) -> Option<bool> {
        let state = self.lock();
        state.pin.as_ref().map(|taken| taken.as_bytes() == pin)
    }

    pub(crate) fn are_twins(&self) -> bool {
        self.lock().twins
    }

    pub(crate) fn slot_of(&self, session: CK_SESSION_HANDLE) -> Option<CK_SLOT_ID> {
        self.lock().sessions.get(&session).copied()
    }

    pub(crate) fn session_in(&self, slot: CK_SLOT_ID) -> Option<CK_SESSION_HANDLE> {
        let state = self.lock();
        let found = state.sessions.iter().find(|(_, at)| **at == slot);
        found.map(|(session, _)| *session)
    }

    /// Takes a place for a session that is about to be opened; false when there is none. Threads open sessions
    /// at the same time, so the place is taken before and not looked for.
    pub(crate) fn may_open(&self) -> bool {
        let mut state = self.lock();
        let taken = state.sessions.len() + state.opening;
        let free = state.session_limit == 0 || taken < state.session_limit;
        state.opening += usize::from(free);
        free
    }

    /// What became of it: `None` when the real module refused.
    pub(crate) fn opened(&self, session: Option<CK_SESSION_HANDLE>, slot: CK_SLOT_ID) {
        let mut state = self.lock();
        state.opening -= 1;
        if let Some(session) = session {
            state.sessions.insert(session, slot);
        }
    }

    pub(crate) fn closed(&self, session: CK_SESSION_HANDLE) {
        let mut state = self.lock();
        state.sessions.remove(&session);
        state.spoiled.remove(&session);
    }

    pub(crate) fn closed_all(&self, slot: CK_SLOT_ID) {
        self.lock().sessions.retain(|_, at| *at != slot);
    }

    pub(crate) fn closed_everything(&self) {
        self.lock().sessions.clear();
    }

    /// Carries out a command that concerns this state alone; `None` when it is not understood.
    pub(crate) fn command(&self, words: &[&str]) -> Option<String> {
        let mut state = self.lock();
        let mut answer = "ok".to_owned();
        match *words {
            ["latency", function, micros] => {
                let micros = Duration::from_micros(micros.parse().ok()?);
                state.latency.insert(function.to_owned(), micros);
            }
            ["width", width] => state.width = width.parse().ok()?,
            ["fail", function, code, times, every, slot] => {
                let failure = Failure {
                    function: function.to_owned(),
                    code: number(code)?,
                    times: any(times)?,
                    every: every.parse().ok().filter(|every| *every > 0)?,
                    slot: any(slot)?,
                    seen: 0,
                };
                state.failures.push(failure);
            }
            ["heal", function] => state
                .failures
                .retain(|failure| failure.function != function),
            ["hang", function, slot] => state.hangs.push((function.to_owned(), any(slot)?)),
            ["release"] => state.hangs.clear(),
            ["sessions", limit] => state.session_limit = limit.parse().ok()?,
            ["remove", slot] => {
                state.removed.insert(number(slot)?);
            }
            ["insert", slot] => {
                state.removed.remove(&number(slot)?);
            }
            ["ail", code] => state.ailment = Some(number(code)?),
            ["spoil", code, slot] => {
                let (code, slot) = (number(code)?, number(slot)?);
                let of_slot = state.sessions.iter().filter(|(_, at)| **at == slot);
                let sessions: Vec<_> = of_slot.map(|(session, _)| (*session, code)).collect();
                state.spoiled.extend(sessions);
            }
            ["pin", pin] => state.pin = Some(pin.to_owned()),
            ["twins"] => state.twins = true,
            ["wrong", times] => state.wrong = times.parse().ok()?,
            ["count", function] => {
                answer = state.counts.get(function).copied().unwrap_or(0).to_string();
            }
            ["peak"] => {
                answer = state.peak.to_string();
                state.peak = state.running;
            }
            ["reset"] => {
                *state = State {
                    sessions: std::mem::take(&mut state.sessions),
                    opening: state.opening,
                    counts: std::mem::take(&mut state.counts),
                    running: state.running,
                    ..State::default()
                };
            }
            _ => return None,
        }
        drop(state);
        self.changed.notify_all();
        Some(answer)
    }
}

/// A number, decimal or hexadecimal with `0x`.
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// A number, or `*` for `None` within.
fn any(text: &str) -> Option<Option<u64>> {
    if text == "*" {
        Some(None)
    } else {
        number(text).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn faults(commands: &[&str]) -> Faults {
        let faults = Faults::default();
        for command in commands {
            let words: Vec<_> = command.split(' ').collect();
            assert_eq!(faults.command(&words).as_deref(), Some("ok"), "{command}");
        }
        faults
    }

    #[test]
    fn failures_strike_where_and_as_often_as_told() {
        let faults = faults(&["fail C_Sign 0x30 2 3 7"]);
        let codes: Vec<_> = (0..12).map(|_| faults.enter("C_Sign", Some(7))).collect();
        let failed: Vec<_> = (0..12)
            .filter(|at| codes[*at] == Verdict::Fail(0x30))
            .collect();
        assert_eq!(failed, [2, 5]);
        assert_eq!(faults.enter("C_Sign", Some(8)), Verdict::Pass);
        assert_eq!(faults.command(&["count", "C_Sign"]).as_deref(), Some("13"));
    }

    #[test]
    fn a_function_that_is_healed_fails_no_more_and_others_still_do() {
        let faults = faults(&[
            "fail C_Sign 0x30 * 1 *",
            "fail C_Login 0xa0 * 1 *",
            "heal C_Sign",
        ]);
        assert_eq!(faults.enter("C_Sign", Some(7)), Verdict::Pass);
        assert_eq!(faults.enter("C_Login", Some(7)), Verdict::Fail(0xa0));
    }

    #[test]
    fn a_removed_token_answers_nothing_until_it_is_back() {
        let faults = faults(&["remove 7"]);
        let gone = Verdict::Fail(CKR_TOKEN_NOT_PRESENT);
        assert_eq!(faults.enter("C_Sign", Some(7)), gone);
        assert_eq!(faults.enter("C_Sign", Some(8)), Verdict::Pass);
        assert_eq!(faults.command(&["insert", "7"]).as_deref(), Some("ok"));
        assert_eq!(faults.enter("C_Sign", Some(7)), Verdict::Pass);
    }

    #[test]
    fn an_ailing_module_is_well_once_it_is_initialized() {
        let faults = faults(&["ail 0x5"]);
        assert_eq!(faults.enter("C_Sign", Some(7)), Verdict::Fail(5));
        assert_eq!(faults.enter("C_OpenSession", Some(7)), Verdict::Pass);
        assert_eq!(faults.enter("C_Initialize", None), Verdict::Pass);
        assert_eq!(faults.enter("C_Sign", Some(7)), Verdict::Pass);
    }

    #[test]
    fn a_hang_ends_with_its_release() {
        let faults = faults(&["hang C_Sign *"]);
        thread::scope(|scope| {
            let hung = scope.spawn(|| faults.enter("C_Sign", Some(1)));
            while faults.command(&["count", "C_Sign"]).as_deref() != Some("1") {
                thread::yield_now();
            }
            assert!(!hung.is_finished());
            faults.command(&["release"]);
            assert_eq!(hung.join().unwrap(), Verdict::Pass);
        });
    }

    #[test]
    fn the_device_is_as_wide_as_told() {
        let faults = faults(&["width 2"]);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let _turn = faults.turn("C_Sign");
                    thread::sleep(Duration::from_millis(1));
                });
            }
        });
        assert_eq!(faults.command(&["peak"]).as_deref(), Some("2"));
    }

    /// Two at a time, a millisecond each: the third begins when the first ends, however late that is asked about.
    #[test]
    fn a_device_with_a_latency_keeps_its_own_time() {
        let (mut state, millis) = (State::default(), Duration::from_millis);
        let now = Instant::now();
        assert_eq!(state.schedule(now, millis(1)), now + millis(1), "no width");
        state.width = 2;
        let ends: Vec<_> = (0..5).map(|_| state.schedule(now, millis(1))).collect();
        assert_eq!(ends, [1, 1, 2, 2, 3].map(|it| now + millis(it)));
        assert_eq!(state.peak, 2);
        let later = now + millis(10);
        assert_eq!(state.schedule(later, millis(1)), later + millis(1));
    }

    #[test]
    fn an_operation_with_a_latency_is_not_done_before() {
        let faults = faults(&["latency C_Sign 3000", "width 1"]);
        let begun = Instant::now();
        for turn in 1..=3_u32 {
            faults.turn("C_Sign").wait();
            assert!(begun.elapsed() >= turn * Duration::from_millis(3));
        }
        // Another function takes the time that it takes.
        assert!(matches!(faults.turn("C_Decrypt"), Turn::Held(_)));
    }

    #[test]
    fn nonsense_is_refused() {
        for command in [
            "",
            "fail C_Sign",
            "fail C_Sign x * 1 *",
            "fail C_Sign 1 * 0 *",
            "width x",
        ] {
            let words: Vec<_> = command.split(' ').collect();
            assert_eq!(Faults::default().command(&words), None, "{command}");
        }
    }
}
