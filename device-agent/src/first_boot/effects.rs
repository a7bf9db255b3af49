//! What the settings do. Each effect can be repeated without harm and leaves old or new content, whole.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{chown, DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bsp::first_boot::{Access, FirstBoot};
use toml::Table;

use super::{wifi, SCRIPT};
use crate::paths::Paths;

/// Where the serial number stands.
const SERIAL: &str = "etc/device-agent/serial";

/// Who a file belongs to: user and group.
pub type Owner = Option<(u32, u32)>;

/// Applies everything. What this system can never do is said and left out; what failed this time is an
/// error, and comes again at the next boot.
pub fn apply(paths: &Paths, settings: &FirstBoot) -> Result<Vec<String>> {
    let mut said = Vec::new();
    if let Some(name) = &settings.hostname {
        place(
            &paths.at("etc/hostname"),
            format!("{name}\n").as_bytes(),
            0o644,
            None,
        )?;
        // The running system's; on a device that cannot be told, from the next boot on.
        let _ = fs::write(paths.at("proc/sys/kernel/hostname"), name);
        said.push(format!("host name {name}"));
    }
    if let Some(serial) = &settings.serial {
        place(
            &paths.at(SERIAL),
            format!("{serial}\n").as_bytes(),
            0o644,
            None,
        )?;
        said.push(format!("serial number {serial}"));
    }
    if let Some(url) = &settings.update_url {
        said.push(match update_server(paths, url)? {
            true => format!("update server {url}"),
            false => format!(
                "not the update server {url}: {} sets another in a way that only its owner can change",
                paths.config_override().display()
            ),
        });
    }
    for access in &settings.ssh {
        said.push(match allow(paths, access)? {
            true => format!("{} ssh key(s) for {}", access.keys.len(), access.user),
            false => format!("no user {}, so no ssh keys for it", access.user),
        });
    }
    if let Some(wifi) = &settings.wifi {
        said.push(match wifi::connect(paths, wifi)? {
            Some(by) => format!("wireless network {} by {by}", wifi.ssid.escape_debug()),
            None => "no NetworkManager or wpa_supplicant, so no wireless network".into(),
        });
    }
    if let Some(script) = &settings.script {
        place(&paths.at(SCRIPT), script.as_bytes(), 0o700, None)?;
        said.push("a script to run once".into());
    }
    Ok(said)
}

/// Overrides `update.url`, whatever else the owner's file has.
/// `false` if the owner's file sets the address in a way that would cost other settings.
fn update_server(paths: &Paths, url: &str) -> Result<bool> {
    let file = paths.config_override();
    let text = fs::read_to_string(&file).unwrap_or_default();
    match with_url(&text, url) {
        Some(text) => place(&file, text.as_bytes(), 0o644, None).map(|()| true),
        None => Ok(false),
    }
}

/// `text` with another `update.url`, everything else as it was; `None` if it is written in a way in which that
/// cannot be done line by line. The address needs no escapes (see [`FirstBoot::check`]).
fn with_url(text: &str, url: &str) -> Option<String> {
    let alone = format!("[update]\nurl = \"{url}\"\n");
    let Ok(mut before) = text.parse::<Table>() else {
        // A file that cannot be read has no effect as it is.
        return Some(alone);
    };
    take_url(&mut before);
    // The line is dropped where it stands; where it then goes depends on how the rest is written.
    let mut section = "";
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines() {
        let word = line.split('=').next().unwrap_or_default().trim();
        if word.starts_with('[') {
            section = line.trim();
        }
        let is_url =
            section.is_empty() && word == "update.url" || section == "[update]" && word == "url";
        if !is_url {
            lines.push(line);
        }
    }
    let rest = lines.join("\n") + "\n";
    let in_section = rest.replacen("[update]\n", &alone, 1);
    let appended = format!("{rest}{alone}");
    let dotted = format!("update.url = \"{url}\"\n{rest}");
    [in_section, appended, dotted].into_iter().find(|text| {
        text.parse::<Table>()
            .is_ok_and(|mut now| take_url(&mut now).as_deref() == Some(url) && now == before)
    })
}

