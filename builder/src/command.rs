//! External programs, all through one wrapper: the command line stands in every error, the output
//! only when the program fails, and a missing program names the Debian package that brings it.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command as StdCommand, Stdio};

use anyhow::{bail, Context, Result};

/// A program to run. Build it up, then [`Command::run`] or [`Command::output`].
#[derive(Debug)]
pub struct Command {
    inner: StdCommand,
    program: String,
    package: &'static str,
}

impl Command {
    /// `program` from the Debian package `package`.
    pub fn new(program: impl AsRef<OsStr>, package: &'static str) -> Self {
        let mut inner = StdCommand::new(program.as_ref());
        inner
            .stdin(Stdio::null())
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC");
        Self {
            program: program.as_ref().to_string_lossy().into_owned(),
            inner,
            package,
        }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.inner.arg(arg);
        self
    }

    /// Adds arguments.
    pub fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, args: I) -> Self {
        self.inner.args(args);
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.inner.env(key, value);
        self
    }

    /// Runs it in `dir`.
    pub fn dir(mut self, dir: &Path) -> Self {
        self.inner.current_dir(dir);
        self
    }

    /// Feeds it this file.
    pub fn stdin(mut self, file: std::fs::File) -> Self {
        self.inner.stdin(Stdio::from(file));
        self
    }

    /// Lets it write its standard output into this file.
    pub fn stdout(mut self, file: std::fs::File) -> Self {
        self.inner.stdout(Stdio::from(file));
        self
    }

    /// Gives it an environment that hardly depends on who calls: search path with the system directories,
    /// place of temporary files, user name; no home, so no settings of the user. Variables set later stay.
    pub fn clear_env(mut self) -> Self {
        let path = std::env::var("PATH").unwrap_or_default();
        self.inner
            .env_clear()
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC")
            .env("PATH", format!("{path}:/usr/sbin:/usr/bin:/sbin:/bin"));
        for name in ["TMPDIR", "USER"] {
            if let Some(value) = std::env::var_os(name) {
                self.inner.env(name, value);
            }
        }
        self
    }

    /// The underlying command, for callers that must wire pipes or wait by themselves.
    pub fn into_std(self) -> StdCommand {
        self.inner
    }

    /// Runs it; fails unless it exits 0. Output is shown only in the error.
    pub fn run(self) -> Result<()> {
        self.output().map(drop)
    }

    /// Runs it and returns its standard output; fails unless it exits 0.
    pub fn output(mut self) -> Result<Vec<u8>> {
        let line = self.line();
        let output = self.capture_status()?;
        if !output.status.success() {
            let mut text = String::from_utf8_lossy(&output.stderr).into_owned();
            if text.trim().is_empty() {
                text = String::from_utf8_lossy(&output.stdout).into_owned();
            }
            bail!("{line}: {}\n{}", output.status, last_lines(&text, 40));
        }
        Ok(output.stdout)
    }

    /// Runs it and returns what it said and how it ended, whatever that is; fails only if it cannot be run.
    pub fn capture(mut self) -> Result<std::process::Output> {
        self.capture_status()
    }

    fn capture_status(&mut self) -> Result<std::process::Output> {
        self.inner.output().map_err(|error| {
            if error.kind() == std::io::ErrorKind::NotFound {
                anyhow::anyhow!(
                    "running {}: not found; install the Debian package {}",
                    self.program,
                    self.package
                )
            } else {
                anyhow::Error::new(error).context(format!("running {}", self.line()))
            }
        })
    }

    /// Runs it and returns its standard output as text, without trailing white space.
    pub fn text(self) -> Result<String> {
        let line = self.line();
        let out = self.output()?;
        let text =
            String::from_utf8(out).with_context(|| format!("reading the output of {line}"))?;
        Ok(text.trim_end().to_string())
    }

    fn line(&self) -> String {
        let mut line = self.program.clone();
        for arg in self.inner.get_args() {
            line.push(' ');
            line.push_str(&arg.to_string_lossy());
        }
        if line.len() > 600 {
            let cut = (0..=600)
                .rev()
                .find(|i| line.is_char_boundary(*i))
                .unwrap_or(0);
            line.truncate(cut);
            line.push('…');
        }
        line
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_names_its_package() {
        let error = Command::new("no-such-program-here", "some-package")
            .run()
            .unwrap_err();
        assert!(error.to_string().contains("some-package"), "{error}");
    }

    #[test]
    fn a_failure_shows_command_line_and_output() {
        let error = Command::new("sh", "dash")
            .args(["-c", "echo lost >&2; exit 3"])
            .run()
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("sh -c") && text.contains("lost") && text.contains('3'),
            "{text}"
        );
    }
}
