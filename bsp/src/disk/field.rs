//! The layout as devices in the field have it. An update changes files, never places: a release whose
//! layout differs from the one that a device was flashed with would find nothing where it looks.
//!
//! Every commit carries its own, as JSON under the metadata key [`METADATA_KEY`].

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Kind, Layout};
use crate::board::{Role, Table};

/// Key of the commit metadata that holds a [`FieldLayout`].
pub const METADATA_KEY: &str = "treeline.layout";
/// Format number of [`FieldLayout`].
const FORMAT: u32 = 1;

/// What of a layout a flashed device keeps for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FieldLayout {
    format: u32,
    /// Partition table.
    pub table: Table,
    /// Partitions, raw areas and boot environment, in the order of the disk.
    pub places: Vec<Place>,
}

/// A byte range that a device looks for in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Place {
    /// Owner, for people: `partition "root"`.
    pub owner: String,
    /// First byte.
    pub start: u64,
    /// First byte behind it.
    pub end: u64,
    /// Of a partition: what it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Of a partition: its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u32>,
    /// Its end is wherever the device's disk ends.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub grows: bool,
}

/// Why a device with one layout cannot take a release with another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// Another kind of partition table.
    Table {
        /// In the field.
        old: Table,
        /// In the release.
        new: Table,
    },
    /// The release wants a place that the device does not have.
    Missing(Place),
    /// The device has a place that the release does not know.
    Gone(Place),
    /// The same place elsewhere, of another size or with another number.
    Moved {
        /// In the field.
        old: Place,
        /// In the release.
        new: Place,
    },
}

/// A record of a layout that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FieldError {
    /// Not JSON, or not of this kind.
    #[error("reading the recorded layout: {0}")]
    Json(#[from] serde_json::Error),
    /// Written by a newer builder.
    #[error("reading the recorded layout: it has format {0}, this builder reads format {FORMAT}; use a newer builder")]
    Format(u32),
}

impl FieldLayout {
    /// What devices keep of `layout`.
    pub fn of(layout: &Layout) -> Self {
        let places = layout.regions.iter().filter(|r| r.kind != Kind::Table);
        let places = places.chain(&layout.emmc_boot);
        Self {
            format: FORMAT,
            table: layout.table,
            places: places
                .map(|region| {
                    let partition = layout.partitions.iter().find(|partition| {
                        region.kind == Kind::Partition && partition.start == region.bytes.start
                    });
                    Place {
                        owner: region.owner.clone(),
                        start: region.bytes.start,
                        end: region.bytes.end,
                        role: partition.map(|p| p.role),
                        number: partition.map(|p| p.number),
                        grows: partition.is_some_and(|p| p.grow),
                    }
                })
                .collect(),
        }
    }

    /// As it stands in a commit's metadata.
    pub fn to_json(&self) -> Result<String, FieldError> {
        Ok(serde_json::to_string(self)?)
    }

    /// Reads what [`FieldLayout::to_json`] has written.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let head: Head = serde_json::from_str(text)?;
        if head.format != FORMAT {
            return Err(FieldError::Format(head.format));
        }
        Ok(serde_json::from_str(text)?)
    }

    /// Bytes of the root partition.
    pub fn root_bytes(&self) -> u64 {
        let root = self
            .places
            .iter()
            .find(|place| place.role == Some(Role::Root));
        root.map_or(0, |root| root.end.saturating_sub(root.start))
    }

    /// Why a device that was flashed with this layout cannot take a release with the layout `new`; nothing
    /// if it can.
    pub fn differences(&self, new: &Self) -> Vec<Difference> {
        let mut found = Vec::new();
        if self.table != new.table {
            found.push(Difference::Table {
                old: self.table,
                new: new.table,
            });
        }
        let of = |places: &[Place], owner: &str| places.iter().find(|p| p.owner == owner).cloned();
        for new in &new.places {
            match of(&self.places, &new.owner) {
                None => found.push(Difference::Missing(new.clone())),
                Some(old) if !old.serves_as(new) => found.push(Difference::Moved {
                    old,
                    new: new.clone(),
                }),
                Some(_) => {}
            }
        }
        let gone = self.places.iter();
        let gone = gone.filter(|old| of(&new.places, &old.owner).is_none());
        found.extend(gone.cloned().map(Difference::Gone));
        found
    }
}

