//! The grants of the configuration, compiled for one set of keys.
//!
//! A request costs a hash lookup and a look at the few grants that name its key: the globs of
//! the configuration are resolved here, once per reload.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use super::ask::Ask;
use super::cover::{Cover, CoverBuilder};
use super::grant::CompiledGrant;
use super::identity::PeerIdentity;
use super::latest_day::LatestDay;
use super::lookup::{KeyLookup, KeyName};
use super::meter::Count;
use super::purpose::{KeyUse, KeyUses};
use super::rights::{Right, Rights};
use super::unmet::Unmet;
use super::warnings;
use super::window::Moment;
use crate::config::{Client, Match, Place};

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

/// All grants, ready to be asked. Only how much of their limits is used changes; a reload builds a
/// new one.
#[derive(Debug)]
pub struct Policy {
    generation: u64,
    clients: Vec<CompiledClient>,
    by_match: HashMap<Match, u32>,
    usages: KeyUses,
    /// A key serves two purposes for a time.
    has_dual_use: bool,
    /// By which dates are judged. Outlives reloads.
    latest_day: Arc<LatestDay>,
    warnings: Vec<String>,
    conflicts: Vec<String>,
}

#[derive(Debug)]
struct CompiledClient {
    name: String,
    place: Place,
    weight: u32,
    grants: Vec<CompiledGrant>,
    cover: Cover,
    /// Some of its grants depend on the time of day.
    needs_time: bool,
}

impl CompiledClient {
    fn new(client: &Client, lookup: &KeyLookup<'_>) -> Self {
        let mut cover = CoverBuilder::new();
        for (number, grant) in (0u32..).zip(&client.grants) {
            lookup.cover(number, grant, &mut cover);
        }
        let grants: Vec<_> = client
            .grants
            .iter()
            .cloned()
            .map(CompiledGrant::new)
            .collect();
        Self {
            name: client.name.clone(),
            place: client.place.clone(),
            weight: client.weight,
            needs_time: grants.iter().any(CompiledGrant::needs_time),
            grants,
            cover: cover.finish(),
        }
    }

    /// The grants that name a key, with their numbers.
    fn naming(&self, key: u32) -> impl Iterator<Item = (u32, &CompiledGrant)> {
        let grant = |number: &u32| {
            let place = usize::try_from(*number).ok()?;
            Some((*number, self.grants.get(place)?))
        };
        self.cover.of(key).iter().filter_map(grant)
    }
}

