//! `keyserver hsm list`: what a PKCS#11 module offers, and the URIs to paste into `[[keys]]`.

use std::fmt::Write as _;
use std::path::PathBuf;

use accel::pkcs11::{ModuleListing, ObjectListing, PinSource, SlotListing, list_module};
use serde::Serialize;

use super::{Failure, output};

/// The commands of `keyserver hsm`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Show the slots of a module: tokens, mechanisms, objects, and the URI of each key
    List(List),
}

/// The arguments of `keyserver hsm list`.
#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// The module: a shared library from the maker of the device
    #[arg(long, value_name = "PATH")]
    module: PathBuf,
    /// Where the PIN is, to see private keys: credential:NAME, file:/PATH or env:NAME. It is tried once
    // Read by hand: a refusal of clap's would repeat the value, and somebody may type the PIN itself.
    #[arg(long, value_name = "SOURCE")]
    pin_source: Option<String>,
    /// Label of the token that the PIN belongs to; needed where there are several tokens
    #[arg(long, value_name = "LABEL", requires = "pin_source")]
    token: Option<String>,
    /// Print JSON, schema keyserver.hsm/1
    #[arg(long)]
    json: bool,
}

/// The mechanisms that signatures and decryptions are made with.
const USED: [&str; 6] = [
    "CKM_RSA_PKCS",
    "CKM_RSA_PKCS_PSS",
    "CKM_RSA_X_509",
    "CKM_ECDSA",
    "CKM_EDDSA",
    "CKM_ML_DSA",
];

/// The JSON document.
#[derive(Debug, Serialize)]
struct Document {
    schema: &'static str,
    module: String,
    description: String,
    slots: Vec<Slot>,
}

#[derive(Debug, Serialize)]
struct Slot {
    slot: u64,
    description: String,
    token: String,
    manufacturer: String,
    model: String,
    serial: String,
    initialized: bool,
    max_sessions: Option<u64>,
    mechanisms: Vec<String>,
    objects: Vec<Object>,
    /// Why objects are missing: a return code by its standard name.
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct Object {
    class: &'static str,
    label: String,
    /// In hexadecimal.
    id: String,
    /// What to write into `[[keys]]`; for private keys.
    uri: Option<String>,
}

pub(super) fn run(command: &Command) -> Result<(), Failure> {
    let Command::List(arguments) = command;
    let listing = listing(arguments)?;
    let document = document(&listing);
    if arguments.json {
        let json = serde_json::to_string_pretty(&document).map_err(Failure::run)?;
        output::line(&json);
    } else {
        output::print(&text(&document, arguments));
    }
    // A refused PIN is a failure: a script must not go on and try it again.
    let refused = (document.slots.iter())
        .filter(|_| arguments.pin_source.is_some())
        .find_map(|slot| {
            let problem = slot.problem.as_ref()?;
            problem.contains("PIN").then_some((&slot.token, problem))
        });
    match refused {
        Some((token, problem)) => Err(Failure::refused_pin(format!(
            "token \"{}\" refused the PIN ({problem}); it was tried once. Tokens lock after a few attempts: \
             look at the PIN before you try again",
            token.escape_debug()
        ))),
        None => Ok(()),
    }
}

/// Lists the module; with a PIN for one token only, because each wrong PIN counts where it is tried.
fn listing(arguments: &List) -> Result<ModuleListing, Failure> {
    let list = |pin| list_module(&arguments.module, pin).map_err(Failure::run);
    let Some(source) = &arguments.pin_source else {
        return list(None);
    };
    let source: PinSource = source
        .parse()
        .map_err(|error| Failure::start(format!("--pin-source: {error}")))?;
    if let Some(token) = &arguments.token {
        return list(Some((&source, Some(token.as_str()))));
    }
    let listing = list(None)?;
    let tokens: Vec<&str> = (listing.slots.iter())
        .filter(|slot| slot.initialized)
        .map(|slot| slot.token.as_str())
        .collect();
    match tokens.as_slice() {
        [] => Ok(listing),
        [token] => list(Some((&source, Some(token)))),
        several => Err(Failure::start(format!(
            "there are {} tokens, and the PIN belongs to one of them: say which with --token, one of {several:?}",
            several.len()
        ))),
    }
}

fn document(listing: &ModuleListing) -> Document {
    Document {
        schema: "keyserver.hsm/1",
        module: listing.path.display().to_string(),
        description: listing.description.clone(),
        slots: listing.slots.iter().map(slot).collect(),
    }
}

fn slot(slot: &SlotListing) -> Slot {
    Slot {
        slot: slot.slot_id,
        description: slot.description.clone(),
        token: slot.token.clone(),
        manufacturer: slot.manufacturer.clone(),
        model: slot.model.clone(),
        serial: slot.serial.clone(),
        initialized: slot.initialized,
        max_sessions: slot.max_sessions,
        mechanisms: slot.mechanisms.clone(),
        objects: slot.objects.iter().map(object).collect(),
        problem: slot.problem.clone(),
    }
}

fn object(object: &ObjectListing) -> Object {
    Object {
        class: object.class,
        label: object.label.clone(),
        id: object.id.iter().map(|byte| format!("{byte:02x}")).collect(),
        uri: object.uri.as_ref().map(ToString::to_string),
    }
}

/// The listing for a terminal. Everything that comes from a device is escaped.
fn text(document: &Document, arguments: &List) -> String {
    let mut text = format!(
        "{}: {}\n",
        document.module,
        document.description.escape_debug()
    );
    if document.slots.is_empty() {
        text.push_str(
            "\nNo slot holds a token. Is the device connected, and the module configured?\n",
        );
    }
    for slot in &document.slots {
        // Writing to a string does not fail.
        let _ = write_slot(&mut text, slot, arguments);
    }
    text
}

fn write_slot(text: &mut String, slot: &Slot, arguments: &List) -> std::fmt::Result {
    let sessions = slot
        .max_sessions
        .map_or_else(String::new, |most| format!(", at most {most} sessions"));
    writeln!(
        text,
        "\nslot {}: token \"{}\", {} {}, serial {}{sessions}",
        slot.slot,
        slot.token.escape_debug(),
        slot.manufacturer.escape_debug(),
        slot.model.escape_debug(),
        slot.serial.escape_debug()
    )?;
    if !slot.initialized {
        return writeln!(text, "  not initialized: the maker's tools do that");
    }
    let (used, others): (Vec<&String>, Vec<&String>) =
        (slot.mechanisms.iter()).partition(|name| USED.contains(&name.as_str()));
    let used: Vec<&str> = used.into_iter().map(String::as_str).collect();
    let others = others.len();
    writeln!(
        text,
        "  mechanisms: {}; {others} others with --json",
        used.join(" ")
    )?;
    if let Some(problem) = &slot.problem {
        writeln!(text, "  PROBLEM: {problem}")?;
    }
    for object in &slot.objects {
        writeln!(
            text,
            "  {:<12} \"{}\" id {}",
            object.class,
            object.label.escape_debug(),
            object.id
        )?;
        if let Some(uri) = &object.uri {
            writeln!(text, "               uri = \"{uri}\"")?;
        }
    }
    let private = slot.objects.iter().any(|object| object.uri.is_some());
    if !private && arguments.pin_source.is_none() {
        writeln!(
            text,
            "  private keys are seen after a login: add --pin-source, and --token \"{}\"",
            slot.token.escape_debug()
        )?;
    }
    Ok(())
}
