//! Decides every path of the sysroot, before a byte is written.
//!
//! The model is what `ostree admin init-fs`, `os-init`, `pull-local` and `deploy` leave on an empty
//! disk (the tests compare path by path).

use std::collections::BTreeSet;

use anyhow::{bail, Context, Result};
use bsp::boot::entry::BootEntry;
use bsp::boot::grub::sealed;
use ostree::ObjectType;
use sha2::{Digest, Sha256};

use super::boot;
use super::objects::{Body, Commit, Meta, Store};
use super::plan::{Entry, Plan, Source};
use super::Site;

/// A kernel or initramfs larger than this is a mistake.
const LARGEST_BOOT_FILE: u64 = 1 << 30;
/// libostree counts boot versions 0 and 1 in turn, beginning with 1 on an empty sysroot.
const BOOT_VERSION: u32 = 1;

/// Plans the sysroot that holds the deployment of `commit`.
pub(super) fn plan(store: &Store, commit: &str, site: &Site) -> Result<Plan> {
    let commit_parts = store.commit(commit)?;
    let mut planner = Planner {
        store,
        // libostree takes a deployment directory of time 0 for one it has loaded already.
        time: commit_parts.timestamp.max(1),
        plan: Plan::default(),
        objects: BTreeSet::new(),
    };
    planner.top();
    planner.stateroot(&site.stateroot);
    planner.repository(commit, site)?;
    planner.deployment(commit, &commit_parts, site)?;
    planner.boot(commit, commit_parts.version.as_deref(), site)?;
    planner.write_objects()?;
    Ok(planner.plan)
}

struct Planner<'a> {
    store: &'a Store,
    /// Modification time of all that is no object.
    time: u64,
    plan: Plan,
    /// Metadata and content objects met so far.
    objects: BTreeSet<(&'static str, String)>,
}

