//! What must hold before anything is published.

use anyhow::{bail, Context, Result};
use keys::release::{Channel, Release};

use super::contents::{self, Commit};
use super::published::Site;
use super::{delta, field, Request};

/// Signed, and of this product, board and version.
pub(super) fn commit(request: &Request, commit: &Commit) -> Result<()> {
    keys::commit::verify(&request.commit_keys, &commit.bytes(), &commit.signatures())
        .with_context(|| format!("releasing commit {}", commit.checksum))?;
    for (key, wanted) in [
        ("treeline.product", &request.product),
        ("treeline.board", &request.board),
        ("version", &request.version),
    ] {
        let found = commit.text(key).unwrap_or_default();
        if found != *wanted {
            bail!(
                "releasing commit {}: its {key} is '{found}', this release's is '{wanted}'; run \
                 `builder build --board {}` first",
                commit.checksum,
                request.board
            );
        }
    }
    Ok(())
}

/// A version that devices may have seen never gets another content.
pub(super) fn same(request: &Request, before: Option<&Release>) -> Result<()> {
    let Some(before) = before else {
        return Ok(());
    };
    if before.commit != request.commit {
        bail!(
            "releasing {} for {}: this version was released with another content (commit {}, now \
             {}); raise `version` in product.toml",
            request.version,
            request.board,
            delta::short(&before.commit),
            delta::short(&request.commit)
        );
    }
    if before.epoch != request.epoch {
        bail!(
            "releasing {} for {}: it was released with epoch {}, now it is {}; raise `version` too",
            request.version,
            request.board,
            before.epoch,
            request.epoch
        );
    }
    Ok(())
}

/// The releases in the channel but this one, newest first.
pub(super) fn earlier(
    request: &Request,
    site: &Site,
    channel: Option<&Channel>,
) -> Result<Vec<Release>> {
    let versions = channel.map(|c| c.versions.as_slice()).unwrap_or_default();
    versions
        .iter()
        .filter(|version| **version != request.version)
        .map(|version| {
            site.release(&request.board, version)?.with_context(|| {
                format!(
                    "reading the channel {} of {}: it lists {version}, which is not published",
                    request.channel, request.board
                )
            })
        })
        .collect()
}

/// Nothing that devices of the channel would refuse as a step back.
pub(super) fn epoch(request: &Request, earlier: &[Release]) -> Result<()> {
    match earlier.iter().max_by_key(|release| release.epoch) {
        Some(higher) if higher.epoch > request.epoch => bail!(
            "releasing {} with epoch {}: {} in {} has epoch {}, devices that confirmed it would \
             refuse this one; set `epoch = {}` in product.toml",
            request.version,
            request.epoch,
            higher.version,
            request.channel,
            higher.epoch,
            higher.epoch
        ),
        _ => Ok(()),
    }
}

/// No release is offered to devices that could not take it: those that were flashed with an earlier one of
/// the channel. What was built before layouts were recorded is taken on trust.
pub(super) fn layout(commit: &Commit, earlier: &[Release], site: &Site) -> Result<()> {
    if earlier.is_empty() {
        // The first: there is no repository yet either.
        return Ok(());
    }
    let repo = contents::open(&site.repo())?;
    for release in earlier {
        let old = Commit::load(&repo, &release.commit)?;
        let differences = field::differences(&old, commit)
            .with_context(|| format!("comparing with the disk of {}", release.version))?;
        if !differences.is_empty() {
            bail!(
                "releasing {}: devices that were flashed with {} could not take it:\n  {}\nbring the layout back, \
                 or begin another channel for devices that are flashed anew",
                commit.text("version").unwrap_or_default(),
                release.version,
                differences.join("\n  ")
            );
        }
    }
    Ok(())
}
