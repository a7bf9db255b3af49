//! Keys on tokens that PKCS#11 modules lead to: HSMs, smart cards, SoftHSM. They sign with Ed25519 (`CKM_EDDSA`,
//! PKCS#11 3.0) and never leave the token.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::AuthPin;

use super::uri::Uri;
use crate::keyfile::{read_private, KeyFileError};

/// Names the PKCS#11 library for URIs without `module-path`.
pub const MODULE_VARIABLE: &str = "TREELINE_PKCS11_MODULE";
/// Names the file (mode 0600) that holds the PIN, for machines without a terminal.
pub const PIN_VARIABLE: &str = "TREELINE_PIN_FILE";

/// A key on a token.
#[derive(Debug)]
pub struct TokenKey {
    uri: Uri,
    public: [u8; 32],
}

impl TokenKey {
    /// The key that a `pkcs11:` URI (RFC 7512) names. Its public half is read from the token.
    pub fn find(uri: &str) -> Result<Self, KeyFileError> {
        let uri = parsed(uri)?;
        let public = session(&uri)
            .and_then(|session| public_key(&session, &uri))
            .map_err(|reason| failed(&uri, reason))?;
        Ok(Self { uri, public })
    }

    /// The same key when its public half is known: the token need not be there.
    pub(super) fn known(uri: &str, public: [u8; 32]) -> Result<Self, KeyFileError> {
        Ok(Self {
            uri: parsed(uri)?,
            public,
        })
    }

    /// The public key.
    pub fn public_bytes(&self) -> [u8; 32] {
        self.public
    }

    /// The name of the key.
    pub fn uri(&self) -> &str {
        &self.uri.text
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<[u8; 64], KeyFileError> {
        let signature = self
            .signed(message)
            .map_err(|reason| failed(&self.uri, reason))?;
        super::check(&self.public, message, &signature)
            .map_err(|reason| failed(&self.uri, reason.to_owned()))?;
        Ok(signature)
    }

    fn signed(&self, message: &[u8]) -> Result<[u8; 64], String> {
        let session = session(&self.uri)?;
        let key = object(&session, &self.uri, ObjectClass::PRIVATE_KEY)?;
        let mechanism = Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Ed25519));
        let signature = session
            .sign(&mechanism, key, message)
            .map_err(|e| format!("signing: {e}"))?;
        let len = signature.len();
        signature
            .try_into()
            .map_err(|_| format!("it made {len} bytes, which are no Ed25519 signature"))
    }
}

fn parsed(uri: &str) -> Result<Uri, KeyFileError> {
    Uri::parse(uri).map_err(|reason| KeyFileError::Token {
        uri: uri.split('?').next().unwrap_or_default().to_owned(),
        reason: format!("reading the name: {reason}"),
    })
}

fn failed(uri: &Uri, reason: String) -> KeyFileError {
    KeyFileError::Token {
        uri: uri.text.clone(),
        reason,
    }
}

/// The modules in use. One may be initialised only once, and a process ends with it.
fn module(path: &Path) -> Result<Pkcs11, String> {
    static LOADED: Mutex<BTreeMap<PathBuf, Pkcs11>> = Mutex::new(BTreeMap::new());
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(module) = loaded.get(path) {
        return Ok(module.clone());
    }
    let opening = |e: Error| format!("opening the PKCS#11 module {}: {e}", path.display());
    let module = Pkcs11::new(path).map_err(opening)?;
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(error) => return Err(opening(error)),
    }
    loaded.insert(path.to_owned(), module.clone());
    Ok(module)
}

/// A session with the token, logged in; it ends when it is dropped.
fn session(uri: &Uri) -> Result<Session, String> {
    let named = std::env::var_os(MODULE_VARIABLE).map(PathBuf::from);
    let path = uri.module.clone().or(named).ok_or_else(|| {
        format!("no PKCS#11 module is named: add ?module-path=… to it, or set {MODULE_VARIABLE}")
    })?;
    let module = module(&path)?;
    let (slot, token) = token(&module, uri)?;
    let session = module
        .open_ro_session(slot)
        .map_err(|e| format!("opening the token: {e}"))?;
    if token.login_required() {
        login(&session, uri, &token)?;
    }
    Ok(session)
}

/// The one token that fits.
fn token(module: &Pkcs11, uri: &Uri) -> Result<(Slot, TokenInfo), String> {
    let slots = module
        .get_slots_with_token()
        .map_err(|e| format!("looking for tokens: {e}"))?;
    let all: Vec<(Slot, TokenInfo)> = slots
        .into_iter()
        .filter_map(|slot| Some((slot, module.get_token_info(slot).ok()?)))
        .filter(|(_, token)| token.token_initialized())
        .collect();
    let labels: Vec<&str> = all.iter().map(|(_, token)| token.label()).collect();
    let labels = labels.join(", ");
    let mut fitting = all.into_iter().filter(|(slot, token)| {
        let is =
            |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|w| w == found);
        is(&uri.token, token.label())
            && is(&uri.manufacturer, token.manufacturer_id())
            && is(&uri.serial, token.serial_number())
            && is(&uri.model, token.model())
            && uri.slot.is_none_or(|wanted| wanted == slot.id())
    });
    match (fitting.next(), fitting.next()) {
        (Some(found), None) => Ok(found),
        (None, _) => Err(format!("no such token is there (there are: {labels})")),
        (Some(_), Some(_)) => Err("several tokens fit; add serial=… to it".to_owned()),
    }
}

