//! Bytes that nothing in the old file resembles: predicted from those before them.

use crate::code::{hash, BitCoder, Model};
use crate::tape::Tape;
use crate::Error;

/// Fresh bytes remembered.
const PAST: usize = 1 << 22;

/// Statistics of fresh bytes.
pub(crate) struct Fresh {
    model: Model<6>,
    /// By hash of the last bytes: where they were last seen in `past`.
    seen: Box<[u32]>,
    past: Box<[u8]>,
    past_at: u32,
    copy_from: u32,
    copy_length: u32,
}

impl Fresh {
    pub(crate) fn new() -> Self {
        Self {
            model: Model::new(21, 64, 255),
            seen: vec![0; 1 << 16].into_boxed_slice(),
            past: vec![0; PAST].into_boxed_slice(),
            past_at: 0,
            copy_from: 0,
            copy_length: 0,
        }
    }

    /// A byte without a model in the old file.
    pub(crate) fn code<C: BitCoder>(
        &mut self,
        coder: &mut C,
        tape: &mut Tape<'_>,
    ) -> Result<(), Error> {
        let h = tape.history();
        let low = |bytes: u32| (h & ((1u64 << (8 * bytes)) - 1)) as u32;
        let expected = if self.copy_length > 0 {
            u32::from(self.past[self.copy_from as usize & (PAST - 1)]) | 0x100
        } else {
            0
        };
        let length = self.copy_length.min(15);
        let contexts = [
            hash(0, low(1)),
            hash(1, low(2)),
            hash(2, low(3)),
            hash(3, low(4)),
            hash(hash(4, low(4)), (h >> 32) as u32 & 0xffff),
            hash(hash(5, expected), length),
        ];
        let actual = tape.ahead(0);
        let set = length as usize;
        let byte = self.model.tree(coder, &contexts, set, 8, actual.into()) as u8;
        tape.push(byte)?;
        if self.copy_length > 0 && expected == u32::from(byte) | 0x100 {
            self.copy_length = self.copy_length.saturating_add(1);
            self.copy_from = self.copy_from.wrapping_add(1);
        } else {
            self.copy_length = 0;
        }
        self.past[self.past_at as usize & (PAST - 1)] = byte;
        self.past_at = self.past_at.wrapping_add(1);
        let recent = tape.history();
        let key = (hash(hash(6, recent as u32), (recent >> 32) as u32 & 0xff) & 0xffff) as usize;
        if self.copy_length == 0 && self.seen[key] > 0 {
            self.copy_from = self.seen[key];
            self.copy_length = 1;
        }
        self.seen[key] = self.past_at;
        Ok(())
    }
}