impl Place {
    /// Whether this place on a device is what a release takes for `new`. What grows has its end elsewhere on
    /// every device.
    fn serves_as(&self, new: &Self) -> bool {
        let end = self.end == new.end || (self.grows && new.grows);
        self.start == new.start && end && (self.role, self.number) == (new.role, new.number)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let range = |place: &Place| format!("bytes {} to {}", place.start, place.end);
        match self {
            Self::Table { old, new } => write!(
                f,
                "the device has a partition table of kind {old:?}, the release expects {new:?}"
            ),
            Self::Missing(new) => {
                write!(f, "the device has no {} ({})", new.owner, range(new))
            }
            Self::Gone(old) => write!(
                f,
                "the device has a {} ({}), which the release does not know",
                old.owner,
                range(old)
            ),
            Self::Moved { old, new } if (old.start, old.end) == (new.start, new.end) => write!(
                f,
                "the device's {} has another number or another use in the release",
                old.owner
            ),
            Self::Moved { old, new } => write!(
                f,
                "the device's {} has {}, the release expects {}",
                old.owner,
                range(old),
                range(new)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::{builtin, list, Board, Size};
    use crate::disk::plan;
    use std::collections::BTreeMap;

    fn of(board: &Board) -> FieldLayout {
        FieldLayout::of(&plan(board, &BTreeMap::new()).unwrap())
    }

    fn said(old: &FieldLayout, new: &FieldLayout) -> String {
        let lines: Vec<String> = old.differences(new).iter().map(|d| d.to_string()).collect();
        lines.join("\n")
    }

    #[test]
    fn every_board_takes_its_own_releases_and_its_record_is_read_back() {
        for id in list() {
            let layout = of(&builtin(id).unwrap());
            let read = FieldLayout::parse(&layout.to_json().unwrap()).unwrap();
            assert_eq!(read, layout, "{id}");
            assert!(layout.differences(&read).is_empty(), "{id}");
            assert!(layout.root_bytes() >= 64 << 20, "{id}");
        }
    }

    /// Each case: a change of the board file, and what must be said about it.
    #[test]
    fn whatever_moves_is_named_with_both_places() {
        let board = builtin("rockpro64").unwrap();
        let old = of(&board);
        type Case = (&'static str, fn(&mut Board), &'static [&'static str]);
        let cases: [Case; 7] = [
            (
                "the root partition is larger",
                |b| b.disk.partitions[1].size = Size(4 << 30),
                &["partition \"root\" has bytes", "partition \"data\" has bytes"],
            ),
            (
                "another partition table",
                |b| b.disk.table = Table::Hybrid,
                &["of kind Gpt, the release expects Hybrid"],
            ),
            (
                "the environment is elsewhere",
                |b| b.boot.environment.as_mut().unwrap().redundant_offset = Size(13 << 20),
                &["boot environment, second copy has bytes 12582912 to 12599296, the release expects bytes 13631488"],
            ),
            (
                "the boot loader is elsewhere",
                |b| b.disk.raw[0].size = Size(b.disk.raw[0].size.0 + 512),
                &["raw area"],
            ),
            (
                "a boot loader area less",
                |b| drop(b.disk.raw.remove(0)),
                &["which the release does not know"],
            ),
            (
                "another label",
                |b| b.disk.partitions[1].label = "system".into(),
                &["the device has no partition \"system\"", "has a partition \"root\""],
            ),
            (
                "another use",
                |b| {
                    b.disk.partitions[0].role = Role::Data;
                },
                &["another number or another use"],
            ),
        ];
        for (name, change, wanted) in cases {
            let mut changed = board.clone();
            change(&mut changed);
            let text = said(&old, &of(&changed));
            for wanted in wanted {
                assert!(text.contains(wanted), "{name}: {text}");
            }
        }
    }

    #[test]
    fn what_grows_may_end_anywhere() {
        let board = builtin("rpi4").unwrap();
        let mut changed = board.clone();
        changed.disk.partitions[2].size = Size(1 << 30);
        assert_eq!(said(&of(&board), &of(&changed)), "");
        changed.disk.partitions[2].grow = false;
        assert!(said(&of(&board), &of(&changed)).contains("partition \"data\""));
    }

    #[test]
    fn records_of_newer_builders_and_garbage_are_told() {
        let newer = FieldLayout::parse(r#"{"format": 2, "places": {}}"#).unwrap_err();
        assert!(newer.to_string().contains("newer builder"), "{newer}");
        for text in [
            "",
            "{}",
            r#"{"format": 1}"#,
            r#"{"format": 1, "table": "gpt", "places": [{}]}"#,
        ] {
            assert!(FieldLayout::parse(text).is_err(), "{text}");
        }
    }
}
