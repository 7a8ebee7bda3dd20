//! The PINs that were offered for a token, and what it said to each.
//!
//! Keys of one token may name different sources, and reloads read them again. Tokens lock after a few wrong PINs, so
//! none that was refused is tried again as long as the process lives, and none that was never tried takes the place of
//! one that has logged in:
//!
//! ```text
//! to try:   the one that logged in last, or else the newest that was not tried yet; one at each login
//! refused:  never again, whoever offers it
//! ```

use super::pin::Pin;

/// Most PINs that are remembered. What was not tried makes room for what is new; what was refused does not.
const MOST: usize = 32;

/// Why no PIN is tried any more.
const TOO_MANY: &str =
    "too many PINs were refused: no new one is taken until the server is started again";

/// What a token said.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    /// Nothing yet.
    Untried,
    /// It logged in last.
    Good,
    /// It was refused, with this word.
    Refused(String),
}

impl Standing {
    const fn is_refused(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}

/// The PINs of one token.
#[derive(Debug, Default)]
pub(super) struct Pins {
    /// In the order in which they were first offered.
    known: Vec<(Pin, Standing)>,
    /// A PIN came for which there was no room.
    too_many: bool,
}

impl Pins {
    pub(super) fn are_none(&self) -> bool {
        self.known.is_empty()
    }

    pub(super) fn has_refused(&self) -> bool {
        self.known.iter().any(|(_, is)| is.is_refused())
    }

    /// What was refused and nothing else, for a slot of the same token.
    pub(super) fn take_refused(&mut self) -> Self {
        let mut taken = std::mem::take(self);
        taken.known.retain(|(_, is)| is.is_refused());
        taken
    }

    /// Keeps a PIN for the next login that needs it. One that is known already stays where it is: a source that is
    /// read again offers nothing new.
    pub(super) fn offer(&mut self, pin: Pin) {
        if self.known.iter().any(|(known, _)| *known == pin) {
            return;
        }
        if self.known.len() >= MOST {
            let untried = |(_, standing): &(Pin, Standing)| *standing == Standing::Untried;
            let Some(oldest) = self.known.iter().position(untried) else {
                self.too_many = true;
                return;
            };
            self.known.remove(oldest);
        }
        self.known.push((pin, Standing::Untried));
    }

    /// What to log in with. `Err` with the token's last word when each was refused; `Ok(None)` when there is none.
    pub(super) fn to_try(&self) -> Result<Option<Pin>, String> {
        let of = |wanted: Standing| self.known.iter().rfind(move |(_, is)| *is == wanted);
        if let Some((pin, _)) = of(Standing::Good).or_else(|| of(Standing::Untried)) {
            return Ok(Some(pin.clone()));
        }
        match self.known.last() {
            Some(_) if self.too_many => Err(TOO_MANY.to_owned()),
            Some((_, Standing::Refused(word))) => Err(word.clone()),
            _ => Ok(None),
        }
    }

    /// It has logged in.
    pub(super) fn logged_in(&mut self, pin: &Pin) {
        self.set(pin, Standing::Good);
    }

    /// It was refused. True when there is another to try at the next login.
    pub(super) fn refused(&mut self, pin: &Pin, word: &str) -> bool {
        self.set(pin, Standing::Refused(word.to_owned()));
        self.to_try().is_ok()
    }

    /// The login that there is was refused later, by a call that is no login.
    pub(super) fn refuse_good(&mut self, word: &str) {
        if let Some((_, standing)) = self.known.iter_mut().rfind(|(_, is)| *is == Standing::Good) {
            *standing = Standing::Refused(word.to_owned());
        }
    }

    fn set(&mut self, pin: &Pin, standing: Standing) {
        if let Some(known) = self.known.iter_mut().find(|(known, _)| known == pin) {
            known.1 = standing;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(number: usize) -> Pin {
        Pin::from(number.to_string().as_bytes())
    }

    fn pins(numbers: impl IntoIterator<Item = usize>) -> Pins {
        let mut pins = Pins::default();
        numbers
            .into_iter()
            .for_each(|number| pins.offer(pin(number)));
        pins
    }

    #[test]
    fn what_logged_in_comes_first_and_then_the_newest() {
        let mut pins = pins([1, 2]);
        assert_eq!(pins.to_try(), Ok(Some(pin(2))));
        pins.logged_in(&pin(2));
        // Offered again, the older one is no newer than it was.
        for number in [3, 1, 2] {
            pins.offer(pin(number));
            assert_eq!(pins.to_try(), Ok(Some(pin(2))));
        }
        assert!(pins.refused(&pin(2), "wrong"));
        assert_eq!(pins.to_try(), Ok(Some(pin(3))));
        assert!(pins.refused(&pin(3), "wrong"));
        assert_eq!(pins.to_try(), Ok(Some(pin(1))));
        assert!(!pins.refused(&pin(1), "locked"));
        pins.offer(pin(2));
        pins.to_try().unwrap_err();
    }

    #[test]
    fn a_good_pin_that_is_refused_later_is_not_tried_again() {
        let mut pins = pins([1]);
        pins.refuse_good("expired");
        assert_eq!(pins.to_try(), Ok(Some(pin(1))), "it has not logged in");
        pins.logged_in(&pin(1));
        pins.refuse_good("expired");
        assert_eq!(pins.to_try(), Err("expired".to_owned()));
        assert_eq!(Pins::default().to_try(), Ok(None));
    }

    /// Refused ones are never forgotten: beyond the bound new ones are not taken.
    #[test]
    fn what_was_refused_is_not_forgotten_for_what_is_new() {
        let mut pins = pins(0..MOST);
        for number in 0..MOST - 1 {
            pins.refused(&pin(number), "wrong");
        }
        // The one that was not tried makes room.
        pins.offer(pin(1000));
        assert_eq!(pins.to_try(), Ok(Some(pin(1000))));
        assert!(!pins.refused(&pin(1000), "wrong"));
        assert_eq!(pins.to_try(), Err("wrong".to_owned()));
        pins.offer(pin(1001));
        assert_eq!(pins.to_try(), Err(TOO_MANY.to_owned()));
        assert_eq!(pins.known.len(), MOST);
        for number in 0..MOST - 1 {
            pins.offer(pin(number));
            pins.to_try().unwrap_err();
        }
    }
}
