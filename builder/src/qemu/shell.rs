//! The test shell: a root shell in the guest on a port that only QEMU can open, spoken to over a Unix socket.
//!
//! The shell is plain `sh` without terminal, prompt or echo. Every command is followed by a line that
//! prints a marker with a number used once and the exit status, so output and status cannot be mixed up,
//! not even with what an earlier, interrupted command left in the pipe.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};

/// Name of the unit in the guest.
pub const UNIT: &str = "t.service";
/// What the shell on a serial port says every few seconds. Nothing is sent to one before it has been heard: a
/// port tells Linux of the first byte that comes into an empty queue, so one that came before Linux has opened
/// the port is the last that is ever noticed.
const BEAT: &str = "[[treeline test shell]]\n";

/// Makes the root slice want the unit: it belongs to every transaction that starts a service.
pub const WANT: &str = "[Unit]\nWants=t.service\n";

/// Whether the port `/dev/<port>` is a serial one, on which the shell says when it is there.
pub fn is_serial(port: &str) -> bool {
    port.starts_with("tty")
}

/// The unit: a root shell on `/dev/<port>`. A port is opened once, for both ways: a paravirtual one can be open
/// only once at a time, a serial one would start anew. That is made to pass every byte as it is, and the shell
/// sees a pipe, lest it prompt.
pub fn unit(port: &str) -> String {
    let start = if is_serial(port) {
        format!(
            "until [ -c /dev/{port} ]; do sleep 1; done; exec 3<>/dev/{port}; stty raw -echo <&3; \
             while echo \"{}\"; do sleep 3; done >&3 & cat <&3 | /bin/sh >&3 2>&1",
            BEAT.trim_end()
        )
    } else {
        format!("exec /bin/sh <>/dev/{port} >&0 2>&1")
    };
    format!(
        "[Unit]
Description=Treeline test shell
DefaultDependencies=no
After=systemd-udevd.service local-fs.target
Conflicts=shutdown.target
Before=shutdown.target
StartLimitIntervalSec=0
[Service]
ExecStart=/bin/sh -c '{start}'
Restart=always
RestartSec=500ms
"
    )
}

/// A connected test shell. What the guest sends is taken at once, by a thread: on a serial port a boot loader
/// speaks as well, and a guest stands still as soon as QEMU can no longer pass on its bytes (of which a socket
/// holds but a few hundred, when they come one by one).
#[derive(Debug)]
pub struct Shell {
    stream: UnixStream,
    received: Arc<Received>,
    /// Whether the shell says when it is there ([`BEAT`]).
    beats: bool,
    count: u64,
}

