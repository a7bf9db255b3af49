//! First-boot settings: what one device is to know that its image does not. `builder flash` puts them as a
//! small file on the firmware partition, outside of everything that is signed; the agent reads it once,
//! applies it and wipes it.

use toml::{Table, Value};

/// Path on the firmware partition.
pub const PATH: &str = "treeline/first-boot.toml";
/// Largest file, bytes.
pub const LARGEST: usize = 256 * 1024;
/// The file is padded with line ends to a multiple of this, so that wiping it is wiping whole sectors.
pub const SECTOR: usize = 512;
/// Largest script, bytes.
pub const LARGEST_SCRIPT: usize = 64 * 1024;

/// The settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "host", derive(serde::Serialize))]
#[cfg_attr(feature = "host", serde(rename_all = "kebab-case"))]
pub struct FirstBoot {
    /// Version of the format: 1.
    pub format: u32,
    /// Host name.
    #[cfg_attr(feature = "host", serde(skip_serializing_if = "Option::is_none"))]
    pub hostname: Option<String>,
    /// Serial number that the maker gives the device.
    #[cfg_attr(feature = "host", serde(skip_serializing_if = "Option::is_none"))]
    pub serial: Option<String>,
    /// Address of the update server, in place of the product's.
    #[cfg_attr(feature = "host", serde(skip_serializing_if = "Option::is_none"))]
    pub update_url: Option<String>,
    /// Wireless network.
    #[cfg_attr(feature = "host", serde(skip_serializing_if = "Option::is_none"))]
    pub wifi: Option<Wifi>,
    /// A script (`#!…`) that is run once.
    #[cfg_attr(feature = "host", serde(skip_serializing_if = "Option::is_none"))]
    pub script: Option<String>,
    /// Who may come in by ssh.
    #[cfg_attr(feature = "host", serde(skip_serializing_if = "Vec::is_empty"))]
    pub ssh: Vec<Access>,
}

/// Public keys of one user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "host", derive(serde::Serialize))]
pub struct Access {
    /// User on the device.
    pub user: String,
    /// Lines of `authorized_keys`.
    pub keys: Vec<String>,
}

/// A wireless network.
#[derive(Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "host", derive(serde::Serialize))]
pub struct Wifi {
    /// Its name.
    pub ssid: String,
    /// Pass phrase, or 64 hexadecimal digits; none for an open network.
    #[cfg_attr(feature = "host", serde(skip_serializing_if = "Option::is_none"))]
    pub password: Option<String>,
    /// Country whose rules the radio keeps, two capital letters.
    #[cfg_attr(feature = "host", serde(skip_serializing_if = "Option::is_none"))]
    pub country: Option<String>,
}

/// Without the pass phrase: this may stand in a log.
impl std::fmt::Debug for Wifi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Wifi({:?})", self.ssid)
    }
}

impl FirstBoot {
    /// Whether there is anything to set.
    pub fn is_empty(&self) -> bool {
        let nothing = Self {
            format: self.format,
            ..Self::default()
        };
        *self == nothing
    }

    /// Reads the file and checks every value. Errors never show a value: some are secret.
    pub fn parse(content: &[u8]) -> Result<Self, String> {
        if content.len() > LARGEST {
            return Err(format!("it has more than {LARGEST} bytes"));
        }
        let text = std::str::from_utf8(content).map_err(|_| "it is not text".to_owned())?;
        let mut table: Table = text.parse().map_err(|error: toml::de::Error| {
            format!("it is not well-formed: {}", error.message())
        })?;
        let settings = Self::take(&mut table)?;
        settings.check()?;
        Ok(settings)
    }

    /// By hand: what serde makes of it would be a hundredth of the device's program.
    fn take(table: &mut Table) -> Result<Self, String> {
        let format = table.remove("format").and_then(|value| value.as_integer());
        let mut settings = Self {
            format: format.and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
            hostname: text(table, "hostname")?,
            serial: text(table, "serial")?,
            update_url: text(table, "update-url")?,
            script: text(table, "script")?,
            ..Self::default()
        };
        if let Some(value) = table.remove("wifi") {
            let Value::Table(mut wifi) = value else {
                return Err("wifi must be a table".into());
            };
            settings.wifi = Some(Wifi {
                ssid: text(&mut wifi, "ssid")?.unwrap_or_default(),
                password: text(&mut wifi, "password")?,
                country: text(&mut wifi, "country")?,
            });
            nothing_else(&wifi)?;
        }
        for value in list(table, "ssh")? {
            let Value::Table(mut access) = value else {
                return Err("ssh must be a list of tables".into());
            };
            settings.ssh.push(Access {
                user: text(&mut access, "user")?.unwrap_or_default(),
                keys: list(&mut access, "keys")?
                    .into_iter()
                    .map(|key| word(key, "keys"))
                    .collect::<Result<_, _>>()?,
            });
            nothing_else(&access)?;
        }
        nothing_else(table)?;
        Ok(settings)
    }

