//! One target from its first byte to its receipt.
//!
//! close the boot area → discard what is not needed → marks → write → read back and compare → settings →
//! boot area. Whatever goes wrong on the way, the disk is left as one that does not boot.

mod failure;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::buffer::{Buffer, Chunk};
use super::engine::{Event, What};
use super::source::{Image, CHUNK};
use super::target::probe::Probe;
use super::target::{Bytes, Guard, Target, Verified, BOOT_AREA};
pub use failure::{Failure, FailureKind};

/// Work that is done on the disk when the image on it is verified, before it can boot.
pub type Finish = Box<dyn FnOnce(&mut Bytes<'_>) -> anyhow::Result<()> + Send>;

/// What is to be done to one target.
pub struct Job {
    /// Its name for people.
    pub name: String,
    /// The target.
    pub target: Box<dyn Target>,
    /// Ranges that stay as they are.
    pub kept: Vec<Range<u64>>,
    /// The boot area as it shall be in the end.
    pub boot_area: Vec<u8>,
    /// The boot area until then: nothing to boot from, but the places of what is kept.
    pub closed_area: Vec<u8>,
    /// The spare partition table, if it does not come from the image: place and content.
    pub tail: Option<(u64, Vec<u8>)>,
    /// Writes only what differs.
    pub minimize: bool,
    /// Everything of the image before this byte stands on the disk already.
    pub resume_from: u64,
    /// First-boot settings.
    pub finish: Option<Finish>,
}

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Closing, discarding.
    Prepare,
    /// Writing.
    Write,
    /// Reading back.
    Verify,
    /// Settings and boot area.
    Finish,
}

/// What became of a job.
#[derive(Debug)]
pub struct Outcome {
    /// The figures, as far as it came.
    pub stats: Stats,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
}

impl Outcome {
    /// A writer that died, which would be a defect.
    pub(super) fn lost() -> Self {
        Self {
            stats: Stats::default(),
            failure: Some(Failure::new(
                FailureKind::Write,
                "the writer died; this is a defect of builder",
            )),
        }
    }
}

/// Figures of a job.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stats {
    /// Bytes of the image written.
    pub written_bytes: u64,
    /// Bytes of the image that stood there already (`--minimize-writes`, `--resume`).
    pub skipped_bytes: u64,
    /// Bytes read back and found right.
    pub verified_bytes: u64,
    /// Bytes discarded.
    pub discarded_bytes: u64,
    /// Time of writing, from the first byte of the image until it was on the medium.
    pub write_seconds: f64,
    /// Time of reading back.
    pub verify_seconds: f64,
    /// Time of all.
    pub total_seconds: f64,
}

/// What the reader of the image sends to every writer.
#[derive(Clone)]
pub(super) enum Message {
    Write(Arc<Chunk>),
    Written,
    Compare(Arc<Chunk>),
    Compared,
    Broken(String),
}

pub(super) struct Worker<'a> {
    index: usize,
    disk: Guard,
    job: Plan,
    image: &'a Image,
    events: Sender<Event>,
    stop: &'a AtomicBool,
    stats: Stats,
    scratch: Buffer,
    flushed: u64,
}

/// A job without its target.
struct Plan {
    name: String,
    boot_area: Buffer,
    closed_area: Buffer,
    tail: Option<(u64, Vec<u8>)>,
    minimize: bool,
    resume_from: u64,
    finish: Option<Finish>,
}

/// After so many bytes what was written is made to last, for `--resume`.
const FLUSH_EVERY: u64 = 256 << 20;
/// `--minimize-writes` looks at pieces of this size.
const PIECE: usize = 64 << 10;

fn area(content: &[u8]) -> Buffer {
    let mut buffer = Buffer::new(usize::try_from(BOOT_AREA).unwrap_or(1 << 20));
    let length = content.len().min(buffer.bytes().len());
    buffer.bytes_mut()[..length].copy_from_slice(&content[..length]);
    buffer
}

