//! How many jobs of a class a free crypto thread takes.

use std::time::Duration;

use accel::{Class, CostTable};

use crate::limits;

/// Time that a turn of single operations may take. Longer, and a cheaper class that arrives
/// meanwhile waits for jobs that another thread could have had; shorter, and the queue's lock is
/// taken for every 10 us signature.
const SINGLES_TURN: Duration = Duration::from_micros(100);

/// As many as share a batch, when a batch is quicker than the same jobs one by one; otherwise as
/// many as fit [`SINGLES_TURN`], and at least one.
///
/// The time of a batch does not depend on how many lanes are filled, so there is nothing to gain
/// from a smaller one.
pub(crate) fn batch_size(costs: &CostTable, class: Class, waiting: usize) -> usize {
    let fill = waiting.clamp(1, limits::BATCH_MAX);
    if costs.prefers_batch(class, fill) {
        return fill;
    }
    let single = costs.class(class).single.as_nanos().max(1);
    let turn = usize::try_from(SINGLES_TURN.as_nanos() / single).unwrap_or(usize::MAX);
    turn.clamp(1, fill)
}
