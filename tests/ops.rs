//! What the people who run the server rely on: the units and the example in `systemd/`, and the
//! daemon's behaviour towards a service manager.
//!
//! | module | shows that |
//! |---|---|
//! | [`units`] | systemd accepts the units, the sandbox is as tight as promised, `keyserver check` accepts the example |
//! | [`service`] | readiness, reload, watchdog and stop are reported; a socket passed by systemd is served |
//! | [`sandbox`] | the daemon works under exactly the system calls that the unit allows, io_uring included |
//!
//! The programs of systemd are used where they are; where they are not, the test says so by name,
//! and fails in continuous integration.

#[cfg(test)]
#[path = "ops/client.rs"]
mod client;
#[cfg(test)]
#[path = "ops/sandbox.rs"]
mod sandbox;
#[cfg(test)]
#[path = "ops/service.rs"]
mod service;
#[cfg(test)]
#[path = "ops/units.rs"]
mod units;
