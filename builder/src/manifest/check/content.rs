//! Rules for what stands in the tree and on the disk: base, packages, overlays, units, kernel
//! arguments, partitions. The last five may also stand in a board's section.

use std::collections::BTreeMap;
use std::path::Path;

use bsp::board::{Board, Size};

use super::{at, nearest, syntax, Report};
use crate::manifest::document::Step;
use crate::manifest::{Overlay, OverlayRule, Packages, Product, Units};

/// Kernel arguments that only the builder may set: they name the deployment and its root.
const RESERVED_ARGS: [&str; 5] = ["root", "ostree", "treeline.id", "rw", "ro"];

/// Archive endings that a root file system tarball may have.
const ROOTFS_ENDINGS: [&str; 6] = [".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.zst", ".tzst"];

/// What a product and a board's section have in common.
pub(super) struct Additions<'a> {
    /// Whether the base is a suite, whose packages can be chosen.
    pub suite: bool,
    pub packages: &'a Packages,
    pub kernel_args: &'a [String],
    pub partitions: &'a BTreeMap<String, Size>,
    pub overlay: Option<&'a Overlay>,
    pub units: &'a Units,
}

/// `prefix` joined with further steps.
fn below(prefix: &[Step], more: &[Step]) -> Vec<Step> {
    [prefix, more].concat()
}

pub(super) fn base(report: &mut Report<'_>, product: &Product, dir: &Path) {
    let base = &product.base;
    let given: Vec<&str> = [
        ("suite", base.suite.is_some()),
        ("rootfs", base.rootfs.is_some()),
        ("oci", base.oci.is_some()),
    ]
    .iter()
    .filter(|(_, given)| *given)
    .map(|(name, _)| *name)
    .collect();
    match given.as_slice() {
        [_] => {}
        [] => report.add(
            at!["base"],
            "`base` says nothing of where the root file system comes from",
            "give one of: suite = \"trixie\", rootfs = \"rootfs.tar.zst\", oci = \"image-dir\"",
        ),
        several => report.add(
            at!["base", several[1]],
            format!("`base` has more than one source: {}", several.join(", ")),
            "keep one of them",
        ),
    }
    if let Some(suite) = &base.suite {
        report.require(
            syntax::is_archive_word(suite),
            at!["base", "suite"],
            &format!("\"{suite}\" is no suite"),
            "e.g. suite = \"trixie\"",
        );
    } else {
        let with_suite = [
            ("components", !base.components.is_empty()),
            ("updates", base.updates.is_some()),
            ("mirror", base.mirror.is_some()),
            ("security-mirror", base.security_mirror.is_some()),
        ];
        for (key, _) in with_suite.iter().filter(|(_, given)| *given) {
            let message = format!("`{key}` is only for a base with `suite`");
            report.add(at!["base", *key], message, "leave it out");
        }
    }
    for (index, component) in base.components.iter().enumerate() {
        report.require(
            syntax::is_archive_word(component),
            at!["base", "components", index],
            &format!("\"{component}\" is no archive component"),
            "e.g. components = [\"main\", \"non-free-firmware\"]",
        );
    }
    for (key, mirror) in [
        ("mirror", &base.mirror),
        ("security-mirror", &base.security_mirror),
    ] {
        if let Some(url) = mirror {
            report.require(
                syntax::is_url(url, &["http", "https", "file"]),
                at!["base", key],
                &format!("\"{url}\" is no archive address"),
                "an address that begins with https://, http:// or file://",
            );
        }
    }
    if let Some(rootfs) = &base.rootfs {
        rootfs_file(report, rootfs, dir);
    }
    if let Some(oci) = &base.oci {
        report.require(
            dir.join(oci).join("oci-layout").is_file(),
            at!["base", "oci"],
            &format!("\"{oci}\" is no OCI image layout (it has no file `oci-layout`)"),
            "make one with e.g. `skopeo copy docker://… oci:DIR`; the path starts from product.toml",
        );
    }
}

