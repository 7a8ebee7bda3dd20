//! What a client is told of its own rights: the key list (0x48) has the keys it may use, and nothing about the others; the
//! server information (0x47) has the client itself.

use accel::{Key, KeyType};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyless_protocol::SignatureScheme;
use keyless_protocol::info::{ClientInfo, KeyEntry, KeyList, TERMS_MAX, Terms, ski_to_hex};

use super::grant::CompiledGrant;
use super::purpose::KeyUse;
use super::rights::{Right, Rights};
use super::rules::{ClientId, Policy};
use super::window::Moment;
use crate::config::Grant;
use crate::handshake::Version;
use crate::snapshot::Snapshot;

/// Room that [`key_list`] leaves in `room` for the JSON around the entries.
const ENVELOPE_BYTES: usize = 64;

/// Networks and hours of a grant that are listed: a client that has to know more asks its owner, and a
/// document has to fit a frame.
const LISTED_MAX: usize = 16;

/// Keys looked at for one page. A client that may use few of very many keys gets short pages, and
/// an I/O thread spends some 0.2 ms on one. How many pages it makes at a time is not decided here.
const SCAN_MAX: u32 = 4096;

/// A page of the key list, and what it took.
#[derive(Debug)]
pub struct Page {
    /// What the client is told.
    pub list: KeyList,
    /// Keys that were looked at and are not for this client.
    pub passed_over: u32,
}

/// One page of the key list: from position `first` on, as many entries as fit `room` bytes of
/// JSON. `next` in the answer is the position to ask for after it.
///
/// A client that fits no `[[clients]]` entry gets an empty list.
#[must_use]
pub fn key_list(snapshot: &Snapshot, client: Option<ClientId>, first: u32, room: usize) -> Page {
    let mut list = KeyList {
        keys: Vec::new(),
        next: None,
    };
    let mut passed_over = 0;
    let Some(client) = client else {
        return Page { list, passed_over };
    };
    let now = snapshot.policy.now();
    let mut left = room.saturating_sub(ENVELOPE_BYTES);
    for position in first..u32::MAX {
        if position - first == SCAN_MAX {
            list.next = Some(position);
            break;
        }
        let Some((key, label)) = snapshot.key_at(position) else {
            break;
        };
        let operations = usable(snapshot, snapshot.policy.rights(client, position, now), key);
        if operations.is_empty() {
            passed_over += 1;
            continue;
        }
        let mut entry = entry(key, label, operations);
        let grants: Vec<_> = (snapshot.policy).grants_on(client, position, now).collect();
        describe(
            &mut entry,
            snapshot.policy.usage(position),
            &grants,
            key.key_type(),
            now,
        );
        let bytes = json_bytes(&entry);
        if bytes > left {
            list.next = Some(position);
            break;
        }
        left -= bytes;
        list.keys.push(entry);
    }
    Page { list, passed_over }
}

/// What of `rights` an operation of this version can use with `key`.
fn usable(snapshot: &Snapshot, rights: Rights, key: &Key) -> Rights {
    let is_ready = |right: &Right| match right {
        Right::Delegate => snapshot.certificates.of(&key.ski()).is_ok(),
        Right::Tickets | Right::Seal => snapshot.tickets.is_some(),
        _ => true,
    };
    rights
        .iter()
        .filter(|right| right.is_served() && right.fits(key.key_type()) && is_ready(right))
        .collect()
}

fn entry(key: &Key, label: &str, operations: Rights) -> KeyEntry {
    KeyEntry {
        ski: ski_to_hex(&key.ski()),
        key_type: key.key_type().name().to_string(),
        spki: STANDARD.encode(key.spki_der()),
        operations: operations
            .iter()
            .map(|right| Right::name(right).to_owned())
            .collect(),
        label: label.to_owned(),
        ..KeyEntry::default()
    }
}

/// Adds what the key is for and what the client's grants on it are bound to.
fn describe(
    entry: &mut KeyEntry,
    usage: &KeyUse,
    grants: &[&CompiledGrant],
    kind: KeyType,
    now: Moment,
) {
    usage.purpose.name().clone_into(&mut entry.purpose);
    entry.dual_use_until = usage.dual_use_until.map(|until| until.to_string());
    let may = |scheme: &SignatureScheme| {
        [
            (Right::Tls13Sign, Version::Tls13),
            (Right::Tls12Sign, Version::Tls12),
        ]
        .into_iter()
        .filter(|(_, version)| version.lets(kind, *scheme))
        .any(|(right, _)| {
            let lets = |grant: &&CompiledGrant| {
                let schemes = &grant.grant().conditions.schemes;
                grant.grant().allow.contains(right)
                    && (schemes.is_empty() || schemes.contains(scheme))
            };
            entry.operations.iter().any(|name| name == right.name()) && grants.iter().any(lets)
        })
    };
    entry.schemes = (SignatureScheme::ALL.into_iter().filter(may))
        .map(|scheme| scheme.name().to_owned())
        .collect();
    entry.terms = all_terms(grants, now);
}

/// What grants are bound to, those that are.
fn all_terms(grants: &[&CompiledGrant], now: Moment) -> Vec<Terms> {
    let terms = grants.iter().filter_map(|grant| terms(grant, now));
    terms.take(TERMS_MAX).collect()
}

impl Policy {
    /// What a client is told of itself.
    #[must_use]
    pub fn client_info(&self, client: ClientId) -> ClientInfo {
        let now = self.now();
        let grants: Vec<_> = self.grants_of(client, now).collect();
        let rights = (grants.iter()).fold(Rights::NONE, |rights, grant| {
            rights.union(grant.grant().allow)
        });
        let served = rights.iter().filter(|right| right.is_served());
        ClientInfo {
            name: self.client_name(client).to_owned(),
            weight: self.weight(client),
            operations: served.map(|right| right.name().to_owned()).collect(),
            terms: all_terms(&grants, now),
        }
    }
}

/// What a grant is bound to; nothing where it is not bound.
fn terms(compiled: &CompiledGrant, now: Moment) -> Option<Terms> {
    let grant = compiled.grant();
    let names = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
    let Grant {
        conditions,
        window,
        limits,
        ..
    } = grant;
    let (rate, daily) = (limits.rate, limits.daily);
    let terms = Terms {
        operations: Vec::new(),
        expires: grant.expires.map(|day| day.to_string()),
        source: grant
            .sources
            .iter()
            .take(LISTED_MAX)
            .map(ToString::to_string)
            .collect(),
        days: names(window.days.iter().map(|day| day.name()).collect()),
        hours: window
            .hours
            .iter()
            .take(LISTED_MAX)
            .map(ToString::to_string)
            .collect(),
        schemes: names(
            conditions
                .schemes
                .iter()
                .map(|scheme| scheme.name())
                .collect(),
        ),
        conditions: names(conditions.names().collect()),
        rate: rate.map(|rate| rate.to_string()),
        burst: rate.map(|rate| rate.burst),
        daily,
        daily_left: daily.map(|daily| daily.saturating_sub(compiled.meter().used_on(now.day))),
        credential_seconds: (grant.max_credential_lifetime).map(|longest| longest.as_secs()),
    };
    (terms != Terms::default()).then(|| Terms {
        operations: names(grant.allow.iter().map(Right::name).collect()),
        ..terms
    })
}

/// Bytes of the entry and the comma behind it.
fn json_bytes(entry: &KeyEntry) -> usize {
    serde_json::to_vec(entry).map_or(usize::MAX, |json| json.len() + 1)
}
