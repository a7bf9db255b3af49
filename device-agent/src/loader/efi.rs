//! The programs that UEFI firmware starts: a second set is written beside the first, the firmware tries it at the
//! next boot, once (`BootNext`), and only a system that was started by it makes it the first of the list.
//!
//! `EFI/BOOT` is what a device was flashed with. It is never written: firmware that has forgotten its list starts it.

mod boot_list;
mod boot_option;
mod place;
#[cfg(test)]
mod tests;

use anyhow::{ensure, Context, Result};
use bsp::block::BlockDevice;
use bsp::efi::{EfiFile, EfiSet, DIRS, MAX_BYTES, RECORD};
use bsp::fat_files::{self, Medium};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Replaced, Standing};
use crate::device::Device;
use crate::paths::Paths;
use crate::problem::{Kind, Problem};
use crate::{record, stop_point};

use boot_list::{BootList, EfiVarFs, Variables};
use boot_option::{BootOption, Partition};

/// Name of the set where boot loaders are listed.
const NAME: &str = "efi";
/// What the firmware's menu shows for each directory.
const DESCRIPTIONS: [&str; DIRS.len()] = ["Treeline", "Treeline A", "Treeline B"];
/// The directory that is never written.
const FACTORY: usize = 0;
/// The most that a record may have: bytes.
const RECORD_LIMIT: u64 = 64 * 1024;

/// What was tried last, so that a set that does not start is not tried for ever. Kept in the agent's own state: if
/// that is lost, it is tried once more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Tried {
    /// SHA-256 of the set's record, as hex digits.
    sha256: String,
    /// `boot_id` of the boot in which firmware was told to try it.
    boot: String,
    /// How often it was told to.
    times: u32,
}

impl Tried {
    /// Whether it is about this set.
    fn is_about(&self, wanted: &EfiSet) -> bool {
        self.sha256 == identity(wanted)
    }
}

/// How often a set is tried: the power may go while it is, or before what it has started says so.
const TRIES: u32 = 3;

fn identity(set: &EfiSet) -> String {
    hex::encode(Sha256::digest(set.render()))
}

/// Where a device's programs are, and what decides between them.
struct Machine<'a> {
    medium: &'a mut dyn Medium,
    list: BootList<'a>,
    partition: Partition,
}

/// What an update came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Nothing was to be done.
    Current,
    /// The new set is there, and firmware tries it at the next boot.
    Armed,
    /// The same, and was so before.
    Waits,
    /// The new set has started this system; it is the first of the list now.
    Kept,
    /// It was tried often enough and did not start this system.
    Failed,
}

