//! Time zone, locale, `os-release`, greetings, and how systemd treats the device.

use anyhow::{bail, Context, Result};

use super::{join, relative_target, Node, Tree};
use crate::manifest::{nearest, Product};

const ZONES: &str = "usr/share/zoneinfo";
const LOCALES: &str = "usr/lib/locale";
const OS_RELEASE: &str = "usr/lib/os-release";

/// Seconds after which the hardware watchdog resets a device whose first process hangs.
const RUNTIME_SECONDS: u32 = 30;
/// Seconds after which it resets a device whose reboot hangs.
const REBOOT_SECONDS: u32 = 120;
/// The journal outlives a boot: after a fallback it says why the failed deployment failed.
const JOURNAL: &str = "[Journal]\nStorage=persistent\n";
/// Wired interfaces take an address from DHCP unless a file with a smaller number says otherwise.
const NETWORK: &str = "[Match]\nName=en* eth*\n\n[Network]\nDHCP=yes\n";
const HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";

/// Applies the product's settings and Treeline's defaults.
/// `watchdog_max` is the board's `watchdog-max-seconds`.
pub fn apply(tree: &mut Tree, product: &Product, watchdog_max: Option<u32>) -> Result<()> {
    let system = &product.system;
    if !tree.contains("etc/hosts") {
        tree.insert("etc/hosts", Node::file(HOSTS, 0o644))?;
    }
    timezone(tree, &system.timezone)?;
    locale(tree, &system.locale)?;
    os_release(tree, product)?;
    let watchdog = watchdog(watchdog_max);
    for (path, text) in [
        (
            "usr/lib/systemd/system.conf.d/50-treeline.conf",
            &watchdog[..],
        ),
        ("usr/lib/systemd/journald.conf.d/50-treeline.conf", JOURNAL),
        ("usr/lib/systemd/network/80-dhcp.network", NETWORK),
        // agetty takes the product's name and version from os-release.
        ("etc/issue", "\\S \\n \\l\n\n"),
    ] {
        tree.insert(path, Node::file(text, 0o644))?;
    }
    // Shown as they are.
    for path in ["etc/issue.net", "etc/motd"] {
        let text = format!("{} {}\n", product.name, product.version);
        tree.insert(path, Node::file(text, 0o644))?;
    }
    Ok(())
}

/// The first process keeps the hardware watchdog quiet, and a reboot that hangs ends in a reset.
fn watchdog(max: Option<u32>) -> String {
    let at_most = |seconds: u32| max.map_or(seconds, |max| seconds.min(max));
    format!(
        "[Manager]\nRuntimeWatchdogSec={}s\nRebootWatchdogSec={}s\n",
        at_most(RUNTIME_SECONDS),
        at_most(REBOOT_SECONDS)
    )
}

fn timezone(tree: &mut Tree, zone: &str) -> Result<()> {
    let path = join(ZONES, zone);
    if !tree.follow(&path).is_some_and(Node::is_file) {
        // Without a database of zones systemd falls back to UTC by itself.
        if zone == "UTC" {
            tree.remove("etc/localtime");
            return Ok(());
        }
        if !tree.contains(ZONES) {
            bail!("setting the time zone {zone}: the tree has no /{ZONES}; add the package tzdata");
        }
        let zones: Vec<&str> = tree
            .below(ZONES)
            .filter(|(_, node)| !node.is_dir())
            .map(|(path, _)| &path[ZONES.len() + 1..])
            .collect();
        let hint = nearest(zone, zones).map_or_else(
            || "legacy names are in the package tzdata-legacy".to_string(),
            |near| format!("did you mean {near}?"),
        );
        bail!("setting the time zone {zone}: there is no such zone; {hint}");
    }
    let target = relative_target("etc/localtime", &path);
    tree.insert("etc/localtime", Node::symlink(target))
}

fn locale(tree: &mut Tree, locale: &str) -> Result<()> {
    if !has_locale(tree, locale)? {
        bail!("setting the locale {locale}: the tree does not have it; add the package locales-all, or make it with the overlay in /{LOCALES}");
    }
    tree.insert(
        "etc/locale.conf",
        Node::file(format!("LANG={locale}\n"), 0o644),
    )
}

/// glibc looks for a directory, the code set written as `utf8`, or in an archive of all of them.
fn has_locale(tree: &Tree, locale: &str) -> Result<bool> {
    if ["C", "POSIX", "C.UTF-8", "C.utf8"].contains(&locale) {
        return Ok(true);
    }
    let short = locale.replace("UTF-8", "utf8");
    if [locale, &short]
        .iter()
        .any(|name| tree.contains(&join(LOCALES, name)))
    {
        return Ok(true);
    }
    let archive = join(LOCALES, "locale-archive");
    if !tree.contains(&archive) {
        return Ok(false);
    }
    let bytes = tree.read(&archive)?;
    let needle = [short.as_bytes(), &[0]].concat();
    Ok(bytes.windows(needle.len()).any(|window| window == needle))
}

