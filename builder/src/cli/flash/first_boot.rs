//! The options of `builder flash` that make first-boot settings.

use std::path::PathBuf;

use anyhow::{bail, ensure, Context as _, Result};
use bsp::first_boot::{FirstBoot, Wifi};

use super::read;
use crate::flash::settings::{allow, read_nocloud};

#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "First-boot settings (not part of the signed image)")]
pub(super) struct Args {
    /// Host name; once, or once for each disk
    #[arg(long, value_name = "NAME")]
    hostname: Vec<String>,
    /// Serial number; once for each disk
    #[arg(long, value_name = "SERIAL")]
    serial: Vec<String>,
    /// Public ssh key, or a file with keys
    #[arg(long, value_name = "FILE|KEY")]
    ssh_key: Vec<String>,
    /// Whom the keys let in
    #[arg(long, value_name = "USER", default_value = "root")]
    ssh_user: String,
    /// Wireless network
    #[arg(long, value_name = "SSID")]
    wifi_ssid: Option<String>,
    /// File with its pass phrase (an argument would be seen by every user of this machine)
    #[arg(long, value_name = "FILE", requires = "wifi_ssid")]
    wifi_password_file: Option<PathBuf>,
    /// Country of the radio, e.g. DE
    #[arg(long, value_name = "CC", requires = "wifi_ssid")]
    wifi_country: Option<String>,
    /// Address of the update server, in place of the product's
    #[arg(long, value_name = "URL")]
    update_url: Option<String>,
    /// Script to run once on the device
    #[arg(long, value_name = "FILE", conflicts_with = "user_data")]
    script: Option<PathBuf>,
    /// cloud-init NoCloud user-data: ssh keys, host name, script
    #[arg(long, value_name = "FILE")]
    user_data: Option<PathBuf>,
    /// cloud-init NoCloud meta-data
    #[arg(long, value_name = "FILE")]
    meta_data: Option<PathBuf>,
}

impl Args {
    /// The settings of each of `targets` disks; one for all if there is no difference.
    pub(super) fn settings(&self, targets: usize) -> Result<Vec<FirstBoot>> {
        let targets = targets.max(1);
        ensure!(
            self.serial.is_empty() || self.serial.len() == targets,
            "{} serial numbers are given for {targets} disk(s); give --serial once for each",
            self.serial.len()
        );
        ensure!(
            self.hostname.len() <= 1 || self.hostname.len() == targets,
            "{} host names are given for {targets} disk(s); give --hostname once, or once for each",
            self.hostname.len()
        );
        let shared = self.shared()?;
        let one = |n: usize| {
            let mut settings = shared.clone();
            if let Some(name) = self.hostname.get(n).or(self.hostname.first()) {
                settings.hostname = Some(name.clone());
            }
            settings.serial = self.serial.get(n).cloned();
            match settings.check() {
                Ok(()) => Ok(settings),
                Err(text) => bail!("first-boot settings: {text}"),
            }
        };
        (0..targets).map(one).collect()
    }

    fn shared(&self) -> Result<FirstBoot> {
        let mut settings = FirstBoot {
            format: 1,
            update_url: self.update_url.clone(),
            wifi: self.wifi()?,
            ..FirstBoot::default()
        };
        let text = |path: &Option<PathBuf>| path.as_deref().map(read).transpose();
        let (user, meta) = (text(&self.user_data)?, text(&self.meta_data)?);
        read_nocloud(
            &mut settings,
            user.as_deref(),
            meta.as_deref(),
            &self.ssh_user,
        )?;
        if let Some(script) = text(&self.script)? {
            settings.script = Some(script);
        }
        for given in &self.ssh_key {
            allow(&mut settings, &self.ssh_user, keys(given)?);
        }
        Ok(settings)
    }

    fn wifi(&self) -> Result<Option<Wifi>> {
        let Some(ssid) = &self.wifi_ssid else {
            return Ok(None);
        };
        let password = self.wifi_password_file.as_deref().map(read).transpose()?;
        Ok(Some(Wifi {
            ssid: ssid.clone(),
            password: password.map(|text| text.trim_end_matches(['\n', '\r']).to_string()),
            country: self.wifi_country.clone(),
        }))
    }
}

/// A key itself, or the keys in a file.
fn keys(given: &str) -> Result<Vec<String>> {
    if given.contains(' ') && !std::path::Path::new(given).exists() {
        return Ok(vec![given.trim().to_string()]);
    }
    let text = read(given.as_ref()).context("reading ssh keys")?;
    ensure!(
        !text.contains("PRIVATE KEY"),
        "{given} is a private key, which belongs on no device; give the file that ends in .pub"
    );
    let lines = text.lines().map(str::trim);
    Ok(lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_string)
        .collect())
}
