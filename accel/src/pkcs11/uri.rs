//! PKCS#11 URIs (RFC 7512): which token, which object, through which module.
//!
//! ```text
//! pkcs11:token=shop;object=www;type=private?module-path=/usr/lib/libx.so&pin-source=credential:hsm-pin
//!        `------ path: all must match -----' `--------------- query: how to get there ---------------'
//! ```
//!
//! Attributes that are not known here are refused, not passed over: one that is misspelt would silently
//! match more than its author meant.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::pin::PinSource;

/// Longest URI in bytes. Token labels have 32, object labels and identifiers a few dozen.
const MAX_LEN: usize = 2048;
const SCHEME: &str = "pkcs11:";

/// A parsed PKCS#11 URI. It never holds a PIN: `pin-value` is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TokenUri {
    token: Option<String>,
    manufacturer: Option<String>,
    model: Option<String>,
    serial: Option<String>,
    slot_id: Option<u64>,
    object: Option<String>,
    id: Option<Vec<u8>>,
    module_path: Option<PathBuf>,
    pin_source: Option<PinSource>,
}

/// Why a text is no URI this crate works with.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UriError {
    /// It does not begin with `pkcs11:`.
    Scheme,
    /// Longer than any URI this crate works with.
    TooLong,
    /// A part between separators is not of the form `name=value`.
    Form,
    /// A `%` that two hexadecimal digits do not follow, or a character that must be written with `%`.
    Encoding {
        /// The attribute it stands in.
        attribute: String,
    },
    /// A value that is not UTF-8, though only `id` may be any bytes.
    Text {
        /// The attribute.
        attribute: String,
    },
    /// An attribute stands in the URI twice.
    Twice {
        /// The attribute.
        attribute: String,
    },
    /// An attribute this crate does not match on.
    Unknown {
        /// The attribute.
        attribute: String,
    },
    /// `pin-value`: a PIN does not belong in a configuration file.
    PinValue,
    /// `type` is something else than `private`.
    Type,
    /// `slot-id` is not a decimal number.
    SlotId,
    /// `module-path` is not an absolute path.
    ModulePath,
    /// `pin-source` is none of `credential:NAME`, `file:/PATH`, `env:NAME`.
    PinSource,
}

impl fmt::Display for UriError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme => f.write_str("it does not begin with `pkcs11:`"),
            Self::TooLong => write!(f, "it is longer than {MAX_LEN} bytes"),
            Self::Form => f.write_str(
                "a part of it is not `name=value`; parts are separated by `;`, and by `&` after the `?`",
            ),
            Self::Encoding { attribute } => write!(
                f,
                "in `{attribute}`, a character is not written as RFC 7512 wants it: use `%` and two \
                 hexadecimal digits, for instance `%20` for a space"
            ),
            Self::Text { attribute } => write!(f, "the value of `{attribute}` is not UTF-8"),
            Self::Twice { attribute } => write!(f, "`{attribute}` stands in it twice"),
            Self::Unknown { attribute } => write!(
                f,
                "`{attribute}` is not supported; use token, manufacturer, model, serial, slot-id, \
                 object, id and type before the `?`, module-path and pin-source after it"
            ),
            Self::PinValue => f.write_str(
                "`pin-value` would put the PIN into a configuration file; name where it is instead: \
                 `pin-source=credential:NAME`, `pin-source=file:/PATH` or `pin-source=env:NAME`",
            ),
            Self::Type => f.write_str("`type` must be `private`: it is a private key that signs"),
            Self::SlotId => f.write_str("`slot-id` is not a decimal number"),
            Self::ModulePath => f.write_str("`module-path` is not an absolute path"),
            Self::PinSource => f.write_str(
                "`pin-source` must be `credential:NAME`, `file:/PATH` or `env:NAME`",
            ),
        }
    }
}

impl Error for UriError {}

impl TokenUri {
    /// A URI for one object of one token, for listings.
    #[must_use]
    pub(super) fn for_object(
        token: &str,
        serial: &str,
        object: &str,
        id: &[u8],
        module: &Path,
    ) -> Self {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Self {
            token: some(token),
            serial: some(serial),
            object: some(object),
            id: (!id.is_empty()).then(|| id.to_vec()),
            module_path: Some(module.to_owned()),
            ..Self::default()
        }
    }