impl Machine<'_> {
    fn option(&self, slot: usize, set: &EfiSet) -> Result<BootOption> {
        let first = set.first().context("firmware starts none of its files")?;
        Ok(BootOption {
            description: DESCRIPTIONS[slot].into(),
            partition: self.partition,
            path: format!("{}/{}", DIRS[slot], first.name),
        })
    }

    /// The directory whose program has started this system: what is not one of the others is `EFI/BOOT`, however
    /// firmware came to it.
    fn started(&self) -> Result<usize> {
        let current = match self.list.current()? {
            Some(number) => self.list.option(number)?,
            None => None,
        };
        let is_in = |dir: &str, path: &str| {
            let head = path.get(..dir.len() + 1);
            head.is_some_and(|head| head.eq_ignore_ascii_case(&format!("{dir}/")))
        };
        let ours = current.filter(|option| option.partition.guid == self.partition.guid);
        let slot =
            ours.and_then(|option| (1..DIRS.len()).find(|slot| is_in(DIRS[*slot], &option.path)));
        Ok(slot.unwrap_or(FACTORY))
    }

    /// What a directory holds, if that is whole; nothing where there is no such directory.
    fn held(&self, slot: usize) -> Result<Option<EfiSet>> {
        let read = |name: &str, most: u64| {
            let path = format!("{}/{name}", DIRS[slot]);
            fat_files::read(&*self.medium, &path, most)
                .with_context(|| format!("reading {path} of the firmware partition"))
        };
        let Some(text) = read(RECORD, RECORD_LIMIT)? else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&text);
        let Some(set) = EfiSet::parse(&text).filter(|set| set.edition > 0) else {
            return Ok(None);
        };
        for file in &set.files {
            if !read(&file.name, MAX_BYTES)?.is_some_and(|content| file.is(&content)) {
                return Ok(None);
            }
        }
        Ok(Some(set))
    }

    fn edition(&self, slot: usize) -> Result<Option<u32>> {
        Ok(self.held(slot)?.map(|set| set.edition))
    }

    /// The directory for a new set.
    fn spare(&self, started: usize) -> usize {
        if started == 1 {
            2
        } else {
            1
        }
    }

    /// Does the next step towards `wanted`; `content` gives its files.
    fn update(
        &mut self,
        wanted: &EfiSet,
        content: &dyn Fn(&EfiFile) -> Result<Vec<u8>>,
        remembered: Option<&Tried>,
        boot: &str,
        remember: &dyn Fn(&Tried) -> Result<()>,
    ) -> Result<Outcome> {
        let started = self.started()?;
        if let Some(set) = self.held(started)? {
            if set.edition >= wanted.edition {
                return self.keep(started, &set);
            }
        }
        let mut times = 0;
        if let Some(tried) = remembered {
            if tried.is_about(wanted) {
                match tried.times {
                    _ if tried.boot == boot => return Ok(Outcome::Waits),
                    TRIES.. => return Ok(Outcome::Failed),
                    before => times = before,
                }
            }
        }
        let spare = self.spare(started);
        let option = self.option(spare, wanted)?;
        // What is about to be written is no way out.
        if let Some(number) = self.list.find(&option)? {
            let mut order = self.list.order()?;
            order.retain(|listed| *listed != number);
            self.list.set_order(&order)?;
        }
        if self.held(spare)?.as_ref() != Some(wanted) {
            self.write(spare, wanted, content)?;
        }
        stop_point::reach("loader-written");
        let number = self.list.ensure(&option)?;
        self.list.try_next(number)?;
        // After that: what was never tried must not count as tried.
        remember(&Tried {
            sha256: identity(wanted),
            boot: boot.into(),
            times: times + 1,
        })?;
        stop_point::reach("loader-armed");
        Ok(Outcome::Armed)
    }

    /// The record comes last: before it, nobody takes the set for one.
    fn write(
        &mut self,
        slot: usize,
        set: &EfiSet,
        content: &dyn Fn(&EfiFile) -> Result<Vec<u8>>,
    ) -> Result<()> {
        let dir = DIRS[slot];
        let mut put = |name: &str, bytes: &[u8]| {
            fat_files::replace(self.medium, &format!("{dir}/{name}"), bytes).with_context(|| {
                format!("writing {dir}/{name} on the firmware partition; a device that was flashed before this way existed has no such directory")
            })
        };
        put(RECORD, EfiSet::default().render().as_bytes())?;
        for file in &set.files {
            put(&file.name, &content(file)?)?;
        }
        put(RECORD, set.render().as_bytes())?;
        ensure!(
            self.held(slot)?.as_ref() == Some(set),
            "reading {dir} back gave something else than what was written; the old boot loader stays"
        );
        Ok(())
    }

    /// Makes the set that has started this system the first of the list, if it is not; then come the other one of
    /// ours that is listed, and what the device was flashed with.
    fn keep(&self, started: usize, set: &EfiSet) -> Result<Outcome> {
        if started == FACTORY {
            return Ok(Outcome::Current);
        }
        let number = self.list.ensure(&self.option(started, set)?)?;
        let old = self.list.order()?;
        if old.first() == Some(&number) {
            return Ok(Outcome::Current);
        }
        stop_point::reach("loader-tried");
        let mut order = vec![number];
        for slot in [self.spare(started), FACTORY] {
            let Some(held) = self.held(slot)? else {
                continue;
            };
            let option = self.option(slot, &held)?;
            let other = match slot {
                FACTORY => Some(self.list.ensure(&option)?),
                _ => self.list.find(&option)?,
            };
            order.extend(other.filter(|other| slot == FACTORY || old.contains(other)));
        }
        let rest: Vec<u16> = old.into_iter().filter(|n| !order.contains(n)).collect();
        order.extend(rest);
        self.list.set_order(&order)?;
        Ok(Outcome::Kept)
    }
}

fn tried_file(paths: &Paths) -> std::path::PathBuf {
    paths.state().join("loader-tried.json")
}

