//! The releases of a test: the user's own product, offered in one good and several broken variants.
//!
//! A variant is the same product with an overlay, a kernel argument or a check added, all through what
//! `product.toml` itself can say. Nothing in the builder knows about tests.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use bsp::device::Check;

use super::table::Offer;
use crate::manifest::{Overlay, OverlayRule, Product};
use crate::project::Project;

/// Version that the devices under test start with.
pub const OLD_VERSION: &str = "1.0.0";
/// Channel of both releases.
pub const CHANNEL: &str = "stable";
/// Version that they are offered.
pub const NEW_VERSION: &str = "2.0.0";
/// Bytes of new data that every offer brings.
const PAYLOAD_BYTES: usize = 2 << 20;
/// Boots that a trial has in a test; a trial that fails early takes them all.
pub const TRIES: u8 = 2;

/// The product under test: the user's own, with the test's update server, keys and limits.
/// `url` is the server as the virtual device sees it.
pub fn under_test(project: &Project, url: &str) -> Product {
    let mut product = project.product.clone();
    product.version = OLD_VERSION.into();
    product.epoch = 0;
    product.update.url = url.into();
    product.update.channel = CHANNEL.into();
    product.update.ca = Some("keys/tls/ca.pem".into());
    product.update.report_url = None;
    // The test's own server asks for nothing more.
    product.update.pinned_keys.clear();
    product.update.client_certificate = None;
    product.update.client_key = None;
    product.update.client_signer.clear();
    product.update.proxy = None;
    product.update.automatic = false;
    product.update.tries = TRIES;
    // Software emulation is slow; a real hang is found by the watchdog long before this.
    product.health.deadline_seconds = Some(600);
    product.health.settle_seconds = Some(2);
    product.kernel_args.extend(
        ["device_timeout", "timeout_start"].map(|name| format!("systemd.default_{name}_sec=600")),
    );
    let absolute = |overlay: &mut Overlay| {
        overlay.path = project.dir.join(&overlay.path).to_string_lossy().into();
    };
    product.overlay.as_mut().map(absolute);
    for section in product.board.values_mut() {
        section.overlay.as_mut().map(absolute);
    }
    for file in [&mut product.base.rootfs, &mut product.base.oci]
        .into_iter()
        .flatten()
    {
        *file = project.dir.join(&*file).to_string_lossy().into();
    }
    product
}

/// The variant of `product` that `offer` names. Files of its overlay are made in `dir`, for `board`.
pub fn variant(product: &Product, offer: Offer, board: &str, dir: &Path) -> Result<Product> {
    let mut product = product.clone();
    product.version = NEW_VERSION.into();
    let mut files: Vec<(&str, &str)> = vec![("usr/share/treeline-test/version", NEW_VERSION)];
    let mut rules = Vec::new();
    let payload = noise(PAYLOAD_BYTES);
    match offer {
        // The board file makes the difference.
        Offer::Good | Offer::NewLoader | Offer::BrokenLoader => {}
        Offer::KernelPanic => product
            .kernel_args
            .extend(["rdinit=/nonexistent".into(), "root=/dev/nonexistent".into()]),
        Offer::InitramfsFails => product
            .kernel_args
            .push("root=UUID=00000000-0000-4000-8000-000000000000".into()),
        Offer::InitMissing => {
            files.push(("usr/lib/systemd/systemd", "not a program\n"));
            rules.push(OverlayRule {
                path: "/usr/lib/systemd/systemd".into(),
                user: None,
                group: None,
                mode: Some("0644".into()),
            });
        }
        Offer::ServiceCrash => {
            files.push((
                "usr/lib/systemd/system/treeline-test-crash.service",
                CRASH_UNIT,
            ));
            product
                .units
                .enable
                .push("treeline-test-crash.service".into());
            product
                .health
                .units
                .push("treeline-test-crash.service".into());
        }
        Offer::HealthFalse => {
            // A check that says no is asked again until the deadline.
            product.health.deadline_seconds = Some(30);
            product.health.checks.push(Check {
                name: "always-no".into(),
                command: vec!["/bin/false".into()],
                timeout_seconds: 10,
            });
        }
        Offer::Hang => {
            files.push((
                "usr/lib/systemd/system/treeline-test-hang.service",
                HANG_UNIT,
            ));
            product
                .units
                .enable
                .push("treeline-test-hang.service".into());
        }
    }
    let text = files.iter().map(|(path, text)| (*path, text.as_bytes()));
    let payload = ("usr/share/treeline-test/payload", &payload[..]);
    write_files(dir, text.chain([payload]))?;
    let overlay = Overlay {
        path: dir.to_string_lossy().into(),
        rules,
    };
    lay_over(&mut product, board, overlay)?;
    Ok(product)
}

