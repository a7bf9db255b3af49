//! Ctrl-C and its like: the first one asks the writers to end in order, a second one ends the program.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::signal::unix::{signal, SignalKind};

/// A flag that SIGINT, SIGTERM and SIGHUP raise.
pub fn flag() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("waiting for signals")?;
    let mut signals = {
        let _context = runtime.enter();
        let one = |kind| signal(kind).context("waiting for signals");
        (
            one(SignalKind::interrupt())?,
            one(SignalKind::terminate())?,
            one(SignalKind::hangup())?,
        )
    };
    let raised = flag.clone();
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = signals.0.recv() => {}
                    _ = signals.1.recv() => {}
                    _ = signals.2.recv() => {}
                }
                if raised.swap(true, Ordering::Relaxed) {
                    eprintln!("Ended at once; disks that were being written do not boot.");
                    std::process::exit(130);
                }
                eprintln!("Stopping; once more ends at once.");
            }
        });
    });
    Ok(flag)
}

/// Keeps the machine awake as long as it lives, where logind is there to be asked.
#[derive(Debug)]
pub struct Awake {
    child: Option<std::process::Child>,
}

impl Awake {
    /// Asks logind not to sleep. `cat` ends when our end of its input goes, however we end.
    pub fn ask() -> Self {
        let child = std::path::Path::new("/run/systemd/seats")
            .exists()
            .then(|| {
                std::process::Command::new("systemd-inhibit")
                    .args(["--what=sleep:idle", "--who=builder flash"])
                    .args(["--why=A disk is being written", "--mode=block", "cat"])
                    .stdin(std::process::Stdio::piped())
                    .stdout(std::process::Stdio::null())
                    .stderr(std::process::Stdio::null())
                    .spawn()
                    .ok()
            });
        Self {
            child: child.flatten(),
        }
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}
