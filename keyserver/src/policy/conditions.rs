//! What a grant demands of a TLS handshake before it lets a key sign it.

use keyless_protocol::SignatureScheme;

use crate::handshake::{Claim, Statement, Transcript};

/// The conditions of one grant. All must hold; the default demands nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conditions {
    /// `transcript = "required"`: the handshake itself must be sent, not only its hash.
    pub transcript: bool,
    /// `schemes`: one of these; empty: any.
    pub schemes: Vec<SignatureScheme>,
    /// `sni`: the client must have asked for one of these names. Needs a transcript.
    pub server_names: Option<Vec<ServerName>>,
    /// `alpn`: the server must have selected one of these protocols. Needs a transcript.
    pub protocols: Option<Vec<String>>,
    /// `post_quantum = "if-offered"`: a client that offers X25519MLKEM768 must get it. Needs a
    /// transcript.
    pub post_quantum: bool,
    /// `downgrade_sentinel = "required"`: a TLS 1.2 handshake must carry the sign that the server
    /// speaks TLS 1.3.
    pub downgrade_sentinel: bool,
}

/// A host name of a grant, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServerName {
    /// Exactly this one.
    Exact(String),
    /// `*.example.com`: one label in place of the star, as in a certificate (RFC 9525, section
    /// 6.3). Holds `.example.com`.
    Below(String),
    /// A client that asked for no name; written `""`.
    Absent,
}

impl Conditions {
    /// Whether anything is demanded.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether only the messages of a handshake can show that these conditions hold.
    #[must_use]
    pub const fn need_transcript(&self) -> bool {
        self.transcript
            || self.server_names.is_some()
            || self.protocols.is_some()
            || self.post_quantum
    }

    /// Whether they hold for what is to be signed. They are about TLS signatures: any other use of
    /// a key does not meet them.
    #[must_use]
    pub fn hold(&self, claim: &Claim<'_>) -> bool {
        let of_transcript = match &claim.statement {
            Statement::Transcript(transcript) => self.hold_for(transcript),
            Statement::CertificateVerify => !self.need_transcript(),
            Statement::ServerKeyExchange(exchange) => {
                !self.need_transcript() && (exchange.says_downgrade || !self.downgrade_sentinel)
            }
        };
        of_transcript && (self.schemes.is_empty() || self.schemes.contains(&claim.scheme))
    }

    fn hold_for(&self, transcript: &Transcript<'_>) -> bool {
        let name = transcript.server_name();
        let protocol = transcript.protocol().unwrap_or_default();
        let named = self
            .server_names
            .as_ref()
            .is_none_or(|names| names.iter().any(|allowed| allowed.fits(name)));
        let spoken = self.protocols.as_ref().is_none_or(|protocols| {
            protocols
                .iter()
                .any(|allowed| allowed.as_bytes() == protocol)
        });
        named && spoken && !(self.post_quantum && transcript.passes_over_post_quantum())
    }
}

impl ServerName {
    /// Whether a client asked for it. Host names are compared without regard to case.
    #[must_use]
    pub fn fits(&self, asked: Option<&[u8]>) -> bool {
        match (self, asked) {
            (Self::Absent, asked) => asked.is_none(),
            (_, None) => false,
            (Self::Exact(name), Some(asked)) => name.as_bytes().eq_ignore_ascii_case(asked),
            (Self::Below(suffix), Some(asked)) => asked
                .split_at_checked(asked.len().saturating_sub(suffix.len()))
                .is_some_and(|(label, rest)| {
                    !label.is_empty()
                        && !label.contains(&b'.')
                        && rest.eq_ignore_ascii_case(suffix.as_bytes())
                }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake::{ServerKeyExchange, server_key_exchange::NamedCurve};

    fn claim(scheme: SignatureScheme, statement: Statement<'static>) -> Claim<'static> {
        Claim { scheme, statement }
    }

    #[test]
    fn names_fit_as_in_certificates() {
        let exact = ServerName::Exact("shop.example".to_owned());
        let below = ServerName::Below(".shop.example".to_owned());
        for (asked, is_exact, is_below) in [
            (Some(&b"shop.example"[..]), true, false),
            (Some(b"Shop.EXAMPLE"), true, false),
            (Some(b"a.shop.example"), false, true),
            (Some(b"A.SHOP.example"), false, true),
            (Some(b"a.b.shop.example"), false, false),
            (Some(b".shop.example"), false, false),
            (Some(b"ashop.example"), false, false),
            (Some(b"x"), false, false),
            (Some(b""), false, false),
            (None, false, false),
        ] {
            assert_eq!(exact.fits(asked), is_exact, "{asked:?}");
            assert_eq!(below.fits(asked), is_below, "{asked:?}");
            assert_eq!(ServerName::Absent.fits(asked), asked.is_none());
        }
    }

    #[test]
    fn a_string_meets_what_needs_no_transcript() {
        let string = claim(SignatureScheme::Ed25519, Statement::CertificateVerify);
        assert!(Conditions::default().hold(&string));
        let schemes = |schemes: &[SignatureScheme]| Conditions {
            schemes: schemes.to_vec(),
            ..Conditions::default()
        };
        assert!(schemes(&[SignatureScheme::MlDsa44, SignatureScheme::Ed25519]).hold(&string));
        assert!(!schemes(&[SignatureScheme::MlDsa44]).hold(&string));
        for demanding in [
            Conditions {
                transcript: true,
                ..Conditions::default()
            },
            Conditions {
                server_names: Some(vec![ServerName::Absent]),
                ..Conditions::default()
            },
            Conditions {
                protocols: Some(vec![String::new()]),
                ..Conditions::default()
            },
            Conditions {
                post_quantum: true,
                ..Conditions::default()
            },
        ] {
            assert!(!demanding.hold(&string), "{demanding:?}");
            assert!(!demanding.is_none());
        }
    }

    #[test]
    fn the_sentinel_is_demanded_of_tls_1_2_only() {
        let demanding = Conditions {
            downgrade_sentinel: true,
            ..Conditions::default()
        };
        for says_downgrade in [false, true] {
            let exchange = ServerKeyExchange {
                curve: NamedCurve::X25519,
                says_downgrade,
            };
            let claim = claim(
                SignatureScheme::EcdsaP256Sha256,
                Statement::ServerKeyExchange(exchange),
            );
            assert_eq!(demanding.hold(&claim), says_downgrade);
            assert!(Conditions::default().hold(&claim));
        }
        assert!(demanding.hold(&claim(
            SignatureScheme::Ed25519,
            Statement::CertificateVerify
        )));
    }
}
