//! The product's users, with fixed ids, and root's password and keys.

use anyhow::{bail, Context, Result};

use super::accounts::{id, join_group, Table};
use super::{join, relative, ssh, Node, Tree};
use crate::manifest::{System, User};

/// No password lets anybody in; a key still does.
const LOCKED: &str = "*";
const SKELETON: &str = "etc/skel";

/// Adds the users.
pub fn apply(tree: &mut Tree, users: &[User], system: &System) -> Result<()> {
    let mut passwd = Table::passwd(tree)?;
    let mut group = Table::group(tree)?;
    let mut shadow = Table::shadow(tree)?;
    let mut gshadow = Table::gshadow(tree)?;
    let password = system.root_password_hash.as_deref().unwrap_or(LOCKED);
    shadow.set(shadow_row("root", password));
    for user in users {
        let add = || -> Result<()> {
            check(user, &passwd, &group)?;
            let gid = user.gid.unwrap_or(user.uid);
            if group.name_of(gid).is_none() {
                group.set(vec![
                    user.name.clone(),
                    "x".into(),
                    gid.to_string(),
                    String::new(),
                ]);
                gshadow.set(vec![
                    user.name.clone(),
                    "!".into(),
                    String::new(),
                    String::new(),
                ]);
            }
            passwd.set(passwd_row(user, gid));
            shadow.set(shadow_row(
                &user.name,
                user.password_hash.as_deref().unwrap_or(LOCKED),
            ));
            for name in &user.groups {
                let gid = id(&group, name)?;
                let name = group.name_of(gid).unwrap_or(name).to_string();
                join_group(&mut group, &name, &user.name)?;
                if gshadow.row(&name).is_some() {
                    join_group(&mut gshadow, &name, &user.name)?;
                }
            }
            make_home(tree, user, gid)?;
            ssh::authorize(tree, &user.name, &user.ssh_keys)
        };
        run(add).with_context(|| format!("adding user `{}`", user.name))?;
    }
    ssh::authorize(tree, "root", &system.root_ssh_keys).context("adding root's ssh keys")?;
    passwd.write(tree)?;
    group.write(tree)?;
    shadow.write(tree)?;
    gshadow.write(tree)
}

fn run(work: impl FnOnce() -> Result<()>) -> Result<()> {
    work()
}

fn check(user: &User, passwd: &Table, group: &Table) -> Result<()> {
    match passwd.id_of(&user.name) {
        Some(uid) if uid != user.uid => {
            bail!("a package made this user with the id {uid}; give it uid = {uid} or another name")
        }
        _ => {}
    }
    if let Some(owner) = passwd.name_of(user.uid).filter(|owner| *owner != user.name) {
        bail!(
            "the user id {} belongs to `{owner}` already; take another",
            user.uid
        );
    }
    let gid = user.gid.unwrap_or(user.uid);
    match (group.name_of(gid), group.id_of(&user.name)) {
        (None, Some(other)) => bail!(
            "there is no group {gid}, and a group `{}` has the id {other}; give gid = {other}",
            user.name
        ),
        (Some(owner), _) if user.gid.is_none() && owner != user.name => bail!(
            "the group id {gid} belongs to `{owner}` already; take another uid, or give gid = {gid} to share it"
        ),
        _ => Ok(()),
    }
}

fn home(user: &User) -> String {
    user.home
        .clone()
        .unwrap_or_else(|| format!("/home/{}", user.name))
}

fn passwd_row(user: &User, gid: u32) -> Vec<String> {
    vec![
        user.name.clone(),
        "x".into(),
        user.uid.to_string(),
        gid.to_string(),
        String::new(),
        home(user),
        user.shell.clone().unwrap_or_else(|| "/bin/bash".into()),
    ]
}

/// The date of the last change stays empty: zero would ask for a new password at the first login.
fn shadow_row(name: &str, password: &str) -> Vec<String> {
    [name, password, "", "0", "99999", "7", "", "", ""]
        .map(str::to_string)
        .to_vec()
}

