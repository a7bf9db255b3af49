//! What the fuzzer calls (`fuzz/`).

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::OnceLock;

use crate::memory::{Device, Store};
use crate::{make, Checksum};

/// A small repository with a compressed file, a library and an object file, and a delta that leads on from it.
struct World {
    old: Store,
    from: Checksum,
    to: Checksum,
    delta: Vec<u8>,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let text = |step: usize| -> Vec<u8> {
            (0..100)
                .flat_map(|i| format!("line {} of {step}; ", i * 7 % 997).into_bytes())
                .collect()
        };
        let frame: &[u8] = include_bytes!("../fuzz/seeds/sample.zst");
        let program = [
            &include_bytes!("../fuzz/seeds/x86_64-1.so")[..],
            include_bytes!("../fuzz/seeds/x86_64-2.so"),
        ];
        let module = [
            &include_bytes!("../fuzz/seeds/x86_64-1.o")[..],
            include_bytes!("../fuzz/seeds/x86_64-2.o"),
        ];
        let mut both = Store::default();
        let old = [
            ("a.zst", frame.to_vec()),
            ("text", text(1)),
            ("program", program[0].to_vec()),
            ("module", module[0].to_vec()),
        ];
        let mut changed = frame.to_vec();
        changed.extend(b"more");
        let from = both.commit(&old);
        let to = both.commit(&[
            ("a.zst", changed),
            ("text", text(2)),
            ("program", program[1].to_vec()),
            ("module", module[1].to_vec()),
        ]);
        let mut alone = Store::default();
        alone.commit(&old);
        let made = make(&both, &from, &to, 1);
        World {
            old: alone,
            from,
            to,
            delta: made.map(|m| m.bytes).unwrap_or_default(),
        }
    })
}

/// Applies `bytes` as a delta; the first says how much of a true one comes before the rest.
pub fn apply(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else {
        return;
    };
    let world = world();
    let true_part = world.delta.len() * usize::from(*first) / 256;
    let mut delta = world.delta[..true_part.max(8).min(world.delta.len())].to_vec();
    delta.extend(rest);
    let new = Rc::new(RefCell::new(Store::default()));
    let mut device = Device {
        old: &world.old,
        new: Rc::clone(&new),
    };
    let _ = crate::apply(&delta[..], &world.from, &world.to, 1 << 22, &mut device);
}

/// Takes a compressed part apart; what is found is put together again.
pub fn frame(bytes: &[u8]) {
    let _ = crate::make::packed_in(bytes, bytes, &|_, old, new, elf| {
        crate::make::plan(old, new, elf)
    });
}

/// Makes a delta from one file to another and applies it: whatever they hold, the second comes out. The first two bytes
/// say how long the first file is.
pub fn pair(bytes: &[u8]) {
    let Some((length, files)) = bytes.split_first_chunk() else {
        return;
    };
    let length = usize::from(u16::from_le_bytes(*length)).min(files.len());
    let (old, new) = files.split_at(length);
    let (mut both, mut alone) = (Store::default(), Store::default());
    let from = both.commit(&[("file", old.to_vec())]);
    let to = both.commit(&[("file", new.to_vec())]);
    alone.commit(&[("file", old.to_vec())]);
    let Ok(made) = make(&both, &from, &to, 1) else {
        panic!("no delta of two files");
    };
    let made_here = Rc::new(RefCell::new(Store::default()));
    let mut device = Device {
        old: &alone,
        new: Rc::clone(&made_here),
    };
    if let Err(error) = crate::apply(&made.bytes[..], &from, &to, u64::MAX, &mut device) {
        panic!("a delta just made: {error}");
    }
}
