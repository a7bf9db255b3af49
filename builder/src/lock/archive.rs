//! Where packages come from: the addresses of a Debian archive and of its security archive.
//!
//! The product says it (`base.mirror`), else the environment, else the machine's own apt sources: no address
//! stands in this program.

use anyhow::{bail, ensure, Context, Result};

use super::apt;
use crate::manifest::Base;
use crate::project::Merged;

/// Environment variable with the address of the archive.
const MIRROR: &str = "TREELINE_MIRROR";
/// Environment variable with the address of the security archive.
const SECURITY_MIRROR: &str = "TREELINE_SECURITY_MIRROR";

/// Key of the archive in the lock.
pub(super) const MAIN: &str = "main";
/// Key of the security archive in the lock.
pub(super) const SECURITY: &str = "security";

/// Addresses of an archive; each ends in a slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Archive {
    /// Debian itself.
    pub main: String,
    /// Its security updates.
    pub security: String,
}

impl Archive {
    /// The archive that a product is resolved and fetched from.
    pub fn of(merged: &Merged) -> Result<Self> {
        Self::choose(
            &merged.product.base,
            |name| std::env::var(name).ok(),
            apt::machine_sources,
        )
    }

    fn choose(
        base: &Base,
        env: impl Fn(&str) -> Option<String>,
        machine: impl Fn() -> Result<Vec<Source>>,
    ) -> Result<Self> {
        let given = |own: &Option<String>, name: &str| {
            own.clone()
                .or_else(|| env(name))
                .filter(|text| !text.is_empty())
        };
        let main = given(&base.mirror, MIRROR);
        let security = given(&base.security_mirror, SECURITY_MIRROR);
        let (main, security) = match (main, security) {
            (Some(main), Some(security)) => (main, security),
            (main, security) => {
                let sources = machine().context("finding the machine's own apt sources")?;
                (
                    main.or_else(|| pick(&sources, false)),
                    security.or_else(|| pick(&sources, true)),
                )
                    .both()?
            }
        };
        Ok(Self {
            main: address(&main)?,
            security: address(&security)?,
        })
    }

    /// The address of the archive with this key.
    pub fn address(&self, key: &str) -> Result<&str> {
        match key {
            MAIN => Ok(&self.main),
            SECURITY => Ok(&self.security),
            _ => bail!(
                "the lock names an archive {key:?} that this builder does not know; try `builder update-lock`"
            ),
        }
    }

    /// Archive key and path below its address of a file at `uri` (percent-decoded).
    pub fn locate<'a>(&self, uri: &'a str) -> Option<(&'static str, &'a str)> {
        // apt writes `file:/x` for `file:///x`.
        let plain = |address: &str| address.replacen("file://", "file:", 1);
        let (main, security) = (plain(&self.main), plain(&self.security));
        if let Some(path) = uri.strip_prefix(&security) {
            return Some((SECURITY, path));
        }
        uri.strip_prefix(&main).map(|path| (MAIN, path))
    }
}

trait Both {
    fn both(self) -> Result<(String, String)>;
}

impl Both for (Option<String>, Option<String>) {
    fn both(self) -> Result<(String, String)> {
        match self {
            (Some(main), Some(security)) => Ok((main, security)),
            (main, _) => bail!(
                "no {} address: none in base.{} of product.toml, none in {}, none in the machine's own apt sources",
                if main.is_none() { "Debian archive" } else { "Debian security archive" },
                if main.is_none() { "mirror" } else { "security-mirror" },
                if main.is_none() { MIRROR } else { SECURITY_MIRROR },
            ),
        }
    }
}

/// A source of the machine's own apt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    /// Suite or code name.
    pub release: String,
    /// Address.
    pub uri: String,
    /// Label in the Release file: `Debian`, `Debian-Security`.
    pub label: String,
}

fn pick(sources: &[Source], security: bool) -> Option<String> {
    let label = if security {
        "Debian-Security"
    } else {
        "Debian"
    };
    sources
        .iter()
        .find(|source| source.label == label)
        // Before the first `apt-get update` there is no label to go by.
        .or_else(|| {
            sources.iter().find(|source| {
                source.label.is_empty()
                    && source.uri.contains("debian")
                    && source.release.ends_with("-security") == security
            })
        })
        .map(|source| source.uri.clone())
}

fn address(text: &str) -> Result<String> {
    let url = url::Url::parse(text).with_context(|| format!("archive address {text:?}"))?;
    ensure!(
        matches!(url.scheme(), "http" | "https" | "file"),
        "archive address {text:?}: not http, https or file"
    );
    // It becomes a word in a line of sources.list.
    ensure!(
        !text.contains(|c: char| c.is_whitespace() || c == '[' || c == '#'),
        "archive address {text:?} has a character in it that apt cannot take"
    );
    Ok(format!("{}/", text.trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(release: &str, uri: &str, label: &str) -> Source {
        Source {
            release: release.into(),
            uri: uri.into(),
            label: label.into(),
        }
    }

    fn base(mirror: Option<&str>) -> Base {
        Base {
            suite: Some("trixie".into()),
            components: vec![],
            updates: None,
            mirror: mirror.map(str::to_string),
            security_mirror: None,
            rootfs: None,
            oci: None,
        }
    }

    fn machine() -> Result<Vec<Source>> {
        Ok(vec![
            source("stable", "https://other.example/apt/", "other"),
            source(
                "bookworm-security",
                "http://s.example/sec/",
                "Debian-Security",
            ),
            source(
                "bookworm-backports",
                "http://b.example/debian/",
                "Debian Backports",
            ),
            source("bookworm", "http://m.example/debian", "Debian"),
        ])
    }

    #[test]
    fn product_then_environment_then_machine() {
        let none = |_: &str| None;
        let from_machine = Archive::choose(&base(None), none, machine).unwrap();
        assert_eq!(from_machine.main, "http://m.example/debian/");
        assert_eq!(from_machine.security, "http://s.example/sec/");

        let env = |name: &str| Some(format!("http://env.example/{name}"));
        let from_env = Archive::choose(&base(None), env, || bail!("not asked")).unwrap();
        assert_eq!(from_env.main, "http://env.example/TREELINE_MIRROR/");

        let own = Archive::choose(&base(Some("file:///srv/debian")), env, machine).unwrap();
        assert_eq!(own.main, "file:///srv/debian/");
        assert_eq!(
            own.locate("file:/srv/debian/pool/a.deb"),
            Some((MAIN, "pool/a.deb"))
        );
    }

    #[test]
    fn what_cannot_be_used_says_why() {
        let none = |_: &str| None;
        let error = Archive::choose(&base(None), none, || Ok(vec![])).unwrap_err();
        assert!(error.to_string().contains("TREELINE_MIRROR"), "{error}");
        for bad in [
            "ftp://x/",
            "no address",
            "http://x/a b",
            "http://x/ [trusted=yes",
        ] {
            assert!(
                Archive::choose(&base(Some(bad)), none, machine).is_err(),
                "{bad}"
            );
        }
    }
}