/// Writes the files of an overlay, by their path in the tree.
pub(super) fn write_files<'a>(
    dir: &Path,
    files: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Result<()> {
    for (path, content) in files {
        let path = dir.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
        }
        fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// Bytes that no compressor makes smaller, the same every time: a download long enough to be cut.
fn noise(len: usize) -> Vec<u8> {
    let mut state: u64 = 1;
    std::iter::repeat_with(|| {
        // Knuth's MMIX generator; the upper bits are the good ones.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(len)
    .collect()
}

/// Lays `overlay` over everything else: a board section has one overlay, so what stood there is first
/// copied beneath it.
pub(super) fn lay_over(product: &mut Product, board: &str, overlay: Overlay) -> Result<()> {
    let section = product.board.entry(board.to_string()).or_default();
    match &mut section.overlay {
        None => section.overlay = Some(overlay),
        Some(own) => {
            crate::command::Command::new("cp", "coreutils")
                .args(["-a", "-n"])
                .arg(format!("{}/.", own.path))
                .arg(&overlay.path)
                .run()?;
            own.path = overlay.path;
            own.rules.extend(overlay.rules);
        }
    }
    Ok(())
}

const CRASH_UNIT: &str = "[Unit]
Description=A service that crashes (test)
[Service]
ExecStart=/bin/sh -c 'kill -SEGV $$'
[Install]
WantedBy=multi-user.target
";

/// Freezes PID 1 with the kernel's own freezer: nothing feeds the hardware watchdog any more, and no
/// job, timer or shutdown runs. Before multi-user.target, so that the boot cannot be found good first.
const HANG_UNIT: &str = "[Unit]
Description=The whole system hangs (test)
Before=multi-user.target
After=basic.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'echo treeline-test: hanging >/dev/console; echo 1 >/sys/fs/cgroup/init.scope/cgroup.freeze; sleep infinity'
[Install]
WantedBy=multi-user.target
";

#[cfg(test)]
mod tests {
    use super::*;

    fn project(dir: &Path) -> Project {
        fs::create_dir_all(dir.join("overlay")).unwrap();
        fs::write(
            dir.join("product.toml"),
            "name = \"p\"\nversion = \"9.9.9\"\n[base]\nsuite = \"trixie\"\n[overlay]\npath = \"overlay\"\n",
        )
        .unwrap();
        Project::load(dir).unwrap()
    }

    #[test]
    fn every_broken_variant_differs_from_the_good_one() {
        let dir = tempfile::tempdir().unwrap();
        let project = project(dir.path());
        let product = under_test(&project, "https://10.0.2.2:1/");
        assert!(Path::new(&product.overlay.as_ref().unwrap().path).is_absolute());
        let make = |offer: Offer| {
            let overlay = dir.path().join(format!("{offer:?}"));
            let product = variant(&product, offer, "x86_64-uefi", &overlay).unwrap();
            let mut product = product;
            let files = fs::read_dir(&overlay).unwrap().count()
                + usize::from(overlay.join("usr/lib").exists());
            product.board.clear();
            (product, files)
        };
        let good = make(Offer::Good);
        assert_eq!(good.0.version, NEW_VERSION);
        for offer in [
            Offer::KernelPanic,
            Offer::InitramfsFails,
            Offer::InitMissing,
            Offer::ServiceCrash,
            Offer::HealthFalse,
            Offer::Hang,
        ] {
            assert_ne!(make(offer), good, "{offer:?}");
        }
    }
}
