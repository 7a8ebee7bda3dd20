#![doc = include_str!("../README.md")]

mod alarm;
mod aws_lc;
mod backend;
mod calibrate;
mod class;
mod der;
mod engine;
mod error;
mod job;
mod key;
mod key_exchange;
mod key_table;
mod keystore;
mod parts;
mod pem;
#[cfg(feature = "pkcs11")]
pub mod pkcs11;
mod point;
mod prove;
#[cfg(feature = "pkcs11")]
mod public;
mod quarantine;
mod simd;
mod single;
pub mod speed;
mod verify;

pub use alarm::{Alarm, Alarms, Check, MAX_ALARMS};
pub use backend::Backend;
pub use calibrate::{Cost, CostTable, MAX_FILL};
pub use class::{Class, KeyType};
pub use engine::{Counters, Engine, EngineChoice, EngineConfig};
pub use error::{EngineError, JobError, KeyError, KeyFileError, KeyFileProblem};
pub use job::{Digest, Hash, Job, Operation};
pub use key::{Key, KeyRules, ski_of};
pub use key_exchange::{KeyExchange, Prf, Seed};
pub use key_table::{KeyIndex, KeyTable, WARMED_AT_ONCE};
pub use keystore::{CERTIFICATE_ENDINGS, LoadRules, LoadedKey, load_directory, load_file};
pub use point::PointCurve;
pub use prove::{PROOF_OPERATIONS, ProofError};
pub use quarantine::Trust;
pub use simd::Lanes;
pub use single::Single;
pub use verify::VerifyRate;
