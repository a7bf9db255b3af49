//! Whether devices in the field can take a release: the layout they were flashed with stands in their
//! commit, and is compared with the new one's.

use anyhow::{bail, Context, Result};
use bsp::disk::{FieldLayout, METADATA_KEY};
use serde::Serialize;

use super::contents::{self, Commit};
use super::diff::Side;
use crate::image::geometry;

/// What a device that was flashed with one release says to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The release that devices were flashed with.
    pub old: Side,
    /// The release that they would get.
    pub new: Side,
    /// Why they cannot take it; nothing if they can.
    pub problems: Vec<String>,
    /// Bytes for files on the root partition of such a device.
    pub room: u64,
    /// Bytes that two deployments of the new release take there if they share nothing.
    pub needed: u64,
}

/// Judges `new` from the point of view of a device that was flashed with `old`.
pub fn judge(old: &Side, new: &Side) -> Result<Verdict> {
    let (repo_old, repo_new) = (contents::open(&old.repo)?, contents::open(&new.repo)?);
    let (old_commit, new_commit) = (
        Commit::load(&repo_old, &old.commit)?,
        Commit::load(&repo_new, &new.commit)?,
    );
    let (was, expected) = (layout(&old_commit)?, layout(&new_commit)?);
    let silent = if was.is_none() { old } else { new };
    let (Some(field), Some(expected)) = (was, expected) else {
        bail!(
            "comparing the disks of {} and {}: commit {} does not say what disk it is for; it was made by an \
             older builder, or not by builder",
            old.version,
            new.version,
            silent.commit
        );
    };
    let mut problems = said(&field, &expected);
    let room = geometry::usable(field.root_bytes());
    let needed = 2 * new_commit.contents(&repo_new)?.installed_bytes(&repo_new)?;
    if needed > room {
        problems.push(format!(
            "the root partition of such a device has {} MiB for files, two deployments of {} may take {} MiB",
            room >> 20,
            new.version,
            needed.div_ceil(1 << 20)
        ));
    }
    Ok(Verdict {
        old: old.clone(),
        new: new.clone(),
        problems,
        room,
        needed,
    })
}

/// Where the disk of a device with the commit `old` is not what `new` expects; nothing if one of them does not
/// say.
pub(super) fn differences(old: &Commit, new: &Commit) -> Result<Vec<String>> {
    let (Some(old), Some(new)) = (layout(old)?, layout(new)?) else {
        return Ok(Vec::new());
    };
    Ok(said(&old, &new))
}

fn said(old: &FieldLayout, new: &FieldLayout) -> Vec<String> {
    let differences = old.differences(new);
    differences.iter().map(ToString::to_string).collect()
}

/// The layout that a commit was made for.
fn layout(commit: &Commit) -> Result<Option<FieldLayout>> {
    let Some(text) = commit.text(METADATA_KEY) else {
        return Ok(None);
    };
    let layout = FieldLayout::parse(&text);
    layout
        .map(Some)
        .with_context(|| format!("reading commit {}", commit.checksum))
}

#[cfg(test)]
mod tests {
    use super::super::tests::World;
    use super::*;
    use bsp::board::{builtin, Board, Size};
    use std::collections::BTreeMap;

    fn layout_of(board: &Board) -> FieldLayout {
        FieldLayout::of(&bsp::disk::plan(board, &BTreeMap::new()).unwrap())
    }

    fn metadata(layout: &FieldLayout) -> String {
        format!("{METADATA_KEY}={}", layout.to_json().unwrap())
    }

    fn side(world: &World, commit: String, version: &str) -> Side {
        Side {
            repo: world.repo.clone(),
            commit,
            version: version.into(),
        }
    }

    fn moved() -> (FieldLayout, FieldLayout) {
        let board = builtin("qemu-aarch64").unwrap();
        let mut larger = board.clone();
        larger.disk.partitions[1].size = Size(4 << 30);
        (layout_of(&board), layout_of(&larger))
    }

    #[test]
    fn a_release_that_devices_in_the_field_could_not_take_is_not_published() {
        let world = World::new();
        let (old, new) = moved();
        let published = |version: &str, seed: u8, metadata: &str| {
            let commit = world.commit_with(version, seed, metadata);
            world.sign(&commit);
            world.publish(&world.request(version, &commit))
        };
        published("0.9", 0, "treeline.made-by=an older builder").unwrap();
        published("1.0", 1, &metadata(&old)).unwrap();
        published("1.1", 2, &metadata(&old)).unwrap();
        let error = published("1.2", 3, &metadata(&new)).unwrap_err();
        let text = format!("{error:#}");
        for wanted in [
            "flashed with 1.1",
            "partition \"root\" has bytes",
            "another channel",
        ] {
            assert!(text.contains(wanted), "{text}");
        }
        published("1.2", 4, &metadata(&old)).unwrap();
    }

    #[test]
    fn places_and_room_are_judged() {
        let world = World::new();
        let (old, new) = moved();
        let mut full = old.clone();
        for place in full.places.iter_mut().filter(|p| p.role.is_some()) {
            place.end = place.start + (1 << 20);
        }
        let first = side(&world, world.commit_with("1", 1, &metadata(&old)), "1");
        let second = side(&world, world.commit_with("2", 2, &metadata(&old)), "2");
        let third = side(&world, world.commit_with("3", 3, &metadata(&new)), "3");
        let narrow = side(&world, world.commit_with("4", 4, &metadata(&full)), "4");
        let silent = side(&world, world.commit("5", 5), "5");
        let good = judge(&first, &second).unwrap();
        assert_eq!(good.problems, [""; 0]);
        assert!(good.needed > 400_000 && good.needed < good.room);
        // Root and what stands behind it.
        assert_eq!(judge(&first, &third).unwrap().problems.len(), 2);
        let room = judge(&narrow, &narrow).unwrap().problems;
        assert!(room[0].contains("has 0 MiB for files"), "{room:?}");
        for pair in [(&silent, &first), (&first, &silent)] {
            let error = judge(pair.0, pair.1).unwrap_err().to_string();
            assert!(error.contains(&silent.commit), "{error}");
        }
    }
}
