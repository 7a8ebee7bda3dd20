//! What is wrong with grants, or worth knowing about them.

use std::collections::BTreeMap;

use super::lookup::{KeyLookup, KeyName, is_glob};
use super::rights::Right;
use crate::config::{Client, Date, Grant, KeyPattern};

/// About keys that serve two purposes, a line for each `[[keys]]` entry.
pub(super) fn about_keys(keys: &[KeyName<'_>], today: Date) -> Vec<String> {
    let mut entries: BTreeMap<String, (&KeyName<'_>, Date, usize)> = BTreeMap::new();
    for key in keys {
        if let Some(until) = key.usage.dual_use_until {
            let entry = entries.entry(key.usage.place.of("dual_use_until"));
            entry.or_insert((key, until, 0)).2 += 1;
        }
    }
    let line = |(place, (key, until, count)): (String, (&KeyName<'_>, Date, usize))| {
        let (label, purpose) = (key.label, key.usage.purpose.name());
        let others = match count {
            1 => String::new(),
            more => format!(" and {} others of its entry", more - 1),
        };
        if key.usage.is_dual(today) {
            format!(
                "{place}: key \"{label}\"{others} may both sign and open key exchanges, until {until}: who has the one \
                 right is close to the other; give the edges two keys, and remove `dual_use_until`"
            )
        } else {
            format!(
                "{place}: the dual use of key \"{label}\"{others} ended on {until}; it is for `purpose = \"{purpose}\"` \
                 only, and other grants on it give nothing"
            )
        }
    };
    entries.into_iter().map(line).collect()
}

/// Grants that name a key and a right that it is not for. A glob that happens to fit such a key does not: its
/// grant gives nothing on it.
pub(super) fn conflicts(client: &Client, grant: &Grant, lookup: &KeyLookup<'_>) -> Vec<String> {
    let mut conflicts = Vec::new();
    let named = |pattern: &&KeyPattern| match pattern {
        KeyPattern::Ski(_) => true,
        KeyPattern::Label(label) => !is_glob(label),
    };
    for key in grant
        .keys
        .iter()
        .filter(named)
        .flat_map(|pattern| lookup.matching(pattern))
    {
        let usage = key.usage;
        let other = |right: &Right| {
            right
                .purpose()
                .is_some_and(|wanted| wanted != usage.purpose)
        };
        let wrong: Vec<_> = grant.allow.iter().filter(other).map(Right::name).collect();
        if wrong.is_empty() || usage.dual_use_until.is_some() {
            continue;
        }
        conflicts.push(format!(
            "{}: client \"{}\" is granted {} on key \"{}\", which is for `purpose = \"{}\"` ({})\n  \
             fix: name another key here, or change the `purpose` of that one; where one key has to serve both for a \
             while, say so in its [[keys]] entry: `dual_use_until = YYYY-MM-DD`",
            grant.place.of("allow"),
            client.name,
            wrong.join(", "),
            key.label,
            usage.purpose.name(),
            usage.place.of("purpose"),
        ));
    }
    conflicts
}

/// About one grant.
pub(super) fn about(
    client: &Client,
    grant: &Grant,
    lookup: &KeyLookup<'_>,
    today: Date,
) -> Vec<String> {
    let (place, name) = (&grant.place, &client.name);
    if let Some(last_day) = grant.expires.filter(|last_day| *last_day < today) {
        return vec![format!(
            "{place}: a grant of client \"{name}\" ended on {last_day} and gives nothing; remove it, or set a later `expires`"
        )];
    }
    let mut warnings = Vec::new();
    for pattern in &grant.keys {
        // Without any key there is a warning of its own.
        if lookup.is_empty() {
            continue;
        }
        if !lookup.fits_any(pattern) {
            warnings.push(format!(
                "{place}: client \"{name}\": no loaded key fits {pattern}; check the label (the file name without .key) or the SKI"
            ));
            continue;
        }
        if let Some(other) = lookup.hidden_by_label(pattern) {
            warnings.push(format!(
                "{place}: client \"{name}\": {pattern} is the label of one key and the SKI of another, \"{}\"; the label \
                 counts. Rename that key, or write the SKI with colons if it is meant",
                other.label
            ));
        }
        let served = |right: &Right| lookup.any(pattern, |key| key.usage.lets(*right, today));
        let idle: Vec<_> = (grant.allow.iter())
            .filter(|right| !served(right))
            .map(Right::name)
            .collect();
        if !idle.is_empty() {
            warnings.push(format!(
                "{place}: client \"{name}\": no key that fits {pattern} is for {}; set `purpose` in the [[keys]] entry of \
                 those that are meant",
                idle.join(", ")
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
    if let Some(last_day) = grant
        .expires
        .filter(|_| grant.allow.contains(Right::DecryptRaw))
    {
        warnings.push(format!(
            "{place}: client \"{name}\" holds decrypt-raw, until {last_day}. It is full use of the key: whoever may \
             decrypt may also forge any signature"
        ));
    }
    warnings
}
