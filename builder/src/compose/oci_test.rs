//! Layouts made here: layers of every compression, indexes of every kind, and broken ones.

use std::io::Write;

use sha2::{Digest, Sha256};

use super::super::layers::tests::{archive, listing};
use super::*;
use crate::command::Command;

struct Layout {
    dir: tempfile::TempDir,
}

impl Layout {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
        fs::create_dir(dir.path().join("scratch")).unwrap();
        fs::write(
            dir.path().join("oci-layout"),
            "{\"imageLayoutVersion\":\"1.0.0\"}",
        )
        .unwrap();
        Self { dir }
    }

    fn blob(&self, content: &[u8]) -> serde_json::Value {
        let hash = hex::encode(Sha256::digest(content));
        fs::write(self.dir.path().join("blobs/sha256").join(&hash), content).unwrap();
        serde_json::json!({ "digest": format!("sha256:{hash}"), "size": content.len() })
    }

    fn json(&self, value: &serde_json::Value) -> serde_json::Value {
        self.blob(&serde_json::to_vec(value).unwrap())
    }

    /// A manifest with these layers; its descriptor names the platform.
    fn image(&self, arch: &str, layers: &[Vec<u8>]) -> serde_json::Value {
        let layers: Vec<_> = layers.iter().map(|layer| self.blob(layer)).collect();
        let config = self.json(&serde_json::json!({ "os": "linux", "architecture": arch }));
        let mut descriptor = self.json(&serde_json::json!({ "config": config, "layers": layers }));
        descriptor["platform"] = serde_json::json!({ "os": "linux", "architecture": arch });
        descriptor
    }

    fn index(&self, manifests: &[serde_json::Value]) {
        let text = serde_json::json!({ "schemaVersion": 2, "manifests": manifests }).to_string();
        fs::write(self.dir.path().join("index.json"), text).unwrap();
    }

    fn tar(&self, entries: &[&str]) -> Vec<u8> {
        fs::read(archive(self.dir.path(), "layer.tar", entries)).unwrap()
    }

    fn read(&self) -> Result<Vec<String>> {
        let scratch = self.dir.path().join("scratch");
        let out = scratch.join("out.tar");
        layers(self.dir.path(), "amd64", &scratch)?.write(&out, |_| true)?;
        Ok(listing(&out))
    }

    fn error(&self) -> String {
        format!("{:#}", self.read().unwrap_err())
    }
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    Command::new("gzip", "gzip")
        .arg("-c")
        .stdin(file)
        .output()
        .unwrap()
}

#[test]
fn layers_of_every_compression_in_order() {
    let layout = Layout::new();
    let image = layout.image(
        "amd64",
        &[
            gzip(&layout.tar(&["f a 1", "f gone 1", "f c 1"])),
            zstd::encode_all(&layout.tar(&["f .wh.gone ", "f a 2"])[..], 3).unwrap(),
            layout.tar(&["f b 3"]),
        ],
    );
    let other = layout.image("arm64", &[layout.tar(&["f wrong x"])]);
    let all = ["d .", "f a 2", "f b 3", "f c 1"];
    layout.index(&[other.clone(), image.clone()]);
    assert_eq!(layout.read().unwrap(), all);

    // An index in the index, as image builders for several architectures write it.
    let nested = layout.json(&serde_json::json!({ "manifests": [other, image] }));
    layout.index(&[nested]);
    assert_eq!(layout.read().unwrap(), all);
}

#[test]
fn an_image_for_another_architecture_is_refused() {
    let layout = Layout::new();
    let mut image = layout.image("arm64", &[layout.tar(&["f a 1"])]);
    layout.index(std::slice::from_ref(&image));
    assert!(layout.error().contains("no image for linux/amd64"));
    image.as_object_mut().unwrap().remove("platform");
    layout.index(&[image]);
    assert!(layout.error().contains("the image is for arm64"));
}

#[test]
fn damage_is_found() {
    let layout = Layout::new();
    let image = layout.image("amd64", &[layout.tar(&["f a 1"])]);
    layout.index(std::slice::from_ref(&image));
    let blobs: Vec<PathBuf> = fs::read_dir(layout.dir.path().join("blobs/sha256"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    for blob in blobs {
        let whole = fs::read(&blob).unwrap();
        let mut broken = whole.clone();
        broken[0] ^= 1;
        fs::write(&blob, &broken).unwrap();
        assert!(layout.error().contains("damaged"), "{}", layout.error());
        fs::write(&blob, &whole[1..]).unwrap();
        assert!(layout.error().contains("its descriptor says"));
        fs::remove_file(&blob).unwrap();
        assert!(layout.error().contains("opening the blob"));
        fs::write(&blob, whole).unwrap();
    }
    assert!(layout.read().is_ok());
    let mut outside = image;
    outside["digest"] = "sha256:../../../etc/passwd".into();
    layout.index(&[outside]);
    assert!(layout.error().contains("64 hex digits"));
    fs::write(layout.dir.path().join("index.json"), "{").unwrap();
    assert!(layout.error().contains("index.json"));
    fs::remove_file(layout.dir.path().join("oci-layout")).unwrap();
    assert!(layout.error().contains("no OCI image layout"));
}
