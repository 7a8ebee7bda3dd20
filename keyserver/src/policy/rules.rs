//! The grants of the configuration, compiled for one set of keys.
//!
//! A request costs one or two hash lookups, whatever the number of keys and grants: the globs of
//! the configuration are resolved here, once per reload.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use super::conditions::Conditions;
use super::identity::PeerIdentity;
use super::rights::{Right, Rights};
use crate::config::{Client, Date, Grant, KeyPattern, Match};
use crate::handshake::Claim;
use crate::{clock, limits};

/// Names a `[[clients]]` entry in the [`Policy`] that issued it, and in no other: after a reload
/// the identity of a live connection is looked up again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientId {
    index: u32,
    generation: u64,
}

impl ClientId {
    /// A number of its own for every client of every policy.
    #[must_use]
    pub fn number(self) -> u64 {
        self.generation << 32 | u64::from(self.index)
    }
}

/// What the policy needs to know about a key: where it stands in the key table, and its names.
#[derive(Debug, Clone, Copy)]
pub struct KeyName<'a> {
    /// Position in the key table.
    pub index: u32,
    /// File stem or configured label.
    pub label: &'a str,
    /// Subject key identifier.
    pub ski: [u8; 20],
}

/// All grants, ready to be asked. Immutable; a reload builds a new one.
#[derive(Debug)]
pub struct Policy {
    generation: u64,
    clients: Vec<CompiledClient>,
    by_match: HashMap<Match, u32>,
    warnings: Vec<String>,
}

#[derive(Debug)]
struct CompiledClient {
    name: String,
    weight: u32,
    permanent: KeyRights,
    /// Grants with a last day or with conditions, those with the same ones together.
    limited: Vec<Limited>,
    /// Grants that say how long a delegated credential may live.
    lifetimes: Vec<Lifetime>,
}

/// How long a delegated credential may live.
#[derive(Debug)]
struct Lifetime {
    last_day: Option<Date>,
    longest: Duration,
    rights: KeyRights,
}

/// Rights that do not count always.
#[derive(Debug)]
struct Limited {
    last_day: Option<Date>,
    conditions: Conditions,
    rights: KeyRights,
}

/// Rights per key of one client.
#[derive(Debug, Default)]
struct KeyRights {
    /// On every key that is not in `by_key`.
    elsewhere: Rights,
    by_key: HashMap<u32, Rights>,
}

impl KeyRights {
    fn on(&self, key: u32) -> Rights {
        self.by_key.get(&key).copied().unwrap_or(self.elsewhere)
    }

    fn add_to_all(&mut self, rights: Rights) {
        self.elsewhere = self.elsewhere.union(rights);
        for held in self.by_key.values_mut() {
            *held = held.union(rights);
        }
    }

    fn add(&mut self, key: u32, rights: Rights) {
        let held = self.by_key.entry(key).or_insert(self.elsewhere);
        *held = held.union(rights);
    }
}

