//! Downloads from a server and from a directory, good and bad.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use super::*;
use crate::project::Project;

const CONTENT: &[u8] = b"not really a package";

fn package(filename: &str) -> LockedPackage {
    LockedPackage {
        name: "demo".into(),
        version: "1:2+b".into(),
        arch: "all".into(),
        size: CONTENT.len() as u64,
        sha256: hex::encode(Sha256::digest(CONTENT)),
        archive: "main".into(),
        filename: filename.into(),
    }
}

/// A product whose archive is at `mirror`.
fn merged(dir: &Path, mirror: &str) -> Merged {
    fs::write(
        dir.join("product.toml"),
        format!(
            "name = \"demo\"\nversion = \"1.0.0\"\n[base]\nsuite = \"trixie\"\nmirror = \"{mirror}\"\nsecurity-mirror = \"{mirror}\"\n"
        ),
    )
    .unwrap();
    let project = Project::load(dir).unwrap();
    let board = project.board("x86_64-uefi").unwrap();
    project.merged(&board)
}

/// A server that gives these answers, one a request, and counts the requests.
fn server(answers: Vec<Vec<u8>>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/debian", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    std::thread::spawn(move || {
        for answer in answers {
            let Ok((mut stream, _)) = listener.accept() else {
                return;
            };
            counter.fetch_add(1, Ordering::SeqCst);
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
            let _ = stream.write_all(&answer);
        }
    });
    (address, count)
}

fn answer(status: &str, declared: usize, body: &[u8]) -> Vec<u8> {
    let mut answer =
        format!("HTTP/1.1 {status}\r\nContent-Length: {declared}\r\nConnection: close\r\n\r\n")
            .into_bytes();
    answer.extend_from_slice(body);
    answer
}

fn good() -> Vec<u8> {
    answer("200 OK", CONTENT.len(), CONTENT)
}

#[test]
fn faults_that_pass_are_waited_out() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::at(dir.path().join("cache")).unwrap();
    let (mirror, count) = server(vec![
        answer("503 Busy", 0, b""),
        answer("200 OK", CONTENT.len(), &CONTENT[..5]),
        good(),
    ]);
    let merged = merged(dir.path(), &mirror);
    let packages = [package("pool/d/demo_1%3a2+b_all.deb")];
    let files = fetch(&packages, &merged, &cache, Progress::Quiet).unwrap();
    assert_eq!(fs::read(&files[0]).unwrap(), CONTENT);
    assert_eq!(count.load(Ordering::SeqCst), 3);

    // What is there is not fetched again: nobody answers any more.
    assert_eq!(
        fetch(&packages, &merged, &cache, Progress::Quiet).unwrap(),
        files
    );
}

#[test]
fn what_is_not_in_the_lock_does_not_reach_the_cache() {
    let mut wrong = CONTENT.to_vec();
    wrong[0] ^= 1;
    let mut longer = CONTENT.to_vec();
    longer.push(b'!');
    for (bad, says) in [
        (answer("200 OK", wrong.len(), &wrong), "SHA-256"),
        (answer("200 OK", longer.len(), &longer), "longer"),
        (answer("200 OK", 3, &CONTENT[..3]), "ended after 3"),
        (answer("500 Broken", 0, b""), "500"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path().join("cache")).unwrap();
        let (mirror, _) = server(vec![bad; 3]);
        let merged = merged(dir.path(), &mirror);
        let error = fetch(&[package("a.deb")], &merged, &cache, Progress::Quiet).unwrap_err();
        let error = format!("{error:#}");
        assert!(
            error.contains(says) && error.contains("demo 1:2+b") && error.contains(&mirror),
            "{error}"
        );
        assert_eq!(fs::read_dir(cache.root().join("debs")).unwrap().count(), 0);
    }
}

#[test]
fn an_archive_that_moved_on_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::at(dir.path().join("cache")).unwrap();
    let (mirror, count) = server(vec![answer("404 Not Found", 0, b""); 3]);
    let merged = merged(dir.path(), &mirror);
    let error = fetch(&[package("a.deb")], &merged, &cache, Progress::Quiet).unwrap_err();
    assert!(format!("{error:#}").contains("update-lock"), "{error:#}");
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[test]
fn a_directory_is_an_archive_too() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::at(dir.path().join("cache")).unwrap();
    fs::create_dir(dir.path().join("pool")).unwrap();
    fs::write(dir.path().join("pool/a+b%.deb"), CONTENT).unwrap();
    let merged = merged(dir.path(), &format!("file://{}", dir.path().display()));
    let files = fetch(
        &[package("pool/a+b%.deb")],
        &merged,
        &cache,
        Progress::Quiet,
    )
    .unwrap();
    assert_eq!(fs::read(&files[0]).unwrap(), CONTENT);
    let mut other = package("pool/none.deb");
    other.sha256 = "0".repeat(64);
    let error = fetch(&[other], &merged, &cache, Progress::Quiet).unwrap_err();
    assert!(format!("{error:#}").contains("pool/none.deb"), "{error:#}");
}
