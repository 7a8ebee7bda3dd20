//! Who may do what with which key. Default deny.
//!
//! A peer's certificate becomes a [`PeerIdentity`]; [`Policy::client`] names the `[[clients]]`
//! entry it fits, once per connection; [`admit`] decides about each request and is the only place
//! that can make an [`Admitted`], which is the only thing `dispatch` accepts. "Forgot to check"
//! therefore does not compile.
//!
//! | module | its one noun |
//! |---|---|
//! | [`rights`] | what can be allowed, and which operation needs it |
//! | [`purpose`] | what a key is for |
//! | [`identity`] | who a peer is |
//! | [`ask`] | a question: who, which key, what for, under which circumstances |
//! | [`grant`] | a grant, and whether it covers a question |
//! | [`conditions`], [`prefix`], [`window`], [`meter`] | what a grant may demand of handshakes, addresses, times, numbers |
//! | [`latest_day`] | which rights have ended by their date, whatever the clock says later |
//! | [`unmet`] | the thing that does not hold |
//! | [`rules`] | all grants: the answer |
//! | [`admitted`] | the proof of a yes |
//! | [`listing`] | what a client is told of its own rights |
//!
//! Decided when a request arrives. What can be taken back at a moment's notice, an operator's stop, is looked at again
//! when a crypto thread takes the job and before its result leaves ([`crate::stops`]). The rest is not: between admission
//! and use lie at most `job_deadline` (2 s by default), and days, hours and reloads have no sharper edge than that.

pub mod admitted;
pub mod ask;
pub mod conditions;
mod cover;
pub mod grant;
pub mod identity;
pub mod latest_day;
pub mod listing;
mod lookup;
pub mod meter;
pub mod prefix;
pub mod purpose;
pub mod rights;
pub mod rules;
pub mod unmet;
mod warnings;
pub mod window;

pub use admitted::{Admitted, Refusal, RefusalReason, Signs, admit};
pub use ask::{Ask, Facts, Handshake, Peer};
pub use conditions::{Conditions, ServerName};
pub use grant::CompiledGrant;
pub use identity::PeerIdentity;
pub use latest_day::LatestDay;
pub use listing::{Page, key_list};
pub use lookup::KeyName;
pub use meter::{Count, Limits, Meter, Rate};
pub use prefix::Prefix;
pub use purpose::{KeyUse, Purpose};
pub use rights::{Right, Rights};
pub use rules::{ClientId, Policy};
pub use unmet::Unmet;
pub use window::{Hours, Moment, Weekday, Window};