impl<'a> Worker<'a> {
    pub(super) fn new(
        index: usize,
        job: Job,
        image: &'a Image,
        events: Sender<Event>,
        stop: &'a AtomicBool,
    ) -> Self {
        Self {
            index,
            disk: Guard::new(job.target, job.kept),
            job: Plan {
                name: job.name,
                boot_area: area(&job.boot_area),
                closed_area: area(&job.closed_area),
                tail: job.tail,
                minimize: job.minimize,
                resume_from: job.resume_from,
                finish: job.finish,
            },
            image,
            events,
            stop,
            stats: Stats::default(),
            scratch: Buffer::new(CHUNK),
            flushed: 0,
        }
    }

    pub(super) fn run(mut self, messages: &Receiver<Message>) -> Outcome {
        let begun = Instant::now();
        let failure = self.all(messages).err();
        self.stats.total_seconds = begun.elapsed().as_secs_f64();
        self.tell(What::Ended);
        Outcome {
            stats: self.stats,
            failure,
        }
    }

    fn tell(&self, what: What) {
        // Nobody may be listening.
        let _ = self.events.send(Event {
            job: self.index,
            what,
        });
    }

    fn all(&mut self, messages: &Receiver<Message>) -> Result<(), Failure> {
        self.check_room()?;
        self.tell(What::Begins(Phase::Prepare, 0));
        self.disk
            .close_boot(&self.job.closed_area)
            .map_err(|error| {
                Failure::io(&error, "closing the boot area").untouched_if_nothing_was_written()
            })?;
        let probe = self.prepare()?;
        self.write(messages)?;
        let proof = self.compare(messages)?;
        self.check_marks(&probe)?;
        self.finish(&proof)
    }

    fn check_room(&self) -> Result<(), Failure> {
        if self.disk.size() < self.image.size {
            return Err(Failure::untouched(
                FailureKind::Refused,
                format!(
                    "the image needs {} bytes, {} has {}",
                    self.image.size,
                    self.job.name,
                    self.disk.size()
                ),
            ));
        }
        Ok(())
    }

