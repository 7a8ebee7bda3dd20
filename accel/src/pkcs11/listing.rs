//! What a module offers: slots, tokens, mechanisms, objects, and the URI to write into the configuration.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cryptoki::context::Pkcs11;
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Limit, Slot as SlotId};
use cryptoki::types::RawAuthPin;

use super::error::TokenError;
use super::failure::{Class, Failure};
use super::look::Looks;
use super::module::Module;
use super::pin::PinSource;
use super::uri::TokenUri;

/// How long a listing may take.
const LISTING_WAIT: Duration = Duration::from_secs(60);

/// What a module says about itself.
#[derive(Clone, Debug)]
pub struct ModuleListing {
    /// The module.
    pub path: PathBuf,
    /// Its own description: name, manufacturer, version.
    pub description: String,
    /// Its slots that hold a token.
    pub slots: Vec<SlotListing>,
}

/// A slot with a token in it.
#[derive(Clone, Debug)]
pub struct SlotListing {
    /// The slot's number.
    pub slot_id: u64,
    /// What the slot is.
    pub description: String,
    /// Label of the token.
    pub token: String,
    /// Manufacturer of the token.
    pub manufacturer: String,
    /// Model of the token.
    pub model: String,
    /// Serial number of the token.
    pub serial: String,
    /// Whether the token has been initialized.
    pub initialized: bool,
    /// Most sessions that the token allows, where it says so.
    pub max_sessions: Option<u64>,
    /// Names of the mechanisms.
    pub mechanisms: Vec<String>,
    /// Keys and certificates. Private ones only after a login.
    pub objects: Vec<ObjectListing>,
    /// Why there was no login, or no objects: a return code by its standard name.
    pub problem: Option<String>,
}

/// An object of a token.
#[derive(Clone, Debug)]
pub struct ObjectListing {
    /// `private key`, `public key` or `certificate`.
    pub class: &'static str,
    /// Its label.
    pub label: String,
    /// Its identifier.
    pub id: Vec<u8>,
    /// For a private key: what to write into the configuration.
    pub uri: Option<TokenUri>,
}

/// Lists a module. Without a PIN source only public objects are seen. With one, the PIN is tried once on each
/// token that `pin_for` names by label, or on the only token there is.
///
/// # Errors
///
/// [`TokenError`] when the module cannot be loaded, does not answer, or the PIN cannot be read.
pub fn list_module(
    path: &Path,
    pin: Option<(&PinSource, Option<&str>)>,
) -> Result<ModuleListing, TokenError> {
    let pin = pin
        .map(|(source, token)| Ok::<_, TokenError>((source.read()?, token.map(str::to_owned))))
        .transpose()?;
    let owned = path.to_owned();
    Looks::default().within(path, LISTING_WAIT, move || {
        let failed = |failure: Failure| TokenError::Module {
            path: owned.clone(),
            reason: failure.to_string(),
        };
        let module = Module::load(&owned).map_err(failed)?;
        let _inside = module.enter().map_err(failed)?;
        let context = module.context();
        let info = context
            .get_library_info()
            .map_err(|error| failed(error.into()))?;
        let ids = context
            .get_slots_with_token()
            .map_err(|error| failed(error.into()))?;
        let only = ids.len() == 1;
        let slots = ids.into_iter().map(|id| {
            let secret = |label: &str| {
                pin.as_ref()
                    .filter(|(_, token)| token.as_deref().map_or(only, |token| token == label))
                    .map(|(pin, _)| RawAuthPin::new(Box::new(pin.bytes().to_vec())))
            };
            list_slot(&module, id, secret)
        });
        let slots = slots.collect::<Result<_, _>>().map_err(failed)?;
        Ok(ModuleListing {
            path: owned.clone(),
            description: format!(
                "{} ({}), version {}, PKCS#11 {}",
                info.library_description(),
                info.manufacturer_id(),
                info.library_version(),
                info.cryptoki_version()
            ),
            slots,
        })
    })?
}

fn list_slot(
    module: &Module,
    id: SlotId,
    secret: impl Fn(&str) -> Option<RawAuthPin>,
) -> Result<SlotListing, Failure> {
    let context = module.context();
    let slot = context.get_slot_info(id)?;
    let token = context.get_token_info(id)?;
    let names = |mechanism: &cryptoki::mechanism::MechanismType| mechanism.to_string();
    let mut mechanisms: Vec<_> = context.get_mechanism_list(id)?.iter().map(names).collect();
    mechanisms.sort_unstable();
    let mut listing = SlotListing {
        slot_id: id.id(),
        description: slot.slot_description().to_owned(),
        token: token.label().to_owned(),
        manufacturer: token.manufacturer_id().to_owned(),
        model: token.model().to_owned(),
        serial: token.serial_number().to_owned(),
        initialized: token.token_initialized(),
        max_sessions: match token.max_session_count() {
            Limit::Max(most) => Some(most),
            Limit::Unavailable | Limit::Infinite => None,
        },
        mechanisms,
        objects: Vec::new(),
        problem: None,
    };
    if listing.initialized
        && let Err(failure) = list_objects(context, id, module.path(), secret, &mut listing)
    {
        listing.problem = Some(failure.to_string());
    }
    Ok(listing)
}

fn list_objects(
    context: &Pkcs11,
    id: SlotId,
    module: &Path,
    secret: impl Fn(&str) -> Option<RawAuthPin>,
    listing: &mut SlotListing,
) -> Result<(), Failure> {
    let session = context.open_ro_session(id)?;
    if let Some(pin) = secret(&listing.token)
        && let Err(error) = session.login_with_raw(UserType::User, &pin)
    {
        let failure = Failure::from(error);
        if failure.class == Class::Terminal || failure.name != "CKR_USER_ALREADY_LOGGED_IN" {
            listing.problem = Some(failure.to_string());
        }
    }
    for (class, name) in [
        (ObjectClass::PRIVATE_KEY, "private key"),
        (ObjectClass::PUBLIC_KEY, "public key"),
        (ObjectClass::CERTIFICATE, "certificate"),
    ] {
        for object in session.find_objects(&[Attribute::Class(class)])? {
            let (label, id) = names(&session, object)?;
            let uri = (class == ObjectClass::PRIVATE_KEY).then(|| {
                TokenUri::for_object(&listing.token, &listing.serial, &label, &id, module)
            });
            listing.objects.push(ObjectListing {
                class: name,
                label,
                id,
                uri,
            });
        }
    }
    Ok(())
}

fn names(session: &Session, object: ObjectHandle) -> Result<(String, Vec<u8>), Failure> {
    let mut found = (String::new(), Vec::new());
    let wanted = [AttributeType::Label, AttributeType::Id];
    for attribute in session.get_attributes(object, &wanted)? {
        match attribute {
            Attribute::Label(label) => found.0 = String::from_utf8_lossy(&label).into_owned(),
            Attribute::Id(id) => found.1 = id,
            _ => {}
        }
    }
    Ok(found)
}
