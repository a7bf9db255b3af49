//! Names of keys on tokens: of RFC 7512 what leads to one private key.
//!
//! ```text
//! pkcs11:token=Release;object=targets?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=/run/pin
//! ```

use std::path::PathBuf;

use percent_encoding::percent_decode_str;

pub(super) const SCHEME: &str = "pkcs11:";

/// A key on a token. What is `None` is not asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Uri {
    /// As it was written, without anything secret: a PIN in it is refused.
    pub(super) text: String,
    /// Label of the token.
    pub(super) token: Option<String>,
    pub(super) manufacturer: Option<String>,
    pub(super) serial: Option<String>,
    pub(super) model: Option<String>,
    pub(super) slot: Option<u64>,
    /// Label of the key.
    pub(super) object: Option<String>,
    /// Id of the key.
    pub(super) id: Option<Vec<u8>>,
    /// The PKCS#11 library.
    pub(super) module: Option<PathBuf>,
    /// File that holds the PIN.
    pub(super) pin_source: Option<PathBuf>,
}

impl Uri {
    /// Reads a URI; the error says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let rest = text
            .strip_prefix(SCHEME)
            .ok_or_else(|| format!("it does not begin with {SCHEME}"))?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut uri = Self {
            text: text.to_owned(),
            ..Self::default()
        };
        for part in path.split(';').filter(|part| !part.is_empty()) {
            let (name, value) = named(part)?;
            uri.path(name, value)?;
        }
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = named(part)?;
            uri.query(name, value)?;
        }
        if uri.object.is_none() && uri.id.is_none() {
            return Err("it names no key: object=LABEL or id=%01 is wanted".to_owned());
        }
        Ok(uri)
    }

    fn path(&mut self, name: &str, value: Vec<u8>) -> Result<(), String> {
        if name == "id" {
            return once(&mut self.id, name, value);
        }
        let value = text(name, value)?;
        match name {
            "token" => once(&mut self.token, name, value),
            "manufacturer" => once(&mut self.manufacturer, name, value),
            "serial" => once(&mut self.serial, name, value),
            "model" => once(&mut self.model, name, value),
            "object" => once(&mut self.object, name, value),
            "slot-id" => {
                let slot = value
                    .parse()
                    .map_err(|_| "slot-id is no number".to_owned())?;
                once(&mut self.slot, name, slot)
            }
            "type" if value == "private" => Ok(()),
            "type" => Err(format!("its type is '{value}'; a private key signs")),
            // RFC 7512, 2.3: what is not understood names nothing.
            other => Err(format!("'{other}' is not understood")),
        }
    }

    fn query(&mut self, name: &str, value: Vec<u8>) -> Result<(), String> {
        let value = text(name, value)?;
        match name {
            "module-path" => once(&mut self.module, name, absolute(name, &value)?),
            "pin-source" => {
                let path = value.strip_prefix("file:").unwrap_or(&value);
                let path = path.strip_prefix("//").unwrap_or(path);
                once(&mut self.pin_source, name, absolute(name, path)?)
            }
            "pin-value" => {
                Err("a PIN does not belong into it: name a file with pin-source".to_owned())
            }
            "module-name" => Err("'module-name' is not understood; use module-path".to_owned()),
            // RFC 7512, 2.4: attributes of others are passed over.
            _ => Ok(()),
        }
    }
}

fn named(part: &str) -> Result<(&str, Vec<u8>), String> {
    let (name, value) = part
        .split_once('=')
        .ok_or_else(|| format!("'{part}' has no value"))?;
    Ok((name, percent_decode_str(value).collect()))
}

fn text(name: &str, value: Vec<u8>) -> Result<String, String> {
    String::from_utf8(value).map_err(|_| format!("{name} is not UTF-8"))
}

fn absolute(name: &str, path: &str) -> Result<PathBuf, String> {
    match path.starts_with('/') {
        true => Ok(path.into()),
        false => Err(format!("{name} must be a file, from / on")),
    }
}

fn once<T>(place: &mut Option<T>, name: &str, value: T) -> Result<(), String> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("{name} stands in it twice")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_to_a_key_is_read() {
        let text = "pkcs11:token=The%20Release%3b;type=private;object=targets;id=%01%ff;slot-id=7;serial=12\
                    ?module-path=/usr/lib/m.so&pin-source=file:///run/pin&x-other=1";
        let uri = Uri::parse(text).unwrap();
        let wanted = Uri {
            text: text.to_owned(),
            token: Some("The Release;".into()),
            serial: Some("12".into()),
            slot: Some(7),
            object: Some("targets".into()),
            id: Some(vec![1, 255]),
            module: Some("/usr/lib/m.so".into()),
            pin_source: Some("/run/pin".into()),
            ..Uri::default()
        };
        assert_eq!(uri, wanted);
    }

    #[test]
    fn what_does_not_lead_to_one_key_is_refused() {
        for (text, says) in [
            ("token=a;object=b", "begin with"),
            ("pkcs11:token=a", "names no key"),
            ("pkcs11:object=a;object=b", "twice"),
            ("pkcs11:object=a;type=cert", "private key signs"),
            ("pkcs11:object=a;x-colour=red", "not understood"),
            ("pkcs11:object", "no value"),
            ("pkcs11:object=%ff", "UTF-8"),
            ("pkcs11:object=a;slot-id=x", "number"),
            ("pkcs11:object=a?pin-value=1234", "pin-source"),
            ("pkcs11:object=a?pin-source=|cat", "from / on"),
            ("pkcs11:object=a?module-path=m.so", "from / on"),
            ("pkcs11:object=a?module-name=m", "module-path"),
        ] {
            let error = Uri::parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
            assert!(!error.contains("1234"));
        }
    }
}