    fn interrupted(&self) -> Result<(), Failure> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Failure::new(FailureKind::Interrupted, "interrupted"));
        }
        Ok(())
    }

    /// Discards, and marks beyond the image.
    fn prepare(&mut self) -> Result<Probe, Failure> {
        if !self.job.minimize && self.job.resume_from == 0 {
            self.discard_unmapped()?;
        }
        let probe = Probe::new(self.disk.size(), self.image.size, self.disk.kept());
        probe
            .write(&mut self.disk)
            .map_err(|error| Failure::io(&error, "writing beyond the image"))?;
        self.check_marks(&probe)?;
        Ok(probe)
    }

    fn check_marks(&mut self, probe: &Probe) -> Result<(), Failure> {
        let lost = probe
            .first_lost(&mut self.disk)
            .map_err(|error| Failure::io(&error, "reading beyond the image"))?;
        match lost {
            None => Ok(()),
            Some(at) => Err(Failure::new(
                FailureKind::Counterfeit,
                format!(
                    "what was written at byte {at} is gone: the card claims {} bytes and has fewer. \
                     It is counterfeit or worn out; do not use it",
                    self.disk.size()
                ),
            )),
        }
    }

    /// What no range maps, in whole MiB. Nothing is claimed about it afterwards.
    fn discard_unmapped(&mut self) -> Result<(), Failure> {
        const MIB: u64 = 1 << 20;
        let ends = self.image.ranges.iter().map(|r| r.bytes.end);
        let starts = self.image.ranges.iter().map(|r| r.bytes.start);
        let gaps: Vec<Range<u64>> = std::iter::once(0)
            .chain(ends)
            .zip(starts.chain([self.disk.size()]))
            .map(|(start, end)| start..end)
            .collect();
        for gap in gaps {
            for part in self.disk.open_parts(gap) {
                let part = part.start.next_multiple_of(MIB)..part.end / MIB * MIB;
                if part.start >= part.end {
                    continue;
                }
                self.interrupted()?;
                // A device that cannot is as good as one that can.
                match self.disk.discard(part.clone()) {
                    Ok(true) => self.stats.discarded_bytes += part.end - part.start,
                    Ok(false) => return Ok(()),
                    Err(error) => return Err(Failure::io(&error, "discarding")),
                }
            }
        }
        Ok(())
    }

    fn next(&self, messages: &Receiver<Message>) -> Result<Message, Failure> {
        self.interrupted()?;
        match messages.recv() {
            Ok(Message::Broken(text)) => Err(Failure::new(FailureKind::Image, text)),
            Ok(message) => {
                self.interrupted()?;
                Ok(message)
            }
            Err(_) => Err(Failure::new(
                FailureKind::Interrupted,
                "the reader of the image ended early",
            )),
        }
    }

    fn write(&mut self, messages: &Receiver<Message>) -> Result<(), Failure> {
        self.tell(What::Begins(Phase::Write, self.image.mapped_bytes()));
        let begun = Instant::now();
        while let Message::Write(chunk) = self.next(messages)? {
            self.write_chunk(&chunk)?;
        }
        if let Some((at, content)) = &self.job.tail {
            let mut buffer = Buffer::new(content.len());
            buffer.bytes_mut().copy_from_slice(content);
            let written = self.disk.write_at(buffer.bytes(), *at);
            written.map_err(|error| Failure::io(&error, "writing the spare partition table"))?;
        }
        self.flush()?;
        self.stats.write_seconds = seconds(begun.elapsed());
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let flushed = self.disk.flush();
        flushed.map_err(|error| Failure::io(&error, "waiting until all is on the medium"))
    }

    fn write_chunk(&mut self, chunk: &Chunk) -> Result<(), Failure> {
        let data = chunk.padded(self.disk.block());
        let end = chunk.at + chunk.length as u64;
        for part in self.disk.open_parts(chunk.at..chunk.at + data.len() as u64) {
            let bytes = &data[place(&part, chunk.at)];
            if end <= self.job.resume_from {
                self.stats.skipped_bytes += bytes.len() as u64;
            } else if self.job.minimize {
                self.write_differences(bytes, part.start)?;
            } else {
                self.put(bytes, part.start)?;
            }
        }
        self.tell(What::Progress(chunk.length as u64));
        if end >= self.flushed + FLUSH_EVERY && end > self.job.resume_from {
            self.flush()?;
            self.flushed = end;
            self.tell(What::Flushed(end));
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8], at: u64) -> Result<(), Failure> {
        self.disk
            .write_at(bytes, at)
            .map_err(|error| Failure::io(&error, format!("writing at byte {at}")))?;
        self.stats.written_bytes += bytes.len() as u64;
        Ok(())
    }

    fn write_differences(&mut self, bytes: &[u8], at: u64) -> Result<(), Failure> {
        let mut scratch = std::mem::replace(&mut self.scratch, Buffer::new(0));
        let is = &mut scratch.bytes_mut()[..bytes.len()];
        // What cannot be read is written; a disk that cannot do either fails there.
        let readable = self.disk.read_at(is, at).is_ok();
        let mut result = Ok(());
        for (n, (wanted, is)) in bytes.chunks(PIECE).zip(is.chunks(PIECE)).enumerate() {
            if readable && wanted == is {
                self.stats.skipped_bytes += wanted.len() as u64;
            } else if result.is_ok() {
                result = self.put(wanted, at + (n * PIECE) as u64);
            }
        }
        self.scratch = scratch;
        result
    }

    fn compare(&mut self, messages: &Receiver<Message>) -> Result<Verified, Failure> {
        self.tell(What::Begins(Phase::Verify, self.image.mapped_bytes()));
        let begun = Instant::now();
        let ranges = self.image.ranges.iter();
        let wanted: u64 = ranges
            .flat_map(|range| self.disk.open_parts(range.bytes.clone()))
            .map(|part| part.end - part.start)
            .sum();
        while let Message::Compare(chunk) = self.next(messages)? {
            self.compare_chunk(&chunk)?;
        }
        self.compare_tail()?;
        self.stats.verify_seconds = seconds(begun.elapsed());
        Verified::after_comparison(self.stats.verified_bytes, wanted).ok_or_else(|| {
            Failure::new(
                FailureKind::Verify,
                "the comparison ended before everything was read back",
            )
        })
    }

    fn compare_tail(&mut self) -> Result<(), Failure> {
        let Some((at, content)) = &self.job.tail else {
            return Ok(());
        };
        let mut is = Buffer::new(content.len());
        let read = self.disk.read_at(is.bytes_mut(), *at);
        read.map_err(|error| Failure::io(&error, "reading the spare partition table"))?;
        if is.bytes() != content {
            return Err(Failure::new(
                FailureKind::Verify,
                "the spare partition table at the end of the disk reads back wrong",
            ));
        }
        Ok(())
    }

    fn compare_chunk(&mut self, chunk: &Chunk) -> Result<(), Failure> {
        let block = self.disk.block();
        let end = chunk.at + chunk.length as u64;
        for part in self.disk.open_parts(chunk.at..end) {
            let wanted = &chunk.data()[place(&part, chunk.at)];
            let length = wanted.len().next_multiple_of(block);
            let is = &mut self.scratch.bytes_mut()[..length];
            self.disk
                .read_at(is, part.start)
                .map_err(|error| Failure::io(&error, format!("reading at byte {}", part.start)))?;
            if wanted != &is[..wanted.len()] {
                let differs = wanted.iter().zip(is).position(|(a, b)| a != b);
                let at = part.start + differs.unwrap_or_default() as u64;
                return Err(Failure::new(
                    FailureKind::Verify,
                    format!(
                        "byte {at} was written and reads back wrong. All was written before anything was \
                         read, so it may also have been overwritten by a later write: such a card has \
                         less room than it claims ({} bytes), or is worn out. Do not use it",
                        self.disk.size()
                    ),
                ));
            }
            self.stats.verified_bytes += part.end - part.start;
        }
        self.tell(What::Progress(chunk.length as u64));
        Ok(())
    }

    /// Settings, then the boot area: the last thing that is written.
    fn finish(&mut self, proof: &Verified) -> Result<(), Failure> {
        self.tell(What::Begins(Phase::Finish, 0));
        if let Some(finish) = self.job.finish.take() {
            let done = finish(&mut Bytes::new(&mut self.disk));
            done.map_err(|error| {
                Failure::new(
                    FailureKind::Write,
                    format!("writing the first-boot settings: {error:#}"),
                )
            })?;
            self.flush()?;
        }
        self.interrupted()?;
        let result = self.open_boot(proof);
        if result.is_err() {
            // What cannot be trusted must not boot.
            let _ = self.disk.close_boot(&self.job.closed_area);
        }
        result
    }

    fn open_boot(&mut self, proof: &Verified) -> Result<(), Failure> {
        self.disk
            .write_boot(&self.job.boot_area, proof)
            .map_err(|error| Failure::io(&error, "writing the first MiB"))?;
        let length = usize::try_from(BOOT_AREA.min(self.disk.size())).unwrap_or_default();
        let length = length / self.disk.block() * self.disk.block();
        let is = &mut self.scratch.bytes_mut()[..length];
        let read = self.disk.read_at(is, 0);
        read.map_err(|error| Failure::io(&error, "reading the first MiB back"))?;
        if *is != self.job.boot_area.bytes()[..length] {
            return Err(Failure::new(
                FailureKind::Verify,
                "the first MiB was written and reads back wrong",
            ));
        }
        Ok(())
    }
}

/// The bytes of `part` in a chunk that begins at `start`.
fn place(part: &Range<u64>, start: u64) -> Range<usize> {
    let index = |at: u64| usize::try_from(at - start).unwrap_or(usize::MAX);
    index(part.start)..index(part.end)
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}
