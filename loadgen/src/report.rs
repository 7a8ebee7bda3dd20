//! The result of a run: as a document for programs, as a page for people, and as files in a directory.

mod document;
mod files;
mod text;
mod timestamp;

pub use document::{Document, SCHEMA};
pub use files::{check_directory, write_files};
pub use text::page;
