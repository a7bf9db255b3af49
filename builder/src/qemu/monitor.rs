//! QEMU's control socket (the QEMU Machine Protocol: one JSON object a line).

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use serde_json::{json, Value};

/// A connected control socket.
#[derive(Debug)]
pub struct Monitor {
    writer: UnixStream,
    reader: BufReader<UnixStream>,
}

impl Monitor {
    /// Connects as soon as QEMU `child` has made the socket.
    pub fn connect(path: &Path, child: &mut Child) -> Result<Self> {
        let deadline = Instant::now() + Duration::from_secs(60);
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(error) => {
                    if let Some(status) = child.try_wait().context("waiting for QEMU")? {
                        bail!("QEMU ended at once with {status}");
                    }
                    if Instant::now() > deadline {
                        return Err(error).context("connecting to QEMU's control socket");
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        };
        let reader = BufReader::new(stream.try_clone().context("duplicating a socket")?);
        let mut monitor = Self {
            writer: stream,
            reader,
        };
        monitor.receive().context("reading QEMU's greeting")?;
        monitor.execute("qmp_capabilities", json!({}))?;
        Ok(monitor)
    }

    /// Runs a command of the protocol and returns what it returned.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let request = json!({"execute": command, "arguments": arguments});
        writeln!(self.writer, "{request}").with_context(|| format!("telling QEMU to {command}"))?;
        loop {
            let answer = self.receive()?;
            if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
            if let Some(error) = answer.get("error") {
                bail!("telling QEMU to {command}: {error}");
            }
        }
    }

    /// Runs a command of the human monitor; such commands answer with text only when they fail.
    pub fn human(&mut self, line: &str) -> Result<()> {
        let answer = self.execute("human-monitor-command", json!({"command-line": line}))?;
        match answer.as_str().map(str::trim) {
            None | Some("") => Ok(()),
            Some(text) => bail!("telling QEMU to {line}: {text}"),
        }
    }

    fn receive(&mut self) -> Result<Value> {
        let mut line = String::new();
        let count = self
            .reader
            .read_line(&mut line)
            .context("reading QEMU's answer")?;
        if count == 0 {
            bail!("QEMU closed its control socket");
        }
        serde_json::from_str(&line).with_context(|| format!("reading QEMU's answer {line:?}"))
    }
}
