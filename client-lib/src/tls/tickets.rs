//! Session tickets for rustls servers that all edges of a certificate can resume.
//!
//! ```text
//!   handshake ── session ──▶ SharedTickets ── name[16] nonce[12] ciphertext tag[16] ──▶ ticket
//!                                 ▲ keys of the running epoch, the next and two old ones
//!                            one thread, every `refresh` ── 0x46 ──▶ key server
//!
//!   handshake ── session ──▶ SealedTickets ── 0x21 ──▶ key server ── sealed ──▶ ticket
//! ```

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock, Weak};
use std::thread;
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use keyless_protocol::ErrorCode;
use keyless_protocol::tickets::{NAME_LEN, TicketKeys};
use rustls::server::ProducesTickets;

use crate::blocking::Client;
use crate::error::Error;
use crate::key::KeyId;
use crate::operation::Operation;

/// Epochs whose tickets are still opened after they have ended, and that are handed out before they begin.
const KEPT: u64 = 2;
const EARLY: u64 = 1;

/// What clients are told. A ticket that is made in the last second of an epoch is opened for two more.
const LIFETIME_SECONDS: u32 = 2 * 3600;

/// How soon a failed refresh is tried again, where `refresh` is longer.
const RETRY: Duration = Duration::from_secs(5);

/// Session tickets under keys that the key server derives for all edges of a certificate alike: a session that began at
/// one edge is resumed at another, or at the same one after a restart.
///
/// A thread asks for the keys again every `refresh`. While no key server can be reached, the keys go on for as long as their
/// epochs do: at least an hour. When the server refuses them (an operator disabled the key, blocked this edge, sealed the
/// server), or hands out others (an epoch was revoked), the old ones are forgotten at the next refresh: so `refresh` is how
/// long a revocation takes. Keys are wiped when they are forgotten, and when this is dropped.
///
/// Without keys no tickets are made and none are opened: clients then shake hands in full.
///
/// ```no_run
/// use std::time::Duration;
/// use keyserver_client::{KeyId, SharedTickets, TlsIdentity, blocking::Client};
///
/// # fn example(mut config: rustls::ServerConfig) -> Result<(), Box<dyn std::error::Error>> {
/// let identity = TlsIdentity::from_files("ca.pem", "edge-1.pem", "edge-1-key.pem")?;
/// let client = Client::builder("keys.internal", identity).server("keys.internal:2407").build()?;
/// let key = KeyId::from_certificate(&std::fs::read("shop.pem")?)?;
/// config.ticketer = SharedTickets::start(client, key, Duration::from_secs(10))?;
/// # Ok(())
/// # }
/// ```
pub struct SharedTickets {
    held: RwLock<Option<Held>>,
    ended: Arc<Ended>,
}

/// Told when the tickets are dropped, so that the thread does not wait for its next turn.
#[derive(Default)]
struct Ended {
    yes: Mutex<bool>,
    told: Condvar,
}

/// The keys in use.
struct Held {
    /// When they came, and what the server's clock said.
    since: Instant,
    now: u64,
    epoch_seconds: u64,
    keys: Vec<Sealer>,
}

/// One epoch's key.
struct Sealer {
    epoch: u64,
    name: [u8; NAME_LEN],
    key: LessSafeKey,
}

impl fmt::Debug for SharedTickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedTickets").finish_non_exhaustive()
    }
}

impl Held {
    fn new(answer: &TicketKeys, since: Instant) -> Option<Self> {
        let sealer = |key: &keyless_protocol::tickets::EpochKey| {
            let unbound = UnboundKey::new(&AES_256_GCM, &key.key).ok()?;
            Some(Sealer {
                epoch: key.epoch,
                name: key.name,
                key: LessSafeKey::new(unbound),
            })
        };
        Some(Self {
            since,
            now: answer.now,
            epoch_seconds: answer.epoch_seconds.max(1).into(),
            keys: answer.keys.iter().map(sealer).collect::<Option<_>>()?,
        })
    }

