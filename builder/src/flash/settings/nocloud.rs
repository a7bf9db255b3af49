//! cloud-init's NoCloud files, as far as settings go: ssh keys, host name, a script. What would have no
//! effect is an error, not ignored.

use anyhow::{bail, ensure, Context, Result};
use bsp::first_boot::{Access, FirstBoot};
use yaml_rust2::{Yaml, YamlLoader};

/// Adds what `user_data` and `meta_data` say to `settings`.
pub fn read(
    settings: &mut FirstBoot,
    user_data: Option<&str>,
    meta_data: Option<&str>,
    user: &str,
) -> Result<()> {
    if let Some(text) = meta_data {
        read_meta(settings, text, user).context("reading meta-data")?;
    }
    if let Some(text) = user_data {
        read_user(settings, text, user).context("reading user-data")?;
    }
    Ok(())
}

fn document(text: &str) -> Result<Yaml> {
    // JSON is YAML.
    let mut all = YamlLoader::load_from_str(text).context("it is not well-formed YAML")?;
    ensure!(all.len() <= 1, "there is more than one document in it");
    Ok(all.pop().unwrap_or(Yaml::Null))
}

fn pairs(value: &Yaml) -> Result<Vec<(&str, &Yaml)>> {
    let Some(hash) = value.as_hash() else {
        ensure!(value.is_null(), "it is not a list of keys and values");
        return Ok(Vec::new());
    };
    let pair = |(key, value)| Some((Yaml::as_str(key)?, value));
    hash.iter()
        .map(|entry| pair(entry).context("a key is not text"))
        .collect()
}

fn text(key: &str, value: &Yaml) -> Result<String> {
    let text = value.as_str().map(str::to_string);
    text.with_context(|| format!("`{key}` must be text"))
}

fn read_meta(settings: &mut FirstBoot, text_: &str, user: &str) -> Result<()> {
    for (key, value) in pairs(&document(text_)?)? {
        match key {
            // A device has one image and one instance.
            "instance-id" | "dsmode" => {}
            "local-hostname" | "hostname" => settings.hostname = Some(text(key, value)?),
            "public-keys" => allow(settings, user, keys(key, value)?),
            _ => bail!("`{key}` has no effect here; understood are instance-id, local-hostname, public-keys"),
        }
    }
    Ok(())
}

fn read_user(settings: &mut FirstBoot, data: &str, user: &str) -> Result<()> {
    if data.starts_with("#!") {
        settings.script = Some(data.to_string());
        return Ok(());
    }
    ensure!(
        data.trim_end() == "#cloud-config" || data.starts_with("#cloud-config\n"),
        "it must begin with #! (a script) or #cloud-config"
    );
    for (key, value) in pairs(&document(data)?)? {
        match key {
            "hostname" | "fqdn" => settings.hostname = Some(text(key, value)?),
            "ssh_authorized_keys" => allow(settings, user, keys(key, value)?),
            "users" => users(settings, value, user)?,
            "runcmd" => settings.script = Some(script(value)?),
            // Already so.
            "preserve_hostname" | "manage_etc_hosts" | "ssh_pwauth" | "disable_root" => {
                ensure!(
                    value.as_bool() == Some(false),
                    "`{key}` can only be false here"
                );
            }
            _ => bail!(
                "`{key}` has no effect here; understood are hostname, ssh_authorized_keys, users (name, ssh_authorized_keys), runcmd"
            ),
        }
    }
    Ok(())
}

fn users(settings: &mut FirstBoot, value: &Yaml, default: &str) -> Result<()> {
    let list = value.as_vec().context("`users` must be a list")?;
    for user in list {
        if user.as_str() == Some("default") {
            continue;
        }
        let mut name = default.to_string();
        let mut allowed = Vec::new();
        for (key, value) in pairs(user)? {
            match key {
                "name" => name = text(key, value)?,
                "ssh_authorized_keys" | "ssh-authorized-keys" => allowed = keys(key, value)?,
                _ => bail!("`users.{key}` has no effect here; users are part of the product (product.toml)"),
            }
        }
        allow(settings, &name, allowed);
    }
    Ok(())
}

fn keys(key: &str, value: &Yaml) -> Result<Vec<String>> {
    if let Some(one) = value.as_str() {
        let lines = one.lines().map(str::trim).filter(|line| !line.is_empty());
        return Ok(lines.map(str::to_string).collect());
    }
    if value.as_hash().is_some() {
        // `public-keys: {name: key}`
        let all = pairs(value)?;
        return all
            .into_iter()
            .map(|(key, value)| text(key, value))
            .collect();
    }
    let list = value
        .as_vec()
        .with_context(|| format!("`{key}` must be a list of keys"))?;
    list.iter().map(|one| text(key, one)).collect()
}

/// Lets the holders of `keys` in as `user`.
pub fn allow(settings: &mut FirstBoot, user: &str, keys: Vec<String>) {
    if keys.is_empty() {
        return;
    }
    match settings.ssh.iter_mut().find(|access| access.user == user) {
        Some(access) => access.keys.extend(keys),
        None => settings.ssh.push(Access {
            user: user.to_string(),
            keys,
        }),
    }
}

/// `runcmd`: a string goes to the shell, a list is a command and its arguments.
fn script(value: &Yaml) -> Result<String> {
    let list = value.as_vec().context("`runcmd` must be a list")?;
    let mut script = String::from("#!/bin/sh\n");
    for command in list {
        if let Some(line) = command.as_str() {
            script += line;
        } else {
            let words = command
                .as_vec()
                .context("`runcmd`: a command is text or a list")?;
            let quoted: Result<Vec<String>> = words.iter().map(quote).collect();
            script += &quoted?.join(" ");
        }
        script.push('\n');
    }
    Ok(script)
}

fn quote(word: &Yaml) -> Result<String> {
    let text = match word {
        Yaml::Integer(number) => number.to_string(),
        _ => text("runcmd", word)?,
    };
    Ok(format!("'{}'", text.replace('\'', r"'\''")))
}
