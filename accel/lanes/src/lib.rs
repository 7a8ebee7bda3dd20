#![doc = include_str!("../docs/lanes.md")]

#[cfg(target_arch = "x86_64")]
mod avx512;
mod batch;
mod blocks;
pub mod curve;
mod digits;
mod montgomery;
#[cfg(any(test, feature = "properties"))]
mod oracle;
mod portable;
mod power;
#[cfg(any(test, feature = "properties"))]
pub mod properties;
pub mod rsa;
mod rsa_key;
pub mod token;
pub mod vector;

pub use rsa_key::{Key as RsaKey, Numbers as RsaNumbers, Size as RsaSize};
pub use token::{Ifma, Path, Portable};
pub use vector::{LANES, Row};
