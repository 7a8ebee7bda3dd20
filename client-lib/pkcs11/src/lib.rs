#![doc = include_str!("../README.md")]

mod api;
mod attribute;
mod certificate;
mod config;
mod der;
mod failure;
mod library;
mod log;
mod mechanism;
mod object;
mod padding;
mod public_key;
mod remote;
mod session;