    /// The epoch at `now`, by the server's clock: it is the one that all edges share.
    fn epoch(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.since).as_secs();
        self.now.saturating_add(elapsed) / self.epoch_seconds
    }

    /// Whether any of the keys is of use at `now`.
    fn is_alive(&self, now: Instant) -> bool {
        let epoch = self.epoch(now);
        (self.keys.iter()).any(|key| key.epoch.saturating_add(KEPT) >= epoch)
    }

    fn seal(&self, session: &[u8], now: Instant) -> Option<Vec<u8>> {
        let epoch = self.epoch(now);
        let sealer = self.keys.iter().find(|sealer| sealer.epoch == epoch)?;
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut ticket = Vec::with_capacity(NAME_LEN + NONCE_LEN + session.len() + 16);
        ticket.extend_from_slice(&sealer.name);
        ticket.extend_from_slice(&nonce);
        let start = ticket.len();
        ticket.extend_from_slice(session);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let body = ticket.get_mut(start..)?;
        let tag = sealer
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(sealer.name), body);
        ticket.extend_from_slice(tag.ok()?.as_ref());
        Some(ticket)
    }

    fn open(&self, ticket: &[u8], now: Instant) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME_LEN>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let epoch = self.epoch(now);
        let good = epoch.saturating_sub(KEPT)..=epoch.saturating_add(EARLY);
        let mut keys = self
            .keys
            .iter()
            .filter(|sealer| good.contains(&sealer.epoch));
        let sealer = keys.find(|sealer| sealer.name == *name)?;
        let mut session = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = sealer
            .key
            .open_in_place(nonce, Aad::from(*name), &mut session);
        let length = opened.ok()?.len();
        session.truncate(length);
        Some(session)
    }
}

/// What a refresh brought.
enum Refresh {
    Keys(Held),
    /// The server says no, and means it.
    Refused(Error),
    /// Nothing is known: the keys there are go on.
    Unknown,
}

impl SharedTickets {
    /// Asks for the keys of the certificate with this key, and again every `refresh`, from a thread of its own that ends when
    /// the tickets are dropped. `refresh` is also how long a revocation takes to reach this edge; 10 s is a good choice.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] when the server refuses at once: it does not grant the right `tickets`, or is no server of ours. A
    /// server that cannot be reached is no error.
    pub fn start(client: Client, key: KeyId, refresh: Duration) -> Result<Arc<Self>, Error> {
        let held = match fetch(&client, &key) {
            Refresh::Keys(held) => Some(held),
            Refresh::Refused(error) => return Err(error),
            Refresh::Unknown => None,
        };
        let tickets = Arc::new(Self {
            held: RwLock::new(held),
            ended: Arc::default(),
        });
        let (weak, ended) = (Arc::downgrade(&tickets), Arc::clone(&tickets.ended));
        thread::Builder::new()
            .name("ticket-keys".to_owned())
            .spawn(move || keep_fresh(&weak, &ended, &client, &key, refresh))
            .map_err(|error| Error::network("starting a thread for ticket keys", error))?;
        Ok(tickets)
    }

    /// Whether there are keys now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.as_ref()
            .is_some_and(|held| held.is_alive(Instant::now()))
    }

    fn take(&self, refresh: Refresh) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        match refresh {
            Refresh::Keys(keys) => *held = Some(keys),
            Refresh::Refused(_) => *held = None,
            Refresh::Unknown => {
                held.take_if(|held| !held.is_alive(Instant::now()));
            }
        }
    }
}

impl Drop for SharedTickets {
    fn drop(&mut self) {
        *self
            .ended
            .yes
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = true;
        self.ended.told.notify_all();
    }
}

fn keep_fresh(
    tickets: &Weak<SharedTickets>,
    ended: &Ended,
    client: &Client,
    key: &KeyId,
    refresh: Duration,
) {
    let mut wait = refresh;
    loop {
        let yes = ended.yes.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = ended.told.wait_timeout_while(yes, wait, |ended| !*ended);
        drop(waited);
        // Not held while the server is asked, so that a drop does not wait for it.
        if tickets.strong_count() == 0 {
            return;
        }
        let outcome = fetch(client, key);
        wait = match outcome {
            Refresh::Keys(_) => refresh,
            Refresh::Refused(_) | Refresh::Unknown => refresh.min(RETRY),
        };
        match tickets.upgrade() {
            Some(tickets) => tickets.take(outcome),
            None => return,
        }
    }
}

fn fetch(client: &Client, key: &KeyId) -> Refresh {
    let asked = Instant::now();
    match client.ticket_keys(key) {
        // Counted from before the question: the server's clock was read later.
        Ok(answer) => Held::new(&answer, asked).map_or(Refresh::Unknown, Refresh::Keys),
        Err(error @ Error::Refused(code)) if is_final(code) => Refresh::Refused(error),
        Err(_) => Refresh::Unknown,
    }
}

