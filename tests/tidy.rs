//! Checks on the tree itself: an ordinary test over the source files, so that the architecture on
//! paper and the architecture in the code cannot drift apart.
//!
//! | module | keeps true |
//! |---|---|
//! | [`imports`] | the import table of `ARCHITECTURE.md`, and the same table in `deny.toml` |
//! | [`doors`] | which files may name a crate that has one door; where `unsafe` may stand |
//! | [`sources`] | every source file belongs to a target; every fuzz target has a corpus |
//! | [`lengths`] | files and lines stay short |
//! | [`leftovers`] | nothing unfinished, no path of somebody's machine |
//! | [`markdown`] | links and anchors resolve; every folder says what it is for |
//! | [`programs`] | the programs that tests start are built by `tests/run` |
//! | [`promises`] | the tests that `docs/security.md` names for its promises exist |
//!
//! Each check is a function from text to findings, and each is shown a bad sample that it must
//! find: a check that cannot fail checks nothing.

#[cfg(test)]
#[path = "tidy/doors.rs"]
mod doors;
#[cfg(test)]
#[path = "tidy/imports.rs"]
mod imports;
#[cfg(test)]
#[path = "tidy/leftovers.rs"]
mod leftovers;
#[cfg(test)]
#[path = "tidy/lengths.rs"]
mod lengths;
#[cfg(test)]
#[path = "tidy/lexer.rs"]
mod lexer;
#[cfg(test)]
#[path = "tidy/markdown.rs"]
mod markdown;
#[cfg(test)]
#[path = "tidy/programs.rs"]
mod programs;
#[cfg(test)]
#[path = "tidy/promises.rs"]
mod promises;
#[cfg(test)]
#[path = "tidy/sources.rs"]
mod sources;
#[cfg(test)]
#[path = "tidy/tree.rs"]
mod tree;