impl Planner<'_> {
    fn add(&mut self, path: impl Into<String>, meta: Meta, source: Source) {
        self.plan
            .entries
            .insert(path.into(), Entry { meta, source });
    }

    fn dir(&mut self, path: impl Into<String>, mode: u32) {
        self.add(path, Meta::root(mode, self.time), Source::Directory);
    }

    /// Makes the directories above `path` that are not there.
    fn parents(&mut self, path: &str) {
        for (slash, _) in path.match_indices('/') {
            if !self.plan.entries.contains_key(&path[..slash]) {
                self.dir(&path[..slash], 0o755);
            }
        }
    }

    fn link(&mut self, path: impl Into<String>, target: impl Into<String>) {
        self.add(
            path,
            Meta::root(0o777, self.time),
            Source::Symlink(target.into()),
        );
    }

    fn text(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        self.parents(path);
        let meta = Meta::root(0o644, self.time);
        self.add(path, meta, Source::Bytes(content.into()));
    }

    /// As `ostree admin init-fs`.
    fn top(&mut self) {
        let modes = [
            ("", 0o755),
            ("boot", 0o755),
            ("dev", 0o755),
            ("home", 0o755),
            ("ostree", 0o755),
            ("ostree/deploy", 0o755),
            ("proc", 0o755),
            ("root", 0o700),
            ("run", 0o755),
            ("sys", 0o755),
            ("tmp", 0o1777),
        ];
        for (path, mode) in modes {
            self.dir(path, mode);
        }
        // So that paths in boot entries begin with /boot whether or not /boot is a partition.
        self.link("boot/boot", ".");
    }

    /// As `ostree admin os-init`.
    fn stateroot(&mut self, name: &str) {
        let var = format!("ostree/deploy/{name}/var");
        self.parents(&format!("{var}/"));
        self.dir(format!("{var}/lib"), 0o755);
        self.dir(format!("{var}/log"), 0o755);
        self.dir(format!("{var}/tmp"), 0o1777);
        self.link(format!("{var}/lock"), "../run/lock");
        self.link(format!("{var}/run"), "../run");
    }

    fn repository(&mut self, commit: &str, site: &Site) -> Result<()> {
        let value = self.store.metadata(ObjectType::Commit, commit)?;
        self.objects.insert(("commit", commit.to_string()));
        self.add_metadata(ObjectType::Commit, commit, value.size() as u64);
        for dir in [
            "extensions",
            "refs/mirrors",
            "refs/remotes",
            "state",
            "tmp/cache",
        ] {
            self.parents(&format!("ostree/repo/{dir}/"));
        }
        self.text("ostree/repo/config", boot::repo_config(site.backend));
        for reference in [site.refspec.as_str(), &format!("ostree/{BOOT_VERSION}/1/0")] {
            let path = format!("ostree/repo/refs/heads/{reference}");
            self.text(&path, format!("{commit}\n"));
        }
        if let Some(signatures) = self.store.detached(commit)? {
            self.text(&object_path(commit, "commitmeta"), signatures);
        }
        Ok(())
    }

    /// The deployment's tree and origin.
    fn deployment(&mut self, checksum: &str, commit: &Commit, site: &Site) -> Result<()> {
        let root = deployment_path(checksum, site);
        self.parents(&root);
        self.tree(&root, &commit.tree, &commit.meta)?;
        let usr_etc = format!("{root}/usr/etc");
        let etc = format!("{root}/etc");
        if self.plan.entries.contains_key(&etc) {
            bail!("deploying commit {checksum}: it has a directory etc at the top; it belongs in usr/etc");
        }
        if self.plan.entries.contains_key(&usr_etc) {
            self.copy_tree(&usr_etc, &etc);
        }
        self.text(
            &format!("{root}.origin"),
            format!("[origin]\nrefspec={}\n", site.refspec),
        );
        Ok(())
    }

    fn tree(&mut self, path: &str, tree: &str, meta: &str) -> Result<()> {
        let listing = self.store.listing(tree)?;
        self.objects.insert(("dirtree", tree.to_string()));
        self.objects.insert(("dirmeta", meta.to_string()));
        self.add(path, self.store.directory(meta)?, Source::Directory);
        for (name, checksum) in listing.files {
            let path = format!("{path}/{name}");
            let file = self.store.file(&checksum)?;
            self.objects.insert(("file", checksum.clone()));
            // libostree never links empty files: they would gather more links than file systems allow.
            let source = match file.body {
                Body::Regular(0) => Source::Bytes(Vec::new()),
                body => Source::Shared { checksum, body },
            };
            self.add(path, file.meta, source);
        }
        for (name, tree, meta) in listing.dirs {
            self.tree(&format!("{path}/{name}"), &tree, &meta)?;
        }
        Ok(())
    }

    /// `/etc` is writable: a copy with inodes of its own.
    fn copy_tree(&mut self, from: &str, to: &str) {
        let inside = format!("{from}/");
        let copies: Vec<(String, Entry)> = self
            .plan
            .entries
            .range(from.to_string()..)
            .take_while(|(path, _)| path.starts_with(from))
            .filter(|(path, _)| *path == from || path.starts_with(&inside))
            .map(|(path, entry)| (format!("{to}{}", &path[from.len()..]), entry.own(self.time)))
            .collect();
        self.plan.entries.extend(copies);
    }

    fn boot(&mut self, commit: &str, version: Option<&str>, site: &Site) -> Result<()> {
        let root = deployment_path(commit, site);
        let kernel = self.kernel(&root)?;
        let mut hash = Sha256::new();
        let mut places = Vec::new();
        for (file, name) in [
            ("vmlinuz", format!("vmlinuz-{}", kernel.version)),
            ("initramfs.img", format!("initramfs-{}.img", kernel.version)),
        ] {
            let checksum = self.shared(&format!("{}/{file}", kernel.dir))?;
            hash.update(self.store.read_file(&checksum, LARGEST_BOOT_FILE)?);
            places.push((name, checksum));
        }
        let device_trees = self.device_trees(&kernel, &mut hash)?;
        let boot_checksum = hex::encode(hash.finalize());
        let dir = format!("ostree/{}-{boot_checksum}", site.stateroot);
        self.parents(&format!("boot/{dir}/"));
        for (name, checksum) in &places {
            let file = self.store.file(checksum)?;
            self.add(
                format!("boot/{dir}/{name}"),
                file.meta,
                Source::Shared {
                    checksum: checksum.clone(),
                    body: file.body,
                },
            );
        }
        if device_trees {
            self.copy_tree(&format!("{}/dtb", kernel.dir), &format!("boot/{dir}/dtb"));
        }
        self.boot_links(commit, &boot_checksum, &site.stateroot);
        let os_release = self.os_release(&root)?;
        let seen = format!("{}/{dir}", boot::prefix(site.backend));
        let shown = boot::Shown {
            entry: BootEntry {
                title: boot::title(&os_release, version),
                version: 1,
                linux: format!("{seen}/{}", places[0].0),
                initrd: vec![format!("{seen}/{}", places[1].0)],
                options: boot::options(site, BOOT_VERSION, &boot_checksum),
                devicetree: None,
            },
            device_trees: device_trees.then(|| format!("{seen}/dtb")),
        };
        let loader = format!("boot/loader.{BOOT_VERSION}");
        self.text(
            &format!("{loader}/entries/ostree-1.conf"),
            boot::text(&shown),
        );
        let script = format!("{root}/{}", sealed::BOOT_SCRIPT_PATH);
        if self.plan.entries.contains_key(&script) {
            let (name, text) = boot::menu_block(&shown);
            self.text(&format!("{loader}/{name}"), text);
        }
        let (name, text) = boot::loader_file(site.backend, &shown);
        self.text(&format!("{loader}/{name}"), text);
        self.link("boot/loader", format!("loader.{BOOT_VERSION}"));
        self.plan.boot_checksum = boot_checksum;
        self.plan.kernel_version = kernel.version;
        Ok(())
    }

    /// Whether the kernel has device trees of its own; their contents, in the order of their names, a
    /// directory where its name stands, go into the boot checksum.
    fn device_trees(&self, kernel: &Kernel, hash: &mut Sha256) -> Result<bool> {
        let dir = format!("{}/dtb", kernel.dir);
        if !self.plan.entries.contains_key(&dir) {
            return Ok(false);
        }
        let inside = format!("{dir}/");
        let below = self.plan.entries.range(inside.clone()..);
        let below = below.take_while(|(path, _)| path.starts_with(&inside));
        let mut paths: Vec<&String> = below.map(|(path, _)| path).collect();
        paths.sort_by(|a, b| a.split('/').cmp(b.split('/')));
        for path in paths {
            match self.plan.entries.get(path).map(|entry| &entry.source) {
                Some(Source::Directory) => {}
                _ => {
                    let checksum = self.shared(path)?;
                    hash.update(self.store.read_file(&checksum, LARGEST_BOOT_FILE)?);
                }
            }
        }
        Ok(true)
    }

    fn boot_links(&mut self, commit: &str, boot_checksum: &str, stateroot: &str) {
        let version = format!("boot.{BOOT_VERSION}");
        let link = format!("ostree/{version}.1/{stateroot}/{boot_checksum}/0");
        self.parents(&link);
        self.link(
            link,
            format!("../../../deploy/{stateroot}/deploy/{commit}.0"),
        );
        self.link(format!("ostree/{version}"), format!("{version}.1"));
    }

    /// Finds the one kernel of the tree.
    fn kernel(&self, root: &str) -> Result<Kernel> {
        let modules = format!("{root}/usr/lib/modules/");
        let mut versions = self
            .plan
            .entries
            .range(modules.clone()..)
            .take_while(|(path, _)| path.starts_with(&modules))
            .filter_map(|(path, _)| path[modules.len()..].strip_suffix("/vmlinuz"))
            .filter(|version| !version.contains('/'));
        let version = versions
            .next()
            .context("looking for the kernel: the tree has no usr/lib/modules/<version>/vmlinuz; add a kernel package")?
            .to_string();
        if let Some(other) = versions.next() {
            bail!("looking for the kernel: the tree has two, {version} and {other}; keep one kernel package");
        }
        let dir = format!("{modules}{version}");
        if self.plan.entries.contains_key(&format!("{dir}/devicetree")) {
            bail!(
                "deploying: a single device tree (usr/lib/modules/{version}/devicetree) is not supported; \
                 put it into the directory dtb"
            );
        }
        Ok(Kernel { version, dir })
    }

    /// Checksum of the content object at a path of the deployment.
    fn shared(&self, path: &str) -> Result<String> {
        match self.plan.entries.get(path).map(|entry| &entry.source) {
            Some(Source::Shared { checksum, .. }) => Ok(checksum.clone()),
            _ => bail!("deploying: {path} is missing, empty or not a file"),
        }
    }

    fn os_release(&self, root: &str) -> Result<String> {
        let path = format!("{root}/usr/lib/os-release");
        let content = self.store.read_file(&self.shared(&path)?, 1 << 16)?;
        Ok(String::from_utf8_lossy(&content).into_owned())
    }

    fn write_objects(&mut self) -> Result<()> {
        for (kind, checksum) in std::mem::take(&mut self.objects) {
            let kind = match kind {
                "dirtree" => ObjectType::DirTree,
                "dirmeta" => ObjectType::DirMeta,
                "file" => {
                    self.add_file_object(checksum)?;
                    continue;
                }
                _ => continue,
            };
            let len = self.store.metadata(kind, &checksum)?.size() as u64;
            self.add_metadata(kind, &checksum, len);
        }
        Ok(())
    }

    fn add_file_object(&mut self, checksum: String) -> Result<()> {
        let file = self.store.file(&checksum)?;
        let path = object_path(&checksum, "file");
        self.parents(&path);
        let body = file.body;
        self.add(path, file.meta, Source::Shared { checksum, body });
        Ok(())
    }

    fn add_metadata(&mut self, kind: ObjectType, checksum: &str, len: u64) {
        let suffix = match kind {
            ObjectType::Commit => "commit",
            ObjectType::DirTree => "dirtree",
            _ => "dirmeta",
        };
        let path = object_path(checksum, suffix);
        self.parents(&path);
        let checksum = checksum.to_string();
        let source = Source::Metadata {
            kind,
            checksum,
            len,
        };
        self.add(path, Meta::root(0o644, 0), source);
    }
}

struct Kernel {
    version: String,
    /// Its directory under the deployment.
    dir: String,
}

fn deployment_path(commit: &str, site: &Site) -> String {
    format!("ostree/deploy/{}/deploy/{commit}.0", site.stateroot)
}

fn object_path(checksum: &str, suffix: &str) -> String {
    let (head, tail) = checksum.split_at(2.min(checksum.len()));
    format!("ostree/repo/objects/{head}/{tail}.{suffix}")
}
