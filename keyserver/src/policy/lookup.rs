//! The keys by each of the names that a grant may use.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use keyless_protocol::info::ski_from_hex;
use smallvec::SmallVec;

use super::cover::CoverBuilder;
use super::purpose::KeyUse;
use crate::config::{Grant, KeyPattern};

/// What the policy needs to know about a key: where it stands in the key table, its names, and what it is for.
#[derive(Debug, Clone, Copy)]
pub struct KeyName<'a> {
    /// Position in the key table.
    pub index: u32,
    /// File stem or configured label.
    pub label: &'a str,
    /// Subject key identifier.
    pub ski: [u8; 20],
    /// What it is for.
    pub usage: &'a Arc<KeyUse>,
}

/// Places of keys in a list. Nearly always one: of a hundred thousand names, each is that of one key.
type Places = SmallVec<[u32; 1]>;

/// The keys by label and SKI.
pub(super) struct KeyLookup<'a> {
    keys: &'a [KeyName<'a>],
    by_label: HashMap<&'a str, Places>,
    by_ski: HashMap<[u8; 20], Places>,
}

impl<'a> KeyLookup<'a> {
    pub(super) fn new(keys: &'a [KeyName<'a>]) -> Self {
        let places = || (0u32..).zip(keys);
        Self {
            keys,
            by_label: group(places().map(|(place, key)| (key.label, place))),
            by_ski: group(places().map(|(place, key)| (key.ski, place))),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Notes in `cover` which keys a grant names.
    pub(super) fn cover(&self, number: u32, grant: &Grant, cover: &mut CoverBuilder) {
        for pattern in &grant.keys {
            match pattern {
                KeyPattern::Label(glob) if glob == "*" => cover.add_to_all(number),
                _ => self
                    .matching(pattern)
                    .into_iter()
                    .for_each(|key| cover.add(key.index, number)),
            }
        }
    }

    /// Whether any key fits; stops at the first, since most globs fit many of very many keys.
    pub(super) fn fits_any(&self, pattern: &KeyPattern) -> bool {
        self.any(pattern, |_| true)
    }

    /// Whether any key fits for which `wanted` holds.
    pub(super) fn any(&self, pattern: &KeyPattern, wanted: impl Fn(&KeyName<'a>) -> bool) -> bool {
        match pattern {
            KeyPattern::Label(glob) if is_glob(glob) => {
                (self.keys.iter()).any(|key| wanted(key) && glob_fits(glob, key.label))
            }
            _ => self.matching(pattern).into_iter().any(wanted),
        }
    }

    /// The key whose SKI is what another has for a label.
    pub(super) fn hidden_by_label(&self, pattern: &KeyPattern) -> Option<&'a KeyName<'a>> {
        let KeyPattern::Label(name) = pattern else {
            return None;
        };
        self.by_label.get(name.as_str())?;
        let meant = self.matching(&KeyPattern::Ski(ski_from_hex(name)?));
        meant.into_iter().find(|key| key.label != name)
    }

    /// Every key that fits.
    pub(super) fn matching(&self, pattern: &KeyPattern) -> Vec<&'a KeyName<'a>> {
        let at = |places: Option<&Places>| {
            let places = places.into_iter().flatten();
            let key = |place: &u32| self.keys.get(usize::try_from(*place).ok()?);
            places.filter_map(key).collect()
        };
        match pattern {
            KeyPattern::Ski(ski) => at(self.by_ski.get(ski)),
            KeyPattern::Label(name) if !is_glob(name) => {
                let labelled = self.by_label.get(name.as_str());
                at(labelled.or_else(|| self.by_ski.get(&ski_from_hex(name)?)))
            }
            KeyPattern::Label(glob) => (self.keys.iter())
                .filter(|key| glob_fits(glob, key.label))
                .collect(),
        }
    }
}

/// Whether a pattern can mean many keys, also such as nobody thought of when it was written.
pub(super) fn is_glob(pattern: &str) -> bool {
    pattern.contains(['*', '?'])
}

fn group<K: Eq + Hash>(entries: impl Iterator<Item = (K, u32)>) -> HashMap<K, Places> {
    let mut groups: HashMap<K, Places> = HashMap::new();
    for (name, place) in entries {
        groups.entry(name).or_default().push(place);
    }
    groups
}

/// Whether `text` fits `glob`: `*` any characters, `?` exactly one. Time is bounded by the product
/// of the two lengths: only the last star is ever tried again.
pub(super) fn glob_fits(glob: &str, text: &str) -> bool {
    let glob: Vec<char> = glob.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut read) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while read < text.len() {
        match glob.get(at) {
            Some('*') => {
                retry = Some((at, read));
                at += 1;
            }
            Some(&wanted) if wanted == '?' || Some(&wanted) == text.get(read) => {
                at += 1;
                read += 1;
            }
            _ => {
                let Some((star, taken)) = retry else {
                    return false;
                };
                retry = Some((star, taken + 1));
                at = star + 1;
                read = taken + 1;
            }
        }
    }
    glob[at..].iter().all(|rest| *rest == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_fit_like_those_of_a_shell() {
        for (glob, text, fits) in [
            ("*", "", true),
            ("a*c", "abbbc", true),
            ("a*c", "abbb", false),
            ("*shop*", "my-shop-2", true),
            ("a?c", "ac", false),
            ("a**b", "ab", true),
            ("", "", true),
            ("", "a", false),
            ("ä?", "äö", true),
            ("*a*b*c", "xaxbxbxc", true),
        ] {
            assert_eq!(glob_fits(glob, text), fits, "{glob:?} {text:?}");
        }
    }

    #[test]
    fn digits_are_a_label_first_and_colons_make_them_an_ski() {
        let usage = Arc::default();
        let digits = "03".repeat(20);
        let key = |index: u32, label, ski| KeyName {
            index,
            label,
            ski: [ski; 20],
            usage: &usage,
        };
        let keys = [
            key(0, digits.as_str(), 1),
            key(1, "bank", 3),
            key(2, "shop", 4),
        ];
        let lookup = KeyLookup::new(&keys);
        let found = |pattern: &KeyPattern| -> Vec<u32> {
            (lookup.matching(pattern).iter())
                .map(|key| key.index)
                .collect()
        };
        let label = |text: &str| KeyPattern::Label(text.to_owned());
        assert_eq!(found(&label(&digits)), [0]);
        assert_eq!(found(&KeyPattern::Ski([3; 20])), [1]);
        assert_eq!(found(&label(&"04".repeat(20))), [2]);
        let hidden = lookup.hidden_by_label(&label(&digits)).map(|key| key.label);
        assert_eq!(hidden, Some("bank"));
        assert!(lookup.hidden_by_label(&label(&"04".repeat(20))).is_none());
    }
}
