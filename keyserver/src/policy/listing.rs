//! The key list (0x48): the keys a client may use, and nothing about the others.

use accel::Key;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyless_protocol::info::{KeyEntry, KeyList, ski_to_hex};

use super::rights::{Right, Rights};
use super::rules::ClientId;
use crate::snapshot::Snapshot;

/// Room that [`key_list`] leaves in `room` for the JSON around the entries.
const ENVELOPE_BYTES: usize = 64;

/// JSON bytes of an entry besides its variable parts: names, quotes, 40 hex digits, separators.
const ENTRY_BYTES: usize = 160;

/// Keys looked at for one page. A client that may use few of very many keys gets short pages, and
/// an I/O thread never spends more than about a tenth of a millisecond on one.
const SCAN_MAX: u32 = 4096;

/// One page of the key list: from position `first` on, as many entries as fit `room` bytes of
/// JSON. `next` in the answer is the position to ask for after it.
///
/// A client that fits no `[[clients]]` entry gets an empty list.
#[must_use]
pub fn key_list(snapshot: &Snapshot, client: Option<ClientId>, first: u32, room: usize) -> KeyList {
    let mut list = KeyList {
        keys: Vec::new(),
        next: None,
    };
    let Some(client) = client else { return list };
    let mut left = room.saturating_sub(ENVELOPE_BYTES);
    for position in first..u32::MAX {
        if position - first == SCAN_MAX {
            list.next = Some(position);
            break;
        }
        let Some((key, label)) = snapshot.key_at(position) else {
            break;
        };
        let operations = usable(snapshot.policy.rights(client, position), key);
        if operations.is_empty() {
            continue;
        }
        let entry = entry(key, label, operations);
        let bytes = json_bytes(&entry);
        if bytes > left {
            list.next = Some(position);
            break;
        }
        left -= bytes;
        list.keys.push(entry);
    }
    list
}

/// What of `rights` an operation of this version can use with `key`.
fn usable(rights: Rights, key: &Key) -> Rights {
    rights
        .iter()
        .filter(|right| right.is_served() && right.fits(key.key_type()))
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
    }
}

/// An upper bound of the entry's JSON. A character of a label takes at most six bytes (`\u001f`).
fn json_bytes(entry: &KeyEntry) -> usize {
    let operations: usize = entry.operations.iter().map(|name| name.len() + 3).sum();
    ENTRY_BYTES + entry.key_type.len() + entry.spki.len() + operations + 6 * entry.label.len()
}