fn login(session: &Session, uri: &Uri, token: &TokenInfo) -> Result<(), String> {
    let serial = token.serial_number().to_owned();
    let by_itself = token.protected_authentication_path() && uri.pin_source.is_none();
    let pin = match by_itself {
        // The token has keys of its own to type the PIN on.
        true => None,
        false => Some(pin(uri, token)?),
    };
    let secret = pin.clone().map(AuthPin::from);
    match session.login(UserType::User, secret.as_ref()) {
        Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
        // No second attempt: after a few the token locks itself.
        Err(Error::Pkcs11(RvError::PinIncorrect, _)) => {
            return Err(
                "the PIN is wrong; after a few wrong ones the token locks itself".to_owned(),
            )
        }
        Err(error) => return Err(format!("logging in: {error}")),
    }
    if let Some(pin) = pin {
        typed().insert(serial, pin);
    }
    Ok(())
}

/// PINs that were right, by serial number: nobody types one for every role of a release.
fn typed() -> MutexGuard<'static, BTreeMap<String, String>> {
    static TYPED: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());
    TYPED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pin(uri: &Uri, token: &TokenInfo) -> Result<String, String> {
    let file = uri
        .pin_source
        .clone()
        .or_else(|| std::env::var_os(PIN_VARIABLE).map(PathBuf::from));
    if let Some(file) = file {
        let text = read_private(&file).map_err(|e| e.to_string())?;
        return Ok(text.lines().next().unwrap_or_default().to_owned());
    }
    if let Some(pin) = typed().get(token.serial_number()) {
        return Ok(pin.clone());
    }
    rpassword::prompt_password(format!("PIN of the token {}: ", token.label())).map_err(|e| {
        format!(
            "asking for the PIN: {e}; without a terminal, name a file with it in {PIN_VARIABLE}"
        )
    })
}

/// The one Ed25519 key of this class with the wanted name.
fn object(session: &Session, uri: &Uri, class: ObjectClass) -> Result<ObjectHandle, String> {
    let half = match class {
        ObjectClass::PUBLIC_KEY => "public",
        _ => "private",
    };
    let mut wanted = vec![
        Attribute::Class(class),
        Attribute::KeyType(KeyType::EC_EDWARDS),
    ];
    wanted.extend(
        uri.object
            .clone()
            .map(|label| Attribute::Label(label.into_bytes())),
    );
    wanted.extend(uri.id.clone().map(Attribute::Id));
    let found = session
        .find_objects(&wanted)
        .map_err(|e| format!("looking for the key: {e}"))?;
    match found.as_slice() {
        [key] => Ok(*key),
        [] => Err(format!("the token has no such Ed25519 key ({half} half)")),
        _ => Err("several keys fit; name it by object and id".to_owned()),
    }
}

fn public_key(session: &Session, uri: &Uri) -> Result<[u8; 32], String> {
    let key = object(session, uri, ObjectClass::PUBLIC_KEY)?;
    let found = session
        .get_attributes(key, &[AttributeType::EcPoint])
        .map_err(|e| format!("reading the public key: {e}"))?;
    let [Attribute::EcPoint(point)] = found.as_slice() else {
        return Err("its public key cannot be read".to_owned());
    };
    plain_point(point).ok_or_else(|| {
        format!(
            "its public key has {} bytes of an unknown form",
            point.len()
        )
    })
}

/// The 32 bytes of RFC 8032: as PKCS#11 2.40 puts them into an OCTET STRING, as 3.0 puts them into a BIT STRING in
/// DER, or as some tokens have them, bare.
fn plain_point(point: &[u8]) -> Option<[u8; 32]> {
    let bare = match point {
        [0x04, 0x20, rest @ ..] if rest.len() == 32 => rest,
        [0x03, 0x21, 0x00, rest @ ..] if rest.len() == 32 => rest,
        rest => rest,
    };
    bare.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_key_is_read_in_every_form() {
        let bare: Vec<u8> = (0..32).collect();
        for head in [&[][..], &[0x04, 0x20], &[0x03, 0x21, 0x00]] {
            let point = [head, &bare].concat();
            assert_eq!(plain_point(&point).unwrap().to_vec(), bare);
        }
        for wrong in [&bare[1..], &[], &[0x04, 0x20], &[0x05; 34]] {
            assert_eq!(plain_point(wrong), None);
        }
        // A bare key that begins like a head of the others.
        let mut odd = bare.clone();
        odd[..2].copy_from_slice(&[0x04, 0x20]);
        assert_eq!(plain_point(&odd).unwrap().to_vec(), odd);
    }
}
