//! `product.lock` on disk: TOML with one line a package, sorted, so that a review shows what changed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{bail, ensure, Context, Result};
use serde::Deserialize;

use super::{BoardLock, Lock, LockedPackage, FORMAT};

const HEADER: &str = "# made by builder update-lock; do not edit\n";

impl Default for Lock {
    fn default() -> Self {
        Self {
            format: FORMAT,
            source_date_epoch: 0,
            boards: BTreeMap::new(),
        }
    }
}

impl Lock {
    /// Reads `product.lock`; `None` if there is none.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        let lock = Self::parse(&text).with_context(|| {
            format!(
                "reading {}; if it cannot be mended, remove it and run `builder update-lock`",
                path.display()
            )
        })?;
        Ok(Some(lock))
    }

    /// Parses the text of a lock and checks what a build relies on.
    pub fn parse(text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let Format { format } = toml::from_str(text)?;
        if format != FORMAT {
            bail!("format {format} is not known to this builder (it knows {FORMAT}); use the builder that made the lock, or `builder update-lock`");
        }
        let lock: Self = toml::from_str(text)?;
        for board in lock.boards.values() {
            for package in board
                .packages
                .iter()
                .chain(&board.firmware)
                .chain(&board.tools)
                .chain(&board.helpers)
            {
                check(package)?;
            }
        }
        Ok(lock)
    }

    /// Puts what `board` is made of in place of what was there, and brings the lock's time up to date.
    pub fn set(&mut self, board: &str, content: BoardLock) {
        self.boards.insert(board.to_string(), content);
        self.source_date_epoch = self
            .boards
            .values()
            .map(BoardLock::newest_date)
            .max()
            .unwrap_or(0);
    }

    /// The text of the file.
    pub fn render(&self) -> String {
        let mut out = String::from(HEADER);
        // Writing to a String cannot fail.
        let _ = writeln!(out, "format = {}", self.format);
        let _ = writeln!(out, "source_date_epoch = {}", self.source_date_epoch);
        for (id, board) in &self.boards {
            let _ = writeln!(out, "\n[boards.{}]", quote(id));
            let _ = writeln!(out, "request = {}", quote(&board.request));
            render_suites(&mut out, board);
            if let Some(base) = &board.base {
                let _ = writeln!(
                    out,
                    "base = {{ path = {}, sha256 = {} }}",
                    quote(&base.path),
                    quote(&base.sha256)
                );
            }
            for (index, file) in board.files.iter().enumerate() {
                let start = if index == 0 { "files = [\n" } else { "" };
                let end = if index + 1 == board.files.len() {
                    "]\n"
                } else {
                    ""
                };
                let _ = write!(
                    out,
                    "{start}  {{ path = {}, sha256 = {} }},\n{end}",
                    quote(&file.path),
                    quote(&file.sha256)
                );
            }
            render_packages(&mut out, "packages", &board.packages);
            render_packages(&mut out, "firmware", &board.firmware);
            render_packages(&mut out, "tools", &board.tools);
            if !board.helpers.is_empty() {
                render_packages(&mut out, "helpers", &board.helpers);
            }
        }
        out
    }

    /// Writes the file by one rename.
    pub fn write(&self, path: &Path) -> Result<()> {
        let dir = match path.parent() {
            Some(dir) if dir != Path::new("") => dir,
            _ => Path::new("."),
        };
        let write = || -> Result<()> {
            let mut file = tempfile::Builder::new()
                .prefix(".product.lock-")
                .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
                .tempfile_in(dir)?;
            std::io::Write::write_all(&mut file, self.render().as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(path)?;
            Ok(())
        };
        write().with_context(|| format!("writing {}", path.display()))
    }
}

fn render_suites(out: &mut String, board: &BoardLock) {
    out.push_str("suites = [\n");
    for suite in &board.suites {
        let _ = writeln!(
            out,
            "  {{ name = {}, date = {}, sha256 = {} }},",
            quote(&suite.name),
            suite.date,
            quote(&suite.sha256)
        );
    }
    out.push_str("]\n");
}

