#![doc = include_str!("../docs/lanes.md")]

#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;
pub mod token;
pub mod vector;

pub use token::{Ifma, Path, Portable};
pub use vector::{LANES, Row};
