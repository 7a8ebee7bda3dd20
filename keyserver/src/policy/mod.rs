//! Who may do what with which key. Default deny.
//!
//! A peer's certificate becomes a [`PeerIdentity`]; [`Policy::client`] names the `[[clients]]`
//! entry it fits, once per connection; [`admit`] decides about each request and is the only place
//! that can make an [`Admitted`], which is the only thing `dispatch` accepts. "Forgot to check"
//! therefore does not compile.

pub mod admitted;
pub mod conditions;
pub mod identity;
pub mod listing;
pub mod rights;
pub mod rules;

pub use admitted::{Admitted, Refusal, RefusalReason, Signs, admit};
pub use conditions::{Conditions, ServerName};
pub use identity::PeerIdentity;
pub use listing::key_list;
pub use rights::{Right, Rights};
pub use rules::{ClientId, Policy};
