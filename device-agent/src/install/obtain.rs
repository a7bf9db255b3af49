//! Brings a release's commit into the repository: by the smallest artefact that fits, in the room there is.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use bsp::device::DeltaTime;
use keys::release::{Artifact, Compact, Release};

use super::{objects, Say, Switcher};
use crate::compact;
use crate::device::Device;
use crate::fetch::{self, Order};
use crate::problem::{another_way_may_help, kind_of, Kind, Problem};
use crate::room;
use crate::stage::{self, Verified, Wanted};
use crate::steps::Menu;
use crate::sysroot::Sysroot;
use crate::transport::{base_url, Transport};

/// The verified commit in the repository: there already, by the smallest artefact, or by the whole one.
pub(super) async fn obtain(
    device: &Device,
    transport: &Transport,
    release: &Release,
    sysroot: &Sysroot,
    say: Say<'_>,
) -> Result<(Verified, u64)> {
    let wanted = Wanted {
        commit: &release.commit,
        product: &device.config.product,
        board: &device.config.board,
        keys: &device.config.commit_keys,
    };
    let repo = sysroot.repo();
    if let Some(verified) = stage::present(&repo, &wanted) {
        say("the commit is here already");
        return Ok((verified, 0));
    }
    let here: Vec<String> = sysroot
        .deployments()
        .into_iter()
        .map(|d| d.commit)
        .collect();
    if let Some((from, small)) = release.compact_for(&here, treeline_delta::VERSION) {
        let way = Way::Compact { from, small };
        let most = device.config.update.delta_time;
        let tried = match fits(most, &sysroot.repo_path(), release, small) {
            Ok(()) => bring(device, transport, release, way, sysroot, &wanted, say)
                .await
                .map_err(|error| (worth_the_whole(&error, false), error)),
            Err(error) => Err((true, error)),
        };
        match tried {
            Ok(done) => return Ok(done),
            Err((false, error)) => return Err(error),
            Err((true, error)) => say(&format!("{error:#}; taking another way to the release")),
        }
    }
    by_libostree(device, transport, release, &here, sysroot, &wanted, say).await
}

/// Whether the device has what a compact delta needs: time, memory, room.
fn fits(most: DeltaTime, repo: &Path, release: &Release, small: &Compact) -> Result<()> {
    let time = DeltaTime::of(small.decisions);
    if time > most {
        return Err(Problem::new(
            Kind::Refused,
            format!("the compact delta takes {time} to apply, update.delta-time is {most}"),
        )
        .into());
    }
    room::require_memory(small.memory_bytes, "applying the compact delta")?;
    scratch_fits(repo, release, small)
}

/// Whether a compact delta's scratch files fit beside the commit. They are no reason to give up a deployment, or the
/// update: other ways need none.
fn scratch_fits(repo: &Path, release: &Release, small: &Compact) -> Result<()> {
    if small.scratch_bytes == 0 {
        return Ok(());
    }
    let need = release.installed_bytes.saturating_add(small.file.length);
    let need = need.saturating_add(small.scratch_bytes);
    room::require(repo, need, "applying the compact delta")
}

/// By a static delta or by single objects, else by the whole.
async fn by_libostree(
    device: &Device,
    transport: &Transport,
    release: &Release,
    here: &[String],
    sysroot: &Sysroot,
    wanted: &Wanted<'_>,
    say: Say<'_>,
) -> Result<(Verified, u64)> {
    let best = release.artifact_for(here);
    let first = if *best == release.full {
        pull(device, transport, release, sysroot, wanted, say).await
    } else {
        let way = Way::Libostree(best);
        bring(device, transport, release, way, sysroot, wanted, say).await
    };
    match first {
        Err(error) if worth_the_whole(&error, best == &release.full) => {
            say(&format!("{error:#}; taking the whole release as one file"));
            bring(
                device,
                transport,
                release,
                Way::Libostree(&release.full),
                sysroot,
                wanted,
                say,
            )
            .await
        }
        other => other,
    }
}

/// Whether the whole release may succeed where a delta or single objects did not. A delta that cannot be
/// reached is waited for: it is the smaller one; a server may well have no repository.
fn worth_the_whole(error: &anyhow::Error, objects: bool) -> bool {
    another_way_may_help(error) && (objects || kind_of(error) != Kind::Network)
}

/// Object by object: what no delta leads to.
async fn pull(
    device: &Device,
    transport: &Transport,
    release: &Release,
    sysroot: &Sysroot,
    wanted: &Wanted<'_>,
    say: Say<'_>,
) -> Result<(Verified, u64)> {
    let base = base_url(&device.config.update.url)?;
    let dir = device.paths.state().join("download");
    // Files stand beside the repository only for a moment each: nothing is asked of the downloads' room.
    make_room(device, sysroot, release, release.installed_bytes)?;
    let source = objects::Source {
        transport,
        repository: base
            .join(keys::release::REPOSITORY)
            .context("the address of the repository")?,
        dir: &dir,
        limit: release.installed_bytes,
        pause: Duration::from_secs(1),
    };
    objects::pull(&source, &sysroot.repo(), wanted, say).await
}

