//! The whole commit as one file: a static delta from nothing, in libostree's own format.
//!
//! libostree can make it too, but on one processor and with the time of day inside. Here the parts
//! are compressed side by side, similar files stand together and, where the architecture has one, an
//! xz branch filter makes machine code smaller; and the same commit gives the same bytes.
//!
//! The format (libostree's `ostree-repo-static-delta-private.h`): a descriptor
//! `(a{sv} t ay ay commit ay a(uayttay) a(yaytt))` whose dictionary holds, inline, each part as
//! `(yay)` = compression, content; the content is `(a(uuu)aa(ayay)ayay)` = modes, attributes, data,
//! operations. Here every object is one operation 'S': open, copy a range of the data, close.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc;
use std::sync::Mutex;

use anyhow::{Context, Result};
use base64::Engine as _;
use liblzma::stream::{Check, Filters, LzmaOptions, Stream};
use ostree::gio::prelude::*;
use ostree::{gio, glib, ObjectType, Repo};
use sha2::{Digest, Sha256};

use super::contents::{Commit, Contents, NO_CANCEL};
use super::Compression;

/// Uncompressed bytes at which a part is closed. A device holds one part in memory.
const PART_BYTES: usize = 16 << 20;
/// xz's dictionary: as large as a part can use, and what a device needs to decompress it.
const DICTIONARY: u32 = 16 << 20;
/// The format's version of a part.
const PART_VERSION: u32 = 0;
/// Compression byte: xz.
const XZ: u8 = b'x';
/// Compression byte: none.
const STORED: u8 = 0;
/// Operation: open an object, copy its content from the part's data, close it.
const OPEN_SPLICE_CLOSE: u8 = b'S';
/// Type of a part's content.
const CONTENT_TYPE: &str = "(a(uuu)aa(ayay)ayay)";

/// Writes the delta from nothing to `commit` into the file `out`.
pub(super) fn write(
    repo: &Repo,
    commit: &Commit,
    compression: Compression,
    out: &Path,
) -> Result<()> {
    let contents = commit.contents(repo)?;
    let arch = commit.text("treeline.arch").unwrap_or_default();
    let parts = compress_all(repo, &contents, &xz(compression, &arch))
        .with_context(|| format!("packing commit {}", commit.checksum))?;
    let bytes = descriptor(commit, &parts)?.data_as_bytes();
    let mut file =
        std::fs::File::create(out).with_context(|| format!("creating {}", out.display()))?;
    file.write_all(&bytes)
        .and_then(|()| file.sync_all())
        .with_context(|| format!("writing {}", out.display()))
}

/// A part as it stands in the descriptor.
struct Packed {
    /// `(yay)`.
    variant: Vec<u8>,
    objects: Vec<u8>,
    uncompressed: u64,
}

/// A part being filled.
#[derive(Default)]
struct Part {
    modes: Vec<(u32, u32, u32)>,
    attributes: Vec<Vec<u8>>,
    data: Vec<u8>,
    operations: Vec<u8>,
    /// Type byte and checksum of each object, in the order of the operations.
    objects: Vec<u8>,
}

/// How parts are compressed: filter and preset; without a preset they are not.
#[derive(Clone, Copy)]
struct Xz {
    preset: Option<u32>,
    x86: bool,
    arm64: bool,
}

fn xz(compression: Compression, arch: &str) -> Xz {
    Xz {
        preset: match compression {
            Compression::Small => Some(6),
            Compression::Fast => Some(1),
            Compression::Stored => None,
        },
        x86: matches!(arch, "amd64" | "i386"),
        arm64: arch == "arm64",
    }
}

/// Reads the objects in one thread, compresses the parts in as many as there are processors.
fn compress_all(repo: &Repo, contents: &Contents, xz: &Xz) -> Result<Vec<Packed>> {
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    // One part waiting is enough: reading is far quicker than compressing.
    let (send, receive) = mpsc::sync_channel::<(usize, Part)>(1);
    let receive = Mutex::new(receive);
    let next = || receive.lock().ok()?.recv().ok();
    let mut packed = BTreeMap::new();
    std::thread::scope(|scope| -> Result<()> {
        let next = &next;
        let threads: Vec<_> = (0..workers)
            .map(|_| {
                scope.spawn(move || -> Result<Vec<(usize, Packed)>> {
                    let mut done = Vec::new();
                    while let Some((index, part)) = next() {
                        done.push((index, part.pack(xz)?));
                    }
                    Ok(done)
                })
            })
            .collect();
        let read = read_all(repo, contents, send);
        for thread in threads {
            let done = thread
                .join()
                .map_err(|_| anyhow::anyhow!("a compressing thread panicked"))??;
            packed.extend(done);
        }
        read
    })?;
    Ok(packed.into_values().collect())
}

