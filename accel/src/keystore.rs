//! Key files: which are taken, which are refused, and why.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::num::NonZero;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

use crate::error::{KeyError, KeyFileError, KeyFileProblem};
use crate::key::{Key, KeyRules, ski_of};
use crate::pem;

/// Longest key file in bytes. An RSA-8192 key in PEM is 6.4 KB, an ML-DSA-87 key 7 KB; this leaves room for a
/// certificate chain beside it.
const MAX_KEY_FILE: u64 = 64 * 1024;
/// Longest certificate file in bytes that is compared with a key.
const MAX_CERTIFICATE_FILE: u64 = 1024 * 1024;
/// The rights of group and others.
const OTHERS: u32 = 0o077;
/// Endings of certificate files that are looked for beside `label.key`.
pub const CERTIFICATE_ENDINGS: [&str; 3] = ["crt", "pem", "cer"];

/// What is tolerated in key files. The default tolerates nothing unusual.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadRules {
    /// Labels of RSA keys whose public exponent may be another than 65537.
    pub allow_exponents: BTreeSet<String>,
    /// Labels of keys whose file others than its owner may have rights to.
    pub allow_weak_permissions: BTreeSet<String>,
}

/// A key and where it came from.
#[derive(Clone, Debug)]
pub struct LoadedKey {
    /// The file's stem: `shop` for `shop.key`.
    pub label: String,
    /// The file.
    pub path: PathBuf,
    /// The key.
    pub key: Arc<Key>,
}

/// Loads one key file.
///
/// The file is PEM or DER; PKCS#8, PKCS#1 or SEC 1. If it also holds a certificate, or one lies
/// beside it under the same stem (`.crt`, `.pem`, `.cer`), that must be for this key.
///
/// # Errors
///
/// [`KeyFileError`] names the file, what is wrong with it and what to do.
pub fn load_file(path: &Path, rules: &LoadRules) -> Result<LoadedKey, KeyFileError> {
    read_key(path, rules).map_err(|problem| KeyFileError {
        path: path.to_owned(),
        problem,
    })
}

/// Loads every `*.key` file of a directory, in the order of their names. Directories in it are not
/// entered. Large directories are read by several threads at once.
///
/// # Errors
///
/// [`KeyFileError`] for the directory if it cannot be listed, else for the first bad file by name.
pub fn load_directory(directory: &Path, rules: &LoadRules) -> Result<Vec<LoadedKey>, KeyFileError> {
    let paths = key_paths(directory).map_err(|error| KeyFileError {
        path: directory.to_owned(),
        problem: KeyFileProblem::Read(error),
    })?;
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    // Checking an RSA key takes some 100 us, starting a thread some 20: below 64 keys it is not worth it.
    let share = paths.len().div_ceil(threads).max(64);
    thread::scope(|scope| {
        let workers: Vec<_> = paths
            .chunks(share)
            .map(|chunk| {
                scope.spawn(move || chunk.iter().map(|path| load_file(path, rules)).collect())
            })
            .collect();
        let mut keys = Vec::with_capacity(paths.len());
        for worker in workers {
            let loaded: Result<Vec<_>, _> = worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            keys.append(&mut loaded?);
        }
        Ok(keys)
    })
}

