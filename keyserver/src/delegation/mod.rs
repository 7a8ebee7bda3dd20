//! Delegated credentials (RFC 9345): a key of the edge's own that serves a certificate for an hour.
//!
//! One operation of this server an hour, instead of one a handshake, and an edge that goes on while no key
//! server can be reached: that is what an edge gains. What its owner gives away is control: whoever has the credential's
//! key serves the site until the credential ends, whatever is stopped here. So it is a right of its own, short by default,
//! counted, and `ksctl status` says when the last one ends.
//!
//! | module | its one noun |
//! |---|---|
//! | `certificate` | which certificates may delegate |
//! | `request` | what is checked before one is signed |
//! | `outstanding` | the credentials that are about |
//! | `file` | the same on disk |
//! | `keeper` | the thread that writes them down before they are released |

pub mod certificate;
mod file;
mod keeper;
pub mod outstanding;
mod request;

pub use certificate::{Certificates, Delegator};
pub(crate) use keeper::Keeper;
pub(crate) use keeper::start as start_keeper;
pub use outstanding::{Outstanding, Reservation};
pub(crate) use request::{Ask, prepare};