/// An artefact and how it is applied.
#[derive(Debug, Clone, Copy)]
enum Way<'a> {
    /// A static delta.
    Libostree(&'a Artifact),
    /// A delta in Treeline's own format.
    Compact { from: &'a str, small: &'a Compact },
}

impl<'a> Way<'a> {
    fn file(self) -> &'a Artifact {
        match self {
            Self::Libostree(file) => file,
            Self::Compact { small, .. } => &small.file,
        }
    }
}

async fn bring(
    device: &Device,
    transport: &Transport,
    release: &Release,
    way: Way<'_>,
    sysroot: &Sysroot,
    wanted: &Wanted<'_>,
    say: Say<'_>,
) -> Result<(Verified, u64)> {
    let artifact = way.file();
    let base = base_url(&device.config.update.url)?;
    let dir = device.paths.state().join("download");
    let order = Order {
        url: base
            .join(&artifact.path)
            .with_context(|| format!("the address of {}", artifact.path))?,
        length: artifact.length,
        sha256: &artifact.sha256,
        dir: &dir,
        pause: Duration::from_secs(1),
    };
    fetch::clear_others(&order);
    prove_room(device, sysroot, &order, release)?;
    let begun = order.present();
    say(&format!(
        "downloading {} ({}{})",
        release.version,
        room::people(artifact.length),
        if begun > 0 {
            format!(", {} are here", room::people(begun))
        } else {
            String::new()
        }
    ));
    let mut shown = begun * 10 / artifact.length.max(1);
    let file = fetch::fetch(transport, &order, &mut |done| {
        let tenth = done * 10 / artifact.length.max(1);
        if tenth != shown {
            shown = tenth;
            say(&format!("downloaded {} %", tenth * 10));
        }
    })
    .await?;
    say("applying");
    let repo = sysroot.repo();
    let applied = match way {
        Way::Libostree(_) => stage::apply(&repo, &file, wanted),
        Way::Compact { from, small } => {
            compact::apply(&repo, &file, from, small.output_bytes, wanted)
        }
    };
    // Used or useless: either way it is not needed again.
    let _ = std::fs::remove_file(&file);
    Ok((applied?, artifact.length.saturating_sub(begun)))
}

/// Room for the download and for the installed commit, asked before the first byte. If the repository is
/// short, the deployment before the running one makes way.
fn prove_room(
    device: &Device,
    sysroot: &Sysroot,
    order: &Order<'_>,
    release: &Release,
) -> Result<()> {
    let download = order.length.saturating_sub(order.present());
    let repo = sysroot.repo_path();
    let together = same_file_system(order.dir, &repo);
    let installed = release.installed_bytes + if together { download } else { 0 };
    if !together {
        room::require(
            order.dir,
            download,
            &format!("downloading {}", release.version),
        )?;
    }
    make_room(device, sysroot, release, installed)
}

/// Room for `installed` bytes in the repository, at the price of the deployment before the running one.
fn make_room(device: &Device, sysroot: &Sysroot, release: &Release, installed: u64) -> Result<()> {
    let repo = sysroot.repo_path();
    let what = format!("installing {}", release.version);
    if room::require(&repo, installed, &what).is_err() {
        let old = sysroot.deployments().len() > 1;
        if old {
            Switcher::new(sysroot).set(std::slice::from_ref(&device.booted))?;
            sysroot.clean_up()?;
        }
        room::require(&repo, installed, &what)?;
    }
    Ok(())
}

fn same_file_system(a: &Path, b: &Path) -> bool {
    let device = |path: &Path| {
        path.ancestors()
            .find_map(|p| std::fs::metadata(p).ok())
            .map(|m| m.dev())
    };
    device(a) == device(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_compact_delta_needs_is_asked_for_first() {
        let dir = tempfile::tempdir().unwrap();
        let artifact = Artifact {
            path: "deltas/a".into(),
            length: 1,
            sha256: String::new(),
        };
        let release: Release = serde_json::from_value(serde_json::json!({
            "format": 1, "product": "p", "version": "1", "boards": ["b"], "arch": "amd64", "commit": "c",
            "epoch": 0, "created": 0, "full": artifact, "deltas": [], "installed_bytes": 1, "notes": ""
        }))
        .unwrap();
        let need = |scratch_bytes, memory_bytes, decisions| Compact {
            file: artifact.clone(),
            version: treeline_delta::VERSION,
            output_bytes: 1,
            scratch_bytes,
            memory_bytes,
            decisions,
        };
        let fits = |most, small: &Compact| fits(most, dir.path(), &release, small);
        fits(DeltaTime::Long, &need(0, 0, 0)).unwrap();
        fits(DeltaTime::Long, &need(1, 1, u64::MAX)).unwrap();
        fits(DeltaTime::Short, &need(1, 1, 1)).unwrap();
        for lacking in [need(u64::MAX / 2, 1, 1), need(1, u64::MAX / 2, 1)] {
            let error = fits(DeltaTime::Long, &lacking).unwrap_err();
            assert_eq!(kind_of(&error), Kind::Room);
        }
        let error = fits(DeltaTime::Medium, &need(1, 1, 1 << 40)).unwrap_err();
        let text = format!("{error:#}");
        assert!(
            text.contains("takes long") && text.contains("delta-time is medium"),
            "{text}"
        );
    }
}