/// Refusals that somebody meant.
fn is_final(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::Denied
            | ErrorCode::KeyNotFound
            | ErrorCode::KeyDisabled
            | ErrorCode::Sealed
            | ErrorCode::BadOpcode
    )
}

impl ProducesTickets for SharedTickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME_SECONDS
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.as_ref()?.seal(plain, Instant::now())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.as_ref()?.open(cipher, Instant::now())
    }
}

/// Session tickets that the key server seals and opens itself, for edges that should not hold the keys.
///
/// rustls makes and opens tickets in the middle of a handshake and cannot await, so each costs the thread that runs it a round
/// trip, as a signature does, and never more than the client's deadline: see [`crate::RemoteKey`] on where to run handshakes.
/// A full handshake of TLS 1.3 makes two tickets, unless `send_tls13_tickets` says otherwise: 1 is enough here. A revocation counts
/// at once. While no key server can be reached, clients shake hands in full, which then fails for want of a signature.
#[derive(Clone, Debug)]
pub struct SealedTickets {
    client: Client,
    key: KeyId,
}

impl SealedTickets {
    /// Tickets for the certificate with this key. Nothing is asked of the server yet.
    #[must_use]
    pub fn new(client: Client, key: KeyId) -> Arc<Self> {
        Arc::new(Self { client, key })
    }
}

impl ProducesTickets for SealedTickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME_SECONDS
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.client.call(Operation::seal(&self.key, plain)).ok()
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.client.call(Operation::unseal(&self.key, cipher)).ok()
    }
}

#[cfg(test)]
mod tests {
    use keyless_protocol::tickets::EpochKey;

    use super::*;

    const HOUR: u64 = 3600;

    /// Keys as a server hands them out at the begin of epoch 1000.
    fn held(since: Instant) -> Held {
        let key = |epoch: u64| EpochKey {
            epoch,
            name: [u8::try_from(epoch - 990).unwrap(); NAME_LEN],
            key: [u8::try_from(epoch - 900).unwrap(); 32],
        };
        let answer = TicketKeys {
            now: 1000 * HOUR,
            epoch_seconds: 3600,
            keys: (998..=1001).rev().map(key).collect(),
        };
        Held::new(&answer, since).unwrap()
    }

    #[test]
    fn a_ticket_lives_for_two_hours_after_its_epoch() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let held = held(start);
        let ticket = held.seal(b"a session", at(10)).unwrap();
        assert_eq!(ticket[..NAME_LEN], [10; NAME_LEN]);
        for (seconds, alive) in [(10, true), (3 * HOUR - 1, true), (3 * HOUR, false)] {
            let opened = held.open(&ticket, at(seconds));
            assert_eq!(opened.as_deref() == Some(b"a session"), alive, "{seconds}");
        }
        for byte in 0..ticket.len() {
            let mut bad = ticket.clone();
            bad[byte] ^= 1;
            assert_eq!(held.open(&bad, at(10)), None, "{byte}");
            assert_eq!(held.open(&ticket[..byte], at(10)), None, "{byte}");
        }
    }

    #[test]
    fn an_outage_is_lived_through_for_as_long_as_the_epochs_last() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let held = held(start);
        // The next epoch was handed out early, so an outage of up to two hours is not seen.
        let last = held.seal(b"x", at(2 * HOUR - 1)).unwrap();
        assert_eq!(last[..NAME_LEN], [11; NAME_LEN]);
        assert_eq!(held.seal(b"x", at(2 * HOUR)), None);
        assert!(held.is_alive(at(4 * HOUR - 1)) && !held.is_alive(at(4 * HOUR)));
        assert!(held.open(&last, at(4 * HOUR - 1)).is_some());
        assert!(held.open(&last, at(4 * HOUR)).is_none());
    }

    #[test]
    fn an_epoch_at_the_end_of_time_does_no_harm() {
        let start = Instant::now();
        let mut held = held(start);
        held.keys.iter_mut().for_each(|key| key.epoch = u64::MAX);
        assert!(held.is_alive(start));
        assert_eq!(held.seal(b"x", start), None);
    }

    #[test]
    fn another_edge_with_the_same_keys_resumes_and_one_with_others_does_not() {
        let start = Instant::now();
        let ticket = held(start).seal(b"x", start).unwrap();
        assert!(held(start).open(&ticket, start).is_some());
        let mut other = held(start);
        other.keys.iter_mut().for_each(|key| key.name[0] ^= 1);
        assert!(other.open(&ticket, start).is_none());
    }
}