/// Homes below `/home`, `/srv` and `/var` are the device's; the layout brings them there by tmpfiles.d.
fn make_home(tree: &mut Tree, user: &User, gid: u32) -> Result<()> {
    let home = home(user);
    let dir = relative(&home);
    if !["home/", "srv/", "var/"]
        .iter()
        .any(|top| dir.starts_with(top))
    {
        return Ok(());
    }
    tree.insert(dir, Node::dir(0o700).owned(user.uid, gid))?;
    let skeleton: Vec<(String, Node)> = tree
        .below(SKELETON)
        .map(|(path, node)| (path[SKELETON.len() + 1..].to_string(), node.clone()))
        .collect();
    for (name, node) in skeleton {
        tree.insert(&join(dir, &name), node.owned(user.uid, gid))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Tree {
        let mut tree = Tree::new();
        for (path, text) in [
            ("etc/passwd", "root:x:0:0:root:/root:/bin/bash\nbackup:x:34:34:backup:/var/backups:/usr/sbin/nologin\n"),
            ("etc/group", "root:x:0:\nbackup:x:34:\naudio:x:29:pulse\nsudo:x:27:\n"),
            ("etc/shadow", "root:*:19000:0:99999:7:::\nbackup:*:19000:0:99999:7:::\n"),
            ("etc/gshadow", "root:*::\nsudo:*::\n"),
            ("etc/skel/.profile", "p"),
            ("usr/sbin/sshd", ""),
        ] {
            tree.insert(path, Node::file(text, 0o644)).unwrap();
        }
        tree
    }

    fn user(text: &str) -> User {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_user_has_its_lines_home_and_keys() {
        let mut tree = base();
        let op = user(
            "name = \"op\"\nuid = 1000\ngroups = [\"sudo\", \"audio\"]\npassword-hash = \"$6$h\"\nssh-keys = [\"ssh-ed25519 AAAA op\"]",
        );
        let system = System {
            root_password_hash: Some("$6$root".into()),
            ..System::default()
        };
        apply(&mut tree, &[op], &system).unwrap();
        let has = |path: &str, line: &str| {
            let text = tree.read_text(path).unwrap();
            assert!(
                text.lines().any(|l| l == line),
                "{line}\nnot in {path}\n{text}"
            );
        };
        has("etc/passwd", "op:x:1000:1000::/home/op:/bin/bash");
        has("etc/group", "op:x:1000:");
        has("etc/group", "audio:x:29:pulse,op");
        has("etc/gshadow", "sudo:*::op");
        has("etc/shadow", "op:$6$h::0:99999:7:::");
        has("etc/shadow", "root:$6$root::0:99999:7:::");
        has(
            "usr/lib/treeline/authorized_keys.d/op",
            "ssh-ed25519 AAAA op",
        );
        let profile = tree.get("home/op/.profile").unwrap();
        assert_eq!((profile.uid, profile.gid), (1000, 1000));
        assert_eq!(tree.get("home/op").unwrap().mode, 0o700);
        assert_eq!(tree.get("etc/shadow").unwrap().mode, 0o640);
    }

    #[test]
    fn root_is_locked_unless_it_has_a_password() {
        let mut tree = base();
        apply(&mut tree, &[], &System::default()).unwrap();
        assert!(tree.read_text("etc/shadow").unwrap().starts_with("root:*:"));
    }

    #[test]
    fn clashes_are_errors_that_name_the_other() {
        for (text, says) in [
            ("name = \"x\"\nuid = 34", "belongs to `backup`"),
            ("name = \"backup\"\nuid = 1000", "with the id 34"),
            ("name = \"x\"\nuid = 29", "belongs to `audio`"),
            ("name = \"audio\"\nuid = 1000", "give gid = 29"),
            (
                "name = \"x\"\nuid = 1000\ngroups = [\"sud\"]",
                "did you mean `sudo`?",
            ),
        ] {
            let error = apply(&mut base(), &[user(text)], &System::default()).unwrap_err();
            let error = format!("{error:#}");
            assert!(error.contains(says), "{error}");
        }
        let mut tree = base();
        tree.remove("usr/sbin/sshd");
        let system = System {
            root_ssh_keys: vec!["ssh-ed25519 A".into()],
            ..System::default()
        };
        let error = format!("{:#}", apply(&mut tree, &[], &system).unwrap_err());
        assert!(error.contains("openssh-server"), "{error}");
    }
}