    /// Label of the token.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Manufacturer of the token.
    #[must_use]
    pub fn manufacturer(&self) -> Option<&str> {
        self.manufacturer.as_deref()
    }

    /// Model of the token.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// Serial number of the token.
    #[must_use]
    pub fn serial(&self) -> Option<&str> {
        self.serial.as_deref()
    }

    /// Number of the slot. Some modules number slots anew each time they start.
    #[must_use]
    pub const fn slot_id(&self) -> Option<u64> {
        self.slot_id
    }

    /// Label (`CKA_LABEL`) of the private key.
    #[must_use]
    pub fn object(&self) -> Option<&str> {
        self.object.as_deref()
    }

    /// Identifier (`CKA_ID`) of the private key.
    #[must_use]
    pub fn id(&self) -> Option<&[u8]> {
        self.id.as_deref()
    }

    /// The module to load.
    #[must_use]
    pub fn module_path(&self) -> Option<&Path> {
        self.module_path.as_deref()
    }

    /// Where the PIN is.
    #[must_use]
    pub const fn pin_source(&self) -> Option<&PinSource> {
        self.pin_source.as_ref()
    }

    /// The same URI for another module, for configurations that name the module elsewhere.
    #[must_use]
    pub fn with_module_path(mut self, path: PathBuf) -> Self {
        self.module_path = Some(path);
        self
    }

    fn path_attribute(&mut self, name: &str, value: &str) -> Result<(), UriError> {
        match name {
            "token" => once(&mut self.token, name, text(name, value)?),
            "manufacturer" => once(&mut self.manufacturer, name, text(name, value)?),
            "model" => once(&mut self.model, name, text(name, value)?),
            "serial" => once(&mut self.serial, name, text(name, value)?),
            "object" => once(&mut self.object, name, text(name, value)?),
            "id" => once(&mut self.id, name, decode(name, value)?),
            "slot-id" => {
                let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
                let number = value.parse().ok().filter(|_| digits);
                once(&mut self.slot_id, name, number.ok_or(UriError::SlotId)?)
            }
            "pin-value" => Err(UriError::PinValue),
            _ => Err(unknown(name)),
        }
    }

    fn query_attribute(&mut self, name: &str, value: &str) -> Result<(), UriError> {
        match name {
            "module-path" => {
                let path = PathBuf::from(text(name, value)?);
                if !path.is_absolute() {
                    return Err(UriError::ModulePath);
                }
                once(&mut self.module_path, name, path)
            }
            "pin-source" => {
                let source = text(name, value)?
                    .parse()
                    .map_err(|_| UriError::PinSource)?;
                once(&mut self.pin_source, name, source)
            }
            "pin-value" => Err(UriError::PinValue),
            _ => Err(unknown(name)),
        }
    }
}

impl FromStr for TokenUri {
    type Err = UriError;

    fn from_str(uri: &str) -> Result<Self, UriError> {
        if uri.len() > MAX_LEN {
            return Err(UriError::TooLong);
        }
        let rest = uri.strip_prefix(SCHEME).ok_or(UriError::Scheme)?;
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        let mut parsed = Self::default();
        let mut typed = false;
        for part in path.split(';').filter(|_| !path.is_empty()) {
            match part.split_once('=').ok_or(UriError::Form)? {
                ("type", _) if typed => {
                    return Err(UriError::Twice {
                        attribute: "type".into(),
                    });
                }
                ("type", "private") => typed = true,
                ("type", _) => return Err(UriError::Type),
                (name, value) => parsed.path_attribute(name, value)?,
            }
        }
        for part in query.into_iter().flat_map(|query| query.split('&')) {
            let (name, value) = part.split_once('=').ok_or(UriError::Form)?;
            parsed.query_attribute(name, value)?;
        }
        Ok(parsed)
    }
}