fn key_paths(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension() == Some(OsStr::new("key")) && !path.is_dir() {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

fn read_key(path: &Path, rules: &LoadRules) -> Result<LoadedKey, KeyFileProblem> {
    let label = path
        .file_stem()
        .and_then(OsStr::to_str)
        .ok_or(KeyFileProblem::Label)?
        .to_owned();
    let weak_permissions = rules.allow_weak_permissions.contains(&label);
    let content = read_limited(path, MAX_KEY_FILE, !weak_permissions)?;
    let key_rules = KeyRules {
        any_exponent: rules.allow_exponents.contains(&label),
    };
    let key = Key::from_bytes_with(&content, key_rules).map_err(KeyFileProblem::Key)?;
    check_certificates(path, &content, &key)?;
    Ok(LoadedKey {
        label,
        path: path.to_owned(),
        key: Arc::new(key),
    })
}

/// Reads a whole file into a buffer that is wiped. Looks before it opens, because opening a pipe waits
/// for its other end; and again at what was opened, because the name may by then lead elsewhere.
fn read_limited(
    path: &Path,
    limit: u64,
    private: bool,
) -> Result<Zeroizing<Vec<u8>>, KeyFileProblem> {
    if !fs::metadata(path).map_err(KeyFileProblem::Read)?.is_file() {
        return Err(KeyFileProblem::NotAFile);
    }
    let file = File::open(path).map_err(KeyFileProblem::Read)?;
    let metadata = file.metadata().map_err(KeyFileProblem::Read)?;
    if !metadata.is_file() {
        return Err(KeyFileProblem::NotAFile);
    }
    let mode = metadata.mode() & 0o7777;
    if private && mode & OTHERS != 0 {
        return Err(KeyFileProblem::Permissions { mode });
    }
    let too_large = |bytes| KeyFileProblem::TooLarge { bytes, limit };
    if metadata.len() > limit {
        return Err(too_large(metadata.len()));
    }
    // Room for the limit and one byte from the start: growing would leave an unwiped copy behind.
    let room = usize::try_from(limit + 1).unwrap_or(usize::MAX);
    let mut content = Zeroizing::new(Vec::with_capacity(room));
    file.take(limit + 1)
        .read_to_end(&mut content)
        .map_err(KeyFileProblem::Read)?;
    let length = u64::try_from(content.len()).unwrap_or(u64::MAX);
    if length > limit {
        return Err(too_large(length));
    }
    Ok(content)
}

/// Compares the key with the certificate in its own file and those beside it.
fn check_certificates(path: &Path, content: &[u8], key: &Key) -> Result<(), KeyFileProblem> {
    if let Some(certificate) = first_certificate(content) {
        compare(path, certificate.as_deref(), key)?;
    }
    for ending in CERTIFICATE_ENDINGS {
        let beside = path.with_extension(ending);
        if beside == path || !beside.exists() {
            continue;
        }
        let content =
            read_limited(&beside, MAX_CERTIFICATE_FILE, false).map_err(|_| unreadable(&beside))?;
        match first_certificate(&content) {
            Some(certificate) => compare(&beside, certificate.as_deref(), key)?,
            // A .pem file may hold something else altogether, the other two may not.
            None if ending == "pem" => {}
            None => compare(&beside, Some(&content), key)?,
        }
    }
    Ok(())
}

/// The first certificate in a PEM text, which is the key's own; the others are its issuers. `None` when
/// there is none, `Some(None)` when the text is broken.
fn first_certificate(content: &[u8]) -> Option<Option<Zeroizing<Vec<u8>>>> {
    if !pem::looks_like_pem(content) {
        return None;
    }
    match pem::sections(content) {
        Ok(sections) => sections
            .into_iter()
            .find(|section| section.label == "CERTIFICATE")
            .map(|section| Some(section.der)),
        Err(KeyError::Encrypted) => None,
        Err(_) => Some(None),
    }
}

fn compare(file: &Path, certificate: Option<&Vec<u8>>, key: &Key) -> Result<(), KeyFileProblem> {
    let (_, parsed) = certificate
        .and_then(|der| X509Certificate::from_der(der).ok())
        .ok_or_else(|| unreadable(file))?;
    if ski_of(&parsed.public_key().subject_public_key.data) == key.ski() {
        Ok(())
    } else {
        Err(KeyFileProblem::CertificateMismatch {
            certificate: file.to_owned(),
        })
    }
}

fn unreadable(certificate: &Path) -> KeyFileProblem {
    KeyFileProblem::CertificateUnreadable {
        certificate: certificate.to_owned(),
    }
}
