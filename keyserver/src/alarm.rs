//! Tells the operator of results that failed their check: this machine computes wrongly.
//!
//! The engine withholds such a result and does the operation again, so no client sees anything, and it
//! keeps word of it until somebody asks. The control thread asks once a second. The engine keeps
//! sixteen events at most, so a machine that fails all the time writes seventeen lines a second, and
//! not more. The count goes on in `/metrics` and in `ksctl status`.

use accel::Engine;
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
    loop {
        turns.tick().await;
        report(state.engine());
    }
}
