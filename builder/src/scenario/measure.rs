//! An update by the agent beside the same update by `ostree admin switch`: time and memory, on two copies of
//! one virtual device, from one server.

use std::path::Path;

use anyhow::{ensure, Context, Result};
use serde::Serialize;

use super::bench::Bench;
use super::device::{Device, BOOT, COMMAND, UPGRADE};
use super::table::{Fault, Offer};
use super::variant::{CHANNEL, OLD_VERSION};
use super::{play, prepare, Request};
use crate::cache::Cache;
use crate::progress::Progress;
use crate::tree::GRUB_MENU;

/// What an update took.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Taken {
    /// Seconds on the device's clock, from the command to its end.
    pub seconds: f64,
    /// The largest resident memory of the process, bytes.
    pub peak_bytes: u64,
}

/// Both ways of the same update.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// Board id.
    pub board: String,
    /// `device-agent upgrade --no-reboot`: metadata, delta, checks, deployment, switch.
    pub agent: Taken,
    /// `ostree admin switch` to the same commit: objects, staged deployment.
    pub ostree: Taken,
    /// The agent's seconds by libostree's.
    pub ratio: f64,
}

impl Figures {
    /// For people.
    pub fn table(&self) -> String {
        let row = |what: &str, taken: &Taken| {
            format!(
                "{what:<32} {:>8.1} s {:>8.1} MB\n",
                taken.seconds,
                taken.peak_bytes as f64 / 1e6
            )
        };
        row("device-agent upgrade", &self.agent)
            + &row("ostree admin switch", &self.ostree)
            + &format!("{:<32} {:>8.2}\n", "ratio of the times", self.ratio)
    }
}

/// Measures the good update on `request`'s board; its scenarios are not played.
pub fn run(request: &Request<'_>, cache: &Cache, progress: Progress) -> Result<Figures> {
    let place = prepare(request, cache, progress)?;
    ensure!(
        place.bench.has_network(),
        "measuring needs a network, which QEMU's machine of {} does not have",
        request.board
    );
    let measured = |name: &str, before: &[&str], command: &str| -> Result<Taken> {
        let stage = progress.stage(name);
        let scratch = tempfile::tempdir_in(&place.work).context("creating a scratch directory")?;
        let log = place.logs.join(format!("measure-{name}.log"));
        let taken = update(
            &place.bench,
            &place.ready,
            scratch.path(),
            &log,
            before,
            command,
        )?;
        stage.done(format!("{:.1} s", taken.seconds));
        Ok(taken)
    };
    let agent = measured("agent", &[], "device-agent upgrade --no-reboot --wait")?;
    let reference = format!(
        "{}/{}/{}",
        request.project.product.name, request.board, CHANNEL
    );
    let remote = format!(
        "ostree remote add --no-gpg-verify --no-sign-verify \
         --set=tls-ca-path=/usr/lib/device-agent/ca.pem peer https://10.0.2.2:{}/repo",
        request.port
    );
    let ostree = measured(
        "ostree",
        &[&remote],
        // The menu is the agent's, as when it deploys itself.
        &format!("env OSTREE_GRUB2_EXEC=/{GRUB_MENU} ostree admin switch peer:{reference}"),
    )?;
    Ok(Figures {
        board: request.board.into(),
        ratio: agent.seconds / ostree.seconds,
        agent,
        ostree,
    })
}

fn update(
    bench: &Bench<'_>,
    ready: &Path,
    scratch: &Path,
    log: &Path,
    before: &[&str],
    command: &str,
) -> Result<Taken> {
    let updates = bench.server_dir(Offer::Good, Fault::None, scratch)?;
    let server = bench.serve(&updates)?;
    let mut device: Device = play::resume(bench, ready, scratch, log)?;
    device.must_run(OLD_VERSION)?;
    for preparation in before {
        device.machine.sh_ok(preparation, COMMAND)?;
    }
    // The first start of a program reads it from the disk; both are to find a warm cache.
    device
        .machine
        .sh_ok("device-agent check || true; ostree admin status", BOOT)?;
    let text = device.machine.sh_ok(&watched(command), UPGRADE)?;
    server.kill()?;
    taken(&text).with_context(|| format!("measuring `{command}`: {text}"))
}

/// `command` with its time and memory; prints exit status, start, end (seconds) and peak (KiB).
fn watched(command: &str) -> String {
    format!(
        "t=$(cut -d' ' -f1 /proc/uptime); {command} >/run/measured 2>&1 & pid=$!; peak=0; \
         while p=$(sed -n 's/^VmHWM:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/$pid/status 2>/dev/null) && [ -n \"$p\" ]; do \
         [ $p -gt $peak ] && peak=$p; sleep 0.2; done; \
         wait $pid; status=$?; echo $status $t $(cut -d' ' -f1 /proc/uptime) $peak; \
         [ $status = 0 ] || tail -3 /run/measured"
    )
}

fn taken(text: &str) -> Result<Taken> {
    let words: Vec<&str> = text.split_whitespace().collect();
    ensure!(
        words.len() == 4 && words[0] == "0",
        "the command did not end well"
    );
    let number = |i: usize| words[i].parse::<f64>().context("not a number");
    Ok(Taken {
        seconds: number(2)? - number(1)?,
        peak_bytes: words[3].parse::<u64>().context("not a number")? * 1024,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watched_command_tells_time_and_memory() {
        let run = |command: &str| {
            let text = crate::command::Command::new("sh", "dash")
                .args([
                    "-c",
                    &watched(command).replace("/run/measured", "/dev/null"),
                ])
                .output()
                .unwrap();
            taken(&String::from_utf8_lossy(&text))
        };
        let taken = run("sleep 0.5").unwrap();
        assert!(
            taken.seconds >= 0.4 && taken.peak_bytes > 100_000,
            "{taken:?}"
        );
        assert!(run("false").is_err());
    }
}
