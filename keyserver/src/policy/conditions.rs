//! What a grant demands of a TLS handshake before it lets a key sign it.

use keyless_protocol::SignatureScheme;

use super::ask::{Facts, Handshake};
use super::unmet::Unmet;

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

    /// The settings that demand something of a handshake, besides `schemes`.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        let settings = [
            ("transcript", self.transcript),
            ("sni", self.server_names.is_some()),
            ("alpn", self.protocols.is_some()),
            ("post_quantum", self.post_quantum),
            ("downgrade_sentinel", self.downgrade_sentinel),
        ];
        let named = settings.into_iter().filter(|(_, is_set)| *is_set);
        named.map(|(name, _)| name)
    }

    /// Whether only the messages of a handshake can show that these conditions hold.
    #[must_use]
    pub const fn need_transcript(&self) -> bool {
        self.transcript
            || self.server_names.is_some()
            || self.protocols.is_some()
            || self.post_quantum
    }

    /// What of them does not hold for what is to be signed. They are about TLS signatures: any other use of
    /// a key meets only the empty ones.
    #[must_use]
    pub fn unmet(&self, facts: Option<&Facts<'_>>) -> Option<Unmet> {
        if self.is_none() {
            return None;
        }
        let Some(facts) = facts else {
            return Some(Unmet::Schemes);
        };
        if !self.schemes.is_empty() && !self.schemes.contains(&facts.scheme) {
            return Some(Unmet::Schemes);
        }
        match facts.handshake {
            Handshake::Shown {
                server_name,
                protocol,
                passes_over_post_quantum,
            } => self.unmet_by_handshake(server_name, protocol, passes_over_post_quantum),
            Handshake::Hashed | Handshake::Tls12 { .. } if self.need_transcript() => {
                Some(self.wants_transcript())
            }
            Handshake::Tls12 {
                says_downgrade: false,
            } if self.downgrade_sentinel => Some(Unmet::DowngradeSentinel),
            Handshake::Hashed | Handshake::Tls12 { .. } => None,
        }
    }

    fn unmet_by_handshake(
        &self,
        server_name: Option<&[u8]>,
        protocol: Option<&[u8]>,
        passes_over_post_quantum: bool,
    ) -> Option<Unmet> {
        let (names, protocols) = (&self.server_names, &self.protocols);
        let protocol = protocol.unwrap_or_default();
        let named = (names.as_ref())
            .is_none_or(|names| names.iter().any(|allowed| allowed.fits(server_name)));
        let spoken = (protocols.as_ref()).is_none_or(|protocols| {
            (protocols.iter()).any(|allowed| allowed.as_bytes() == protocol)
        });
        if !named {
            Some(Unmet::ServerName)
        } else if !spoken {
            Some(Unmet::Protocol)
        } else {
            (self.post_quantum && passes_over_post_quantum).then_some(Unmet::PostQuantum)
        }
    }

    /// The first setting that needs the messages of the handshake.
    const fn wants_transcript(&self) -> Unmet {
        if self.transcript {
            Unmet::Transcript
        } else if self.server_names.is_some() {
            Unmet::ServerName
        } else if self.protocols.is_some() {
            Unmet::Protocol
        } else {
            Unmet::PostQuantum
        }
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

    const STRING: Facts<'static> = Facts {
        scheme: SignatureScheme::Ed25519,
        handshake: Handshake::Hashed,
    };

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
        let none = Conditions::default();
        assert_eq!((none.unmet(Some(&STRING)), none.unmet(None)), (None, None));
        let schemes = |schemes: &[SignatureScheme]| Conditions {
            schemes: schemes.to_vec(),
            ..Conditions::default()
        };
        let both = schemes(&[SignatureScheme::MlDsa44, SignatureScheme::Ed25519]);
        assert_eq!(both.unmet(Some(&STRING)), None);
        assert_eq!(both.unmet(None), Some(Unmet::Schemes));
        let other = schemes(&[SignatureScheme::MlDsa44]);
        assert_eq!(other.unmet(Some(&STRING)), Some(Unmet::Schemes));
        for (demanding, unmet) in demanding() {
            assert_eq!(demanding.unmet(Some(&STRING)), Some(unmet));
            assert!(!demanding.is_none());
        }
    }

    /// Each condition that only a handshake can meet.
    fn demanding() -> [(Conditions, Unmet); 4] {
        let none = Conditions::default;
        let (transcript, post_quantum) = (true, true);
        let server_names = Some(vec![ServerName::Exact("shop.example".to_owned())]);
        let protocols = Some(vec!["h2".to_owned()]);
        [
            (
                Conditions {
                    transcript,
                    ..none()
                },
                Unmet::Transcript,
            ),
            (
                Conditions {
                    server_names,
                    ..none()
                },
                Unmet::ServerName,
            ),
            (
                Conditions {
                    protocols,
                    ..none()
                },
                Unmet::Protocol,
            ),
            (
                Conditions {
                    post_quantum,
                    ..none()
                },
                Unmet::PostQuantum,
            ),
        ]
    }

    #[test]
    fn a_handshake_meets_what_it_shows() {
        let shown = |server_name, protocol, passes_over_post_quantum| Facts {
            handshake: Handshake::Shown {
                server_name,
                protocol,
                passes_over_post_quantum,
            },
            ..STRING
        };
        let good = shown(Some(&b"shop.example"[..]), Some(&b"h2"[..]), false);
        let bad = shown(None, None, true);
        for (demanding, unmet) in demanding() {
            assert_eq!(demanding.unmet(Some(&good)), None, "{demanding:?}");
            let expected = (unmet != Unmet::Transcript).then_some(unmet);
            assert_eq!(demanding.unmet(Some(&bad)), expected);
        }
    }

    #[test]
    fn the_sentinel_is_demanded_of_tls_1_2_only() {
        let demanding = Conditions {
            downgrade_sentinel: true,
            ..Conditions::default()
        };
        for says_downgrade in [false, true] {
            let exchange = Facts {
                handshake: Handshake::Tls12 { says_downgrade },
                ..STRING
            };
            let expected = (!says_downgrade).then_some(Unmet::DowngradeSentinel);
            assert_eq!(demanding.unmet(Some(&exchange)), expected);
            assert_eq!(Conditions::default().unmet(Some(&exchange)), None);
        }
        assert_eq!(demanding.unmet(Some(&STRING)), None);
    }
}