fn render_packages(out: &mut String, key: &str, packages: &[LockedPackage]) {
    let mut packages: Vec<_> = packages.iter().collect();
    packages.sort();
    let _ = writeln!(out, "{key} = [");
    for package in packages {
        let _ = writeln!(
            out,
            "  {{ name = {}, version = {}, arch = {}, size = {}, sha256 = {}, archive = {}, filename = {} }},",
            quote(&package.name),
            quote(&package.version),
            quote(&package.arch),
            package.size,
            quote(&package.sha256),
            quote(&package.archive),
            quote(&package.filename)
        );
    }
    out.push_str("]\n");
}

/// A TOML basic string.
fn quote(text: &str) -> String {
    toml::Value::String(text.to_string()).to_string()
}

/// The hash becomes a file name in the cache and the file name a part of an address: both must be plain.
fn check(package: &LockedPackage) -> Result<()> {
    ensure!(
        package.sha256.len() == 64
            && package
                .sha256
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)),
        "package {}: sha256 {:?} is not 64 lower-case hex digits",
        package.name,
        package.sha256
    );
    ensure!(
        !package.filename.starts_with('/')
            && package
                .filename
                .split('/')
                .all(|part| !part.is_empty() && part != ".."),
        "package {}: file name {:?} does not stay inside the archive",
        package.name,
        package.filename
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{LockedBase, LockedFile, SuiteState};
    use super::*;

    pub(crate) fn package(name: &str, version: &str) -> LockedPackage {
        LockedPackage {
            name: name.into(),
            version: version.into(),
            arch: "amd64".into(),
            size: 42,
            sha256: "ab".repeat(32),
            archive: "main".into(),
            filename: format!("pool/main/{name}.deb"),
        }
    }

    fn lock() -> Lock {
        let mut lock = Lock::default();
        lock.set(
            "x86_64-uefi",
            BoardLock {
                request: "ab".repeat(32),
                suites: vec![SuiteState {
                    name: "trixie".into(),
                    date: 1_790_000_000,
                    sha256: "cd".repeat(32),
                }],
                packages: vec![package("a", "1:2+b~\"q\""), package("z", "1")],
                firmware: vec![package("shim-signed", "1")],
                tools: vec![],
                helpers: vec![package("dash", "1")],
                files: vec![LockedFile {
                    path: "firmware/logo.bmp".into(),
                    sha256: "01".repeat(32),
                }],
                base: Some(LockedBase {
                    path: "x.tar".into(),
                    sha256: "ef".repeat(32),
                }),
            },
        );
        lock
    }

    #[test]
    fn a_lock_is_read_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("product.lock");
        assert_eq!(Lock::read(&path).unwrap(), None);
        let lock = lock();
        lock.write(&path).unwrap();
        assert_eq!(Lock::read(&path).unwrap(), Some(lock.clone()));
        assert_eq!(lock.source_date_epoch, 1_790_000_000);
        assert!(lock.render().starts_with("# made by builder update-lock"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_text_does_not_depend_on_the_order_of_packages() {
        let mut other = lock();
        for board in other.boards.values_mut() {
            board.packages.reverse();
        }
        assert_eq!(lock().render(), other.render());
    }

    #[test]
    fn a_lock_that_cannot_be_trusted_is_refused() {
        let text = lock().render();
        for (from, to, says) in [
            ("format = 1", "format = 7", "format 7"),
            (&"ab".repeat(32), "../../etc/passwd", "hex digits"),
            ("pool/main/a.deb", "../a.deb", "inside the archive"),
            ("[boards.", "unknown = 1\n[boards.", "unknown"),
        ] {
            let error = Lock::parse(&text.replace(from, to)).unwrap_err();
            assert!(format!("{error:#}").contains(says), "{error:#}");
        }
    }
}
