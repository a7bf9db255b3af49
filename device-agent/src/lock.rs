//! One agent at a time: an advisory lock on a file in `/run`, gone with the process.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::paths::Paths;
use crate::problem::{Kind, Problem};

/// Held as long as the value lives.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

/// Takes the lock; `doing` is what others are told meanwhile. With `wait` it waits for the other agent,
/// otherwise it is an error of kind [`Kind::Locked`].
pub fn take(paths: &Paths, doing: &str, wait: bool) -> Result<Lock> {
    let path = paths.at("run/device-agent.lock");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::PermissionDenied => Problem::new(
                Kind::Privilege,
                format!("opening {}: permission denied", path.display()),
            )
            .hint("this command changes the device: run it as root"),
            _ => Problem::new(Kind::Other, format!("opening {}: {error}", path.display())),
        })?;
    let how = if wait {
        FlockArg::LockExclusive
    } else {
        FlockArg::LockExclusiveNonblock
    };
    let mut file = match Flock::lock(file, how) {
        Ok(file) => file,
        Err((mut file, Errno::EWOULDBLOCK)) => {
            let mut holder = String::new();
            // Only for the message: an unreadable holder is still a held lock.
            let _ = file.read_to_string(&mut holder);
            return Err(Problem::new(
                Kind::Locked,
                format!("another device-agent is at work ({})", holder.trim()),
            )
            .hint("wait for it, or add --wait")
            .into());
        }
        Err((_, error)) => {
            return Err(error).with_context(|| format!("locking {}", path.display()));
        }
    };
    let holder = format!("{doing}, process {}\n", std::process::id());
    file.set_len(0)
        .and_then(|()| file.seek(SeekFrom::Start(0)))
        .and_then(|_| file.write_all(holder.as_bytes()))
        .with_context(|| format!("writing {}", path.display()))?;
    Ok(Lock { _file: file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_told_who_is_at_work() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(dir.path());
        std::fs::create_dir_all(paths.at("run")).unwrap();
        let first = take(&paths, "upgrade", false).unwrap();
        let error = take(&paths, "check", false).unwrap_err();
        assert_eq!(crate::problem::kind_of(&error), Kind::Locked);
        assert!(
            format!("{error:#}").contains("upgrade, process "),
            "{error:#}"
        );
        drop(first);
        take(&paths, "check", false).unwrap();
    }

    #[test]
    fn waiting_gets_the_lock_when_the_other_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(dir.path());
        std::fs::create_dir_all(paths.at("run")).unwrap();
        let first = take(&paths, "upgrade", false).unwrap();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| take(&paths, "confirm", true).map(drop));
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(!waiter.is_finished());
            drop(first);
            waiter.join().unwrap().unwrap();
        });
    }
}
