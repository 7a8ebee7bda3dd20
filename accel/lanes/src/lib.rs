#![doc = include_str!("../docs/lanes.md")]

#[cfg(target_arch = "x86_64")]
mod avx512;
mod batch;
mod blocks;
mod digits;
mod montgomery;
#[cfg(test)]
mod oracle;
mod portable;
mod power;
pub mod rsa;
mod rsa_key;
pub mod token;
pub mod vector;

pub use rsa_key::{Key as RsaKey, Numbers as RsaNumbers, Size as RsaSize};
pub use token::{Ifma, Path, Portable};
pub use vector::{LANES, Row};