impl Policy {
    /// Compiles the grants of `clients` for `keys`.
    ///
    /// `generation` is that of the snapshot the policy belongs to.
    #[must_use]
    pub fn compile(clients: &[Client], keys: &[KeyName<'_>], generation: u64) -> Self {
        let lookup = KeyLookup::new(keys);
        let today = Date::of(clock::wall());
        let mut policy = Self {
            generation,
            clients: Vec::new(),
            by_match: HashMap::new(),
            warnings: Vec::new(),
        };
        for (index, client) in (0u32..).zip(clients) {
            for name in &client.matches {
                // The first entry in file order counts.
                policy.by_match.entry(name.clone()).or_insert(index);
            }
            let mut compiled = CompiledClient {
                name: client.name.clone(),
                weight: client.weight,
                permanent: KeyRights::default(),
                limited: Vec::new(),
                lifetimes: Vec::new(),
            };
            for grant in &client.grants {
                policy
                    .warnings
                    .extend(warnings_about(client, grant, &lookup, today));
                if grant.expires.is_none_or(|last_day| today <= last_day) {
                    lookup.grant(grant, compiled.slot(grant));
                    if let Some(longest) = grant.max_credential_lifetime {
                        let mut rights = KeyRights::default();
                        lookup.grant(grant, &mut rights);
                        compiled.lifetimes.push(Lifetime {
                            last_day: grant.expires,
                            longest,
                            rights,
                        });
                    }
                }
            }
            policy.clients.push(compiled);
        }
        policy
    }

    /// The client that a certificate belongs to; the first in file order where it fits several.
    #[must_use]
    pub fn client(&self, peer: &PeerIdentity) -> Option<ClientId> {
        let index = peer
            .names()
            .filter_map(|name| self.by_match.get(&name).copied())
            .min()?;
        Some(ClientId {
            index,
            generation: self.generation,
        })
    }

    /// The name of a client in logs; `"unknown"` for an id of another policy.
    #[must_use]
    pub fn client_name(&self, client: ClientId) -> &str {
        self.compiled(client)
            .map_or("unknown", |compiled| &compiled.name)
    }

    /// The share of a client while others wait, relative to theirs; 1 for an id of another policy.
    #[must_use]
    pub fn weight(&self, client: ClientId) -> u32 {
        self.compiled(client).map_or(1, |compiled| compiled.weight)
    }

    /// What `client` may do with the key at `key` today, some of it perhaps under conditions.
    #[must_use]
    pub fn rights(&self, client: ClientId, key: u32) -> Rights {
        let Some(compiled) = self.compiled(client) else {
            return Rights::NONE;
        };
        let mut rights = compiled.permanent.on(key);
        if !compiled.limited.is_empty() {
            let today = Date::of(clock::wall());
            for limited in &compiled.limited {
                if limited.last_day.is_none_or(|last_day| today <= last_day) {
                    rights = rights.union(limited.rights.on(key));
                }
            }
        }
        rights
    }

    /// Whether `client` holds `right` on the key at `key` now, for what it claims to have signed.
    /// Without a claim, grants with conditions give nothing. Reads the time of day only when a
    /// permanent grant does not decide.
    #[must_use]
    pub fn allows(
        &self,
        client: ClientId,
        key: u32,
        right: Right,
        claim: Option<&Claim<'_>>,
    ) -> bool {
        let Some(compiled) = self.compiled(client) else {
            return false;
        };
        if compiled.permanent.on(key).contains(right) {
            return true;
        }
        if compiled.limited.is_empty() {
            return false;
        }
        let today = Date::of(clock::wall());
        compiled.limited.iter().any(|limited| {
            limited.rights.on(key).contains(right)
                && limited.last_day.is_none_or(|last_day| today <= last_day)
                && (limited.conditions.is_none()
                    || claim.is_some_and(|claim| limited.conditions.hold(claim)))
        })
    }

    /// The longest time for which a delegated credential of the key at `key` may be issued to
    /// `client`: the longest of its grants in force, [`limits::CREDENTIAL_LIFETIME`] where none
    /// says how long. Says nothing about whether it may have one at all.
    #[must_use]
    pub fn max_credential_lifetime(&self, client: ClientId, key: u32) -> Duration {
        let Some(compiled) = self.compiled(client) else {
            return limits::CREDENTIAL_LIFETIME;
        };
        let today = Date::of(clock::wall());
        let in_force = |lifetime: &&Lifetime| {
            lifetime.rights.on(key).contains(Right::Delegate)
                && lifetime.last_day.is_none_or(|last_day| today <= last_day)
        };
        let lifetimes = compiled.lifetimes.iter().filter(in_force);
        (lifetimes.map(|lifetime| lifetime.longest).max()).unwrap_or(limits::CREDENTIAL_LIFETIME)
    }

    /// What an operator should know about these grants: rights without use, keys that do not
    /// exist, raw decryption, dates that have passed.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Number of clients.
    #[must_use]
    pub fn client_count(&self) -> usize {
        self.clients.len()
    }

    fn compiled(&self, client: ClientId) -> Option<&CompiledClient> {
        if client.generation != self.generation {
            return None;
        }
        self.clients.get(usize::try_from(client.index).ok()?)
    }
}

impl CompiledClient {
    /// Where the rights of grants that count as long as this one are gathered.
    fn slot(&mut self, grant: &Grant) -> &mut KeyRights {
        if grant.expires.is_none() && grant.conditions.is_none() {
            return &mut self.permanent;
        }
        let found = self.limited.iter().position(|limited| {
            limited.last_day == grant.expires && limited.conditions == grant.conditions
        });
        let position = found.unwrap_or(self.limited.len());
        if found.is_none() {
            self.limited.push(Limited {
                last_day: grant.expires,
                conditions: grant.conditions.clone(),
                rights: KeyRights::default(),
            });
        }
        &mut self.limited[position].rights
    }
}

/// The keys by each of their names.
struct KeyLookup<'a> {
    keys: &'a [KeyName<'a>],
    by_label: HashMap<&'a str, Vec<u32>>,
    by_ski: HashMap<[u8; 20], Vec<u32>>,
}