/// Writes the URI with its attributes in a fixed order; parsing it again gives the same URI.
impl fmt::Display for TokenUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SCHEME)?;
        let slot_id = self.slot_id.map(|id| id.to_string());
        let path = [
            ("token", self.token.as_deref()),
            ("manufacturer", self.manufacturer.as_deref()),
            ("model", self.model.as_deref()),
            ("serial", self.serial.as_deref()),
            ("slot-id", slot_id.as_deref()),
            ("object", self.object.as_deref()),
        ];
        let mut path: Vec<_> = path
            .into_iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", encode(value?, ":"))))
            .collect();
        if let Some(id) = &self.id {
            let all: String = id.iter().map(|byte| format!("%{byte:02X}")).collect();
            path.push(format!("id={all}"));
        }
        if self.object.is_some() || self.id.is_some() {
            path.push("type=private".into());
        }
        f.write_str(&path.join(";"))?;
        let module = self.module_path.as_deref().and_then(Path::to_str);
        let source = self.pin_source.as_ref().map(ToString::to_string);
        let query = [("module-path", module), ("pin-source", source.as_deref())];
        let query = query
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        for (separator, (name, value)) in ["?", "&"].into_iter().zip(query) {
            write!(f, "{separator}{name}={}", encode(value, ":/"))?;
        }
        Ok(())
    }
}

fn unknown(name: &str) -> UriError {
    UriError::Unknown {
        attribute: name.to_owned(),
    }
}

/// Sets an attribute that must not have been set before.
fn once<T>(field: &mut Option<T>, name: &str, value: T) -> Result<(), UriError> {
    if field.replace(value).is_some() {
        return Err(UriError::Twice {
            attribute: name.to_owned(),
        });
    }
    Ok(())
}

fn text(name: &str, value: &str) -> Result<String, UriError> {
    String::from_utf8(decode(name, value)?).map_err(|_| UriError::Text {
        attribute: name.to_owned(),
    })
}

/// Takes the percent encoding off. The characters that RFC 7512 lets stand for themselves, beside letters
/// and digits; separators among them have already been cut at.
fn decode(name: &str, value: &str) -> Result<Vec<u8>, UriError> {
    let wrong = || UriError::Encoding {
        attribute: name.to_owned(),
    };
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let high = digit().ok_or_else(wrong)?;
                let low = digit().ok_or_else(wrong)?;
                bytes.push(u8::try_from(high * 16 + low).map_err(|_| wrong())?);
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => bytes.push(byte),
            byte if b"-._~:[]@!$'()*+,=&/?|".contains(&byte) => bytes.push(byte),
            _ => return Err(wrong()),
        }
    }
    Ok(bytes)
}

