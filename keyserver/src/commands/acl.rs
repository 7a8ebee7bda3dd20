//! `acl explain`: may this client do that, and which line of the configuration says so?

use std::net::IpAddr;
use std::path::Path;

use clap::builder::PossibleValuesParser;
use keyless_protocol::SignatureScheme;

use super::{Failure, output};
use crate::admin::acl::{self, Question};
use crate::config::Config;
use crate::policy::Right;
use crate::policy::window::read_time;
use crate::snapshot::Snapshot;
use crate::tokens::Tokens;

/// A made-up request, on the command line.
#[derive(Debug, clap::Args)]
pub struct ExplainArguments {
    /// Its name in the configuration, or what is in its certificate: dns: uri: subject: spki-sha256:
    #[arg(long, value_name = "CLIENT")]
    client: String,
    /// Label or SKI
    #[arg(long, value_name = "KEY")]
    key: String,
    /// The right that the operation needs
    #[arg(long, value_name = "RIGHT", value_parser = PossibleValuesParser::new(Right::ALL.map(Right::name)))]
    op: String,
    /// Signature scheme
    #[arg(
        long,
        value_name = "NAME",
        value_parser = PossibleValuesParser::new(SignatureScheme::ALL.map(SignatureScheme::name))
    )]
    scheme: Option<String>,
    /// The edge sends the handshake, and in it the TLS client asks for this name; "" is none
    #[arg(long, value_name = "NAME")]
    sni: Option<String>,
    /// The edge sends the handshake, and in it this protocol is selected; "" is none
    #[arg(long, value_name = "PROTOCOL")]
    alpn: Option<String>,
    /// The edge sends the handshake
    #[arg(long)]
    transcript: bool,
    /// The edge sends the handshake, and in it X25519MLKEM768 is offered and not selected
    #[arg(long)]
    classical: bool,
    /// The key exchange of TLS 1.2 carries the downgrade sentinel
    #[arg(long)]
    downgrade_sentinel: bool,
    /// The address that the client is connected from
    #[arg(long, value_name = "ADDRESS")]
    source: Option<IpAddr>,
    /// At this time, in UTC, instead of now: 2026-11-22T22:39Z; limits are then left out of account
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<String>,
}

fn time(text: &str) -> Result<String, String> {
    let wrong = "give a time in UTC, like 2026-11-22T22:39Z";
    read_time(text)
        .map(|_| text.to_owned())
        .ok_or_else(|| wrong.to_owned())
}

impl ExplainArguments {
    /// The question.
    #[must_use]
    pub fn question(&self) -> Question {
        Question {
            client: self.client.clone(),
            key: self.key.clone(),
            right: self.op.clone(),
            scheme: self.scheme.clone(),
            sni: self.sni.clone(),
            alpn: self.alpn.clone(),
            transcript: self.transcript,
            classical: self.classical,
            downgrade_sentinel: self.downgrade_sentinel,
            source: self.source.map(|address| address.to_string()),
            at: self.at.clone(),
        }
    }
}

/// Answers from a configuration, without a server: what is stopped or used up is not known.
pub(super) fn explain(path: &Path, arguments: &ExplainArguments) -> Result<(), Failure> {
    let config = Config::load(path).map_err(Failure::start)?;
    let snapshot = Snapshot::load(config, &Tokens::untouched(), None)
        .map_err(|error| Failure::load(&error))?;
    let explanation = acl::explain(&arguments.question(), &snapshot, None).map_err(Failure::run)?;
    output::print(&explanation.to_string());
    if explanation.allowed {
        Ok(())
    } else {
        Err(Failure::said())
    }
}
