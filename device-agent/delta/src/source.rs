//! Old content, read where it is wanted.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Content that can be read at any offset.
pub trait Source {
    /// Bytes.
    fn len(&self) -> u64;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buffer` from `offset` on; an error if the content is shorter.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

impl Source for &[u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).ok();
        let range = from.and_then(|from| self.get(from..)?.get(..buffer.len()));
        buffer.copy_from_slice(range.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// A file on disk, of the length it had when it was opened.
#[derive(Debug)]
pub struct FileSource {
    file: File,
    length: u64,
}

impl FileSource {
    /// Reads from an open file.
    pub fn new(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self { file, length })
    }
}

impl Source for FileSource {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
}

/// Content that grows at its end, and goes when it is dropped.
pub trait Scratch: Source {
    /// Adds bytes.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// To read from.
    fn as_source(&self) -> &dyn Source;
}

impl Source for Vec<u8> {
    fn len(&self) -> u64 {
        Self::len(self) as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.as_slice().read_at(offset, buffer)
    }
}

impl Scratch for Vec<u8> {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.extend_from_slice(bytes);
        Ok(())
    }

    fn as_source(&self) -> &dyn Source {
        self
    }
}

impl Scratch for FileSource {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.length)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn as_source(&self) -> &dyn Source {
        self
    }
}

/// Bytes of a page.
const PAGE: u64 = 1 << 12;

/// Pages of one content, for many small reads. What is appended later may be read, what has been read must not
/// change. A page has one place where it may be held.
pub(crate) struct Cached {
    /// Number of the page plus one, its bytes.
    pages: Vec<(u64, Vec<u8>)>,
}

impl Cached {
    /// Remembers so many pages.
    pub(crate) fn new(pages: usize) -> Self {
        Self {
            pages: vec![(0, Vec::new()); pages],
        }
    }

    /// Bytes of memory, when so many pages are there.
    pub(crate) const fn memory(pages: usize) -> u64 {
        pages as u64 * PAGE
    }

    fn page(&mut self, source: &dyn Source, number: u64) -> io::Result<&[u8]> {
        let place = (number % self.pages.len() as u64) as usize;
        let (held, bytes) = &mut self.pages[place];
        let there = source.len().saturating_sub(number * PAGE).min(PAGE);
        // The last page may have grown.
        if *held != number + 1 || (bytes.len() as u64) < there {
            *held = 0;
            bytes.resize(there as usize, 0);
            source.read_at(number * PAGE, bytes)?;
            *held = number + 1;
        }
        Ok(bytes)
    }

    /// The bytes from a place to the end of its page.
    pub(crate) fn from(&mut self, source: &dyn Source, at: u64) -> io::Result<&[u8]> {
        let page = self.page(source, at / PAGE)?;
        Ok(page.get((at % PAGE) as usize..).unwrap_or_default())
    }
}

/// Content of which many small parts are read, one near the other: numbers in tables.
pub(crate) struct Buffered<'a> {
    source: &'a dyn Source,
    pages: RefCell<Cached>,
}

impl<'a> Buffered<'a> {
    /// Pages remembered.
    const PAGES: usize = 16;
    /// Longer reads are not worth a copy, in bytes.
    const SMALL: usize = 64;

    pub(crate) fn new(source: &'a dyn Source) -> Self {
        let pages = RefCell::new(Cached::new(Self::PAGES));
        Self { source, pages }
    }
}

impl Source for Buffered<'_> {
    fn len(&self) -> u64 {
        self.source.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if buffer.len() <= Self::SMALL {
            let mut pages = self.pages.borrow_mut();
            let there = pages.from(self.source, offset)?;
            if let Some(there) = there.get(..buffer.len()) {
                buffer.copy_from_slice(there);
                return Ok(());
            }
        }
        // Also what lies in two pages, or past the end.
        self.source.read_at(offset, buffer)
    }
}

/// Little-endian number of up to eight bytes at `offset`; `None` past the end.
pub(crate) fn number_at(source: &dyn Source, offset: u64, width: usize) -> Option<u64> {
    let mut bytes = [0u8; 8];
    source.read_at(offset, bytes.get_mut(..width)?).ok()?;
    Some(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_buffered_reads_as_what_is_not() {
        let content: Vec<u8> = (0..40_000u32).map(|i| ((i * i) >> 7) as u8).collect();
        let plain = content.as_slice();
        let buffered = Buffered::new(&plain);
        // Both ends of pages, another page in the same place, and past the end.
        let around = [0u64, PAGE, 2 * PAGE, 16 * PAGE, 9 * PAGE, 40_000, 50_000];
        for middle in around {
            for offset in middle.saturating_sub(9)..middle + 9 {
                for count in [1, 4, 8, 64, 65] {
                    let mut wanted = vec![0; count];
                    let mut found = vec![0; count];
                    let there = plain.read_at(offset, &mut wanted).is_ok();
                    assert_eq!(buffered.read_at(offset, &mut found).is_ok(), there);
                    assert!(!there || wanted == found, "{count} bytes at {offset}");
                }
            }
        }
    }
}
