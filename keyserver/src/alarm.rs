//! Tells the operator of results that failed their check: this machine computes wrongly.
//!
//! The engine withholds such a result and does the operation again, so no client sees anything, and it
//! keeps word of it until somebody asks. The control thread asks once a second. The engine keeps
//! sixteen events at most, so a machine that fails all the time writes seventeen lines a second, and
//! not more. The count goes on in `/metrics` and in `ksctl status`.
//!
//! What erred is in quarantine from then on. A class that even single operations failed is refused; once a minute
//! it is proved again, and goes on with single operations if they are right.

use std::sync::Arc;

use accel::{Class, Engine, Trust};
use keyless_protocol::info::ski_to_hex;

use crate::limits;
use crate::state::ServerState;

/// Logs what failed since the last call, a line an event.
pub(crate) fn report(engine: &Engine) {
    let alarms = engine.take_alarms();
    for alarm in &alarms.events {
        tracing::error!(
            class = alarm.class.name(),
            operation = ?alarm.operation,
            ski = ski_to_hex(&alarm.ski),
            backend = alarm.backend,
            check = %alarm.check,
            redone = alarm.redone,
            "a result failed its check and was withheld: this machine computes wrongly, take it out of service"
        );
    }
    if alarms.more > 0 {
        tracing::error!(more = alarms.more, "further results failed their check");
    }
}

/// Reports once a second, for as long as it is awaited.
pub(crate) async fn watch(state: &ServerState) -> ! {
    let mut turns = tokio::time::interval(limits::ALARM_INTERVAL);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut known = Class::ALL.map(|_| Trust::Trusted);
    let mut hung = [false; 3];
    for turn in 1_u32.. {
        turns.tick().await;
        report(state.engine());
        note_quarantine(state.engine(), &mut known);
        note_hung_disks(state, &mut hung);
        if turn.is_multiple_of(limits::PROOF_TURNS) && known.contains(&Trust::Refused) {
            prove_refused(state.engine());
        }
    }
    std::future::pending().await
}

/// Logs once that a disk keeps the ledger, the meters or the credentials waiting: their threads cannot, while they wait.
fn note_hung_disks(state: &ServerState, known: &mut [bool; 3]) {
    let [ledger, meters, credentials] = [
        state.ledger.is_hung(),
        state.meters.health().is_hung(),
        state.credentials.is_hung(),
    ];
    let [knew_ledger, knew_meters, knew_credentials] =
        std::mem::replace(known, [ledger, meters, credentials]);
    if ledger && !knew_ledger {
        tracing::error!(
            alarm = "ledger_unwritable",
            "the disk of the ledger does not answer: nothing is decrypted until it does; signing goes on"
        );
    }
    if meters && !knew_meters {
        tracing::error!(
            alarm = "meters_unwritable",
            "the disk of [admin] state does not answer: grants with `daily` give nothing more until it does; others go on"
        );
    }
    if credentials && !knew_credentials {
        tracing::error!(
            alarm = "credentials_unwritable",
            "the disk of [admin] state does not answer: no delegated credential is issued until it does; signing goes on"
        );
    }
}

/// Logs each class that is believed more or less than it was.
fn note_quarantine(engine: &Engine, known: &mut [Trust; Class::ALL.len()]) {
    for (class, known) in Class::ALL.into_iter().zip(known) {
        let trust = engine.trust(class);
        if trust == *known {
            continue;
        }
        *known = trust;
        let class = class.name();
        match trust {
            Trust::Trusted => tracing::warn!(class, "released: every backend is used again"),
            Trust::Single => tracing::error!(
                class,
                "in quarantine: operations run one by one, and every result is verified, until `ksctl engine \
                 release`"
            ),
            Trust::Refused => tracing::error!(
                class,
                "in quarantine: single operations erred, so none is computed; they are proved again once a minute"
            ),
        }
    }
}

/// Proves the classes that are refused, on a thread of its own: a proof may take a second.
fn prove_refused(engine: &Arc<Engine>) {
    let engine = Arc::clone(engine);
    let proof = move || {
        for class in Class::ALL {
            engine.try_single(class);
        }
    };
    let spawned = std::thread::Builder::new()
        .name("proof".to_owned())
        .spawn(proof);
    if let Err(error) = spawned {
        tracing::error!(%error, "no thread to prove the engine with; again in a minute");
    }
}