    /// Checks every value.
    pub fn check(&self) -> Result<(), String> {
        let wrong = |what: &str, wanted: &str| Err(format!("{what} must be {wanted}"));
        if self.format != 1 {
            return Err(format!("format {} is not known; this reads 1", self.format));
        }
        if self
            .hostname
            .as_deref()
            .is_some_and(|name| !is_hostname(name))
        {
            return wrong(
                "hostname",
                "1 to 63 of a–z, 0–9 and -, parts joined by dots",
            );
        }
        if self
            .serial
            .as_deref()
            .is_some_and(|serial| !is_serial(serial))
        {
            return wrong("serial", "1 to 64 letters, digits, or . _ : -");
        }
        if self.update_url.as_deref().is_some_and(|url| !is_url(url)) {
            return wrong("update-url", "an address with https:// or file:///");
        }
        for access in &self.ssh {
            if !is_user(&access.user) {
                return wrong("ssh.user", "a user's name");
            }
            if access.keys.iter().any(|key| !is_key(key)) {
                return wrong(
                    "ssh.keys",
                    "public keys, as in the one line of id_ed25519.pub",
                );
            }
        }
        if let Some(script) = &self.script {
            if !script.starts_with("#!") || script.len() > LARGEST_SCRIPT || script.contains('\0') {
                return wrong("script", "text that begins with #!, up to 64 KiB");
            }
        }
        self.wifi.as_ref().map_or(Ok(()), Wifi::check)
    }
}

impl Wifi {
    fn check(&self) -> Result<(), String> {
        if self.ssid.is_empty() || self.ssid.len() > 32 || self.ssid.chars().any(char::is_control) {
            return Err("wifi.ssid must be 1 to 32 bytes without control characters".into());
        }
        if self.password.as_deref().is_some_and(|p| !is_passphrase(p)) {
            return Err(
                "wifi.password must be 8 to 63 ASCII characters or 64 hexadecimal digits".into(),
            );
        }
        let capital =
            |country: &str| country.len() == 2 && country.bytes().all(|b| b.is_ascii_uppercase());
        if self.country.as_deref().is_some_and(|c| !capital(c)) {
            return Err("wifi.country must be two capital letters".into());
        }
        Ok(())
    }
}

fn word(value: Value, key: &str) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err(format!("{key} must be text")),
    }
}

fn text(table: &mut Table, key: &str) -> Result<Option<String>, String> {
    table.remove(key).map(|value| word(value, key)).transpose()
}

fn list(table: &mut Table, key: &str) -> Result<Vec<Value>, String> {
    match table.remove(key) {
        None => Ok(Vec::new()),
        Some(Value::Array(all)) => Ok(all),
        Some(_) => Err(format!("{key} must be a list")),
    }
}

fn nothing_else(table: &Table) -> Result<(), String> {
    match table.keys().next() {
        None => Ok(()),
        Some(key) => Err(format!("the key {key} is not known")),
    }
}

fn is_hostname(name: &str) -> bool {
    let part = |part: &str| {
        (1..=63).contains(&part.len())
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    name.len() <= 64 && name.split('.').all(part)
}

fn is_serial(serial: &str) -> bool {
    (1..=64).contains(&serial.len())
        && serial
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b))
}

fn is_url(url: &str) -> bool {
    let plain = url
        .bytes()
        .all(|b| b.is_ascii_graphic() && !b"\"'\\<>`{}".contains(&b));
    plain
        && url.len() <= 512
        && (url.len() > 8 && url.starts_with("https://") || url.starts_with("file:///"))
}

fn is_user(user: &str) -> bool {
    let rest = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    (1..=32).contains(&user.len())
        && user.bytes().all(rest)
        && !user.starts_with(|c: char| c.is_ascii_digit() || c == '-')
}

