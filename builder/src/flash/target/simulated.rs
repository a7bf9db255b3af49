//! Disks for tests: good ones, and ones that fail in every way that is known.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use super::Target;

/// What is wrong with a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Writes from this byte on fail.
    WriteFails(u64),
    /// Writes from this byte on say "done" and are forgotten.
    Forgets(u64),
    /// It has this many bytes only; what is written beyond begins again at byte 0.
    Wraps(u64),
    /// No room after so many bytes written, as in a file on a full file system.
    Full(u64),
    /// Unplugged after so many bytes written.
    Vanishes(u64),
    /// One byte of this place reads wrong.
    Flips(u64),
}

/// A disk in memory, full of `0xee` at first.
pub struct Memory {
    bytes: Arc<Mutex<Vec<u8>>>,
    size: u64,
    fault: Fault,
    written: u64,
    /// Every write: first byte and length.
    pub log: Arc<Mutex<Vec<(u64, usize)>>>,
    /// Told after every write.
    pub on_write: Option<Box<dyn FnMut() + Send>>,
    /// Whether it can discard.
    pub discards: bool,
}

impl Memory {
    /// A good disk of `size` bytes.
    pub fn new(size: u64) -> Self {
        Self::with(size, Fault::None)
    }

    /// A disk that says it has `size` bytes.
    pub fn with(size: u64, fault: Fault) -> Self {
        let real = match fault {
            Fault::Wraps(real) => real,
            _ => size,
        };
        Self {
            bytes: Arc::new(Mutex::new(vec![0xee; real as usize])),
            size,
            fault,
            written: 0,
            log: Arc::default(),
            on_write: None,
            discards: true,
        }
    }

    /// The same disk again, e.g. plugged in once more, without its fault.
    pub fn again(content: &Arc<Mutex<Vec<u8>>>) -> Self {
        let size = content.lock().unwrap().len() as u64;
        Self {
            bytes: content.clone(),
            ..Self::new(size)
        }
    }

    /// Its medium, to be looked at after the disk was given away.
    pub fn content(&self) -> Arc<Mutex<Vec<u8>>> {
        self.bytes.clone()
    }

    fn place(&self, at: u64) -> u64 {
        match self.fault {
            Fault::Wraps(real) => at % real,
            _ => at,
        }
    }
}

impl Target for Memory {
    fn size(&self) -> u64 {
        self.size
    }

    fn block(&self) -> usize {
        512
    }

    fn write_at(&mut self, data: &[u8], at: u64) -> io::Result<()> {
        assert!(
            at % 512 == 0 && data.len() % 512 == 0,
            "{at} {}",
            data.len()
        );
        self.log.lock().unwrap().push((at, data.len()));
        if let Some(told) = &mut self.on_write {
            told();
        }
        let error = |number| Err(io::Error::from_raw_os_error(number));
        self.written += data.len() as u64;
        match self.fault {
            Fault::WriteFails(from) if at + data.len() as u64 > from => {
                return error(nix::libc::EIO)
            }
            Fault::Full(room) if self.written > room => return error(nix::libc::ENOSPC),
            Fault::Vanishes(after) if self.written > after => return error(nix::libc::ENODEV),
            Fault::Forgets(from) if at >= from => return Ok(()),
            _ => {}
        }
        let mut bytes = self.bytes.lock().unwrap();
        for (n, part) in data.chunks(512).enumerate() {
            let to = self.place(at + 512 * n as u64) as usize;
            bytes[to..to + part.len()].copy_from_slice(part);
        }
        Ok(())
    }

    fn read_at(&mut self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        if matches!(self.fault, Fault::Vanishes(after) if self.written > after) {
            return Err(io::Error::from_raw_os_error(nix::libc::ENODEV));
        }
        let bytes = self.bytes.lock().unwrap();
        for (n, part) in buffer.chunks_mut(512).enumerate() {
            let from = self.place(at + 512 * n as u64) as usize;
            part.copy_from_slice(&bytes[from..from + part.len()]);
        }
        if let Fault::Flips(place) = self.fault {
            if (at..at + buffer.len() as u64).contains(&place) {
                buffer[(place - at) as usize] ^= 1;
            }
        }
        Ok(())
    }

    fn discard(&mut self, range: Range<u64>) -> io::Result<bool> {
        if self.discards {
            // What a discarded place reads as is nobody's promise.
            let mut bytes = self.bytes.lock().unwrap();
            for at in range {
                let at = self.place(at) as usize;
                bytes[at] = 0xdd;
            }
        }
        Ok(self.discards)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
