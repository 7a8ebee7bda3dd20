//! The list of keys, which comes in pages.

use keyless_protocol::{KeyEntry, KeyList};

use crate::error::Error;
use crate::operation::Operation;

/// Most keys that are taken from one server: more than any serves.
const KEYS_MAX: usize = 1 << 20;

/// The pages read so far.
#[derive(Debug, Default)]
pub(crate) struct KeyPages {
    keys: Vec<KeyEntry>,
    first: u32,
}

impl KeyPages {
    /// What to ask next.
    pub(crate) fn question(&self) -> Operation {
        Operation::key_list(self.first)
    }

    /// Takes the answer. When it was the last page, all keys.
    pub(crate) fn take(&mut self, page: &[u8]) -> Result<Option<Vec<KeyEntry>>, Error> {
        let page = KeyList::decode(page).map_err(Error::protocol)?;
        if self.keys.len() + page.keys.len() > KEYS_MAX {
            return Err(Error::protocol("the key list does not end"));
        }
        self.keys.extend(page.keys);
        match page.next {
            None => return Ok(Some(std::mem::take(&mut self.keys))),
            Some(next) if next > self.first => self.first = next,
            Some(_) => return Err(Error::protocol("the key list does not move forward")),
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(keys: usize, next: Option<u32>) -> Vec<u8> {
        let keys = vec![KeyEntry::default(); keys];
        KeyList { keys, next }.encode().unwrap()
    }

    #[test]
    fn pages_are_put_together_and_must_lead_on() {
        let mut pages = KeyPages::default();
        assert!(pages.take(&page(2, Some(2))).unwrap().is_none());
        assert_eq!(pages.take(&page(1, None)).unwrap().unwrap().len(), 3);
        for next in [0, 2] {
            let mut pages = KeyPages::default();
            pages.take(&page(1, Some(2))).unwrap();
            assert!(matches!(
                pages.take(&page(1, Some(next))),
                Err(Error::Protocol(_))
            ));
        }
    }

    #[test]
    fn a_list_without_end_ends() {
        let mut pages = KeyPages::default();
        let endless = (1..).map(|next| pages.take(&page(100, Some(next))));
        let taken = endless.take_while(Result::is_ok).count();
        assert_eq!(taken, KEYS_MAX / 100);
    }
}