/// Encodes everything but what is never special in a URI, and `plain`.
fn encode(value: &str, plain: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric()
            || b"-._~".contains(&byte)
            || plain.as_bytes().contains(&byte)
        {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_usual_uri_is_read() {
        let uri: TokenUri = "pkcs11:token=My%20Token;serial=0a1b;slot-id=7;id=%01%ff;object=www;\
                             type=private?module-path=/usr/lib/x.so&pin-source=credential:hsm-pin"
            .parse()
            .unwrap();
        assert_eq!(uri.token(), Some("My Token"));
        assert_eq!(uri.serial(), Some("0a1b"));
        assert_eq!(uri.slot_id(), Some(7));
        assert_eq!(uri.id(), Some(&[1, 255][..]));
        assert_eq!(uri.object(), Some("www"));
        assert_eq!(uri.module_path(), Some(Path::new("/usr/lib/x.so")));
        assert_eq!(
            uri.pin_source(),
            Some(&PinSource::Credential("hsm-pin".into()))
        );
        assert_eq!("pkcs11:".parse(), Ok(TokenUri::default()));
    }

    #[test]
    fn what_is_wrong_is_said_by_name() {
        for (uri, error) in [
            ("pkcs12:token=x", UriError::Scheme),
            ("pkcs11:token", UriError::Form),
            ("pkcs11:token=x;", UriError::Form),
            ("pkcs11:?", UriError::Form),
            ("pkcs11:?pin-value=1234", UriError::PinValue),
            ("pkcs11:pin-value=1234", UriError::PinValue),
            ("pkcs11:type=cert", UriError::Type),
            ("pkcs11:slot-id=+1", UriError::SlotId),
            ("pkcs11:slot-id=99999999999999999999", UriError::SlotId),
            ("pkcs11:?module-path=x.so", UriError::ModulePath),
            ("pkcs11:?pin-source=1234", UriError::PinSource),
        ] {
            let result: Result<TokenUri, _> = uri.parse();
            assert_eq!(result, Err(error.clone()), "{uri}");
            assert!(!error.to_string().contains("1234"), "{error}");
        }
    }

    #[test]
    fn the_attribute_at_fault_is_named() {
        use UriError::{Encoding, Text, Twice, Unknown};
        let name = |name: &str| name.to_owned();
        for (uri, error) in [
            (
                "pkcs11:token=%2",
                Encoding {
                    attribute: name("token"),
                },
            ),
            (
                "pkcs11:token=%+1",
                Encoding {
                    attribute: name("token"),
                },
            ),
            (
                "pkcs11:token=a b",
                Encoding {
                    attribute: name("token"),
                },
            ),
            (
                "pkcs11:token=%ff",
                Text {
                    attribute: name("token"),
                },
            ),
            (
                "pkcs11:id=1;id=1",
                Twice {
                    attribute: name("id"),
                },
            ),
            (
                "pkcs11:type=private;type=private",
                Twice {
                    attribute: name("type"),
                },
            ),
            (
                "pkcs11:tokn=x",
                Unknown {
                    attribute: name("tokn"),
                },
            ),
            (
                "pkcs11:module-path=/x",
                Unknown {
                    attribute: name("module-path"),
                },
            ),
            (
                "pkcs11:?module-name=x",
                Unknown {
                    attribute: name("module-name"),
                },
            ),
        ] {
            let result: Result<TokenUri, _> = uri.parse();
            assert_eq!(result, Err(error), "{uri}");
        }
    }

    #[test]
    fn a_uri_without_end_is_not_read() {
        let long = format!("pkcs11:token={}", "x".repeat(MAX_LEN));
        assert_eq!(long.parse::<TokenUri>(), Err(UriError::TooLong));
    }

    /// What the fuzz target `token_uri` keeps.
    #[test]
    fn every_file_of_the_corpus_is_answered() {
        let folder = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../tests/fuzz/corpus/token_uri"
        );
        let mut read = 0;
        for file in std::fs::read_dir(folder).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            match text.parse::<TokenUri>() {
                Ok(uri) => {
                    assert_eq!(uri.to_string().parse(), Ok(uri));
                    read += 1;
                }
                Err(error) => assert!(!error.to_string().contains("1234"), "{error}"),
            }
        }
        assert!(read >= 3, "{read}");
    }

    fn some_uri() -> impl Strategy<Value = TokenUri> {
        let words = || proptest::option::of(".{0,12}");
        (
            (words(), words(), words(), words(), words()),
            proptest::option::of(any::<u64>()),
            proptest::option::of(proptest::collection::vec(any::<u8>(), 0..12)),
            proptest::option::of("/.{0,20}"),
            0..4,
            "[a-zA-Z0-9][a-zA-Z0-9_.-]{0,11}",
        )
            .prop_map(
                |((token, manufacturer, model, serial, object), slot_id, id, module, pin, name)| {
                    TokenUri {
                        token,
                        manufacturer,
                        model,
                        serial,
                        slot_id,
                        object,
                        id,
                        module_path: module.map(PathBuf::from),
                        pin_source: match pin {
                            0 => None,
                            1 => Some(PinSource::Credential(name)),
                            2 => Some(PinSource::File(Path::new("/").join(name))),
                            _ => Some(PinSource::Environment(name)),
                        },
                    }
                },
            )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(uri in some_uri()) {
            prop_assert_eq!(uri.to_string().parse::<TokenUri>(), Ok(uri));
        }

        #[test]
        fn any_text_is_answered(text in "(pkcs11:)?[a-z%0-9;?&=/:-]{0,60}|.{0,60}") {
            if let Ok(uri) = text.parse::<TokenUri>() {
                prop_assert_eq!(uri.to_string().parse::<TokenUri>(), Ok(uri));
            }
        }
    }
}
