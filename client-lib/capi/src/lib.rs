//! The C interface of the client library: see the README of this folder and the header.
//!
//! | module | what |
//! |---|---|
//! | [`api`] | the functions of the header: pointers are checked, panics stopped, safe code called |
//! | [`types`] | the types of the header |
//! | [`completions`] | results of submitted calls, and the descriptor that tells of them |

pub mod api;
mod completions;
mod status;
pub mod types;