/// Fills parts with all objects and sends them with their number. Takes the sender, so that the
/// workers end when it returns.
fn read_all(repo: &Repo, contents: &Contents, send: mpsc::SyncSender<(usize, Part)>) -> Result<()> {
    let mut count = 0;
    let mut part = Part::default();
    let mut close = |part: &mut Part| -> Result<()> {
        if part.objects.is_empty() {
            return Ok(());
        }
        let full = std::mem::take(part);
        send.send((count, full))
            .map_err(|_| anyhow::anyhow!("the compressing threads have ended"))?;
        count += 1;
        Ok(())
    };
    for (kind, checksum) in directories(contents) {
        part.add_metadata(repo, kind, &checksum)?;
    }
    for checksum in files(contents) {
        if part.data.len() >= PART_BYTES {
            close(&mut part)?;
        }
        part.add_file(repo, &checksum)
            .with_context(|| format!("reading file object {checksum}"))?;
    }
    close(&mut part)
}

/// Directory objects, each once.
fn directories(contents: &Contents) -> Vec<(ObjectType, String)> {
    let mut all = BTreeMap::new();
    for dir in contents.dirs.values() {
        all.insert(&dir.contents, ObjectType::DirTree);
        all.insert(&dir.meta, ObjectType::DirMeta);
    }
    all.into_iter()
        .map(|(checksum, kind)| (kind, checksum.clone()))
        .collect()
}

/// File objects, each once, similar ones together: by extension, then by path.
fn files(contents: &Contents) -> Vec<String> {
    let mut order: Vec<(&str, &String, &String)> = contents
        .files
        .iter()
        .map(|(path, checksum)| (extension(path), path, checksum))
        .collect();
    order.sort_unstable();
    let mut seen = std::collections::BTreeSet::new();
    order
        .into_iter()
        .filter(|(_, _, checksum)| seen.insert(*checksum))
        .map(|(_, _, checksum)| checksum.clone())
        .collect()
}

/// What kind of file a path looks like; versions of shared libraries count as `so`.
fn extension(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    if name.contains(".so.") {
        return "so";
    }
    match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => extension,
        _ => "",
    }
}

impl Part {
    fn add_metadata(&mut self, repo: &Repo, kind: ObjectType, checksum: &str) -> Result<()> {
        let bytes = repo
            .load_variant(kind, checksum)
            .with_context(|| format!("reading directory object {checksum}"))?
            .data_as_bytes();
        let start = self.data.len();
        self.data.extend_from_slice(&bytes);
        self.operations.push(OPEN_SPLICE_CLOSE);
        self.number(bytes.len());
        self.number(start);
        self.name(kind, checksum)
    }

    fn add_file(&mut self, repo: &Repo, checksum: &str) -> Result<()> {
        let (stream, info, attributes) = repo.load_file(checksum, NO_CANCEL)?;
        let start = self.data.len();
        if let Some(target) = info.symlink_target() {
            self.data
                .extend_from_slice(target.as_os_str().as_encoded_bytes());
        } else if let Some(stream) = stream {
            read_stream(&stream, &mut self.data)?;
        }
        let length = self.data.len() - start;
        let mode = (
            info.attribute_uint32("unix::uid").to_be(),
            info.attribute_uint32("unix::gid").to_be(),
            info.attribute_uint32("unix::mode").to_be(),
        );
        let mode = index_of(&mut self.modes, mode);
        let attributes = index_of(&mut self.attributes, attributes.data_as_bytes().to_vec());
        self.operations.push(OPEN_SPLICE_CLOSE);
        for value in [mode, attributes, length, start] {
            self.number(value);
        }
        self.name(ObjectType::File, checksum)
    }

    fn name(&mut self, kind: ObjectType, checksum: &str) -> Result<()> {
        // libostree's OstreeObjectType.
        self.objects.push(match kind {
            ObjectType::DirTree => 2,
            ObjectType::DirMeta => 3,
            _ => 1,
        });
        self.objects.extend(hex::decode(checksum)?);
        Ok(())
    }

