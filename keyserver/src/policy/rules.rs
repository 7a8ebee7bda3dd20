//! The grants of the configuration, compiled for one set of keys.
//!
//! A request costs one or two hash lookups, whatever the number of keys and grants: the globs of
//! the configuration are resolved here, once per reload.

use std::collections::HashMap;
use std::hash::Hash;

use super::identity::PeerIdentity;
use super::rights::{Right, Rights};
use crate::clock;
use crate::config::{Client, Date, Grant, KeyPattern, Match};

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
    /// Grants with a last day, those of one day together.
    dated: Vec<(Date, KeyRights)>,
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
                dated: Vec::new(),
            };
            for grant in &client.grants {
                policy
                    .warnings
                    .extend(warnings_about(client, grant, &lookup, today));
                if grant.expires.is_none_or(|last_day| today <= last_day) {
                    lookup.grant(grant, compiled.slot(grant.expires));
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

    /// What `client` may do with the key at `key` today.
    #[must_use]
    pub fn rights(&self, client: ClientId, key: u32) -> Rights {
        let Some(compiled) = self.compiled(client) else {
            return Rights::NONE;
        };
        let mut rights = compiled.permanent.on(key);
        if !compiled.dated.is_empty() {
            let today = Date::of(clock::wall());
            for (_, dated) in compiled
                .dated
                .iter()
                .filter(|(last_day, _)| today <= *last_day)
            {
                rights = rights.union(dated.on(key));
            }
        }
        rights
    }

    /// Whether `client` holds `right` on the key at `key` now. Reads the time of day only when a
    /// permanent grant does not decide.
    #[must_use]
    pub fn allows(&self, client: ClientId, key: u32, right: Right) -> bool {
        self.compiled(client).is_some_and(|compiled| {
            compiled.permanent.on(key).contains(right)
                || (!compiled.dated.is_empty() && self.rights(client, key).contains(right))
        })
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
    /// Where the rights of a grant with this last day are gathered.
    fn slot(&mut self, expires: Option<Date>) -> &mut KeyRights {
        let Some(last_day) = expires else {
            return &mut self.permanent;
        };
        let found = self.dated.iter().position(|(date, _)| *date == last_day);
        let position = found.unwrap_or(self.dated.len());
        if found.is_none() {
            self.dated.push((last_day, KeyRights::default()));
        }
        &mut self.dated[position].1
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
        if !lookup.keys.is_empty() && lookup.matching(pattern).is_empty() {
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
mod tests {
    use std::time::Duration;

    use super::*;

    const KEYS: [KeyName<'static>; 4] = [
        KeyName {
            index: 0,
            label: "shop",
            ski: [1; 20],
        },
        KeyName {
            index: 1,
            label: "shop-2",
            ski: [2; 20],
        },
        KeyName {
            index: 2,
            label: "bank",
            ski: [3; 20],
        },
        // Labels need not be unique over several directories.
        KeyName {
            index: 3,
            label: "shop",
            ski: [4; 20],
        },
    ];

    fn label(glob: &str) -> KeyPattern {
        KeyPattern::Label(glob.to_owned())
    }

    fn grant(keys: Vec<KeyPattern>, right: Right) -> Grant {
        let allow = Rights::NONE.with(right);
        Grant {
            keys,
            allow,
            expires: None,
            origin: "test:1".to_owned(),
        }
    }

    fn client(name: &str, matches: Vec<Match>, grants: Vec<Grant>) -> Client {
        Client {
            name: name.to_owned(),
            weight: 1,
            matches,
            grants,
        }
    }

    fn peer(dns: &str) -> PeerIdentity {
        PeerIdentity {
            dns: vec![dns.to_owned()],
            uri: vec!["spiffe://bank/edge".to_owned()],
            subject: "CN=edge,O=Bank".to_owned(),
            spki_sha256: [7; 32],
        }
    }

    /// The only client of a policy with these grants, and what it may sign with.
    fn signs_with(grants: Vec<Grant>) -> Vec<u32> {
        let clients = [client("edge", vec![Match::Dns("edge".to_owned())], grants)];
        let policy = Policy::compile(&clients, &KEYS, 1);
        let id = policy.client(&peer("edge")).expect("the client is known");
        (0..5)
            .filter(|key| policy.allows(id, *key, Right::SignDigest))
            .collect()
    }

    #[test]
    fn nothing_is_allowed_that_is_not_granted() {
        assert_eq!(signs_with(vec![]), [0_u32; 0]);
        assert_eq!(
            signs_with(vec![grant(vec![label("*")], Right::DecryptRaw)]),
            [0_u32; 0]
        );
    }

    #[test]
    fn keys_are_named_by_label_glob_and_ski() {
        let sign = |pattern| signs_with(vec![grant(vec![pattern], Right::SignDigest)]);
        assert_eq!(sign(label("shop")), [0, 3]);
        assert_eq!(sign(label("shop*")), [0, 1, 3]);
        assert_eq!(sign(label("????")), [0, 2, 3]);
        assert_eq!(sign(KeyPattern::Ski([3; 20])), [2]);
        assert_eq!(sign(label("none")), [0_u32; 0]);
        // Every key is every key, also one that this policy has no name for.
        assert_eq!(sign(label("*")), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn grants_add_up_whatever_their_order() {
        let all = grant(vec![label("*")], Right::SignDigest);
        let one = grant(vec![label("bank")], Right::DecryptRaw);
        for grants in [vec![all.clone(), one.clone()], vec![one, all]] {
            let clients = [client("edge", vec![Match::Dns("edge".to_owned())], grants)];
            let policy = Policy::compile(&clients, &KEYS, 1);
            let id = policy.client(&peer("edge")).expect("the client is known");
            let both = Rights::NONE.with(Right::SignDigest).with(Right::DecryptRaw);
            assert_eq!(policy.rights(id, 2), both);
            assert_eq!(policy.rights(id, 0), Rights::NONE.with(Right::SignDigest));
        }
    }

    #[test]
    fn a_grant_counts_through_its_last_day() {
        let day = |offset: i64| {
            let now = clock::wall();
            let days = Duration::from_secs(86_400 * offset.unsigned_abs());
            Some(Date::of(if offset < 0 { now - days } else { now + days }))
        };
        let sign = grant(vec![label("bank")], Right::SignDigest);
        for (expires, expected) in [(day(-2), vec![]), (day(2), vec![2]), (None, vec![2])] {
            let dated = Grant {
                expires,
                ..sign.clone()
            };
            assert_eq!(signs_with(vec![dated]), expected, "{expires:?}");
        }
    }

    #[test]
    fn a_grant_that_ends_while_the_server_runs_gives_nothing_from_then_on() {
        let yesterday = Date::of(clock::wall() - Duration::from_secs(2 * 86_400));
        let mut rights = KeyRights::default();
        rights.add_to_all(Rights::NONE.with(Right::SignDigest));
        let policy = Policy {
            generation: 1,
            clients: vec![CompiledClient {
                name: "edge".to_owned(),
                weight: 1,
                permanent: KeyRights::default(),
                dated: vec![(yesterday, rights)],
            }],
            by_match: HashMap::new(),
            warnings: Vec::new(),
        };
        let id = ClientId {
            index: 0,
            generation: 1,
        };
        assert!(!policy.allows(id, 0, Right::SignDigest));
        assert!(policy.rights(id, 0).is_empty());
    }

    #[test]
    fn the_first_entry_that_fits_is_the_client() {
        let clients = [
            client(
                "by-uri",
                vec![Match::Uri("spiffe://bank/edge".to_owned())],
                vec![],
            ),
            client("by-name", vec![Match::Dns("edge".to_owned())], vec![]),
            client(
                "by-subject",
                vec![Match::Subject("CN=edge,O=Bank".to_owned())],
                vec![],
            ),
        ];
        let name = |clients: &[Client], dns: &str| {
            let policy = Policy::compile(clients, &KEYS, 1);
            let id = policy.client(&peer(dns))?;
            Some(policy.client_name(id).to_owned())
        };
        assert_eq!(name(&clients, "edge").as_deref(), Some("by-uri"));
        assert_eq!(name(&clients[1..], "edge").as_deref(), Some("by-name"));
        assert_eq!(name(&clients[1..], "other").as_deref(), Some("by-subject"));
        assert_eq!(name(&clients[1..2], "other"), None);
        let by_key = [client("by-key", vec![Match::SpkiSha256([7; 32])], vec![])];
        assert_eq!(name(&by_key, "x").as_deref(), Some("by-key"));
    }

    #[test]
    fn an_id_of_another_generation_is_nobody() {
        let grants = vec![grant(vec![label("*")], Right::SignDigest)];
        let clients = [client("edge", vec![Match::Dns("edge".to_owned())], grants)];
        let old = Policy::compile(&clients, &KEYS, 1);
        let new = Policy::compile(&clients, &KEYS, 2);
        let id = old.client(&peer("edge")).expect("the client is known");
        assert!(old.allows(id, 0, Right::SignDigest));
        assert!(!new.allows(id, 0, Right::SignDigest));
        assert_eq!(new.client_name(id), "unknown");
    }

    #[test]
    fn warnings_name_the_place_and_the_client() {
        let grants = vec![
            grant(vec![label("gone")], Right::SignDigest),
            grant(vec![label("shop")], Right::Tls13Sign),
            grant(vec![label("shop")], Right::DecryptRaw),
        ];
        let clients = [client("edge", vec![Match::Dns("edge".to_owned())], grants)];
        let policy = Policy::compile(&clients, &KEYS, 1);
        let [gone, idle, raw] = policy.warnings() else {
            panic!("{:?}", policy.warnings())
        };
        assert!(
            gone.starts_with("test:1: client \"edge\": no loaded key fits \"gone\""),
            "{gone}"
        );
        assert!(
            idle.contains("no operation of this version uses tls13-sign"),
            "{idle}"
        );
        assert!(
            raw.contains("decrypt-raw, without an end; set `expires"),
            "{raw}"
        );
    }

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
}
