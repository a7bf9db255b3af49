//! An OCI image layout (OCI Image Format Specification 1.1): index, manifest, layers, whiteouts.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context, Result};
use serde::Deserialize;

use super::layers::Layers;
use super::rootfs;
use crate::cache::sha256_file;

/// The largest index, manifest or configuration that is read.
const MOST_JSON: u64 = 16 << 20;

/// An index or a manifest: which of the two shows in what it holds.
#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    manifests: Vec<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    config: Option<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    size: u64,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
}

/// The image in the layout `dir` for a Debian architecture.
pub(super) fn layers(dir: &Path, arch: &str, scratch: &Path) -> Result<Layers> {
    ensure!(
        dir.join("oci-layout").is_file(),
        "{} is no OCI image layout: it has no file oci-layout",
        dir.display()
    );
    let manifest = manifest(dir, arch)?;
    let mut layers = Layers::default();
    for (index, layer) in manifest.layers.iter().enumerate() {
        let blob = blob(dir, layer)?;
        let plain = scratch.join(format!("layer-{index}.tar"));
        layers.add_oci(&rootfs::decompress(&blob, &plain)?)?;
    }
    Ok(layers)
}

fn manifest(dir: &Path, arch: &str) -> Result<Document> {
    let wanted = oci_arch(arch)?;
    let mut file = dir.join("index.json");
    // An index may name an index; deeper nesting is not in use.
    for _ in 0..4 {
        let document: Document = read_json(&file)?;
        if document.manifests.is_empty() {
            ensure!(
                document.config.is_some() && !document.layers.is_empty(),
                "{} is neither an index nor an image manifest with layers",
                file.display()
            );
            check_arch(dir, &document, wanted, arch)?;
            return Ok(document);
        }
        file = blob(dir, choose(&document.manifests, wanted, arch)?)?;
    }
    bail!("the indexes of {} are nested too deep", dir.display())
}

fn choose<'a>(manifests: &'a [Descriptor], wanted: &str, arch: &str) -> Result<&'a Descriptor> {
    let fits = |descriptor: &&Descriptor| {
        descriptor
            .platform
            .as_ref()
            .is_some_and(|platform| platform.os == "linux" && platform.architecture == wanted)
    };
    let mut fitting: Vec<&Descriptor> = manifests.iter().filter(fits).collect();
    if fitting.is_empty() {
        // Whether an image without a platform fits, its configuration tells.
        fitting = manifests
            .iter()
            .filter(|descriptor| descriptor.platform.is_none())
            .collect();
    }
    match fitting.as_slice() {
        [one] => Ok(one),
        [] => {
            let there: Vec<&str> = manifests
                .iter()
                .filter_map(|descriptor| descriptor.platform.as_ref())
                .map(|platform| platform.architecture.as_str())
                .collect();
            bail!(
                "the layout has no image for linux/{wanted} (the board is {arch}); it has: {}",
                there.join(", ")
            )
        }
        several => bail!(
            "the layout has {} images for linux/{wanted}; make one with a single image, e.g. by `skopeo copy`",
            several.len()
        ),
    }
}

fn check_arch(dir: &Path, manifest: &Document, wanted: &str, arch: &str) -> Result<()> {
    let Some(config) = &manifest.config else {
        return Ok(());
    };
    let platform: Platform = read_json(&blob(dir, config)?)?;
    ensure!(
        platform.architecture.is_empty() || platform.architecture == wanted,
        "the image is for {}, the board is {arch}",
        platform.architecture
    );
    Ok(())
}

/// Debian's name of an architecture in the words of OCI (Go's GOARCH).
fn oci_arch(arch: &str) -> Result<&'static str> {
    Ok(match arch {
        "amd64" => "amd64",
        "arm64" => "arm64",
        "armhf" => "arm",
        "ppc64el" => "ppc64le",
        _ => bail!("images for {arch} are not known"),
    })
}

/// The file of a blob, once its length and digest are what its descriptor says.
fn blob(dir: &Path, descriptor: &Descriptor) -> Result<PathBuf> {
    let digest = &descriptor.digest;
    let hash = digest
        .strip_prefix("sha256:")
        .filter(|hash| hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()))
        .with_context(|| format!("digest {digest:?} is not sha256: and 64 hex digits"))?;
    let path = dir.join("blobs/sha256").join(hash);
    let len = fs::metadata(&path)
        .with_context(|| format!("opening the blob {}", path.display()))?
        .len();
    ensure!(
        len == descriptor.size,
        "the blob {} has {len} bytes, its descriptor says {}",
        path.display(),
        descriptor.size
    );
    let found = sha256_file(&path)?;
    ensure!(
        found == *hash,
        "the blob {} is damaged: its SHA-256 is {found}",
        path.display()
    );
    Ok(path)
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let read = || -> Result<T> {
        let mut text = Vec::new();
        File::open(path)?.take(MOST_JSON).read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    };
    read().with_context(|| format!("reading {}", path.display()))
}

#[cfg(test)]
#[path = "oci_test.rs"]
mod tests;
