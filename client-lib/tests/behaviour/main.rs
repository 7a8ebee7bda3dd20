//! How the client behaves against servers that are right, wrong, slow or gone.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    unreachable_pub,
    reason = "a test: failures are panics, patterns of bytes may wrap, doc tests share `support`"
)]

mod blocking;
mod faults;
mod load;
mod pool;
mod stock;
mod support;
mod wire;
