//! The C interface: every entry checks pointers, stops panics, and calls safe code.
//!
//! | module | entries |
//! |---|---|
//! | [`boundary`] | what every entry goes through |
//! | [`list`] | the function lists and interfaces |
//! | [`general`] | initialising; slots, tokens, mechanisms |
//! | [`sessions`] | sessions, login, objects |
//! | [`operations`] | signing and decrypting |
//!
//! The rules of the standard are the safety contract: a pointer is null or points to as many
//! elements as the argument beside it says, for the duration of the call, and nobody else writes
//! there meanwhile. What can be checked, null and absurd lengths, is.

#![expect(
    unsafe_code,
    reason = "C hands over pointers; each is looked at here and nowhere else"
)]

pub(crate) mod boundary;
pub(crate) mod general;
pub(crate) mod list;
pub(crate) mod operations;
pub(crate) mod sessions;