impl Policy {
    /// Compiles the grants of `clients` for `keys`, which are in the order of their positions.
    ///
    /// `generation` is that of the snapshot the policy belongs to.
    #[must_use]
    pub fn compile(clients: &[Client], keys: &[KeyName<'_>], generation: u64) -> Self {
        let lookup = KeyLookup::new(keys);
        let today = Moment::now().date;
        let mut policy = Self {
            generation,
            clients: Vec::new(),
            by_match: HashMap::new(),
            usages: keys.iter().map(|key| key.usage).collect(),
            has_dual_use: keys.iter().any(|key| key.usage.dual_use_until.is_some()),
            latest_day: Arc::default(),
            warnings: warnings::about_keys(keys, today),
            conflicts: Vec::new(),
        };
        for (index, client) in (0u32..).zip(clients) {
            for name in &client.matches {
                // The first entry in file order counts.
                policy.by_match.entry(name.clone()).or_insert(index);
            }
            for grant in &client.grants {
                let about = warnings::about(client, grant, &lookup, today);
                policy.warnings.extend(about);
                let conflicts = warnings::conflicts(client, grant, &lookup);
                policy.conflicts.extend(conflicts);
            }
            policy.clients.push(CompiledClient::new(client, &lookup));
        }
        policy
    }

    /// The entry that a peer fits, if any. Where it fits several, the first in the file counts.
    #[must_use]
    pub fn client(&self, identity: &PeerIdentity) -> Option<ClientId> {
        let found = identity.names().filter_map(|name| self.by_match.get(&name));
        let index = *found.min()?;
        Some(self.id(index))
    }

    /// The entry with this name.
    #[must_use]
    pub fn client_named(&self, name: &str) -> Option<ClientId> {
        let place = self.clients.iter().position(|client| client.name == name)?;
        u32::try_from(place).ok().map(|index| self.id(index))
    }

    /// The entry that a certificate with this name is; another name of it may fit an earlier one.
    #[must_use]
    pub fn client_matching(&self, name: &Match) -> Option<ClientId> {
        self.by_match.get(name).map(|index| self.id(*index))
    }

    /// Where the entry of a client stands.
    #[must_use]
    pub fn client_place(&self, client: ClientId) -> Option<&Place> {
        self.compiled(client).map(|client| &client.place)
    }

    const fn id(&self, index: u32) -> ClientId {
        ClientId {
            index,
            generation: self.generation,
        }
    }

    /// The name of a client, for logs and metrics.
    #[must_use]
    pub fn client_name(&self, client: ClientId) -> &str {
        self.compiled(client)
            .map_or("unknown", |client| &client.name)
    }

    /// The share of a client while others wait.
    #[must_use]
    pub fn weight(&self, client: ClientId) -> u32 {
        self.compiled(client).map_or(1, |client| client.weight)
    }

    /// What the key at a position is for.
    #[must_use]
    pub fn usage(&self, key: u32) -> &KeyUse {
        self.usages.of(key)
    }

    /// Decides, and gives the grant that covers the request. With [`Count::Use`] it counts against the limits of
    /// that grant, so whatever else the grant says holds for the request too, and no other's.
    ///
    /// All grants that name the key are looked at until one covers the request, also where the key's purpose
    /// forbids it anyway, so that this costs the same.
    ///
    /// # Errors
    ///
    /// What does not hold, of the grant that came nearest.
    pub fn grant_for(&self, ask: &Ask<'_>, count: Count) -> Result<&CompiledGrant, Unmet> {
        let compiled = self.compiled(ask.client).ok_or(Unmet::Keys)?;
        let at = self.moment(ask, compiled);
        let has_purpose = self.usage(ask.key).lets(ask.right, at.date);
        let count = if has_purpose { count } else { Count::Nothing };
        let mut nearest = Unmet::Keys;
        for (_, grant) in compiled.naming(ask.key) {
            match grant.check(ask, at, count) {
                Ok(()) if has_purpose => return Ok(grant),
                Ok(()) => nearest = Unmet::Purpose,
                Err(unmet) => nearest = nearest.or(unmet),
            }
        }
        Err(nearest)
    }

    /// Reads what decisions about these keys will read, and has no other effect: see [`accel::KeyTable::warm`].
    pub fn warm(&self, client: ClientId, keys: impl Iterator<Item = u32>) {
        let Some(client) = self.compiled(client) else {
            return;
        };
        for key in keys {
            black_box((client.cover.of(key).first(), self.usage(key).purpose));
        }
    }

    /// Whether a grant covers the request: [`Self::grant_for`].
    ///
    /// # Errors
    ///
    /// What does not hold, of the grant that came nearest.
    pub fn decide(&self, ask: &Ask<'_>, count: Count) -> Result<(), Unmet> {
        self.grant_for(ask, count).map(|_grant| ())
    }

    /// What [`Self::decide`] finds of each grant of the client, in the order of the configuration.
    #[must_use]
    pub fn examine(&self, ask: &Ask<'_>, count: Count) -> Vec<(&CompiledGrant, Result<(), Unmet>)> {
        let Some(compiled) = self.compiled(ask.client) else {
            return Vec::new();
        };
        let at = self.moment(ask, compiled);
        let naming = compiled.cover.of(ask.key);
        let look = |(number, grant): (u32, _)| -> (&CompiledGrant, _) {
            let grant: &CompiledGrant = grant;
            let found = if naming.contains(&number) {
                grant.check(ask, at, count)
            } else {
                Err(Unmet::Keys)
            };
            (grant, found)
        };
        (0u32..).zip(&compiled.grants).map(look).collect()
    }

    /// The time of day, where it matters; the clock is not read for nothing.
    fn moment(&self, ask: &Ask<'_>, client: &CompiledClient) -> Moment {
        match ask.at {
            Some(time) => Moment::of(time),
            None if client.needs_time || self.has_dual_use => self.now(),
            None => Moment::of(UNIX_EPOCH),
        }
    }

    /// The moment it is, by whose date rights end: that of the latest day there ever was. Hours and weekdays are those of the
    /// clock, and so are the days of `daily`, of which each meter remembers its own.
    #[must_use]
    pub fn now(&self) -> Moment {
        let now = Moment::now();
        now.dated(self.latest_day.see(now.day))
    }

    /// Judges dates by this from now on.
    pub(crate) fn remember(&mut self, latest_day: Arc<LatestDay>) {
        self.latest_day = latest_day;
    }

    /// The rights of `client` on the key at `key` on the day of `now`, by any grant and under whatever conditions.
    #[must_use]
    pub fn rights(&self, client: ClientId, key: u32, now: Moment) -> Rights {
        let usage = self.usage(key);
        let rights = (self.grants_on(client, key, now)).fold(Rights::NONE, |rights, grant| {
            rights.union(grant.grant().allow)
        });
        rights
            .iter()
            .filter(|right| usage.lets(*right, now.date))
            .collect()
    }

    /// The grants of `client` that are in force on the day of `now` and name the key at `key`.
    pub fn grants_on(
        &self,
        client: ClientId,
        key: u32,
        now: Moment,
    ) -> impl Iterator<Item = &CompiledGrant> {
        let naming = self.compiled(client).into_iter();
        naming
            .flat_map(move |client| client.naming(key))
            .map(|(_, grant)| grant)
            .filter(move |grant| grant.is_in_force(now))
    }

    /// The grants of `client` that are in force on the day of `now`.
    pub fn grants_of(&self, client: ClientId, now: Moment) -> impl Iterator<Item = &CompiledGrant> {
        let grants = self
            .compiled(client)
            .into_iter()
            .flat_map(|client| &client.grants);
        grants.filter(move |grant| grant.is_in_force(now))
    }

    /// Every grant, with the name of its client.
    pub fn grants(&self) -> impl Iterator<Item = (&str, &CompiledGrant)> {
        (self.clients.iter()).flat_map(|client| {
            let name = client.name.as_str();
            client.grants.iter().map(move |grant| (name, grant))
        })
    }

    /// The same, to let them go on counting where others have come to.
    pub(crate) fn grants_mut(&mut self) -> impl Iterator<Item = (&str, &mut CompiledGrant)> {
        (self.clients.iter_mut()).flat_map(|client| {
            let CompiledClient { name, grants, .. } = client;
            let name = name.as_str();
            grants.iter_mut().map(move |grant| (name, grant))
        })
    }

    /// Whether any client holds `right` on the key at `key` on the day of `now`.
    #[must_use]
    pub fn is_granted(&self, right: Right, key: u32, now: Moment) -> bool {
        let counts = |grant: &CompiledGrant| grant.gives(right) && grant.is_in_force(now);
        self.usage(key).lets(right, now.date)
            && self.clients.iter().any(|client| {
                // Most clients hold it on no key: the lookup is for the others.
                client.grants.iter().any(counts)
                    && client.naming(key).any(|(_, grant)| counts(grant))
            })
    }

    /// Whether a grant of `client` gives `right` on the key at `key`, or did until it ended.
    #[must_use]
    pub fn was_granted(&self, client: ClientId, right: Right, key: u32) -> bool {
        self.compiled(client)
            .is_some_and(|client| client.naming(key).any(|(_, grant)| grant.gives(right)))
    }

    /// What an operator should know about these grants: rights without use, keys that do not
    /// exist, raw decryption, keys of two purposes, dates that have passed.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Grants that ask of a key what it is not for. With any, the policy must not be used.
    #[must_use]
    pub fn conflicts(&self) -> &[String] {
        &self.conflicts
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

#[cfg(test)]
mod tests;