    /// Appends a number to the operations: seven bits a byte, least first, as in protocol buffers.
    fn number(&mut self, mut value: usize) {
        while value >= 0x80 {
            self.operations.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.operations.push(value as u8);
    }

    fn pack(self, xz: &Xz) -> Result<Packed> {
        let attributes = self
            .attributes
            .iter()
            .map(|one| variant(one, "a(ayay)"))
            .collect::<Result<Vec<_>>>()?;
        let content = glib::Variant::tuple_from_iter([
            self.modes.to_variant(),
            glib::Variant::array_from_iter_with_type(glib_type("a(ayay)")?, attributes),
            glib::Variant::array_from_fixed_array(&self.data),
            glib::Variant::array_from_fixed_array(&self.operations),
        ]);
        debug_assert_eq!(content.type_().as_str(), CONTENT_TYPE);
        let uncompressed = self.data.len() as u64;
        drop((self.data, self.operations));
        let (kind, packed) = match xz.preset {
            Some(preset) => (XZ, compress(&content.data_as_bytes(), preset, xz)?),
            None => (STORED, content.data_as_bytes().to_vec()),
        };
        drop(content);
        let part = glib::Variant::tuple_from_iter([
            kind.to_variant(),
            glib::Variant::array_from_fixed_array(&packed),
        ]);
        Ok(Packed {
            variant: part.data_as_bytes().to_vec(),
            objects: self.objects,
            uncompressed,
        })
    }
}

fn index_of<T: PartialEq>(all: &mut Vec<T>, one: T) -> usize {
    all.iter()
        .position(|known| *known == one)
        .unwrap_or_else(|| {
            all.push(one);
            all.len() - 1
        })
}

fn read_stream(stream: &gio::InputStream, out: &mut Vec<u8>) -> Result<()> {
    loop {
        let piece = stream.read_bytes(1 << 20, NO_CANCEL)?;
        if piece.is_empty() {
            return Ok(());
        }
        out.extend_from_slice(&piece);
    }
}

fn compress(content: &[u8], preset: u32, xz: &Xz) -> Result<Vec<u8>> {
    let mut options = LzmaOptions::new_preset(preset).context("setting up xz")?;
    options.dict_size(DICTIONARY);
    let mut filters = Filters::new();
    if xz.x86 {
        filters.x86();
    } else if xz.arm64 {
        filters.arm64();
    }
    filters.lzma2(&options);
    let stream = Stream::new_stream_encoder(&filters, Check::Crc64).context("setting up xz")?;
    let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
    encoder.write_all(content).context("compressing")?;
    encoder.finish().context("compressing")
}

fn descriptor(commit: &Commit, parts: &[Packed]) -> Result<glib::Variant> {
    let dictionary = glib::VariantDict::new(None);
    // Byte order of the numbers below that are not big-endian by definition.
    let order = if cfg!(target_endian = "big") {
        b'B'
    } else {
        b'l'
    };
    dictionary.insert("ostree.endianness", order);
    let place = place_of(&commit.checksum)?;
    if let Some(detached) = &commit.detached {
        dictionary.insert_value(&format!("{place}/commitmeta"), detached);
    }
    let mut headers = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let header = glib::Variant::tuple_from_iter([
            PART_VERSION.to_variant(),
            glib::Variant::array_from_fixed_array(Sha256::digest(&part.variant).as_slice()),
            (part.variant.len() as u64).to_variant(),
            part.uncompressed.to_variant(),
            glib::Variant::array_from_fixed_array(&part.objects),
        ]);
        headers.push(header);
        dictionary.insert_value(
            &format!("{place}/{index}"),
            &variant(&part.variant, "(yay)")?,
        );
    }
    let nothing = glib::Variant::array_from_fixed_array::<u8>(&[]);
    Ok(glib::Variant::tuple_from_iter([
        dictionary.end(),
        commit.timestamp().to_be().to_variant(),
        nothing.clone(),
        glib::Variant::array_from_fixed_array(&hex::decode(&commit.checksum)?),
        commit.variant.clone(),
        nothing,
        glib::Variant::array_from_iter_with_type(glib_type("(uayttay)")?, headers),
        glib::Variant::array_from_iter_with_type(
            glib_type("(yaytt)")?,
            std::iter::empty::<glib::Variant>(),
        ),
    ]))
}

/// Where libostree keeps a delta from nothing: base64 of the checksum with '_' for '/', two
/// characters of it as a directory.
fn place_of(checksum: &str) -> Result<String> {
    let name = base64::engine::general_purpose::STANDARD_NO_PAD
        .encode(hex::decode(checksum)?)
        .replace('/', "_");
    Ok(format!("deltas/{}/{}", &name[..2], &name[2..]))
}

fn variant(bytes: &[u8], kind: &str) -> Result<glib::Variant> {
    Ok(glib::Variant::from_data_with_type(bytes, glib_type(kind)?))
}

fn glib_type(kind: &str) -> Result<&glib::VariantTy> {
    glib::VariantTy::new(kind).with_context(|| format!("naming the GVariant type {kind}"))
}