impl<'a> KeyLookup<'a> {
    fn new(keys: &'a [KeyName<'a>]) -> Self {
        Self {
            keys,
            by_label: group(keys.iter().map(|key| (key.label, key.index))),
            by_ski: group(keys.iter().map(|key| (key.ski, key.index))),
        }
    }

    fn grant(&self, grant: &Grant, to: &mut KeyRights) {
        for pattern in &grant.keys {
            match pattern {
                KeyPattern::Label(glob) if glob == "*" => to.add_to_all(grant.allow),
                _ => self
                    .matching(pattern)
                    .into_iter()
                    .for_each(|key| to.add(key, grant.allow)),
            }
        }
    }

    /// Whether any key fits; stops at the first, since most globs fit many of very many keys.
    fn fits_any(&self, pattern: &KeyPattern) -> bool {
        match pattern {
            KeyPattern::Label(glob) if glob.contains(['*', '?']) => {
                self.keys.iter().any(|key| glob_fits(glob, key.label))
            }
            _ => !self.matching(pattern).is_empty(),
        }
    }

    fn matching(&self, pattern: &KeyPattern) -> Vec<u32> {
        match pattern {
            KeyPattern::Ski(ski) => self.by_ski.get(ski).cloned().unwrap_or_default(),
            KeyPattern::Label(glob) if !glob.contains(['*', '?']) => self
                .by_label
                .get(glob.as_str())
                .cloned()
                .unwrap_or_default(),
            KeyPattern::Label(glob) => self
                .keys
                .iter()
                .filter(|key| glob_fits(glob, key.label))
                .map(|key| key.index)
                .collect(),
        }
    }
}

fn group<K: Eq + Hash>(entries: impl Iterator<Item = (K, u32)>) -> HashMap<K, Vec<u32>> {
    let mut groups: HashMap<K, Vec<u32>> = HashMap::new();
    for (name, index) in entries {
        groups.entry(name).or_default().push(index);
    }
    groups
}

/// Whether `text` fits `glob`: `*` any characters, `?` exactly one. Time is bounded by the product
/// of the two lengths: only the last star is ever tried again.
fn glob_fits(glob: &str, text: &str) -> bool {
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

fn warnings_about(
    client: &Client,
    grant: &Grant,
    lookup: &KeyLookup<'_>,
    today: Date,
) -> Vec<String> {
    let (place, name) = (&grant.origin, &client.name);
    if let Some(last_day) = grant.expires.filter(|last_day| *last_day < today) {
        return vec![format!(
            "{place}: a grant of client \"{name}\" ended on {last_day} and gives nothing; remove it, or set a later `expires`"
        )];
    }
    let mut warnings = Vec::new();
    for pattern in &grant.keys {
        // Without any key there is a warning of its own.
        if !lookup.keys.is_empty() && !lookup.fits_any(pattern) {
            warnings.push(format!(
                "{place}: client \"{name}\": no loaded key fits {pattern}; check the label (the file name without .key) or the SKI"
            ));
        }
    }
    let idle: Vec<_> = grant
        .allow
        .iter()
        .filter(|right| !right.is_served())
        .map(Right::name)
        .collect();
    if !idle.is_empty() {
        warnings.push(format!(
            "{place}: client \"{name}\": no operation of this version uses {}; the grant gives nothing for it",
            idle.join(", ")
        ));
    }
    if grant.allow.contains(Right::DecryptRaw) {
        let until = grant.expires.map_or_else(
            || "without an end; set `expires = YYYY-MM-DD`".to_owned(),
            |last_day| format!("until {last_day}"),
        );
        warnings.push(format!(
            "{place}: client \"{name}\" holds decrypt-raw, {until}. It is full use of the key: whoever may decrypt may also forge any signature"
        ));
    }
    warnings
}

#[cfg(test)]
mod tests;
