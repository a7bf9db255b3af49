//! Firmware's list of what it starts, as the kernel shows it: variables as files (`efivarfs`), each four bytes of
//! attributes and the value, written by one write. `BootOrder`, `BootNext`, `BootCurrent` and `Boot####` are those of
//! the UEFI specification (2.10, table 3.1).

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context, Result};

use super::boot_option::BootOption;

/// Where the kernel shows them, below the root.
pub const DIR: &str = "sys/firmware/efi/efivars";
/// `EFI_GLOBAL_VARIABLE`.
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// Kept without power, and seen at boot and by the system: what these variables have (table 3.1).
const ATTRIBUTES: u32 = 7;

/// Variables by name, of the vendor `EFI_GLOBAL_VARIABLE`.
pub trait Variables {
    /// The value; `None` if there is no such variable.
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>>;
    /// Writes it: whole, or not at all.
    fn set(&self, name: &str, value: &[u8]) -> Result<()>;
    /// The names of all.
    fn names(&self) -> Result<Vec<String>>;
}

/// The machine's own, in a directory of files.
#[derive(Debug, Clone)]
pub struct EfiVarFs {
    dir: PathBuf,
}

impl EfiVarFs {
    /// Those in `dir`; `None` if no such firmware started this system.
    pub fn open(dir: &Path) -> Option<Self> {
        let own = Self { dir: dir.into() };
        own.file("BootCurrent").exists().then_some(own)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}-{GLOBAL}"))
    }
}

impl Variables for EfiVarFs {
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let file = self.file(name);
        match fs::read(&file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            bytes => {
                let reading = || format!("reading {}", file.display());
                let bytes = bytes.with_context(reading)?;
                let value = bytes.get(4..).context("it has no attributes");
                Ok(Some(value.with_context(reading)?.to_vec()))
            }
        }
    }

    fn set(&self, name: &str, value: &[u8]) -> Result<()> {
        let file = self.file(name);
        let mut bytes = ATTRIBUTES.to_le_bytes().to_vec();
        bytes.extend(value);
        let mut options = fs::OpenOptions::new();
        // Shortening the file would be a write of its own.
        let options = options.write(true).create(true).truncate(false);
        let written = options
            .open(&file)
            .and_then(|mut file| file.write_all(&bytes));
        written.with_context(|| {
            format!(
                "writing {}: firmware may have no room left for variables",
                file.display()
            )
        })
    }

    fn names(&self) -> Result<Vec<String>> {
        let listing = || format!("listing {}", self.dir.display());
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir).with_context(listing)? {
            let name = entry.with_context(listing)?.file_name();
            let own = name.to_str().and_then(|name| name.strip_suffix(GLOBAL));
            names.extend(
                own.and_then(|name| name.strip_suffix('-'))
                    .map(String::from),
            );
        }
        Ok(names)
    }
}

/// The list.
#[derive(Clone, Copy)]
pub struct BootList<'a> {
    variables: &'a dyn Variables,
}

impl<'a> BootList<'a> {
    /// The list in these variables.
    pub fn new(variables: &'a dyn Variables) -> Self {
        Self { variables }
    }

    /// Writes a variable, and makes sure that it is what it should be.
    fn set(&self, name: &str, value: &[u8]) -> Result<()> {
        self.variables.set(name, value)?;
        ensure!(
            self.variables.get(name)?.as_deref() == Some(value),
            "firmware's variable {name} was written and is something else"
        );
        Ok(())
    }

    fn numbers(&self, name: &str) -> Result<Vec<u16>> {
        let bytes = self.variables.get(name)?.unwrap_or_default();
        let pairs = bytes.chunks_exact(2);
        Ok(pairs
            .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
            .collect())
    }

    /// The numbers of the options, in the order in which they are tried.
    pub fn order(&self) -> Result<Vec<u16>> {
        self.numbers("BootOrder")
    }

    /// The number of the option that this system was started from.
    pub fn current(&self) -> Result<Option<u16>> {
        Ok(self.numbers("BootCurrent")?.first().copied())
    }

    /// The option that is tried before all others at the next boot, once.
    #[cfg(test)]
    pub fn next(&self) -> Result<Option<u16>> {
        Ok(self.numbers("BootNext")?.first().copied())
    }

    /// An option, if it is there and names a file on a partition.
    pub fn option(&self, number: u16) -> Result<Option<BootOption>> {
        let value = self.variables.get(&name(number))?;
        Ok(value.and_then(|bytes| BootOption::parse(&bytes)))
    }

    /// Has firmware try this one first at the next boot, once.
    pub fn try_next(&self, number: u16) -> Result<()> {
        self.set("BootNext", &number.to_le_bytes())
    }

    /// Sets the order, by one write.
    pub fn set_order(&self, order: &[u16]) -> Result<()> {
        if self.order()? == order {
            return Ok(());
        }
        let bytes: Vec<u8> = order.iter().copied().flat_map(u16::to_le_bytes).collect();
        self.set("BootOrder", &bytes)
    }

    /// The number of the option for this file, if there is one.
    pub fn find(&self, wanted: &BootOption) -> Result<Option<u16>> {
        for name in self.variables.names()? {
            let Some(number) = number(&name) else {
                continue;
            };
            if self
                .option(number)?
                .is_some_and(|option| option.is_same(wanted))
            {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// The number of the option for this file, which is made if there is none.
    pub fn ensure(&self, wanted: &BootOption) -> Result<u16> {
        if let Some(number) = self.find(wanted)? {
            return Ok(number);
        }
        for number in 0..u16::MAX {
            if self.variables.get(&name(number))?.is_none() {
                self.set(&name(number), &wanted.render())?;
                return Ok(number);
            }
        }
        bail!("firmware's list of what it starts is full")
    }
}

fn name(number: u16) -> String {
    format!("Boot{number:04X}")
}

/// The number in the name of a variable.
fn number(name: &str) -> Option<u16> {
    let digits = name.strip_prefix("Boot")?;
    let hex = digits.len() == 4 && digits.chars().all(|c| c.is_ascii_hexdigit());
    hex.then(|| u16::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory in place of efivarfs.
    #[test]
    fn variables_are_files_with_attributes() {
        let dir = tempfile::tempdir().unwrap();
        assert!(EfiVarFs::open(dir.path()).is_none(), "no UEFI");
        let file = |name: &str| dir.path().join(format!("{name}-{GLOBAL}"));
        fs::write(file("BootCurrent"), [6, 0, 0, 0, 3, 0]).unwrap();
        fs::write(dir.path().join("Boot0001-other-vendor"), "").unwrap();
        let variables = EfiVarFs::open(dir.path()).unwrap();
        let list = BootList::new(&variables);
        assert_eq!(list.current().unwrap(), Some(3));
        assert_eq!(list.order().unwrap(), [0_u16; 0]);
        list.set_order(&[3, 0x10]).unwrap();
        let written = fs::read(file("BootOrder")).unwrap();
        assert_eq!(written, [7, 0, 0, 0, 3, 0, 0x10, 0]);
        let mut names = variables.names().unwrap();
        names.sort();
        assert_eq!(names, ["BootCurrent", "BootOrder"]);
        fs::write(file("BootNext"), [7, 0]).unwrap();
        let error = format!("{:#}", list.next().unwrap_err());
        assert!(error.contains("no attributes"), "{error}");
    }

    #[test]
    fn only_four_digits_are_a_number() {
        assert_eq!(number("Boot00A1"), Some(0xa1));
        for name in ["BootOrder", "Boot+001", "Boot001", "Driver0001"] {
            assert_eq!(number(name), None, "{name}");
        }
    }
}
