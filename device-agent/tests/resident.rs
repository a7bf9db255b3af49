//! The resident process as systemd sees it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

/// Everything said until something contains `what`.
fn hear(manager: &UnixDatagram, what: &str) -> Vec<String> {
    let mut heard = Vec::new();
    let mut datagram = [0; 512];
    loop {
        let length = manager
            .recv(&mut datagram)
            .unwrap_or_else(|e| panic!("{what} did not come: {e}; heard {heard:?}"));
        heard.push(String::from_utf8(datagram[..length].to_vec()).unwrap());
        if heard.last().is_some_and(|text| text.contains(what)) {
            return heard;
        }
        assert!(heard.len() < 1000, "{what} did not come");
    }
}

fn ended(child: &mut Child) -> std::process::ExitStatus {
    let limit = Instant::now() + Duration::from_secs(30);
    loop {
        match child.try_wait().unwrap() {
            Some(status) => return status,
            None => assert!(Instant::now() < limit, "it does not end"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn it_tells_feeds_the_watchdog_survives_a_failed_round_and_ends_when_asked() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("notify");
        let manager = UnixDatagram::bind(&socket).unwrap();
        manager
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_device-agent"))
            .args(["run", "--interval", "1h"])
            .env("NOTIFY_SOCKET", &socket)
            .env("WATCHDOG_USEC", "200000")
            .env_remove("WATCHDOG_PID")
            .spawn()
            .unwrap();

        assert!(hear(&manager, "READY=1")[0].starts_with("READY=1\nSTATUS="));
        // This machine is no Treeline device, so the round ends with a configuration error.
        let heard = hear(&manager, "STATUS=last look");
        assert!(heard.iter().any(|t| t == "STATUS=looking for updates"));
        assert!(heard.last().unwrap().contains("exit code 3;"), "{heard:?}");
        let before = Instant::now();
        for _ in 0..4 {
            assert_eq!(
                hear(&manager, "WATCHDOG=1").len(),
                1,
                "nothing else is said"
            );
        }
        // One may have waited in the socket; the others come at half of the time.
        assert!(before.elapsed() > Duration::from_millis(190));

        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
        hear(&manager, "STOPPING=1");
        assert!(ended(&mut child).success());
    }
}
