//! How a slot is used, and what it says about itself.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::pin::PinSource;
use super::uri::TokenUri;

/// How each slot is used. Sizing: as many sessions as the device runs side by side; the concurrency limit finds
/// the right number below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotSettings {
    /// Sessions for operations, each with a thread of its own. One more is opened to hold the login. Fewer
    /// are used where the token allows fewer.
    pub sessions: usize,
    /// Where the concurrency limit starts; `None` for the number of sessions.
    pub start_limit: Option<usize>,
    /// Requests that may wait for a session; more are refused as busy. `None` for four per session, and for as many
    /// as are done in 50 ms, up to 64, where that is more.
    pub queue: Option<usize>,
    /// An idle session is used at least this often, for devices that take idle ones away.
    pub keepalive: Duration,
    /// A call of this length counts as hung: its thread is given up and replaced.
    pub call_timeout: Duration,
    /// After so long with an open breaker, the module is finalized and initialized again before a probe, unless
    /// another of its slots works.
    pub initialize_after: Duration,
}

impl Default for SlotSettings {
    fn default() -> Self {
        Self {
            sessions: 16,
            start_limit: None,
            queue: None,
            keepalive: Duration::from_secs(25),
            call_timeout: Duration::from_secs(10),
            initialize_after: Duration::from_secs(30),
        }
    }
}

impl SlotSettings {
    /// Most threads that work for a slot or are stuck in its calls.
    pub(super) fn most_threads(&self) -> usize {
        self.sessions.max(1).saturating_mul(2)
    }
}

/// How to choose among several slots that hold the same key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlotChoice {
    /// The first that can be used, in the order of the configuration; the others when it is full or down.
    #[default]
    Ordered,
    /// The one with the least waiting and running, measured by its limit.
    LeastLoaded,
}

/// A key in one token, or in several that hold copies.
#[derive(Clone, Debug)]
pub struct TokenKeySpec {
    /// Its name in the configuration, for messages.
    pub label: String,
    /// Where it is. Each URI must fit one private key of one token.
    pub uris: Vec<TokenUri>,
    /// How to choose among these.
    pub choice: SlotChoice,
    /// Where the PIN is, for URIs that do not say it themselves.
    pub pin: Option<PinSource>,
    /// The `SubjectPublicKeyInfo` of the configured certificate. The keys must match it. It also serves where
    /// a token does not tell the public key, and lets a key be loaded while its token is down.
    pub expected_spki: Option<Vec<u8>>,
}

/// Whether a slot is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// It is.
    Closed,
    /// It failed too often, and is left alone until then.
    Open {
        /// When it is tried next.
        until: Instant,
    },
    /// It is being tried.
    HalfOpen,
    /// It refused the PIN. It is not asked again until the PIN is changed.
    Terminal,
}

impl fmt::Display for BreakerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "closed",
            Self::Open { .. } => "open",
            Self::HalfOpen => "half-open",
            Self::Terminal => "terminal",
        })
    }
}

/// What a slot looks like now, for metrics and readiness.
#[derive(Clone, Debug)]
pub struct SlotStatus {
    /// The module.
    pub module: PathBuf,
    /// The slot's number, as the module has it now.
    pub slot_id: u64,
    /// The token's label.
    pub token_label: String,
    /// The token's serial number.
    pub serial: String,
    /// Whether it is asked.
    pub breaker: BreakerState,
    /// Whether it takes requests now: the breaker is closed and it is not just logging in again.
    pub ready: bool,
    /// How often it has logged in and found its keys.
    pub generation: u64,
    /// Sessions for operations that are open.
    pub sessions: usize,
    /// How many operations it is best to run at once, as far as has been found. While other numbers are tried,
    /// it may run more or fewer.
    pub limit: usize,
    /// Operations that run.
    pub in_flight: usize,
    /// Requests that wait.
    pub queued: usize,
    /// Threads that are stuck in a call. While there are any, the module cannot be initialized again.
    pub stuck_threads: usize,
    /// Errors by their standard name, or a word of ours.
    pub errors: Vec<(String, u64)>,
    /// Operations that succeeded.
    pub operations: u64,
    /// Results that did not verify with the public key. None was released. Anything above zero is an alarm.
    pub check_failures: u64,
    /// Latency that half of the last operations stayed within.
    pub p50: Duration,
    /// Latency that 99 of 100 of the last operations stayed within.
    pub p99: Duration,
}
