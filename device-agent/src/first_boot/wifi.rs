//! A wireless network, for what the tree has: NetworkManager, else wpa_supplicant with systemd-networkd.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Context, Result};
use bsp::first_boot::Wifi;

use super::effects::place;
use crate::paths::Paths;
use crate::system;

/// Writes the configuration; returns who reads it, or `None` if there is nobody.
pub fn connect(paths: &Paths, wifi: &Wifi) -> Result<Option<&'static str>> {
    let has = |program: &str| paths.at("usr/sbin").join(program).exists();
    if has("NetworkManager") {
        let file = "etc/NetworkManager/system-connections/first-boot.nmconnection";
        place(
            &paths.at(file),
            network_manager(wifi).as_bytes(),
            0o600,
            None,
        )?;
        return Ok(Some("NetworkManager"));
    }
    if !has("wpa_supplicant") {
        return Ok(None);
    }
    let interface = interface(paths);
    let file = format!("etc/wpa_supplicant/wpa_supplicant-{interface}.conf");
    place(&paths.at(file), supplicant(wifi).as_bytes(), 0o600, None)?;
    let network = "[Match]\nType=wlan\n\n[Network]\nDHCP=yes\nIgnoreCarrierLoss=3s\n";
    let file = "etc/systemd/network/80-first-boot-wifi.network";
    place(&paths.at(file), network.as_bytes(), 0o644, None)?;
    let wants = paths.at("etc/systemd/system/multi-user.target.wants");
    let link = wants.join(format!("wpa_supplicant@{interface}.service"));
    if fs::symlink_metadata(&link).is_err() {
        fs::create_dir_all(&wants)
            .and_then(|()| symlink("/usr/lib/systemd/system/wpa_supplicant@.service", &link))
            .with_context(|| format!("enabling {}", link.display()))?;
        enabled_late();
    }
    Ok(Some("wpa_supplicant"))
}

/// systemd has read its units before: this boot needs to be told.
fn enabled_late() {
    for order in [
        &["daemon-reload"][..],
        &["--no-block", "start", "multi-user.target"],
    ] {
        let limit = std::time::Duration::from_secs(30);
        let outcome = system::run(std::process::Command::new("systemctl").args(order), limit);
        if !outcome.ok {
            eprintln!(
                "device-agent: systemctl {}: {}",
                order.join(" "),
                outcome.ended
            );
        }
    }
}

/// The first wireless interface; boards with one call it `wlan0`.
fn interface(paths: &Paths) -> String {
    let mut names: Vec<String> = fs::read_dir(paths.at("sys/class/net"))
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().join("phy80211").exists())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names.into_iter().next().unwrap_or_else(|| "wlan0".into())
}

/// The name in hexadecimal digits and the pass phrase in quotes, which need no escapes (wpa_supplicant.conf(5):
/// a quoted string ends with the last quote of its line).
fn supplicant(wifi: &Wifi) -> String {
    let mut text = String::from("ctrl_interface=/run/wpa_supplicant\n");
    if let Some(country) = &wifi.country {
        text += &format!("country={country}\n");
    }
    text += &format!("network={{\n\tssid={}\n", hex::encode(&wifi.ssid));
    text += &match &wifi.password {
        None => "\tkey_mgmt=NONE\n".to_owned(),
        Some(psk) if psk.len() == 64 => format!("\tpsk={psk}\n"),
        Some(phrase) => {
            format!("\tkey_mgmt=WPA-PSK WPA-PSK-SHA256 SAE\n\tieee80211w=1\n\tpsk=\"{phrase}\"\n")
        }
    };
    text + "}\n"
}

/// A keyfile: the name as a list of bytes, backslashes doubled, leading spaces as `\s`.
fn network_manager(wifi: &Wifi) -> String {
    let ssid: String = wifi.ssid.bytes().map(|byte| format!("{byte};")).collect();
    let mut text = format!(
        "[connection]\nid=first-boot\ntype=wifi\n\n[wifi]\nmode=infrastructure\nssid={ssid}\n"
    );
    if let Some(password) = &wifi.password {
        let mut escaped = password.replace('\\', "\\\\");
        if let Some(rest) = escaped.strip_prefix(' ') {
            escaped = format!("\\s{rest}");
        }
        text += &format!("\n[wifi-security]\nkey-mgmt=wpa-psk\npsk={escaped}\n");
    }
    text + "\n[ipv4]\nmethod=auto\n\n[ipv6]\nmethod=auto\n"
}
