//! How often ticket keys were revoked: of one key, and of all. The keys of a key are derived from the sum of both, and that
//! sum is what an operator is shown and may ask for.

use keyless_protocol::Ski;

use super::{StateError, Stops, Subject};

/// The highest generation that can be asked for. Nobody comes near it one by one, and as it is asked for of a key and of all,
/// their sum leaves room for two thousand million stops after it: each of them has to raise it, or it revokes nothing.
pub const GENERATION_ASKED_MAX: u32 = u32::MAX / 4;

impl Stops {
    /// How often the ticket keys of this key were revoked: part of what its keys are derived from.
    #[must_use]
    pub fn generation(&self, ski: &Ski) -> u32 {
        if self.generations.is_empty() {
            return 0;
        }
        // Not more than fits: `revoke` sees to it. Of a file that says otherwise the last generation is kept, not an early one.
        (self.revoked(&Subject::Key(*ski))).saturating_add(self.revoked(&Subject::All))
    }

    /// The part of a generation that is due to this subject.
    fn revoked(&self, subject: &Subject) -> u32 {
        self.generations.get(subject).copied().unwrap_or(0)
    }

    /// Raises the generation of a key, or what all have in common, by one, or to `least` where that is more. Returns it.
    pub(super) fn revoke(&mut self, subject: &Subject, least: u32) -> Result<u32, StateError> {
        if least > GENERATION_ASKED_MAX {
            return Err(StateError {
                what: format!(
                    "generation {least} would leave no room for the stops that come later, and nothing has changed: \
                     {GENERATION_ASKED_MAX} is the highest that can be asked for"
                ),
            });
        }
        let of_all = self.revoked(&Subject::All);
        // What is shown of it beside its own part, and the largest number that its part is added to.
        let (shown_beside, beside) = match subject {
            Subject::All => (0, self.largest_of_a_key()),
            _ => (of_all, of_all),
        };
        let next = (self.revoked(subject).checked_add(1))
            .map(|next| next.max(least.saturating_sub(shown_beside)))
            .ok_or_else(at_their_end)?;
        let fits = next.checked_add(beside).is_some();
        if fits || *subject == Subject::All {
            // Of all, also where one key is at its end: the others are revoked by it.
            self.generations.insert(subject.clone(), next);
        }
        if fits {
            Ok(next + shown_beside)
        } else {
            Err(at_their_end())
        }
    }

    fn largest_of_a_key(&self) -> u32 {
        let of_keys = (self.generations.iter()).filter(|(subject, _)| **subject != Subject::All);
        of_keys.map(|(_, part)| *part).max().unwrap_or(0)
    }
}

/// Some ticket keys have no generation after the one they are at.
fn at_their_end() -> StateError {
    StateError {
        what: "the ticket keys of a key are not revoked, because no generation comes after theirs: revoke them with a new \
               ticket master (keyserver tickets new-master)"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Switchboard;
    use super::*;

    const KEY: Subject = Subject::Key([7; 20]);

    fn board(directory: &tempfile::TempDir) -> Switchboard {
        Switchboard::open(Some(directory.path())).unwrap()
    }

    #[test]
    fn what_is_asked_for_is_what_is_shown() {
        let directory = tempfile::tempdir().unwrap();
        let board = board(&directory);
        for generation in 1..=3 {
            assert_eq!(board.revoke_tickets(&Subject::All, 0).unwrap(), generation);
        }
        // Another server shows 5 for the key. It is at 3 here by those of all.
        assert_eq!(board.revoke_tickets(&KEY, 5).unwrap(), 5);
        assert_eq!(board.current().generation(&[7; 20]), 5);
        assert_eq!(board.revoke_tickets(&KEY, 5).unwrap(), 6, "it was there");
        assert_eq!(board.revoke_tickets(&Subject::All, 9).unwrap(), 9);
        assert_eq!(board.current().generation(&[8; 20]), 9);
    }

    #[test]
    fn every_stop_revokes_whatever_was_asked_for_before() {
        let directory = tempfile::tempdir().unwrap();
        let board = board(&directory);
        for subject in [KEY, Subject::All] {
            for least in [u32::MAX, GENERATION_ASKED_MAX + 1] {
                let error = board.revoke_tickets(&subject, least).unwrap_err();
                assert!(error.to_string().contains("nothing has changed"), "{error}");
            }
            assert_eq!(
                board.current().generation(&[7; 20]) % GENERATION_ASKED_MAX,
                0
            );
            board
                .revoke_tickets(&subject, GENERATION_ASKED_MAX)
                .unwrap();
        }
        let before = board.current().generation(&[7; 20]);
        assert!(board.stop(KEY, 0, "stolen".to_owned(), &[KEY]).unwrap());
        assert_eq!(board.current().generation(&[7; 20]), before + 1);
    }

    /// A file in which they are at their end, by whatever.
    #[test]
    fn a_stop_that_cannot_revoke_counts_and_says_so() {
        for (at_end, beside) in [(KEY, 0), (Subject::All, 0), (KEY, 1)] {
            let directory = tempfile::tempdir().unwrap();
            let board = board(&directory);
            let mut stops = Stops::default();
            stops.generations.insert(at_end.clone(), u32::MAX - beside);
            if beside > 0 {
                stops.generations.insert(Subject::All, beside);
            }
            board.current.store(std::sync::Arc::new(stops));
            let stopped = board.stop(KEY, 0, "stolen".to_owned(), &[KEY]);
            let error = stopped.unwrap_err().to_string();
            assert!(error.contains("not revoked"), "{error}");
            board.revoke_tickets(&KEY, 0).unwrap_err();
            board.revoke_tickets(&Subject::All, 0).unwrap_err();
            let again = Switchboard::open(Some(directory.path())).unwrap();
            for board in [&board, &again] {
                // Those of other keys are revoked.
                let other = board.current().generation(&[8; 20]);
                assert!(other > beside, "{other}");
                assert!(board.current().stops(&KEY));
                assert_eq!(board.current().generation(&[7; 20]), u32::MAX);
            }
        }
    }
}
