//! Loads the device configuration: the tree's file, overridden key by key by the owner's.

use std::path::Path;

use anyhow::{Context, Result};
use bsp::device::{DeviceConfig, Update};
use toml::{Table, Value};

use crate::paths::Paths;
use crate::problem::{Kind, Problem};

/// Keys that say what the device *is*; overriding them could only make it install what does not fit.
const FIXED: [&str; 6] = [
    "product",
    "version",
    "board",
    "stateroot",
    "boot.backend",
    "boot.firmware-partuuid",
];

/// The configuration with the owner's overrides.
pub fn load(paths: &Paths) -> Result<DeviceConfig> {
    let base = base_table(paths)?;
    parse(base.clone(), &paths.config())?;
    let file = paths.config_override();
    let Some(text) = read_optional(&file)? else {
        return parse(base, &paths.config());
    };
    let over = table(&text, &file)?;
    for key in FIXED {
        if lookup(&over, key).is_some() {
            return Err(Problem::new(
                Kind::Config,
                format!("reading {}: \"{key}\" cannot be overridden", file.display()),
            )
            .hint("it describes the tree itself; remove the line")
            .into());
        }
    }
    let mut merged = base;
    merge(&mut merged, over);
    parse(merged, &file)
}

/// The configuration for judging a boot: a mistake in the owner's file must neither strand a good boot nor
/// save a bad one, so it is set aside; the second value says so.
pub fn load_for_judging(paths: &Paths) -> Result<(DeviceConfig, Option<String>)> {
    match load(paths) {
        Ok(config) => Ok((config, None)),
        Err(error) => {
            let config = parse(base_table(paths)?, &paths.config())?;
            Ok((
                config,
                Some(format!("{error:#}; going on without that file")),
            ))
        }
    }
}

fn base_table(paths: &Paths) -> Result<Table> {
    let file = paths.config();
    let text = read_optional(&file)?.ok_or_else(|| {
        Problem::new(
            Kind::Config,
            format!("reading {}: no such file", file.display()),
        )
        .hint("the builder writes it into the tree; is this a Treeline device?")
    })?;
    table(&text, &file)
}

fn read_optional(file: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context(Problem::new(
            Kind::Config,
            format!("reading {}", file.display()),
        )),
    }
}

fn table(text: &str, file: &Path) -> Result<Table> {
    text.parse::<Table>().map_err(|error| {
        Problem::new(
            Kind::Config,
            format!(
                "reading {}: {}",
                file.display(),
                error.to_string().trim_end()
            ),
        )
        .into()
    })
}

fn parse(table: Table, blame: &Path) -> Result<DeviceConfig> {
    let mut config: DeviceConfig =
        Value::Table(table)
            .try_into()
            .map_err(|error: toml::de::Error| {
                Problem::new(
                    Kind::Config,
                    format!(
                        "reading {}: {}",
                        blame.display(),
                        error.to_string().trim_end()
                    ),
                )
            })?;
    clear(&mut config.update);
    check(&config).map_err(|text| {
        Problem::new(Kind::Config, format!("reading {}: {text}", blame.display()))
    })?;
    Ok(config)
}

/// An owner cannot take a key away, only give it another value: an empty one is none.
fn clear(update: &mut Update) {
    for value in [
        &mut update.report_url,
        &mut update.client_certificate,
        &mut update.client_key,
        &mut update.proxy,
    ] {
        value.take_if(|value| value.is_empty());
    }
}

fn check(config: &DeviceConfig) -> Result<(), String> {
    let url = &config.update.url;
    if !url.is_empty() && !url.starts_with("https://") && !url.starts_with("file:///") {
        return Err(format!(
            "update.url \"{url}\" must begin with https:// or file:///"
        ));
    }
    if let Some(url) = &config.update.report_url {
        if !url.starts_with("https://") {
            return Err(format!(
                "update.report-url \"{url}\" must begin with https://"
            ));
        }
    }
    identity(&config.update)?;
    if !(1..=bsp::boot::state::MAX_TRIES).contains(&config.boot.tries) {
        return Err(format!(
            "boot.tries is {}; it must be 1 to {}",
            config.boot.tries,
            bsp::boot::state::MAX_TRIES
        ));
    }
    if let Some(check) = config.health.checks.iter().find(|c| c.command.is_empty()) {
        return Err(format!("health check \"{}\" has no command", check.name));
    }
    Ok(())
}

