//! Configuration: TOML in, [`Config`] out, and errors that name the file, the line, what was meant
//! and the fix.

mod build;
pub mod checked;
mod circumstances;
mod clients;
mod conditions;
mod date;
mod keys;
mod paths;
mod pins;
mod place;
mod problem;
mod raw;
mod tokens;
mod units;

pub use checked::{
    Accel, Admin, Client, Config, EngineChoice, Grant, Io, IoBackend, KeyLocation, KeyPattern,
    KeySource, Limits, Listen, Match, Metrics, Shutdown, Tls, TlsVersion,
};
pub use date::Date;
pub use place::Place;
pub use problem::{ConfigError, Problem};
pub use tokens::Pkcs11;
#[cfg(feature = "pkcs11")]
pub use tokens::TokenKeySource;
