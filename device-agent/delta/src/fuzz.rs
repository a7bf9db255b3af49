//! What the fuzzer calls (`fuzz/`).

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::OnceLock;

use crate::memory::{Device, Store};
use crate::{make, Checksum};

/// A small repository with a compressed file and this program's own code, and a delta that leads on from it.
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
        let frame: &[u8] = include_bytes!("../fuzz/sample.zst");
        let program = std::fs::read("/proc/self/exe").unwrap_or_default();
        let program = &program[program.len() / 2..program.len().min(program.len() / 2 + 4000)];
        let mut both = Store::default();
        let old = [
            ("a.zst", frame.to_vec()),
            ("text", text(1)),
            ("program", program.to_vec()),
        ];
        let mut changed = frame.to_vec();
        changed.extend(b"more");
        let from = both.commit(&old);
        let to = both.commit(&[
            ("a.zst", changed),
            ("text", text(2)),
            ("program", program[100..].to_vec()),
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
    let _ = crate::make::packed_in(bytes, bytes);
}
