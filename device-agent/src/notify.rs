//! What a service tells systemd: `sd_notify(3)` and `sd_watchdog_enabled(3)` in the few bytes they are, so
//! that no library is needed.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// A line to the service manager, or to nobody when there is none.
#[derive(Debug, Default)]
pub struct Notifier {
    to: Option<(UnixDatagram, SocketAddr)>,
}

/// What is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News<'a> {
    /// Started, with a status.
    Ready(&'a str),
    /// A status for people.
    Status(&'a str),
    /// Still alive.
    Alive,
    /// On the way out.
    Stopping,
}

impl News<'_> {
    /// The datagram: assignments, one a line.
    pub fn message(self) -> String {
        // A line break would begin another assignment.
        let line = |text: &str| text.replace(['\n', '\r'], " ");
        match self {
            News::Ready(text) => format!("READY=1\nSTATUS={}", line(text)),
            News::Status(text) => format!("STATUS={}", line(text)),
            News::Alive => "WATCHDOG=1".into(),
            News::Stopping => "STOPPING=1".into(),
        }
    }
}

impl Notifier {
    /// To the socket that `$NOTIFY_SOCKET` names: a path, or `@` and an abstract name.
    pub fn from_environment() -> io::Result<Self> {
        match std::env::var_os("NOTIFY_SOCKET") {
            Some(name) if !name.is_empty() => Ok(Self {
                to: Some((UnixDatagram::unbound()?, address(&name)?)),
            }),
            _ => Ok(Self::default()),
        }
    }

    /// Says it.
    pub fn say(&self, news: News<'_>) -> io::Result<()> {
        if let Some((socket, address)) = &self.to {
            socket.send_to_addr(news.message().as_bytes(), address)?;
        }
        Ok(())
    }
}

fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("{}: neither a path nor @name", name.to_string_lossy()),
        )),
    }
}

/// How often [`News::Alive`] is due: half of `$WATCHDOG_USEC`, if that is meant for this process.
pub fn watchdog_pause() -> Option<Duration> {
    half_of(
        std::env::var_os("WATCHDOG_USEC"),
        std::env::var_os("WATCHDOG_PID"),
        std::process::id(),
    )
}

fn half_of(usec: Option<OsString>, pid: Option<OsString>, own: u32) -> Option<Duration> {
    let number = |text: OsString| text.to_str()?.parse::<u64>().ok();
    if pid.is_some_and(|pid| number(pid) != Some(u64::from(own))) {
        return None;
    }
    match number(usec?)? {
        0 => None,
        usec => Some(Duration::from_micros(usec) / 2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_assignments_one_a_line() {
        assert_eq!(News::Ready("idle").message(), "READY=1\nSTATUS=idle");
        assert_eq!(News::Status("a\nREADY=1").message(), "STATUS=a READY=1");
        assert_eq!(News::Alive.message(), "WATCHDOG=1");
        assert_eq!(News::Stopping.message(), "STOPPING=1");
    }

    #[test]
    fn both_kinds_of_socket_are_reached() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("@treeline-test-{}", std::process::id());
        for name in [path.as_os_str(), OsStr::new(&name)] {
            let address = address(name).unwrap();
            let manager = UnixDatagram::bind_addr(&address).unwrap();
            let notifier = Notifier {
                to: Some((UnixDatagram::unbound().unwrap(), address)),
            };
            notifier.say(News::Alive).unwrap();
            let mut heard = [0; 64];
            let length = manager.recv(&mut heard).unwrap();
            assert_eq!(&heard[..length], b"WATCHDOG=1");
        }
        assert!(address(OsStr::new("vsock:2:1")).is_err());
        Notifier::default().say(News::Alive).unwrap();
    }

    #[test]
    fn the_watchdog_is_fed_at_half_its_time_and_only_by_whom_it_watches() {
        let text = |text: &str| Some(OsString::from(text));
        let half = Some(Duration::from_secs(30));
        assert_eq!(half_of(text("60000000"), None, 7), half);
        assert_eq!(half_of(text("60000000"), text("7"), 7), half);
        assert_eq!(half_of(text("60000000"), text("8"), 7), None);
        assert_eq!(half_of(text("60000000"), text("x"), 7), None);
        for wrong in ["", "0", "-1", "1h", "99999999999999999999"] {
            assert_eq!(half_of(text(wrong), None, 7), None, "{wrong}");
        }
        assert_eq!(half_of(None, None, 7), None);
    }
}
