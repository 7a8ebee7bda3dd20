//! How the naive server opens ciphertexts.

use accel::Operation;
use aws_lc_rs::rand;
use aws_lc_rs::{hmac, tls_prf};
use keyless_protocol::ErrorCode;
use keyless_protocol::key_exchange::{MasterRequest, MasterSeed};

use super::answers::{SOME_TIME, pass, run};
use super::{Entry, Mistake, Shared};

/// Where the separator belongs under a modulus of 256 bytes.
const SEPARATOR: usize = 256 - 49;

/// How often one client may ask for one handshake.
const TRIES: u8 = 3;

/// What is remembered of a ciphertext.
pub(super) struct Opened {
    client: String,
    seed: Vec<u8>,
    tries: u8,
}

impl Shared {
    pub(super) fn open(
        &self,
        entry: &Entry,
        client: &str,
        right: &str,
        payload: &[u8],
    ) -> Result<Vec<u8>, ErrorCode> {
        let (seed, ciphertext) = match right {
            "tls12-master" => {
                let request = MasterRequest::decode(payload).map_err(|_| ErrorCode::Format)?;
                let MasterSeed::Randoms(randoms) = request.seed else {
                    return Err(ErrorCode::Format);
                };
                (randoms.to_vec(), request.ciphertext)
            }
            _ => (Vec::new(), payload),
        };
        self.remember(client, &seed, ciphertext)?;
        let block = run(&entry.key, Operation::RsaPrivate, ciphertext)?;
        if right == "decrypt-compatible" && self.makes(Mistake::TextbookRsa) {
            return Ok(block);
        }
        let secret = self.unpad(ciphertext, &block)?;
        Ok(match right {
            "tls12-master" => self.master(&seed, secret),
            _ => {
                // A padding of ones: always the same.
                let padding = vec![1; 256 - 3 - secret.len()];
                [&[0, 2][..], &padding, &[0], &secret].concat()
            }
        })
    }

    /// Refuses what somebody else, or another handshake, has had opened.
    fn remember(&self, client: &str, seed: &[u8], ciphertext: &[u8]) -> Result<(), ErrorCode> {
        if self.makes(Mistake::NoLedger) {
            return Ok(());
        }
        let mut tag = ciphertext.to_vec();
        if self.makes(Mistake::LedgerOfEachClient) {
            tag.extend_from_slice(client.as_bytes());
        }
        let mut ledger = self.ledger.lock().unwrap();
        let opened = ledger.entry(tag).or_insert_with(|| Opened {
            client: client.to_owned(),
            seed: seed.to_vec(),
            tries: 0,
        });
        opened.tries = opened.tries.saturating_add(1);
        if opened.client == client && opened.seed == seed && opened.tries <= TRIES {
            Ok(())
        } else {
            Err(ErrorCode::Denied)
        }
    }

    /// The secret of a block, or what stands in for it.
    fn unpad(&self, ciphertext: &[u8], block: &[u8]) -> Result<Vec<u8>, ErrorCode> {
        let key = hmac::Key::new(hmac::HMAC_SHA384, &self.secret);
        let mut substitute = hmac::sign(&key, ciphertext).as_ref().to_vec();
        if self.makes(Mistake::RandomSubstitute) {
            rand::fill(&mut substitute).unwrap();
        }
        let found = block.iter().skip(2).position(|byte| *byte == 0);
        let separator = found.map_or(block.len() - 1, |place| place + 2);
        if !block.starts_with(&[0, 2]) {
            return match self.mistake {
                Some(Mistake::PaddingError) => Err(ErrorCode::CryptoFailure),
                Some(Mistake::ShortAnswer) => Ok(substitute[..40].to_vec()),
                _ => Ok(substitute),
            };
        }
        // From here on the block is one of an encryption.
        if self.makes(Mistake::EarlyExit) {
            pass(SOME_TIME);
        }
        if separator != SEPARATOR {
            return match self.mistake {
                Some(Mistake::SearchedSeparator) => Err(ErrorCode::CryptoFailure),
                Some(Mistake::WhateverIsBehind) => {
                    let mut secret = block[separator + 1..].to_vec();
                    secret.resize(48, 0);
                    Ok(secret)
                }
                _ => Ok(substitute),
            };
        }
        let secret = &block[SEPARATOR + 1..];
        if self.makes(Mistake::ComparedVersion) && !secret.starts_with(&[3, 3]) {
            return Err(ErrorCode::CryptoFailure);
        }
        Ok(secret.to_vec())
    }

    /// RFC 5246, section 8.1; a short secret gives a short answer.
    fn master(&self, seed: &[u8], mut secret: Vec<u8>) -> Vec<u8> {
        let length = secret.len();
        secret[..2].copy_from_slice(&[3, 3]);
        let secret = tls_prf::Secret::new(&tls_prf::P_SHA256, &secret).unwrap();
        let master = secret.derive(b"master secret", seed, length).unwrap();
        master.as_ref().to_vec()
    }
}
