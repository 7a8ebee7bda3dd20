//! How many jobs of a class a free crypto thread takes.

use std::time::Duration;

use accel::{Class, CostTable};

use crate::limits;

/// Time that a turn of single operations may take. Longer, and a cheaper class that arrives
/// meanwhile waits for jobs that another thread could have had; shorter, and the queue's lock is
/// taken for every 10 us signature.
const SINGLES_TURN: Duration = Duration::from_micros(100);

/// A class whose full turn takes no longer may be slipped into a long batch of another.
const INTERLUDE_MAX: Duration = Duration::from_micros(200);

/// Whether a turn of this class is short enough to make a long batch wait for it.
pub(crate) fn is_brief(costs: &CostTable, class: Class) -> bool {
    let cost = costs.class(class);
    let jobs = u32::try_from(batch_size(costs, class, limits::BATCH_MAX)).unwrap_or(u32::MAX);
    let batch = cost.batch.map_or(Duration::MAX, |[.., full]| full);
    cost.single.saturating_mul(jobs).min(batch) <= INTERLUDE_MAX
}

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
