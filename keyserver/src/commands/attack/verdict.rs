//! What became of an attack.

/// What became of an attack, and how one can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The server held.
    Held(String),
    /// The attack worked.
    Broken(String),
    /// It could not be tried.
    Skipped(String),
}

impl Verdict {
    pub(super) fn held(why: impl Into<String>) -> Self {
        Self::Held(why.into())
    }

    pub(super) fn broken(why: impl Into<String>) -> Self {
        Self::Broken(why.into())
    }

    pub(super) fn skipped(why: impl Into<String>) -> Self {
        Self::Skipped(why.into())
    }

    /// The word for it, in text and JSON.
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::Held(_) => "held",
            Self::Broken(_) => "broken",
            Self::Skipped(_) => "skipped",
        }
    }

    /// How one can tell.
    pub(super) fn why(&self) -> &str {
        match self {
            Self::Held(why) | Self::Broken(why) | Self::Skipped(why) => why,
        }
    }
}
