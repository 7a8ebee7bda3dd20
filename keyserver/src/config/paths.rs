//! Paths in the configuration: relative to the main file, or a systemd credential.

use std::cell::RefCell;
use std::path::PathBuf;

use super::problem::Problem;
use super::raw::Value;

/// What a path must lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A file that exists.
    File,
    /// A directory that exists.
    Directory,
    /// A socket that the server makes, in a directory that exists.
    NewSocket,
    /// A directory that the server makes if it is not there.
    NewDirectory,
    /// A directory that exists, for what the server writes.
    State,
}

/// Resolves paths and remembers them, so that [`Self::missing`] can look for them all.
#[derive(Debug)]
pub(super) struct Paths {
    base: PathBuf,
    credentials: Option<PathBuf>,
    seen: RefCell<Vec<(PathBuf, Kind, Problem)>>,
}

impl Paths {
    pub(super) fn new(base: PathBuf, credentials: Option<PathBuf>) -> Self {
        Self {
            base,
            credentials,
            seen: RefCell::default(),
        }
    }

    /// The path that `value` holds.
    pub(super) fn read(&self, value: &Value<'_>, kind: Kind) -> Option<PathBuf> {
        let text = value.string("a path in quotes")?;
        let path = match text.strip_prefix("${") {
            Some(reference) => self.credential(value, reference)?,
            None if text.is_empty() => {
                value.problem(format!("`{}` is empty", value.name()), "give a path");
                return None;
            }
            None => self.base.join(text),
        };
        self.expect(value, path.clone(), kind);
        Some(path)
    }

    /// A path of the configuration, relative to the main file's directory.
    #[cfg(feature = "pkcs11")]
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.base.join(path)
    }

    /// Notes that `path`, which stands somewhere in `value`, must lead to a `kind`.
    pub(super) fn expect(&self, value: &Value<'_>, path: PathBuf, kind: Kind) {
        // Written now, because the place in the file is at hand; used only if the path is missing.
        let problem = value.to_problem(String::new(), String::new());
        self.seen.borrow_mut().push((path, kind, problem));
    }

    fn credential(&self, value: &Value<'_>, reference: &str) -> Option<PathBuf> {
        let name = reference
            .strip_suffix('}')
            .and_then(|inner| inner.strip_prefix("credential:"));
        // systemd allows no more in the name of a credential.
        let plain = |name: &&str| !name.is_empty() && !name.contains(['/', '$']) && *name != "..";
        let Some(name) = name.filter(plain) else {
            value.problem(
                format!("`{}` has a reference that is not understood", value.name()),
                "write ${credential:NAME}, with the NAME of a LoadCredential= line of the unit",
            );
            return None;
        };
        // Without the directory the text is still checked; run then misses the file.
        let directory = self.credentials.clone();
        Some(
            directory
                .unwrap_or_else(|| PathBuf::from("$CREDENTIALS_DIRECTORY"))
                .join(name),
        )
    }

    /// A problem for every path that does not lead to what it should.
    pub(super) fn missing(self) -> impl Iterator<Item = Problem> {
        self.seen
            .into_inner()
            .into_iter()
            .filter_map(|(path, kind, place)| {
                let (what, fix) = fault(&path, kind)?;
                Some(Problem {
                    what,
                    fix: fix.to_owned(),
                    ..place
                })
            })
    }
}

fn fault(path: &std::path::Path, kind: Kind) -> Option<(String, &'static str)> {
    let shown = path.display();
    if path.starts_with("$CREDENTIALS_DIRECTORY") {
        let fix = "start the server through its unit with LoadCredential=, or give a plain path";
        return Some((
            format!("{shown}: there are no credentials, systemd passes them"),
            fix,
        ));
    }
    match (kind, std::fs::metadata(path)) {
        (Kind::File, Ok(found)) if found.is_dir() => {
            Some((format!("{shown} is a directory"), "name one file"))
        }
        (Kind::Directory, Ok(found)) if !found.is_dir() => Some((
            format!("{shown} is not a directory"),
            "use `file = ...` for a single key",
        )),
        (Kind::State, Ok(found)) if !found.is_dir() => {
            Some((format!("{shown} is not a directory"), "name a directory"))
        }
        (Kind::State, Err(error)) => Some((
            format!("{shown} cannot be opened: {error}"),
            "make the directory, owned by the server's user (StateDirectory= of the unit does)",
        )),
        (Kind::File | Kind::Directory | Kind::State, Ok(_)) => None,
        (Kind::File | Kind::Directory, Err(error)) => Some((
            format!("{shown} cannot be opened: {error}"),
            "paths are relative to the directory of the main configuration file; \
             the server's user must be able to reach it",
        )),
        (Kind::NewDirectory, Ok(found)) if !found.is_dir() => Some((
            format!("{shown} is not a directory"),
            "name a directory of its own, or a path where there is nothing yet",
        )),
        (Kind::NewDirectory | Kind::NewSocket, _) => None,
    }
}
