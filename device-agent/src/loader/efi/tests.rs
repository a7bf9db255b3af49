//! A machine with a firmware partition in memory and firmware that does what the UEFI specification says of its
//! list. The power is cut after every sector and every variable that is written.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::process::Command;
use std::rc::Rc;

use anyhow::bail;

use super::*;

/// Writes that are left before the power goes.
type Power = Rc<Cell<Option<usize>>>;

fn spend(power: &Power) -> io::Result<()> {
    match power.get() {
        Some(0) => Err(io::Error::other("the power is gone")),
        left => {
            power.set(left.map(|left| left - 1));
            Ok(())
        }
    }
}

#[derive(Clone)]
struct Memory {
    bytes: Vec<u8>,
    power: Power,
}

impl Medium for Memory {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.bytes.len() as u64)
    }

    fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let bytes = self.bytes.get(offset as usize..offset as usize + length);
        bytes
            .map(<[u8]>::to_vec)
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        for (index, sector) in bytes.chunks(512).enumerate() {
            spend(&self.power)?;
            let at = offset as usize + index * 512;
            self.bytes[at..at + sector.len()].copy_from_slice(sector);
        }
        Ok(())
    }
}

#[derive(Clone, Default)]
struct Map {
    values: RefCell<BTreeMap<String, Vec<u8>>>,
    power: Power,
}

impl Variables for Map {
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.values.borrow().get(name).cloned())
    }

    fn set(&self, name: &str, value: &[u8]) -> Result<()> {
        spend(&self.power)?;
        self.values.borrow_mut().insert(name.into(), value.to_vec());
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>> {
        Ok(self.values.borrow().keys().cloned().collect())
    }
}

/// A device. `tried` is what the agent keeps of it.
#[derive(Clone)]
struct World {
    medium: Memory,
    variables: Map,
    tried: RefCell<Option<Tried>>,
    boots: usize,
}

const PARTITION: Partition = Partition {
    number: 1,
    start: 2048,
    blocks: 4096,
    guid: [7; 16],
};

/// A program by which its edition can be told.
fn program(edition: u32, name: &str) -> Vec<u8> {
    format!("{name} of edition {edition} ")
        .repeat(400)
        .into_bytes()
}

fn set(edition: u32) -> EfiSet {
    let names = ["BOOTX64.EFI", "grubx64.efi"];
    let files: Vec<_> = names.map(|name| (name, program(edition, name))).into();
    EfiSet::of(
        edition,
        files
            .iter()
            .map(|(name, content)| (*name, content.as_slice())),
    )
}

