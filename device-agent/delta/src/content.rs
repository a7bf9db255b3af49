//! The bytes of a file, coded by what is expected of them.

use std::collections::{BTreeMap, VecDeque};

use crate::bytes::{Bytes, Expected};
use crate::code::{hash, BitCoder, Model, Numbers};
use crate::fields::RECENT;
use crate::layout::Layout;
use crate::plan::Plan;
use crate::sites::{Site, Sites};
use crate::source::Source;
use crate::tape::{Tape, WINDOW};
use crate::Error;

/// Bytes that are said to be as expected by one flag.
const SPAN: usize = 48;
/// Bytes of a correction in its tree, roughly: keys and values of nodes that are two thirds full.
const CORRECTION: u64 = 48;

/// All statistics. They are carried over from file to file.
pub(crate) struct Models {
    pub(crate) numbers: Numbers,
    /// Whether fields are as expected.
    pub(crate) flags: Model<4>,
    /// Whether spans are, and bytes.
    spans: Model<3>,
    hits: Model<6>,
    pub(crate) bytes: Bytes,
}

impl Models {
    pub(crate) fn new() -> Self {
        Self {
            numbers: Numbers::new(),
            flags: Model::new(16, 64, 255),
            spans: Model::new(16, 4, 255),
            hits: Model::new(18, 4, 255),
            bytes: Bytes::new(),
        }
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> u64 {
        self.numbers.memory()
            + self.flags.memory()
            + self.spans.memory()
            + self.hits.memory()
            + self.bytes.memory()
    }
}

/// Codes one file.
pub(crate) struct Content<'a, C> {
    pub(crate) coder: &'a mut C,
    pub(crate) models: &'a mut Models,
    pub(crate) old: &'a dyn Source,
    pub(crate) sites: Option<Sites<'a>>,
    pub(crate) layout: Option<Layout>,
    pub(crate) corrections: BTreeMap<(u8, u64), i64>,
    pub(crate) recent: VecDeque<i64>,
    /// Outcomes of the last predictions, newest lowest.
    pub(crate) hits: u32,
    pub(crate) spans: u32,
}

impl<'a, C: BitCoder> Content<'a, C> {
    pub(crate) fn new(
        coder: &'a mut C,
        models: &'a mut Models,
        old: &'a dyn Source,
        sites: Option<Sites<'a>>,
        layout: Option<Layout>,
    ) -> Self {
        Self {
            coder,
            models,
            old,
            sites,
            layout,
            corrections: BTreeMap::new(),
            recent: VecDeque::from(vec![0; RECENT]),
            hits: u32::MAX,
            spans: u32::MAX,
        }
    }

    /// Bytes of memory besides the statistics, roughly: windows, what is known of the file, corrections.
    pub(crate) fn memory(&self) -> u64 {
        let known = self.sites.as_ref().map_or(0, Sites::memory);
        let layout = self.layout.as_ref().map_or(0, Layout::memory);
        2 * WINDOW + known + layout + self.corrections.len() as u64 * CORRECTION
    }

    pub(crate) fn code(&mut self, plan: &Plan, tape: &mut Tape<'_>) -> Result<(), Error> {
        let mut window = Vec::new();
        let mut sites = Vec::new();
        for step in &plan.steps {
            self.fresh(step.fresh, tape)?;
            let mut done = 0;
            while done < step.alike {
                self.coder.check().map_err(Error::Delta)?;
                let mut length = (step.alike - done).min(WINDOW);
                let from = step.old + done;
                sites.clear();
                if let Some(finder) = &mut self.sites {
                    finder.within(from, from + length, &mut sites);
                    // A field that the window's end cuts is left to the next one.
                    if done + length < step.alike && length > 64 {
                        length -= 16;
                        sites.retain(|s| s.at + u64::from(s.width) <= from + length);
                    }
                }
                window.resize(length as usize, 0);
                self.old.read_at(from, &mut window).map_err(Error::Old)?;
                self.alike(from, &window, &sites, tape)?;
                done += length;
            }
        }
        self.coder.check().map_err(Error::Delta)?;
        tape.flush()
    }

    /// Bytes that nothing in the old file resembles.
    fn fresh(&mut self, count: u64, tape: &mut Tape<'_>) -> Result<(), Error> {
        let end = tape.at + count;
        let mut checked = tape.at;
        while tape.at < end {
            if tape.at >= checked {
                self.coder.check().map_err(Error::Delta)?;
                checked = tape.at + WINDOW;
            }
            if !self.fresh_field(end - tape.at, tape)? {
                self.models.bytes.fresh(self.coder, tape)?;
            }
        }
        Ok(())
    }

    fn alike(
        &mut self,
        from: u64,
        window: &[u8],
        sites: &[Site],
        tape: &mut Tape<'_>,
    ) -> Result<(), Error> {
        let mut at = 0usize;
        for site in sites {
            let place = (site.at - from) as usize;
            self.plain(&window[at..place], tape)?;
            let field = &window[place..place + usize::from(site.width)];
            self.site(site, field, tape)?;
            at = place + field.len();
        }
        self.plain(&window[at..], tape)
    }

    /// Bytes that are expected to be the old ones.
    pub(crate) fn plain(&mut self, old: &[u8], tape: &mut Tape<'_>) -> Result<(), Error> {
        for span in old.chunks(SPAN) {
            let same = C::ENCODES && span.iter().enumerate().all(|(i, b)| tape.ahead(i) == *b);
            let size = span.len().min(63).ilog2();
            let contexts = [
                hash(1, self.spans & 0xff),
                hash(2, (self.spans & 7) << 8 | size << 4 | (self.hits & 3)),
                hash(3, u32::from(span[0]) << 8 | self.spans & 1),
            ];
            let same = self
                .models
                .spans
                .bit(self.coder, &contexts, 0, u32::from(same));
            self.spans = self.spans << 1 | same;
            if same == 1 {
                tape.extend(span)?;
                continue;
            }
            let mut equal = 0xffu32;
            let mut any = false;
            for (i, &byte) in span.iter().enumerate() {
                let actual = tape.ahead(0);
                // If all but the last were right, the last is wrong.
                let known = i + 1 == span.len() && !any;
                let contexts = [
                    hash(4, equal & 0xff | u32::from(any) << 8),
                    hash(5, u32::from(byte) | (equal & 3) << 8),
                    hash(6, (equal & 15) << 6 | i as u32),
                    hash(7, u32::from(byte) << 8 | (tape.history() & 0xff) as u32),
                    hash(
                        hash(8, (tape.history() & 0xffff) as u32),
                        u32::from(byte) << 1 | equal & 1,
                    ),
                    hash(9, self.models.bytes.agrees(byte) << 4 | equal & 15),
                ];
                let hit = if known {
                    0
                } else {
                    self.models
                        .hits
                        .bit(self.coder, &contexts, 0, u32::from(actual == byte))
                };
                equal = equal << 1 | hit;
                any |= hit == 0;
                let byte = if hit == 1 {
                    byte
                } else {
                    let expected = Expected {
                        kind: 1,
                        byte,
                        next: span.get(i + 1).copied().unwrap_or(0),
                    };
                    let bytes = &mut self.models.bytes;
                    bytes.instead(self.coder, expected, actual, tape)
                };
                self.models.bytes.push(byte, tape)?;
            }
        }
        Ok(())
    }
}