/// The product's name and version; what the base says of itself otherwise stays (os-release(5)).
fn os_release(tree: &mut Tree, product: &Product) -> Result<()> {
    let base = if tree.contains("etc/os-release") || tree.contains(OS_RELEASE) {
        let path = if tree.follow(OS_RELEASE).is_some() {
            OS_RELEASE
        } else {
            "etc/os-release"
        };
        tree.read_text(path)
            .context("reading what the base says of itself")?
    } else {
        String::new()
    };
    let field = |key: &str| {
        base.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .map(|value| value.trim_matches(['"', '\'']).to_string())
    };
    let mut like: Vec<String> = field("ID").into_iter().collect();
    like.extend(
        field("ID_LIKE")
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_string),
    );
    let (name, version) = (&product.name, &product.version);
    let mut text = format!(
        "PRETTY_NAME=\"{name} {version}\"\nNAME=\"{name}\"\nVERSION=\"{version}\"\nVERSION_ID=\"{}\"\nID={name}\n",
        version.to_lowercase()
    );
    if !like.is_empty() {
        text.push_str(&format!("ID_LIKE=\"{}\"\n", like.join(" ")));
    }
    for line in base.lines() {
        let key = line.split('=').next().unwrap_or_default();
        let ours = [
            "PRETTY_NAME",
            "NAME",
            "VERSION",
            "VERSION_ID",
            "ID",
            "ID_LIKE",
        ]
        .contains(&key);
        // Its maker does not answer for the product.
        if line.contains('=') && !ours && !key.ends_with("_URL") {
            text.push_str(line);
            text.push('\n');
        }
    }
    if tree.get("etc/os-release").is_some_and(Node::is_file) || !tree.contains("etc/os-release") {
        tree.insert("etc/os-release", Node::symlink("../usr/lib/os-release"))?;
    }
    tree.insert(OS_RELEASE, Node::file(text, 0o644))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product(text: &str) -> Product {
        let text =
            format!("name = \"gw\"\nversion = \"1.2.0\"\n[base]\nsuite = \"trixie\"\n{text}");
        toml::from_str(&text).unwrap()
    }

    fn base() -> Tree {
        let mut tree = Tree::new();
        for (path, text) in [
            ("usr/share/zoneinfo/Europe/Berlin", "TZif"),
            ("usr/share/zoneinfo/Etc/UTC", "TZif"),
            ("usr/lib/locale/locale-archive", "x\0de_DE.utf8\0y"),
            (
                "usr/lib/os-release",
                "PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nID=debian\nVERSION_CODENAME=trixie\nHOME_URL=\"x\"\n",
            ),
        ] {
            tree.insert(path, Node::file(text, 0o644)).unwrap();
        }
        tree.insert("usr/share/zoneinfo/UTC", Node::symlink("Etc/UTC"))
            .unwrap();
        tree
    }

    #[test]
    fn settings_land_where_systemd_reads_them() {
        let mut tree = base();
        let product = product("[system]\ntimezone = \"Europe/Berlin\"\nlocale = \"de_DE.UTF-8\"\n");
        apply(&mut tree, &product, None).unwrap();
        assert_eq!(tree.read("etc/localtime").unwrap(), b"TZif");
        assert_eq!(
            tree.read_text("etc/locale.conf").unwrap(),
            "LANG=de_DE.UTF-8\n"
        );
        let text = tree.read_text("etc/os-release").unwrap();
        for line in [
            "PRETTY_NAME=\"gw 1.2.0\"",
            "ID=gw",
            "ID_LIKE=\"debian\"",
            "VERSION_CODENAME=trixie",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\nnot in\n{text}");
        }
        assert!(
            !text.contains("Debian GNU") && !text.contains("HOME_URL"),
            "{text}"
        );
    }

    #[test]
    fn absent_zones_and_locales_are_errors_that_help() {
        for (text, says) in [
            (
                "timezone = \"Europe/Berlim\"",
                "did you mean Europe/Berlin?",
            ),
            ("locale = \"fr_FR.UTF-8\"", "locales-all"),
        ] {
            let product = product(&format!("[system]\n{text}\n"));
            let error = apply(&mut base(), &product, None).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let mut empty = Tree::new();
        apply(&mut empty, &product(""), None).unwrap();
    }

    #[test]
    fn greetings_name_the_product() {
        let mut tree = base();
        let debian = "Debian GNU/Linux 13 \\n \\l\n";
        for path in ["etc/issue", "etc/issue.net", "etc/motd"] {
            tree.insert(path, Node::file(debian, 0o644)).unwrap();
        }
        apply(&mut tree, &product(""), None).unwrap();
        assert_eq!(tree.read_text("etc/issue").unwrap(), "\\S \\n \\l\n\n");
        for path in ["etc/issue.net", "etc/motd"] {
            assert_eq!(tree.read_text(path).unwrap(), "gw 1.2.0\n");
        }
    }

    #[test]
    fn systemd_asks_a_watchdog_for_no_more_than_it_has() {
        assert!(watchdog(None).contains("RuntimeWatchdogSec=30s\nRebootWatchdogSec=120s\n"));
        assert!(watchdog(Some(16)).contains("RuntimeWatchdogSec=16s\nRebootWatchdogSec=16s\n"));
    }
}