impl World {
    /// Fresh from the factory, on edition 1.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("fat.img");
        let run = |program: &str, package: &str, args: &[&std::ffi::OsStr]| {
            let output = Command::new(program).args(args).output();
            let output = output.unwrap_or_else(|e| panic!("{program}: {e}; install {package}"));
            assert!(output.status.success(), "{program}: {output:?}");
        };
        let words = [
            "-F".as_ref(),
            "12".as_ref(),
            "-C".as_ref(),
            image.as_os_str(),
            "2048".as_ref(),
        ];
        run("mkfs.fat", "dosfstools", &words);
        for made in [
            "::EFI",
            "::EFI/BOOT",
            "::EFI/treeline",
            "::EFI/treeline/a",
            "::EFI/treeline/b",
        ] {
            run(
                "mmd",
                "mtools",
                &["-i".as_ref(), image.as_os_str(), made.as_ref()],
            );
        }
        let mut medium = Memory {
            bytes: std::fs::read(&image).unwrap(),
            power: Power::default(),
        };
        for name in ["BOOTX64.EFI", "grubx64.efi"] {
            let path = format!("{}/{name}", DIRS[FACTORY]);
            fat_files::replace(&mut medium, &path, &program(1, name)).unwrap();
        }
        let records = [set(1), EfiSet::default(), EfiSet::default()];
        for (dir, set) in DIRS.iter().zip(records) {
            let text = set.render();
            fat_files::replace(&mut medium, &format!("{dir}/{RECORD}"), text.as_bytes()).unwrap();
        }
        let power = Power::default();
        medium.power = Rc::clone(&power);
        let variables = Map {
            power,
            ..Map::default()
        };
        // What firmware makes by itself: a network card, and the disk as a whole.
        for (number, foreign) in [(0, "UEFI PXEv4"), (1, "UEFI disk")] {
            let option = BootOption {
                description: foreign.into(),
                partition: Partition {
                    guid: [number; 16],
                    ..PARTITION
                },
                path: "x".into(),
            };
            variables
                .set(&format!("Boot{number:04X}"), &option.render())
                .unwrap();
        }
        variables.set("BootOrder", &[0, 0, 1, 0]).unwrap();
        let mut world = Self {
            medium,
            variables,
            tried: RefCell::new(None),
            boots: 0,
        };
        assert_eq!(world.boot(None), 1);
        world
    }

    fn fork(&self, power: Option<usize>) -> Self {
        let mut world = self.clone();
        let fresh = Rc::new(Cell::new(power));
        world.medium.power = Rc::clone(&fresh);
        world.variables.power = fresh;
        world
    }

    /// What firmware starts; `broken` is an edition that does not start. Returns the edition.
    fn boot(&mut self, broken: Option<u32>) -> u32 {
        self.boots += 1;
        let list = BootList::new(&self.variables);
        let next = list.next().unwrap();
        let order = list.order().unwrap();
        let known = next.into_iter().chain(order).filter_map(|number| {
            let option = list.option(number).unwrap()?;
            (option.partition.guid == PARTITION.guid).then_some((number, option.path))
        });
        // The disk as a whole: the default program.
        let all: Vec<_> = known
            .chain([(1, format!("{}/BOOTX64.EFI", DIRS[0]))])
            .collect();
        let found = all.iter().find_map(|(number, path)| {
            let edition = self.runs(path).filter(|edition| Some(*edition) != broken);
            Some((*number, edition?))
        });
        let (number, edition) = found.expect("the machine starts nothing");
        let mut values = self.variables.values.borrow_mut();
        values.remove("BootNext");
        values.insert("BootCurrent".into(), number.to_le_bytes().into());
        edition
    }

    /// The edition that the program at `path` starts, if it and what it needs are whole and belong together.
    fn runs(&self, path: &str) -> Option<u32> {
        let dir = path.rsplit_once('/')?.0;
        (1..5).find(|edition| {
            ["BOOTX64.EFI", "grubx64.efi"].iter().all(|name| {
                let found = fat_files::read(&self.medium, &format!("{dir}/{name}"), 1 << 20);
                found.unwrap().as_deref() == Some(&program(*edition, name)[..])
            })
        })
    }

    fn update(&mut self, edition: u32) -> Result<Outcome> {
        let wanted = set(edition);
        let boot = self.boots.to_string();
        let remembered = self.tried.borrow().clone();
        let tried = &self.tried;
        let mut machine = Machine {
            medium: &mut self.medium,
            list: BootList::new(&self.variables),
            partition: PARTITION,
        };
        let content = |file: &EfiFile| Ok(program(edition, &file.name));
        let remember = |now: &Tried| {
            *tried.borrow_mut() = Some(now.clone());
            Ok(())
        };
        let outcome = machine.update(&wanted, &content, remembered.as_ref(), &boot, &remember)?;
        if matches!(outcome, Outcome::Current | Outcome::Kept) {
            *tried.borrow_mut() = None;
        }
        Ok(outcome)
    }

    fn first(&self) -> u16 {
        BootList::new(&self.variables).order().unwrap()[0]
    }
}

#[test]
fn a_new_set_is_tried_and_kept_and_the_next_one_takes_the_other_place() {
    let mut world = World::new();
    let order = BootList::new(&world.variables).order().unwrap();
    assert_eq!(world.update(1).unwrap(), Outcome::Current);
    assert_eq!(world.update(2).unwrap(), Outcome::Armed);
    assert_eq!(BootList::new(&world.variables).order().unwrap(), order);
    assert_eq!(world.update(2).unwrap(), Outcome::Waits);
    assert_eq!(world.boot(None), 2);
    assert_eq!(world.first(), 0, "only tried");
    assert_eq!(world.update(2).unwrap(), Outcome::Kept);
    assert_eq!(world.update(2).unwrap(), Outcome::Current);
    let a = world.first();
    assert_eq!(world.boot(None), 2);
    assert_eq!(world.update(3).unwrap(), Outcome::Armed);
    assert_eq!(world.boot(None), 3);
    assert_eq!(world.update(3).unwrap(), Outcome::Kept);
    let list = BootList::new(&world.variables);
    let order = list.order().unwrap();
    assert_eq!(order[1], a, "then the one before");
    let paths: Vec<_> = order[..3]
        .iter()
        .map(|n| list.option(*n).unwrap().unwrap().path)
        .collect();
    let wanted =
        ["EFI/treeline/b", "EFI/treeline/a", "EFI/BOOT"].map(|dir| format!("{dir}/BOOTX64.EFI"));
    assert_eq!(paths, wanted);
    assert_eq!(order[3..], [0, 1], "what was there stays");
    // The third takes the place of the first, which is no way out while it is written.
    assert_eq!(world.boot(Some(3)), 2);
    assert_eq!(world.boot(None), 3);
    assert_eq!(world.update(4).unwrap(), Outcome::Armed);
    assert!(!BootList::new(&world.variables)
        .order()
        .unwrap()
        .contains(&a));
    assert_eq!(world.boot(None), 4);
    assert_eq!(world.update(4).unwrap(), Outcome::Kept);
    assert_eq!(world.first(), a);
    // Firmware that has forgotten everything starts what the device was flashed with.
    world.variables.values.borrow_mut().clear();
    assert_eq!(world.boot(None), 1);
    assert_eq!(world.update(4).unwrap(), Outcome::Armed);
}

