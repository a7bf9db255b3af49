//! Whether what runs is still what was installed: every object of its commit against its checksum.
//!
//! The files below `/usr` are hard links to objects of the repository, so a file that was changed in place is a
//! changed object. It only reads; nothing but a person or a health check asks for it, for it reads the whole system.

use anyhow::Result;
use ostree::gio::Cancellable;
use ostree::ObjectType;

use crate::device::Device;
use crate::problem::{Kind, Problem};
use crate::sysroot::Sysroot;

const NONE: Option<&Cancellable> = None;
/// How many altered objects are named.
const NAMED: usize = 5;

/// Checks what runs; returns how many objects it has.
///
/// # Errors
/// [`Kind::Trust`] if one of them is missing or is not what was installed.
pub fn running(device: &Device) -> Result<usize> {
    let commit = device.booted_commit();
    let sysroot = Sysroot::read(device.paths.root())?;
    let repo = sysroot.repo();
    let doing = format!("checking {}", device.config.version);
    let objects = repo.traverse_commit(commit, 0, NONE).map_err(|error| {
        let text = format!("{doing}: its list of files is damaged: {}", error.message());
        altered(text)
    })?;
    let bad: Vec<String> = objects
        .iter()
        .filter(|object| {
            let found = repo.fsck_object(object.object_type(), object.checksum(), NONE);
            found.is_err()
        })
        .map(|object| format!("{}.{}", object.checksum(), suffix(object.object_type())))
        .collect();
    if bad.is_empty() {
        return Ok(objects.len());
    }
    let named: Vec<&str> = bad.iter().take(NAMED).map(String::as_str).collect();
    let more = if bad.len() > NAMED { ", …" } else { "" };
    Err(altered(format!(
        "{doing}: {} of {} objects are missing or altered: {}{more}",
        bad.len(),
        objects.len(),
        named.join(", ")
    ))
    .into())
}

fn altered(text: String) -> Problem {
    Problem::new(Kind::Trust, text)
        .hint("the disk is failing, or somebody has changed the system; write it anew")
}

fn suffix(kind: ObjectType) -> &'static str {
    match kind {
        ObjectType::Commit => "commit",
        ObjectType::DirTree => "dirtree",
        ObjectType::DirMeta => "dirmeta",
        _ => "file",
    }
}