#[derive(Debug, Default)]
struct Received {
    taken: Mutex<Taken>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Taken {
    bytes: Vec<u8>,
    /// How often the shell said that it is there.
    beats: u64,
    ended: bool,
}

impl Taken {
    fn add(&mut self, bytes: &[u8]) {
        let new = self.bytes.len().saturating_sub(BEAT.len() - 1);
        self.bytes.extend_from_slice(bytes);
        let beat = BEAT.as_bytes();
        let mut at = new;
        while let Some(found) = self.bytes[at..].windows(beat.len()).position(|w| w == beat) {
            at += found;
            self.bytes.drain(at..at + beat.len());
            self.beats += 1;
        }
    }
}

impl Received {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_from(&self, mut stream: UnixStream) {
        let mut buffer = [0; 65536];
        loop {
            let count = stream.read(&mut buffer).unwrap_or(0);
            let mut taken = self.lock();
            taken.add(&buffer[..count]);
            taken.ended = count == 0;
            self.more.notify_all();
            if taken.ended {
                return;
            }
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // Ends the thread; a stream that is closed already needs nothing.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

/// How long the first `true` is waited for.
const FIRST_PATIENCE: Duration = Duration::from_secs(5);

/// How long the next one is waited for.
fn longer(patience: Duration) -> Duration {
    (patience * 5 / 4).min(Duration::from_secs(40))
}

impl Shell {
    /// Connects to QEMU's socket; the guest need not be there yet. `serial`: the guest's port is a serial one.
    pub fn connect(path: &Path, serial: bool) -> Result<Self> {
        let stream = UnixStream::connect(path).context("connecting to the test shell's socket")?;
        Self::over(stream, serial)
    }

    fn over(stream: UnixStream, beats: bool) -> Result<Self> {
        stream
            .set_write_timeout(Some(Duration::from_secs(5)))
            .context("setting the test shell's time-out")?;
        let received = Arc::new(Received::default());
        let (writer, reader) = (
            Arc::clone(&received),
            stream.try_clone().context("duplicating a socket")?,
        );
        std::thread::Builder::new()
            .name("test shell".into())
            .spawn(move || writer.take_from(reader))
            .context("starting the reader of the test shell")?;
        Ok(Self {
            stream,
            received,
            beats,
            count: 0,
        })
    }

    /// Whether the shell says that it is there, within `limit` from now.
    fn is_heard(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut taken = self.received.lock();
        let before = taken.beats;
        while taken.beats == before && !taken.ended {
            let now = Instant::now();
            if now > deadline {
                return false;
            }
            taken = self
                .received
                .more
                .wait_timeout(taken, deadline - now)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }

    /// Waits until the shell answers; `alive` is asked in between and ends the wait by an error. It is asked
    /// less and less often: what nobody reads yet waits in the guest's port.
    pub fn wait(&mut self, limit: Duration, mut alive: impl FnMut() -> Result<()>) -> Result<()> {
        let deadline = Instant::now() + limit;
        let mut patience = FIRST_PATIENCE;
        loop {
            alive()?;
            if self.beats && !self.is_heard(patience) && Instant::now() <= deadline {
                continue;
            }
            let answered = self.run("true", patience);
            patience = longer(patience);
            match answered {
                Ok((0, _)) => return Ok(()),
                Ok((status, _)) => bail!("the test shell's `true` ended with {status}"),
                Err(error) if Instant::now() > deadline => {
                    return Err(error).with_context(|| {
                        format!(
                            "the device's test shell has not answered for {} s",
                            limit.as_secs()
                        )
                    })
                }
                Err(_) => {}
            }
        }
    }

    /// Runs a command and returns its exit status and output.
    pub fn run(&mut self, command: &str, limit: Duration) -> Result<(i32, String)> {
        self.count += 1;
        let marker = format!("<<treeline:{}:", self.count);
        // In parentheses, so that `exit` ends the command and not the shell. Typed text is split in
        // the marker, so that a terminal's echo could not be taken for the answer.
        let line = format!(
            "( {command}\n) </dev/null 2>&1; printf '\\n<<%s:{}:%d>>\\n' treeline $?\n",
            self.count
        );
        self.stream
            .write_all(line.as_bytes())
            .with_context(|| format!("sending `{command}` to the device"))?;
        let deadline = Instant::now() + limit;
        let received = Arc::clone(&self.received);
        let mut taken = received.lock();
        loop {
            if let Some(found) = answer(&mut taken.bytes, &marker) {
                return Ok(found);
            }
            let now = Instant::now();
            if now > deadline {
                bail!(
                    "running `{command}` on the device: no answer within {} s; so far: {}",
                    limit.as_secs(),
                    super::console::tail(&String::from_utf8_lossy(&taken.bytes), 10)
                );
            }
            if taken.ended {
                bail!("running `{command}` on the device: the connection closed");
            }
            taken = received
                .more
                .wait_timeout(taken, deadline - now)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Sends a command and does not wait for its end.
    pub fn start(&mut self, command: &str) -> Result<()> {
        let line = format!("( {command}\n) </dev/null >/dev/null 2>&1 &\n");
        self.stream
            .write_all(line.as_bytes())
            .with_context(|| format!("sending `{command}` to the device"))
    }
}

/// Takes the answer that ends with `marker` out of what was received.
fn answer(received: &mut Vec<u8>, marker: &str) -> Option<(i32, String)> {
    let text = String::from_utf8_lossy(received).into_owned();
    let at = text.find(marker)?;
    let rest = &text[at + marker.len()..];
    let end = rest.find(">>")?;
    let status = rest[..end].parse().ok()?;
    // A line feed of the answer before may come late.
    let output = text[..at].trim_matches('\n');
    // What an earlier command left behind ends with that command's marker.
    let output = output.rsplit_once(">>\n").map_or(output, |(_, last)| last);
    let found = (status, output.trim_end().to_string());
    *received = rest[end + 2..].trim_start_matches('\n').as_bytes().to_vec();
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart_from_leftovers() {
        let mut received = b"\nold\n<<treeline:0:0>>".to_vec();
        assert_eq!(
            answer(&mut received, "<<treeline:0:"),
            Some((0, "old".into()))
        );
        received = b"old\n<<treeline:1:0>>\nnew\nlines\n\n<<treeline:2:7>>\n".to_vec();
        assert_eq!(
            answer(&mut received, "<<treeline:2:"),
            Some((7, "new\nlines".into()))
        );
        assert!(received.is_empty());
        assert_eq!(answer(&mut received, "<<treeline:3:"), None);
    }

    #[test]
    fn what_waits_for_a_guest_that_boots_for_half_an_hour_fits_a_line_buffer() {
        let (stream, mut guest) = UnixStream::pair().unwrap();
        let mut shell = Shell::over(stream, false).unwrap();
        let (mut waited, mut patience) = (Duration::ZERO, FIRST_PATIENCE);
        while waited < Duration::from_secs(1800) {
            assert!(shell.run("true", Duration::ZERO).is_err());
            waited += patience;
            patience = longer(patience);
        }
        guest.set_nonblocking(true).unwrap();
        let mut waiting = [0; 65536];
        let count = guest.read(&mut waiting).unwrap();
        assert!((1000..4096).contains(&count), "{count}");
    }

    #[test]
    fn a_serial_port_is_not_spoken_to_before_the_guest_is_there() {
        let (stream, mut guest) = UnixStream::pair().unwrap();
        let mut shell = Shell::over(stream, true).unwrap();
        guest.set_nonblocking(true).unwrap();
        let mut line = [0; 1000];
        let (mut looks, mut said) = (0, None);
        shell
            .wait(Duration::from_secs(60), || {
                looks += 1;
                assert!(guest.read(&mut line).is_err(), "spoken to");
                if looks == 2 {
                    let mut guest = guest.try_clone().unwrap();
                    said = Some(std::thread::spawn(move || {
                        // A boot loader's words, and the beat in two parts, in the midst of others.
                        for part in ["U-Boot 20", &BEAT[..7], &BEAT[7..], "25"] {
                            guest.write_all(part.as_bytes()).unwrap();
                            std::thread::sleep(Duration::from_millis(20));
                        }
                        guest.set_nonblocking(false).unwrap();
                        let mut line = [0; 1000];
                        let count = guest.read(&mut line).unwrap();
                        let line = String::from_utf8_lossy(&line[..count]).into_owned();
                        assert!(line.starts_with("( true"), "{line}");
                        guest.write_all(b"\n<<treeline:1:0>>\n").unwrap();
                    }));
                }
                Ok(())
            })
            .unwrap();
        said.unwrap().join().unwrap();
        assert_eq!(looks, 2);
    }

    #[test]
    fn what_nobody_asked_for_does_not_hold_up_the_guest() {
        let (stream, mut guest) = UnixStream::pair().unwrap();
        let shell = Shell::over(stream, false).unwrap();
        guest
            .set_write_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        for _ in 0..5000 {
            guest.write_all(b"x").unwrap();
        }
        drop(shell);
    }

    #[test]
    fn a_real_shell_on_a_socket() {
        use std::os::fd::OwnedFd;
        let (stream, guest) = UnixStream::pair().unwrap();
        let mut child = std::process::Command::new("sh")
            .stdin(OwnedFd::from(guest.try_clone().unwrap()))
            .stdout(OwnedFd::from(guest))
            .spawn()
            .unwrap();
        let mut shell = Shell::over(stream, false).unwrap();
        let limit = Duration::from_secs(20);
        assert_eq!(
            shell.run("echo hello; exit 3", limit).unwrap(),
            (3, "hello".into())
        );
        assert_eq!(
            shell.run("printf two; true", limit).unwrap(),
            (0, "two".into())
        );
        drop(shell);
        child.wait().unwrap();
    }
}