/// What says who the server must be and who the device is. Whether the files are good is seen when they are used.
fn identity(update: &Update) -> Result<(), String> {
    for pin in &update.pinned_keys {
        keys::pin::Pin::parse(pin).map_err(|error| format!("update.pinned-keys: {error}"))?;
    }
    let (certificate, key) = (&update.client_certificate, &update.client_key);
    if key.is_some() && certificate.is_none() {
        return Err("update.client-key is of no use without update.client-certificate".into());
    }
    if !update.client_signer.is_empty() && (certificate.is_none() || key.is_some()) {
        return Err("update.client-signer goes with update.client-certificate, and takes the place of update.client-key".into());
    }
    let files = [("certificate", certificate), ("key", key)];
    for (what, file) in files {
        if let Some(file) = file.as_ref().filter(|file| !file.starts_with('/')) {
            return Err(format!("update.client-{what} \"{file}\" must begin with /"));
        }
    }
    match &update.proxy {
        // It may hold a password.
        Some(proxy) if !proxy.starts_with("http://") => {
            Err("update.proxy must begin with http://".into())
        }
        _ => Ok(()),
    }
}

fn lookup<'a>(table: &'a Table, dotted: &str) -> Option<&'a Value> {
    let (first, rest) = match dotted.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (dotted, None),
    };
    let value = table.get(first)?;
    match rest {
        Some(rest) => lookup(value.as_table()?, rest),
        None => Some(value),
    }
}

/// Tables are merged, everything else (lists too) is replaced.
fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => merge(below, above),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const BASE: &str = r#"
product = "my-gateway"
version = "1.0.0"
board = "x86_64-uefi"
stateroot = "my-gateway"
commit-keys = ["AAAA"]
[boot]
backend = "grub"
firmware-partuuid = "00000000-0000-8000-8000-000000000000"
tries = 3
[update]
url = "https://updates.example"
[health]
units = ["app.service"]
"#;

    fn with(over: Option<&str>) -> (tempfile::TempDir, Paths) {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(dir.path());
        for (file, text) in [
            (paths.config(), Some(BASE)),
            (paths.config_override(), over),
        ] {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            if let Some(text) = text {
                std::fs::write(file, text).unwrap();
            }
        }
        (dir, paths)
    }

    #[test]
    fn single_keys_are_overridden_and_lists_replaced() {
        let (_dir, paths) = with(Some(
            "update.channel = \"testing\"\nhealth.units = []\nboot.tries = 1\n",
        ));
        let config = load(&paths).unwrap();
        assert_eq!(config.update.channel, "testing");
        assert_eq!(config.update.url, "https://updates.example");
        assert!(config.health.units.is_empty());
        assert_eq!(config.boot.tries, 1);
    }

    #[test]
    fn what_the_tree_sets_an_empty_value_takes_away() {
        let (_dir, paths) = with(None);
        let set = "proxy = \"http://p:1\"\nclient-certificate = \"/c\"\n[health]";
        std::fs::write(paths.config(), BASE.replace("[health]", set)).unwrap();
        assert_eq!(
            load(&paths).unwrap().update.proxy.as_deref(),
            Some("http://p:1")
        );
        let over = "[update]\nproxy = \"\"\nclient-certificate = \"\"\n";
        std::fs::write(paths.config_override(), over).unwrap();
        let update = load(&paths).unwrap().update;
        assert_eq!((update.proxy, update.client_certificate), (None, None));
    }

    #[test]
    fn errors_name_the_file_and_the_fault() {
        let cases = [
            ("update.chanel = \"x\"", "chanel"),
            ("board = \"other\"", "\"board\" cannot be overridden"),
            ("boot.firmware-partuuid = \"x\"", "cannot be overridden"),
            ("update.url = \"ftp://x\"", "must begin with https://"),
            ("boot.tries = 0", "must be 1 to"),
            (
                "health.checks = [{ name = \"n\", command = [] }]",
                "has no command",
            ),
            ("update.pinned-keys = [\"sha256//x\"]", "is no pin"),
            (
                "update.client-key = \"/k\"",
                "without update.client-certificate",
            ),
            ("update.client-certificate = \"c\"", "must begin with /"),
            (
                "update.client-signer = [\"s\"]",
                "goes with update.client-certificate",
            ),
            ("update.proxy = \"proxy:3128\"", "update.proxy must begin"),
            ("update = {", "line 1"),
        ];
        for (text, want) in cases {
            let (_dir, paths) = with(Some(text));
            let error = load(&paths).unwrap_err();
            let message = format!("{error:#}");
            assert!(
                message.contains("etc/device-agent/config.toml"),
                "{message}"
            );
            assert!(message.contains(want), "{text}: {message}");
            assert_eq!(crate::problem::kind_of(&error), Kind::Config);
            let (config, warning) = load_for_judging(&paths).unwrap();
            assert_eq!(config.board, "x86_64-uefi");
            assert!(warning.is_some());
        }
    }

    #[test]
    fn a_missing_file_is_explained() {
        let dir = tempfile::tempdir().unwrap();
        let error = load(&Paths::below(dir.path())).unwrap_err();
        assert!(format!("{error:#}").contains("no such file"));
        assert!(crate::problem::hint_of(&error).is_some());
    }
}
