//! What daily limits have used up, remembered over reloads, restarts and crashes.
//!
//! A [`Meter`] belongs to a grant, but lives longer: a reload makes new grants, and those that are about the same (the same
//! client, keys and rights) go on counting with the same meter, whatever else in them has changed. Uses of a day are
//! on disk *before* they are handed out, some ahead at a time; so a crash costs a few of them, and never gives any back.
//!
//! ```text
//!  I/O threads ── take ──▶ Meter ── rings when few are left ──▶ meters thread ── file ──▶ Meter has more
//! ```
//!
//! The thread also raises the alarm when a day's uses are over, once a day for each grant; and it writes down the
//! [latest day](LatestDay) there was, once a day, by which rights with a last day are judged.

mod bell;
mod calendar;
mod file;
mod health;
mod thread;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::{Date, Grant};
use crate::policy::meter::Reserved;
use crate::policy::{LatestDay, Meter, Moment, Policy};
use crate::statefile::StateError;
use crate::tls;

pub(crate) use bell::Bell;
pub use health::MetersHealth;
pub(crate) use thread::{Thread, start};

/// Names a grant by what it is about: SHA-256 over client, keys, rights, and the number among its equals.
type MeterId = [u8; 32];

/// The meters of all grants with limits.
#[derive(Debug)]
pub struct Meters {
    file: Option<PathBuf>,
    /// Held while the file is written, so that what is written last is what is known last.
    turn: Mutex<()>,
    health: Arc<MetersHealth>,
    bell: Bell,
    latest_day: Arc<LatestDay>,
    /// Where it is written down; nowhere without a state directory.
    calendar: Option<PathBuf>,
    /// The latest day that is on disk.
    day_on_disk: AtomicU64,
    /// Never held while a disk is waited for: the operator asks for what is in it.
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    by_id: HashMap<MeterId, Known>,
    /// What is on disk, also about grants that are gone.
    before: HashMap<MeterId, Reserved>,
}

#[derive(Debug, Clone)]
struct Known {
    meter: Arc<Meter>,
    /// `daily`
    ceiling: Option<u64>,
    /// For the alarm.
    client: String,
    /// For the alarm.
    place: String,
}

impl Meters {
    /// Reads what was used from the state directory. Without one, grants cannot have daily limits.
    ///
    /// # Errors
    ///
    /// [`StateError`]: the file is there and cannot be used.
    pub fn open(directory: Option<&Path>) -> Result<Self, StateError> {
        let file = directory.map(file::path);
        let before = file.as_deref().map(file::read).transpose()?;
        let calendar = directory.map(calendar::path);
        let latest_day = calendar.as_deref().map(calendar::read).transpose()?;
        let latest_day = latest_day.unwrap_or_default();
        Ok(Self {
            file,
            turn: Mutex::default(),
            health: Arc::default(),
            bell: Bell::default(),
            day_on_disk: AtomicU64::new(latest_day.get()),
            latest_day: Arc::new(latest_day),
            calendar,
            inside: Mutex::new(Inside {
                by_id: HashMap::new(),
                before: before.unwrap_or_default(),
            }),
        })
    }

    /// Lets the grants of a policy go on counting where those of before have come to, and writes down uses ahead. What had ended
    /// by its date has ended in this policy too.
    ///
    /// # Errors
    ///
    /// [`StateError`]: it cannot be written. The policy must not be used then; the one of before goes on as it was.
    pub fn attach(&self, policy: &mut Policy) -> Result<(), StateError> {
        policy.remember(Arc::clone(&self.latest_day));
        let day = today();
        let _turn = lock(&self.turn);
        let (mut by_id, before) = {
            let mut inside = lock(&self.inside);
            inside.before.retain(|_, reserved| reserved.day + 1 >= day);
            (inside.by_id.clone(), inside.before.clone())
        };
        let mut equals: HashMap<MeterId, u32> = HashMap::new();
        let mut counted = false;
        for (client, compiled) in policy.grants_mut() {
            let grant = compiled.grant();
            if grant.limits.is_none() {
                continue;
            }
            let about = about(client, grant, 0).unwrap_or_default();
            let number = equals.entry(about).or_default();
            *number += 1;
            let id = self::about(client, grant, *number).unwrap_or_default();
            let known = by_id.entry(id).or_insert_with(|| Known {
                meter: Arc::default(),
                ceiling: None,
                client: client.to_owned(),
                place: String::new(),
            });
            known.ceiling = grant.limits.daily;
            known.place = grant.place.of("daily");
            if known.ceiling.is_some() && self.file.is_some() {
                let before = before.get(&id).copied();
                known.meter.keep(before, day, self.bell.clone());
                counted = true;
            }
            compiled.go_on(Arc::clone(&known.meter));
        }
        if counted {
            self.save(&by_id, |known, ceiling, day| {
                known.meter.to_reserve(ceiling, day)
            })?;
        }
        let mut inside = lock(&self.inside);
        inside.by_id = by_id;
        // Those of grants that are gone. What they used today is in `before`.
        inside
            .by_id
            .retain(|_, known| Arc::strong_count(&known.meter) > 1);
        Ok(())
    }