/// Takes `update.url` out, and with it a section that has nothing else.
fn take_url(table: &mut Table) -> Option<String> {
    let update = table.get_mut("update")?.as_table_mut()?;
    let url = update.remove("url");
    if update.is_empty() {
        table.remove("update");
    }
    Some(url?.as_str()?.to_string())
}

/// Adds the keys to those that are there; `false` if there is no such user.
fn allow(paths: &Paths, access: &Access) -> Result<bool> {
    let passwd = paths.at("etc/passwd");
    let text =
        fs::read_to_string(&passwd).with_context(|| format!("reading {}", passwd.display()))?;
    let Some((uid, gid, home)) = user(&text, &access.user) else {
        return Ok(false);
    };
    let dir = paths.at(home.trim_start_matches('/')).join(".ssh");
    let owner = Some((uid, gid));
    if !dir.is_dir() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .and_then(|()| own(&dir, owner))
            .with_context(|| format!("creating {}", dir.display()))?;
    }
    let file = dir.join("authorized_keys");
    let mut lines = fs::read_to_string(&file).unwrap_or_default();
    for key in &access.keys {
        if !lines.lines().any(|line| line == key) {
            if !lines.is_empty() && !lines.ends_with('\n') {
                lines.push('\n');
            }
            lines += key;
            lines.push('\n');
        }
    }
    place(&file, lines.as_bytes(), 0o600, owner)?;
    Ok(true)
}

/// Ids and home of a user in `/etc/passwd`.
fn user<'a>(passwd: &'a str, name: &str) -> Option<(u32, u32, &'a str)> {
    let line = passwd
        .lines()
        .find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    let uid = fields.next()?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    Some((uid, gid, fields.nth(1)?))
}

/// Only root can give files away; tests are not always root.
fn own(path: &Path, owner: Owner) -> std::io::Result<()> {
    match owner {
        Some((uid, gid)) if nix::unistd::geteuid().is_root() => chown(path, Some(uid), Some(gid)),
        _ => Ok(()),
    }
}

/// Writes a file whole or not at all; nobody else can read it before it has its mode.
pub fn place(path: &Path, content: &[u8], mode: u32, owner: Owner) -> Result<()> {
    let inner = || -> std::io::Result<()> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent)?;
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".first-boot");
        let new: PathBuf = parent.join(name);
        // Left by a cut, perhaps.
        let _ = fs::remove_file(&new);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&new)?;
        file.write_all(content)?;
        own(&new, owner)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        fs::File::open(parent)?.sync_all()
    };
    inner().with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_the_owners_file_stays() {
        let url = "https://new.example/";
        for text in [
            "",
            "# mine\n[update]\nchannel = \"a\"\nurl = \"https://old/\"\n[health]\nsettle-seconds = 1\n",
            "update.channel = \"a\"\nupdate.url = \"x\"\n[health]\nsettle-seconds = 1\n",
            "[health]\nsettle-seconds = 1\n",
        ] {
            let now = with_url(text, url).expect(text);
            assert_eq!(now.contains("# mine"), text.contains("# mine"));
            let mut before: Table = text.parse().unwrap();
            let mut table: Table = now.parse().unwrap();
            assert_eq!(take_url(&mut table).as_deref(), Some(url), "{text}");
            take_url(&mut before);
            assert_eq!(table, before, "{text}");
            let again: Table = with_url(&now, url).unwrap().parse().unwrap();
            assert_eq!(again, now.parse().unwrap());
        }
        // What has no effect anyway makes place; what would lose something stays.
        assert!(with_url("broken = [", url).is_some());
        for odd in [
            "[health]\nsettle-seconds = 1\n\n[ update ] # odd\nchannel = \"a\"\n",
            "update = { channel = \"a\" }\n",
        ] {
            assert_eq!(with_url(odd, url), None, "{odd}");
        }
    }
}
