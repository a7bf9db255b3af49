//! Repositories in memory, for tests and for fuzzing.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

use std::collections::HashMap;
use std::io;
use std::sync::Mutex;

use crate::object::{name_of, FileName};
use crate::*;

/// A container's end: its offsets, as wide as its length makes them.
pub(crate) fn with_offsets(mut body: Vec<u8>, offsets: &[usize]) -> Vec<u8> {
    let size = [1usize, 2, 4]
        .into_iter()
        .find(|size| body.len() + size * offsets.len() < 1 << (8 * size))
        .unwrap();
    for offset in offsets {
        body.extend(&offset.to_le_bytes()[..size]);
    }
    body
}

pub(crate) fn array(elements: &[Vec<u8>]) -> Vec<u8> {
    let mut body = Vec::new();
    let mut ends = Vec::new();
    for element in elements {
        body.extend(element);
        ends.push(body.len());
    }
    with_offsets(body, &ends)
}

#[derive(Default)]
pub(crate) struct Store {
    pub(crate) metadata: HashMap<(Kind, Checksum), Vec<u8>>,
    pub(crate) files: HashMap<Checksum, (Vec<u8>, Vec<u8>)>,
    /// What making deltas has kept.
    pub(crate) plans: Mutex<HashMap<Checksum, Vec<u8>>>,
}

pub(crate) const HEADER: &[u8] = b"\0\0\0\0\0\0\0\0\0\0\x81\xa4\0\0\0\0\0\x11";

impl Store {
    pub(crate) fn put(&mut self, kind: Kind, bytes: Vec<u8>) -> Checksum {
        let name = name_of(&bytes);
        self.metadata.insert((kind, name), bytes);
        name
    }

    /// A commit with these files in one directory below the root.
    pub(crate) fn commit(&mut self, files: &[(&str, Vec<u8>)]) -> Checksum {
        let entries: Vec<Vec<u8>> = files
            .iter()
            .map(|(name, content)| {
                let mut sum = FileName::new(HEADER);
                sum.update(content);
                let sum = sum.finish();
                self.files.insert(sum, (HEADER.to_vec(), content.clone()));
                let mut entry = format!("{name}\0").into_bytes();
                let split = entry.len();
                entry.extend(sum);
                with_offsets(entry, &[split])
            })
            .collect();
        let meta = self.put(Kind::DirMeta, b"\0\0\0\0\0\0\0\0\0\0A\xed".to_vec());
        let entries = array(&entries);
        let middle = entries.len();
        let below = self.put(Kind::DirTree, with_offsets(entries, &[middle]));
        let mut entry = b"usr\0".to_vec();
        entry.extend(below);
        entry.extend(meta);
        let directories = array(&[with_offsets(entry, &[36, 4])]);
        let root = self.put(Kind::DirTree, with_offsets(directories, &[0]));
        let mut commit = b"\0\0\0\0\0\0\0\0".to_vec();
        commit.extend(root);
        commit.extend(meta);
        self.put(Kind::Commit, with_offsets(commit, &[40, 0, 0, 0, 0, 0]))
    }
}

impl Objects for Store {
    fn metadata(&self, kind: Kind, name: &Checksum) -> io::Result<Vec<u8>> {
        let found = self.metadata.get(&(kind, *name));
        Ok(found.ok_or(io::ErrorKind::NotFound)?.clone())
    }

    fn detached(&self, _: &Checksum) -> io::Result<Vec<u8>> {
        Ok(b"signatures".to_vec())
    }

    fn file(&self, name: &Checksum) -> io::Result<(Vec<u8>, Vec<u8>)> {
        Ok(self.files.get(name).ok_or(io::ErrorKind::NotFound)?.clone())
    }

    fn size(&self, name: &Checksum) -> io::Result<u64> {
        Ok(self.files.get(name).ok_or(io::ErrorKind::NotFound)?.1.len() as u64)
    }

    fn kept(&self, key: &Checksum) -> Option<Vec<u8>> {
        self.plans.lock().unwrap().get(key).cloned()
    }

    fn keep(&self, key: &Checksum, plan: &[u8]) {
        self.plans.lock().unwrap().insert(*key, plan.to_vec());
    }
}

/// Old objects from one store, new ones into another.
pub(crate) struct Device<'a> {
    pub(crate) old: &'a Store,
    pub(crate) new: std::rc::Rc<std::cell::RefCell<Store>>,
}

struct Growing {
    name: Checksum,
    header: Vec<u8>,
    content: Vec<u8>,
    into: std::rc::Rc<std::cell::RefCell<Store>>,
}

impl NewFile for Growing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.content.extend(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
        let files = &mut self.into.borrow_mut().files;
        files.insert(self.name, (self.header, self.content));
        Ok(())
    }
}

impl Repository for Device<'_> {
    fn metadata(&mut self, kind: Kind, name: &Checksum) -> io::Result<Vec<u8>> {
        Objects::metadata(self.old, kind, name)
    }

    fn file(&mut self, name: &Checksum) -> io::Result<OldFile> {
        let made = self.new.borrow().files.get(name).cloned();
        let (header, content) = match made {
            Some(made) => made,
            None => Objects::file(self.old, name)?,
        };
        Ok(OldFile {
            header,
            content: Box::new(content),
        })
    }

    fn put_metadata(&mut self, kind: Kind, name: &Checksum, bytes: &[u8]) -> io::Result<()> {
        let mut new = self.new.borrow_mut();
        new.metadata.insert((kind, *name), bytes.to_vec());
        Ok(())
    }

    fn put_detached(&mut self, _: &Checksum, bytes: &[u8]) -> io::Result<()> {
        assert_eq!(bytes, b"signatures");
        Ok(())
    }

    fn begin(
        &mut self,
        name: &Checksum,
        header: &[u8],
        _: u64,
    ) -> io::Result<Option<Box<dyn NewFile>>> {
        Ok(Some(Box::new(Growing {
            name: *name,
            header: header.to_vec(),
            content: Vec::new(),
            into: self.new.clone(),
        })))
    }

    fn scratch(&self) -> io::Result<Box<dyn crate::Scratch>> {
        Ok(Box::new(Vec::new()))
    }
}
