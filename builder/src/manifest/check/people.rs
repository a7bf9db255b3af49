//! Rules for users, passwords and ssh keys.

use std::collections::BTreeMap;

use super::{at, syntax, Report};
use crate::manifest::document::Step;
use crate::manifest::{Product, User};

/// Ids that Debian leaves to the administrator: below are packages' users, above systemd's own.
const IDS: std::ops::RangeInclusive<u32> = 1000..=59999;

const HASH_HINT: &str = "a hash as in /etc/shadow: make one with `openssl passwd -6`";

pub(super) fn check(report: &mut Report<'_>, product: &Product) {
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    let mut uids: BTreeMap<u32, &str> = BTreeMap::new();
    let mut gids: BTreeMap<u32, &str> = BTreeMap::new();
    for (index, user) in product.users.iter().enumerate() {
        one(report, index, user);
        if names.insert(&user.name, index).is_some() {
            let message = format!("user \"{}\" is described twice", user.name);
            report.add(at!["users", index, "name"], message, "keep one of them");
        }
        if let Some(other) = uids.insert(user.uid, &user.name) {
            report.add(
                at!["users", index, "uid"],
                format!("uid {} is already \"{other}\"'s", user.uid),
                "every user needs a uid of its own; a change of it later orphans files",
            );
        }
        let gid = user.gid.unwrap_or(user.uid);
        if let Some(other) = gids.insert(gid, &user.name) {
            let key = if user.gid.is_some() { "gid" } else { "uid" };
            report.add(
                at!["users", index, key],
                format!("gid {gid} is already that of \"{other}\"'s group"),
                "every user has a group of its own name; give it another `gid`",
            );
        }
    }
    if let Some(hash) = &product.system.root_password_hash {
        password_hash(report, at!["system", "root-password-hash"], hash);
    }
    for (index, key) in product.system.root_ssh_keys.iter().enumerate() {
        ssh_key(report, at!["system", "root-ssh-keys", index], key);
    }
}

fn one(report: &mut Report<'_>, index: usize, user: &User) {
    if user.name == "root" {
        report.add(
            at!["users", index, "name"],
            "root is no user to describe",
            "see `root-password-hash` and `root-ssh-keys` in [system]",
        );
    } else {
        report.require(
            syntax::is_user(&user.name),
            at!["users", index, "name"],
            &format!("\"{}\" is no user name", user.name),
            "lower case letters, digits, `-` and `_`, 32 at most",
        );
    }
    for (key, id) in [("uid", Some(user.uid)), ("gid", user.gid)] {
        let Some(id) = id else { continue };
        report.require(
            IDS.contains(&id),
            at!["users", index, key],
            &format!("{key} {id} is not free for a product's users"),
            &format!(
                "from {} to {}; lower ones belong to packages, higher ones to systemd",
                IDS.start(),
                IDS.end()
            ),
        );
    }
    for (number, group) in user.groups.iter().enumerate() {
        report.require(
            syntax::is_user(group),
            at!["users", index, "groups", number],
            &format!("\"{group}\" is no group name"),
            "",
        );
    }
    for (key, path) in [("home", &user.home), ("shell", &user.shell)] {
        if let Some(path) = path {
            report.require(
                syntax::is_absolute_path(path),
                at!["users", index, key],
                &format!("{key} \"{path}\" is no absolute path"),
                "",
            );
        }
    }
    for (number, key) in user.ssh_keys.iter().enumerate() {
        ssh_key(report, at!["users", index, "ssh-keys", number], key);
    }
    if let Some(hash) = &user.password_hash {
        password_hash(report, at!["users", index, "password-hash"], hash);
    }
}

fn ssh_key(report: &mut Report<'_>, path: &[Step], key: &str) {
    let hint = if key.contains("PRIVATE KEY") {
        "this is a private key: it must not stand here; take the file that ends in .pub"
    } else {
        "one line as in the file that ends in .pub: \"ssh-ed25519 AAAA… comment\""
    };
    report.require(
        syntax::is_ssh_key(key),
        path,
        "this is no public ssh key",
        hint,
    );
}

fn password_hash(report: &mut Report<'_>, path: &[Step], hash: &str) {
    let hint = if matches!(hash, "" | "*" | "!") {
        "leave it out: locked is the default"
    } else {
        HASH_HINT
    };
    report.require(
        syntax::is_password_hash(hash),
        path,
        "this is no password hash",
        hint,
    );
}
