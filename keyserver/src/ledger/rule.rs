//! When a ciphertext may be answered: once, and again only for an honest retry.

use std::time::Duration;

/// How long after its first answer a ciphertext may be asked for again. An edge that lost its
/// connection comes back within seconds; a recording comes back later.
pub const RETRY_WINDOW: Duration = Duration::from_secs(10);

/// How often a ciphertext may be asked for, the first time included.
pub const TRIES_MAX: u8 = 3;

/// Bytes of [`Binding`].
const BINDING_LEN: usize = 8;
/// Bytes of an encoded [`Entry`].
const ENTRY_LEN: usize = BINDING_LEN + 6 + 1;

/// Who asked, and for which handshake: equal for an honest retry and for nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding(pub [u8; 8]);

/// What is remembered of a ciphertext.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Who asked first.
    pub binding: Binding,
    /// When, in milliseconds since 1970.
    pub first_ms: u64,
    /// How often since.
    pub tries: u8,
}

/// What is to be done with a request to open a ciphertext.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Answer, once this entry is durable.
    Answer(Entry),
    /// Refuse, and tell the operator: somebody replays what was recorded, or an edge is broken.
    Replay,
    /// Refuse: what the key opened has been dropped from the ledger, so nobody can know.
    Dropped,
}

impl Entry {
    /// `binding[8] || first_ms[6] || tries[1]`, big endian.
    pub(super) fn encode(self) -> [u8; ENTRY_LEN] {
        let mut out = [0; ENTRY_LEN];
        let [_, _, ms @ ..] = self.first_ms.to_be_bytes();
        let fields = self.binding.0.into_iter().chain(ms).chain([self.tries]);
        for (out, byte) in out.iter_mut().zip(fields) {
            *out = byte;
        }
        out
    }

    /// `None` for bytes that no [`Self::encode`] wrote.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; ENTRY_LEN] = bytes.try_into().ok()?;
        let (binding, rest) = bytes.split_first_chunk::<BINDING_LEN>()?;
        let (ms, tries) = rest.split_first_chunk::<6>()?;
        let first_ms = ms.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        Some(Self {
            binding: Binding(*binding),
            first_ms,
            tries: *tries.first()?,
        })
    }
}

/// Decides by what is remembered.
///
/// A clock that was set back or forward by more than the window makes retries of that moment fail; it
/// never makes a replay succeed, except for a clock set back to the very seconds of the first answer, and
/// then for the same asker only.
pub(super) fn decide(seen: Option<Entry>, binding: Binding, now_ms: u64) -> Verdict {
    let Some(seen) = seen else {
        return Verdict::Answer(Entry {
            binding,
            first_ms: now_ms,
            tries: 1,
        });
    };
    let age = Duration::from_millis(now_ms.abs_diff(seen.first_ms));
    if seen.binding != binding || age > RETRY_WINDOW || seen.tries >= TRIES_MAX {
        return Verdict::Replay;
    }
    Verdict::Answer(Entry {
        tries: seen.tries + 1,
        ..seen
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDGE: Binding = Binding([1; 8]);
    const OTHER: Binding = Binding([2; 8]);

    fn first(now_ms: u64) -> Entry {
        match decide(None, EDGE, now_ms) {
            Verdict::Answer(entry) => entry,
            other => panic!("a new ciphertext is answered: {other:?}"),
        }
    }

    #[test]
    fn three_tries_within_ten_seconds_by_the_same_asker() {
        let mut entry = first(50_000);
        for tries in 2..=TRIES_MAX {
            let Verdict::Answer(next) = decide(Some(entry), EDGE, 60_000) else {
                panic!("try {tries} is an honest one");
            };
            assert_eq!((next.tries, next.first_ms), (tries, 50_000));
            entry = next;
        }
        assert_eq!(decide(Some(entry), EDGE, 50_001), Verdict::Replay);
    }

    #[test]
    fn another_asker_a_later_time_and_a_clock_set_back_are_replays() {
        let entry = first(50_000);
        assert_eq!(decide(Some(entry), OTHER, 50_000), Verdict::Replay);
        assert_eq!(decide(Some(entry), EDGE, 60_001), Verdict::Replay);
        assert_eq!(decide(Some(entry), EDGE, 39_999), Verdict::Replay);
    }

    #[test]
    fn entries_survive_their_encoding_and_nothing_else_decodes() {
        use proptest::prelude::*;
        proptest!(|(binding: [u8; 8], first_ms in 0_u64..1 << 48, tries: u8)| {
            let entry = Entry { binding: Binding(binding), first_ms, tries };
            prop_assert_eq!(Entry::decode(&entry.encode()), Some(entry));
        });
        for length in (0..64).filter(|length| *length != ENTRY_LEN) {
            assert_eq!(Entry::decode(&vec![0; length]), None, "{length}");
        }
    }
}