fn boot_id(device: &Device) -> Result<String> {
    let path = device.paths.at("proc/sys/kernel/random/boot_id");
    let id = std::fs::read_to_string(&path);
    let id = id.with_context(|| format!("reading {}", path.display()))?;
    Ok(id.trim().into())
}

/// The variables, if UEFI has started this machine: boards whose image starts by a BIOS as well have both.
fn variables(device: &Device) -> Option<EfiVarFs> {
    EfiVarFs::open(&device.paths.at(boot_list::DIR))
}

fn with_machine<T>(
    device: &Device,
    variables: &dyn Variables,
    act: impl FnOnce(&mut Machine<'_>) -> Result<T>,
) -> Result<T> {
    let uuid = &device.config.boot.firmware_partuuid;
    let link = device.paths.at("dev/disk/by-partuuid").join(uuid);
    let mut medium = BlockDevice::new(&link);
    act(&mut Machine {
        medium: &mut medium,
        list: BootList::new(variables),
        partition: place::partition(&device.paths, &link, uuid)?,
    })
}

/// How the set stands.
pub(super) fn look(device: &Device, wanted: &EfiSet) -> Standing {
    let mut standing = Standing {
        name: NAME.into(),
        offered: wanted.edition,
        installed: None,
        kept: None,
        update: NAME,
        state: "unknown",
        error: None,
    };
    let Some(variables) = variables(device) else {
        standing.error = Some("this machine was not started by UEFI firmware".into());
        return standing;
    };
    let found = with_machine(device, &variables, |machine| {
        let started = machine.started()?;
        let spare = machine.spare(started);
        let kept = machine.edition(spare)?.or(machine.edition(FACTORY)?);
        Ok((machine.edition(started)?, kept))
    });
    match found {
        Ok((installed, kept)) => {
            standing.installed = installed;
            standing.kept = kept;
            let tried: Option<Tried> = record::read_json(&tried_file(&device.paths));
            let tried = tried.filter(|tried| tried.is_about(wanted));
            standing.state = match tried {
                _ if installed.is_some_and(|edition| edition >= wanted.edition) => "current",
                Some(tried) if boot_id(device).is_ok_and(|boot| boot == tried.boot) => "armed",
                Some(tried) if tried.times >= TRIES => "failed",
                _ => "outdated",
            };
        }
        Err(error) if super::is_denied(&error) => {
            standing.error = Some("only root can read it".into());
        }
        Err(error) => standing.error = Some(format!("{error:#}")),
    }
    standing
}

/// Does the next step; `again` tries what has failed before.
pub(super) fn update(
    device: &Device,
    wanted: &EfiSet,
    again: bool,
    say: &dyn Fn(&str),
) -> Result<Option<Replaced>> {
    let Some(variables) = variables(device) else {
        say(
            "this machine was not started by UEFI firmware: its programs for that stay as they are",
        );
        return Ok(None);
    };
    let file = tried_file(&device.paths);
    let boot = boot_id(device)?;
    let remembered: Option<Tried> = record::read_json(&file).filter(|_| !again);
    let content =
        |file: &EfiFile| super::brought(device, &file.tree_path(), |bytes| file.is(bytes));
    let (from, outcome) = with_machine(device, &variables, |machine| {
        let started = machine.started()?;
        let from = machine.edition(started)?;
        let remember = |tried: &Tried| record::write_json(&file, tried);
        let outcome = machine.update(wanted, &content, remembered.as_ref(), &boot, &remember)?;
        Ok((from, outcome))
    })?;
    let replaced = |state| {
        Some(Replaced {
            name: NAME.into(),
            from,
            to: wanted.edition,
            state,
        })
    };
    match outcome {
        Outcome::Current => {
            record::remove(&file)?;
            Ok(None)
        }
        Outcome::Kept => {
            record::remove(&file)?;
            Ok(replaced("kept"))
        }
        Outcome::Armed => Ok(replaced("tried-next")),
        Outcome::Waits => {
            say("the new boot loader is tried at the next boot");
            Ok(None)
        }
        Outcome::Failed => Err(Problem::new(
            Kind::Refused,
            format!(
                "edition {} of the programs for UEFI was tried {TRIES} times and did not start this system; the old one stays",
                wanted.edition
            ),
        )
        .hint("`device-agent update-loader --again` tries it again")
        .into()),
    }
}