fn rootfs_file(report: &mut Report<'_>, rootfs: &str, dir: &Path) {
    let path = at!["base", "rootfs"];
    if !ROOTFS_ENDINGS.iter().any(|end| rootfs.ends_with(end)) {
        let hint = format!("one of: {}", ROOTFS_ENDINGS.join(", "));
        report.add(path, format!("\"{rootfs}\" has no known ending"), hint);
    } else if !dir.join(rootfs).is_file() {
        report.add(
            path,
            format!("there is no file \"{rootfs}\""),
            "the path starts from the directory of product.toml",
        );
    }
}

/// Judges what stands at `prefix` (empty: the product itself). `boards`: those it is for.
pub(super) fn additions(
    report: &mut Report<'_>,
    prefix: &[Step],
    additions: &Additions<'_>,
    dir: &Path,
    boards: &[Board],
) {
    packages(report, prefix, additions.packages);
    if !additions.suite {
        no_packages(report, prefix, additions.packages);
    }
    kernel_args(report, prefix, additions.kernel_args);
    partitions(report, prefix, additions.partitions, boards);
    if let Some(overlay) = additions.overlay {
        self::overlay(report, prefix, overlay, dir);
    }
    units(report, prefix, additions.units);
}

fn packages(report: &mut Report<'_>, prefix: &[Step], packages: &Packages) {
    for (list, names) in [("add", &packages.add), ("drop", &packages.drop)] {
        for (index, name) in names.iter().enumerate() {
            if syntax::is_package(name) {
                continue;
            }
            let hint = if name.contains('=') {
                "the name alone; versions are fixed by product.lock"
            } else if name.contains(':') {
                "the name alone; the architecture is the board's"
            } else {
                "lower case letters, digits and `+` `-` `.`"
            };
            let path = below(prefix, at!["packages", list, index]);
            report.add(&path, format!("\"{name}\" is no package name"), hint);
        }
    }
    for (index, name) in packages.drop.iter().enumerate() {
        if packages.add.contains(name) {
            report.add(
                &below(prefix, at!["packages", "drop", index]),
                format!("package \"{name}\" is both added and dropped"),
                "keep one of them",
            );
        }
    }
}

/// A root file system that comes ready is taken as it is.
fn no_packages(report: &mut Report<'_>, prefix: &[Step], packages: &Packages) {
    for (list, names) in [("add", &packages.add), ("drop", &packages.drop)] {
        if !names.is_empty() {
            report.add(
                &below(prefix, at!["packages", list]),
                "packages can be chosen only for a base with `suite`".to_owned(),
                "put them into the root file system, or files into the overlay",
            );
        }
    }
}

fn kernel_args(report: &mut Report<'_>, prefix: &[Step], args: &[String]) {
    for (index, arg) in args.iter().enumerate() {
        let path = below(prefix, at!["kernel-args", index]);
        let key = arg.split('=').next().unwrap_or_default();
        if arg.is_empty() || arg.contains(|c: char| c.is_whitespace() || c.is_control()) {
            let message = format!("kernel argument \"{}\" has a space", arg.escape_debug());
            report.add(
                &path,
                message,
                "one argument each: [\"quiet\", \"loglevel=3\"]",
            );
        } else if RESERVED_ARGS.contains(&key) {
            let message = format!("kernel argument `{key}` is set by the builder");
            report.add(&path, message, "leave it out");
        } else if arg.contains(['"', '\'', '\\', '$', '`']) {
            let message = format!("kernel argument \"{arg}\" has a character that GRUB interprets");
            report.add(
                &path,
                message,
                "leave out quotes, `\\`, `$` and back-quotes",
            );
        }
    }
}