    /// How the file is.
    #[must_use]
    pub const fn health(&self) -> &Arc<MetersHealth> {
        &self.health
    }

    /// Whether uses should be written down.
    fn is_low(&self) -> bool {
        let day = today();
        let low =
            |known: &Known| (known.ceiling).is_some_and(|ceiling| known.meter.is_low(ceiling, day));
        lock(&self.inside).by_id.values().any(low)
    }

    /// Writes down the day, if it is later than what is on disk.
    fn write_day(&self, day: u64) -> Result<(), StateError> {
        let latest = self.latest_day.see(day);
        let Some(path) = &self.calendar else {
            return Ok(());
        };
        if latest <= self.day_on_disk.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.health.writing();
        let result = calendar::write(path, latest);
        self.health.over();
        result?;
        self.day_on_disk.store(latest, Ordering::Relaxed);
        Ok(())
    }

    /// A line for the operator, when the clock is behind the latest day by more than one.
    #[must_use]
    pub fn clock_is_behind(&self) -> Option<String> {
        let (latest, today) = (self.latest_day.get(), today());
        (latest > today + 1).then(|| {
            let mut text = format!(
                "the clock says {} and has said {} before, by which dates in grants and `dual_use_until` are judged: set the \
                 clock right",
                Date::from_days(today),
                Date::from_days(latest)
            );
            if let Some(path) = &self.calendar {
                let path = path.display();
                text += &format!("; or, if it was wrong before, stop the server, remove {path} and start it");
            }
            text
        })
    }

    /// Writes down uses ahead of all meters.
    fn write(&self) -> Result<(), StateError> {
        let _turn = lock(&self.turn);
        let by_id = lock(&self.inside).by_id.clone();
        self.save(&by_id, |known, ceiling, day| {
            known.meter.to_reserve(ceiling, day)
        })
    }

    /// Writes down what was used, to the number; nothing is handed out after that.
    fn close(&self) -> Result<(), StateError> {
        let _turn = lock(&self.turn);
        let by_id = lock(&self.inside).by_id.clone();
        self.save(&by_id, |known, _, day| known.meter.close(day))
    }

    /// Writes down these figures, and what is known of others. Whoever calls it has the turn.
    fn save(
        &self,
        by_id: &HashMap<MeterId, Known>,
        figures: impl Fn(&Known, u64, u64) -> Reserved,
    ) -> Result<(), StateError> {
        let Some(path) = &self.file else {
            return Ok(());
        };
        let day = today();
        let mut written = lock(&self.inside).before.clone();
        for (id, known) in by_id {
            if let Some(ceiling) = known.ceiling {
                written.insert(*id, figures(known, ceiling, day));
            }
        }
        self.health.writing();
        let result = file::write(path, &written);
        self.health
            .written(result.as_ref().err().map(ToString::to_string));
        result?;
        for (id, reserved) in &written {
            if let Some(known) = by_id.get(id) {
                known.meter.reserved(*reserved);
            }
        }
        lock(&self.inside).before = written;
        Ok(())
    }

    /// Tells of the grants whose uses of the day are over, once a day each.
    fn alarm(&self) {
        let day = today();
        for known in lock(&self.inside).by_id.values() {
            let Some(ceiling) = known.ceiling else {
                continue;
            };
            if known.meter.alarm(ceiling, day) {
                tracing::error!(
                    alarm = "daily_ceiling",
                    client = known.client,
                    grant = known.place,
                    daily = ceiling,
                    "a grant was used as often as a day allows and gives nothing until midnight UTC: look at what the \
                     client does, and raise `daily` if it is right"
                );
            }
        }
    }

    /// A line for each grant whose uses of the day are over, for `ksctl status`.
    #[must_use]
    pub fn exhausted(&self) -> Vec<String> {
        let day = today();
        let line = |known: &Known| {
            let ceiling = known.ceiling?;
            let over = known.meter.used_on(day) >= ceiling;
            over.then(|| {
                let Known { place, client, .. } = known;
                format!(
                    "{place}: client \"{client}\" has used all {ceiling} uses of the day; the grant gives nothing until \
                     midnight UTC"
                )
            })
        };
        let mut lines: Vec<_> = lock(&self.inside).by_id.values().filter_map(line).collect();
        lines.sort();
        lines
    }
}

/// What is guarded is whole after every statement, so a panic elsewhere while it was held leaves nothing broken.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn today() -> u64 {
    Moment::now().day
}

/// What a grant is about; see [`MeterId`].
fn about(client: &str, grant: &Grant, number: u32) -> Option<MeterId> {
    let keys: Vec<_> = grant.keys.iter().map(ToString::to_string).collect();
    let rights: Vec<_> = grant.allow.iter().map(|right| right.name()).collect();
    // JSON: no text can pass for two.
    let text = serde_json::to_vec(&(client, keys, rights, number)).ok()?;
    tls::sha256(&text)
}

#[cfg(test)]
mod tests;