fn is_key(key: &str) -> bool {
    let mut words = key.split(' ');
    let kind = words.next().unwrap_or_default();
    let body = words.next().unwrap_or_default();
    ["ssh-", "ecdsa-", "sk-"]
        .iter()
        .any(|start| kind.starts_with(start))
        && body.len() >= 16
        && body
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b))
        && key.len() <= 16384
        && !key.chars().any(char::is_control)
}

fn is_passphrase(text: &str) -> bool {
    let printable = text.bytes().all(|b| (0x20..0x7f).contains(&b));
    let hex = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    hex || printable && (8..=63).contains(&text.len())
}

/// The file for these settings, checked and padded.
#[cfg(feature = "host")]
pub fn render(settings: &FirstBoot) -> Result<Vec<u8>, String> {
    settings.check()?;
    let mut content = toml::to_string(settings)
        .map_err(|error| error.to_string())?
        .into_bytes();
    content.resize(content.len().next_multiple_of(SECTOR), b'\n');
    if content.len() > LARGEST {
        return Err(format!("the settings have more than {LARGEST} bytes"));
    }
    Ok(content)
}

#[cfg(all(test, feature = "host"))]
mod tests {
    use super::*;

    /// Everything that can be set.
    fn full() -> FirstBoot {
        FirstBoot {
            format: 1,
            hostname: Some("gw-1.example".into()),
            serial: Some("SN:0001-A".into()),
            update_url: Some("https://updates.example/".into()),
            wifi: Some(Wifi {
                ssid: "Café \"5\"".into(),
                password: Some("pass \"word\\ 8".into()),
                country: Some("DE".into()),
            }),
            script: Some("#!/bin/sh\necho '\"\"\" ''' \\n'\n".into()),
            ssh: vec![Access {
                user: "root".into(),
                keys: vec!["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA me@here".into()],
            }],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let content = render(&full()).unwrap();
        assert_eq!(content.len() % SECTOR, 0);
        assert_eq!(FirstBoot::parse(&content).unwrap(), full());
        assert!(!full().is_empty());
        let nothing = FirstBoot {
            format: 1,
            ..FirstBoot::default()
        };
        assert!(nothing.is_empty());
    }

    #[test]
    fn values_that_could_do_harm_are_refused_and_not_shown() {
        let bad: [fn(&mut FirstBoot); 20] = [
            |s| s.format = 2,
            |s| s.hostname = Some("a b".into()),
            |s| s.hostname = Some("-a".into()),
            |s| s.hostname = Some(String::new()),
            |s| s.hostname = Some("a\nb".into()),
            |s| s.serial = Some("a/b".into()),
            |s| s.serial = Some("x".repeat(65)),
            |s| s.update_url = Some("http://x".into()),
            |s| s.update_url = Some("https://x\"\nboot.tries = 0".into()),
            |s| s.ssh[0].user = "../root".into(),
            |s| s.ssh[0].user = "-rf".into(),
            |s| s.ssh[0].keys[0] = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA x\nevil".into(),
            |s| s.ssh[0].keys[0] = "command=\"x\" ssh-ed25519 AAAA".into(),
            |s| s.script = Some("echo".into()),
            |s| s.script = Some(format!("#!{}", "x".repeat(LARGEST_SCRIPT))),
            |s| s.wifi.as_mut().unwrap().ssid = "a\nb".into(),
            |s| s.wifi.as_mut().unwrap().ssid = "x".repeat(33),
            |s| s.wifi.as_mut().unwrap().password = Some("secret\nnetwork={".into()),
            |s| s.wifi.as_mut().unwrap().password = Some("short".into()),
            |s| s.wifi.as_mut().unwrap().country = Some("de".into()),
        ];
        for change in bad {
            let mut settings = full();
            change(&mut settings);
            assert!(settings.check().is_err(), "{settings:?}");
            assert!(render(&settings).is_err());
        }
        let error =
            FirstBoot::parse(b"format = 1\n[wifi]\nssid = \"x\"\npassword = \"secret").unwrap_err();
        assert!(!error.contains("secret"), "{error}");
        let shown = format!("{:?}", full());
        assert!(!shown.contains("pass"), "{shown}");
        assert!(FirstBoot::parse(&[0; 512]).is_err());
        assert!(FirstBoot::parse(b"format = 1\nother = 1\n").is_err());
    }
}