#[test]
fn what_does_not_start_is_tried_a_few_times() {
    let mut world = World::new();
    for _ in 0..TRIES {
        assert_eq!(world.update(2).unwrap(), Outcome::Armed);
        assert_eq!(world.update(2).unwrap(), Outcome::Waits);
        assert_eq!(world.boot(Some(2)), 1);
    }
    for _ in 0..2 {
        assert_eq!(world.update(2).unwrap(), Outcome::Failed);
        assert_eq!(world.boot(Some(2)), 1);
    }
    // Another edition is another matter, and so is `--again`.
    assert_eq!(world.fork(None).update(3).unwrap(), Outcome::Armed);
    *world.tried.borrow_mut() = None;
    assert_eq!(world.update(2).unwrap(), Outcome::Armed);
    assert_eq!(world.boot(None), 2);
    // The agent's own state is lost: what runs is kept all the same.
    *world.tried.borrow_mut() = None;
    assert_eq!(world.update(2).unwrap(), Outcome::Kept);
}

/// To the next edition, cut after every write.
fn cut_everywhere(begin: &World, edition: u32) {
    let steps = |world: &mut World| -> Result<u32> {
        if world.update(edition)? == Outcome::Armed {
            world.boot(None);
        }
        match world.update(edition)? {
            Outcome::Kept | Outcome::Current => Ok(world.boot(None)),
            other => bail!("{other:?}"),
        }
    };
    let mut whole = begin.fork(Some(1_000_000));
    assert_eq!(steps(&mut whole).unwrap(), edition);
    let writes = 1_000_000 - whole.medium.power.get().unwrap();
    assert!(writes > 20, "{writes}");
    for left in 0..writes {
        let mut torn = begin.fork(Some(left));
        assert!(steps(&mut torn).is_err(), "{left}");
        let mut torn = torn.fork(None);
        let started = torn.boot(None);
        assert!(
            started == edition || started == edition - 1,
            "{left}: {started}"
        );
        // What does not start is left again.
        assert_eq!(torn.fork(None).boot(Some(edition)), edition - 1, "{left}");
        let end = steps(&mut torn).map_err(|error| format!("{left}: {error}"));
        assert!(end == Ok(edition), "{left}: {end:?}");
    }
}

#[test]
fn a_power_cut_anywhere_leaves_a_machine_that_starts() {
    let world = World::new();
    cut_everywhere(&world, 2);
    let mut second = world.fork(None);
    for edition in [2, 3] {
        second.update(edition).unwrap();
        second.boot(None);
        assert_eq!(second.update(edition).unwrap(), Outcome::Kept);
    }
    cut_everywhere(&second, 4);
}

#[test]
fn what_was_damaged_later_is_not_taken_for_whole() {
    let mut world = World::new();
    world.update(2).unwrap();
    world.boot(None);
    world.update(2).unwrap();
    let path = format!("{}/grubx64.efi", DIRS[1]);
    fat_files::replace(&mut world.medium, &path, b"damaged").unwrap();
    assert_eq!(world.boot(None), 1, "EFI/BOOT is there for that");
    *world.tried.borrow_mut() = None;
    assert_eq!(world.update(2).unwrap(), Outcome::Armed);
    assert_eq!(world.boot(None), 2);
}