fn partitions(
    report: &mut Report<'_>,
    prefix: &[Step],
    sizes: &BTreeMap<String, Size>,
    boards: &[Board],
) {
    let mut labels: Vec<&str> = boards
        .iter()
        .flat_map(|board| &board.disk.partitions)
        .map(|partition| partition.label.as_str())
        .collect();
    labels.sort_unstable();
    labels.dedup();
    for (label, size) in sizes {
        let path = below(prefix, at!["partitions", label]);
        if !labels.contains(&label.as_str()) {
            let hint = match nearest(label, labels.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("partitions of the board: {}", labels.join(", ")),
            };
            report.add(&path, format!("there is no partition `{label}`"), hint);
        } else if size.0 < Size::MIB {
            let message = format!("partition `{label}` of {size} holds nothing");
            report.add(
                &path,
                message,
                "at least 1MiB; sizes have units: \"512MiB\", \"2GiB\"",
            );
        }
    }
}

fn overlay(report: &mut Report<'_>, prefix: &[Step], overlay: &Overlay, dir: &Path) {
    let path = below(prefix, at!["overlay", "path"]);
    if !syntax::is_inner_path(&overlay.path) {
        report.add(
            &path,
            format!(
                "overlay \"{}\" leaves the product's directory",
                overlay.path
            ),
            "a relative path without `..`, e.g. path = \"overlay\"",
        );
    } else if !dir.join(&overlay.path).is_dir() {
        report.add(
            &path,
            format!("there is no directory \"{}\"", overlay.path),
            format!("mkdir -p {}", overlay.path),
        );
    }
    for (index, rule) in overlay.rules.iter().enumerate() {
        overlay_rule(report, &below(prefix, at!["overlay", "rules", index]), rule);
    }
}

fn overlay_rule(report: &mut Report<'_>, path: &[Step], rule: &OverlayRule) {
    report.require(
        rule.path.starts_with('/'),
        &below(path, at!["path"]),
        &format!("\"{}\" matches nothing: it is no absolute path", rule.path),
        "patterns are paths on the device and begin with `/`, e.g. \"/etc/secret/**\"",
    );
    for (key, name) in [("user", &rule.user), ("group", &rule.group)] {
        if let Some(name) = name {
            report.require(
                syntax::is_user_or_id(name),
                &below(path, at![key]),
                &format!("\"{name}\" is no {key} name or id"),
                "",
            );
        }
    }
    if let Some(mode) = &rule.mode {
        report.require(
            syntax::is_mode(mode),
            &below(path, at!["mode"]),
            &format!("\"{mode}\" is no octal mode"),
            "three or four digits from 0 to 7, e.g. \"0600\"",
        );
    }
    report.require(
        rule.user.is_some() || rule.group.is_some() || rule.mode.is_some(),
        path,
        "this rule changes nothing",
        "give it `user`, `group` or `mode`",
    );
}

fn units(report: &mut Report<'_>, prefix: &[Step], units: &Units) {
    let lists = [
        ("enable", &units.enable),
        ("disable", &units.disable),
        ("mask", &units.mask),
    ];
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for (list, names) in lists {
        for (index, name) in names.iter().enumerate() {
            let path = below(prefix, at!["units", list, index]);
            unit(report, &path, name);
            match seen.insert(name, list) {
                Some(before) if before != list => report.add(
                    &path,
                    format!("unit \"{name}\" is in both `{before}` and `{list}`"),
                    "keep one of them",
                ),
                _ => {}
            }
        }
    }
}

/// Judges one unit name.
pub(super) fn unit(report: &mut Report<'_>, path: &[Step], name: &str) {
    let (stem, suffix) = match name.rsplit_once('.') {
        Some((stem, suffix)) => (stem, suffix),
        None => {
            let message = format!("unit \"{name}\" has no suffix");
            report.add(path, message, format!("did you mean \"{name}.service\"?"));
            return;
        }
    };
    if !syntax::UNIT_SUFFIXES.contains(&suffix) {
        let hint = match nearest(suffix, syntax::UNIT_SUFFIXES) {
            Some(near) => format!("did you mean \"{stem}.{near}\"?"),
            None => format!("did you mean \"{name}.service\"?"),
        };
        let message = format!("unit \"{name}\" has the unknown suffix `.{suffix}`");
        report.add(path, message, hint);
    } else if !syntax::is_unit_stem(stem) {
        report.add(path, format!("\"{name}\" is no unit name"), "");
    }
}
