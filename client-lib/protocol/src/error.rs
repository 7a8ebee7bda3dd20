//! The error codes of the protocol, and the one way encoding can fail.

use std::{error, fmt};

/// The one byte of an error reply.
///
/// Codes 1 to 11 are known to every peer. Codes from 0x20 are additions, sent only to a client that
/// declared itself extended; the rest get [`Self::for_stock`].
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum ErrorCode {
    /// The operation failed: wrong input, or a key of the wrong type.
    CryptoFailure = 1,
    /// No such key, or none this client may use so. The two look alike on purpose.
    KeyNotFound = 2,
    /// The server could not read the request.
    Read = 3,
    /// The frame's major version is not 1. The connection closes after this reply.
    VersionMismatch = 4,
    /// The opcode is missing, unknown or not served.
    BadOpcode = 5,
    /// The opcode is one that only a server sends.
    UnexpectedOpcode = 6,
    /// The items are malformed. The connection closes after this reply.
    Format = 7,
    /// Something failed inside the server.
    Internal = 8,
    /// No such certificate.
    CertificateNotFound = 9,
    /// The key that sealed this blob is gone.
    SealingKeyExpired = 10,
    /// The server is configured wrongly.
    RemoteConfiguration = 11,
    /// Addition: too much work is waiting. Ask again, or elsewhere.
    Busy = 0x20,
    /// Addition: policy refuses.
    Denied = 0x21,
    /// Addition: the key was disabled.
    KeyDisabled = 0x22,
    /// Addition: the server is sealed and does no operations.
    Sealed = 0x23,
    /// Addition: the request's deadline passed before its turn.
    DeadlineExceeded = 0x24,
}

impl ErrorCode {
    /// Every code, by rising byte.
    pub const ALL: [Self; 16] = [
        Self::CryptoFailure,
        Self::KeyNotFound,
        Self::Read,
        Self::VersionMismatch,
        Self::BadOpcode,
        Self::UnexpectedOpcode,
        Self::Format,
        Self::Internal,
        Self::CertificateNotFound,
        Self::SealingKeyExpired,
        Self::RemoteConfiguration,
        Self::Busy,
        Self::Denied,
        Self::KeyDisabled,
        Self::Sealed,
        Self::DeadlineExceeded,
    ];

    /// The code of this byte.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::CryptoFailure,
            2 => Self::KeyNotFound,
            3 => Self::Read,
            4 => Self::VersionMismatch,
            5 => Self::BadOpcode,
            6 => Self::UnexpectedOpcode,
            7 => Self::Format,
            8 => Self::Internal,
            9 => Self::CertificateNotFound,
            10 => Self::SealingKeyExpired,
            11 => Self::RemoteConfiguration,
            0x20 => Self::Busy,
            0x21 => Self::Denied,
            0x22 => Self::KeyDisabled,
            0x23 => Self::Sealed,
            0x24 => Self::DeadlineExceeded,
            _ => return None,
        })
    }

    /// The byte on the wire.
    #[must_use]
    pub const fn as_byte(self) -> u8 {
        self as u8
    }

    /// The code to send to a client that did not declare itself extended: itself, or the nearest of
    /// codes 1 to 11.
    #[must_use]
    pub const fn for_stock(self) -> Self {
        match self {
            Self::Busy | Self::Sealed | Self::DeadlineExceeded => Self::Internal,
            Self::Denied | Self::KeyDisabled => Self::KeyNotFound,
            Self::CryptoFailure
            | Self::KeyNotFound
            | Self::Read
            | Self::VersionMismatch
            | Self::BadOpcode
            | Self::UnexpectedOpcode
            | Self::Format
            | Self::Internal
            | Self::CertificateNotFound
            | Self::SealingKeyExpired
            | Self::RemoteConfiguration => self,
        }
    }

    /// A short name in lower case, for metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CryptoFailure => "crypto-failure",
            Self::KeyNotFound => "key-not-found",
            Self::Read => "read",
            Self::VersionMismatch => "version-mismatch",
            Self::BadOpcode => "bad-opcode",
            Self::UnexpectedOpcode => "unexpected-opcode",
            Self::Format => "format",
            Self::Internal => "internal",
            Self::CertificateNotFound => "certificate-not-found",
            Self::SealingKeyExpired => "sealing-key-expired",
            Self::RemoteConfiguration => "remote-configuration",
            Self::Busy => "busy",
            Self::Denied => "denied",
            Self::KeyDisabled => "key-disabled",
            Self::Sealed => "sealed",
            Self::DeadlineExceeded => "deadline-exceeded",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (error {})", self.name(), self.as_byte())
    }
}

impl error::Error for ErrorCode {}

/// The items do not fit one frame. Nothing was written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EncodeError {
    /// Bytes the items would need; [`MAX_BODY`](crate::MAX_BODY) are there.
    pub body_bytes: usize,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the items need {} bytes and a frame's body holds {}; shorten the payload",
            self.body_bytes,
            crate::MAX_BODY
        )
    }
}

impl error::Error for EncodeError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_codes_agree_both_ways() {
        let known: Vec<ErrorCode> = (0..=u8::MAX).filter_map(ErrorCode::from_byte).collect();
        assert_eq!(known, ErrorCode::ALL);
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_byte(code.as_byte()), Some(code));
        }
    }

    #[test]
    fn stock_clients_see_codes_1_to_11_only() {
        let additions: Vec<(u8, u8)> = ErrorCode::ALL
            .into_iter()
            .filter(|code| code.as_byte() >= 0x20)
            .map(|code| (code.as_byte(), code.for_stock().as_byte()))
            .collect();
        assert_eq!(
            additions,
            [(0x20, 8), (0x21, 2), (0x22, 2), (0x23, 8), (0x24, 8)]
        );
        for code in ErrorCode::ALL
            .into_iter()
            .filter(|code| code.as_byte() <= 11)
        {
            assert_eq!(code.for_stock(), code);
        }
    }
}
