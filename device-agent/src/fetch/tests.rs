//! Against a small local server that misbehaves on purpose.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::*;

/// How the server treats one request; the last one is used for all further requests.
#[derive(Clone, Copy)]
enum Manner {
    Good,
    /// Good headers, then the connection breaks after so many bytes.
    CutAfter(usize),
    IgnoreRange,
    WrongRange,
    Status(u16),
    /// More bytes than the file has.
    TooMuch,
}

struct Server {
    url: Url,
    ranges: Arc<Mutex<Vec<Option<String>>>>,
}

fn serve(content: Vec<u8>, manners: Vec<Manner>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = Url::parse(&format!("http://{}/file", listener.local_addr().unwrap())).unwrap();
    let ranges = Arc::new(Mutex::new(Vec::new()));
    let seen = ranges.clone();
    std::thread::spawn(move || {
        for (i, stream) in listener.incoming().enumerate() {
            let manner = manners[i.min(manners.len() - 1)];
            // The client may hang up at any time.
            let _ = answer(stream.unwrap(), &content, manner, &seen);
        }
    });
    Server { url, ranges }
}

fn answer(
    mut stream: TcpStream,
    content: &[u8],
    manner: Manner,
    seen: &Mutex<Vec<Option<String>>>,
) -> std::io::Result<()> {
    let mut range = None;
    for line in BufReader::new(&stream).lines() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            if name.eq_ignore_ascii_case("range") {
                range = Some(value.trim().to_string());
            }
        }
    }
    seen.lock().unwrap().push(range.clone());
    let start: usize = range
        .and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok())
        .filter(|_| !matches!(manner, Manner::IgnoreRange | Manner::TooMuch))
        .unwrap_or(0);
    let mut body = content[start..].to_vec();
    if let Manner::TooMuch = manner {
        body.extend(b"more");
    }
    let (status, shown) = match manner {
        Manner::Status(code) => (format!("{code} x"), 0),
        Manner::WrongRange if start > 0 => ("206 x".into(), start - 1),
        _ if start > 0 => ("206 x".into(), start),
        _ => ("200 OK".into(), 0),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nETag: \"e\"\r\nConnection: close\r\nContent-Length: {}\r\nContent-Range: bytes {shown}-{}/{}\r\n\r\n",
        body.len(),
        content.len() - 1,
        content.len()
    )?;
    match manner {
        Manner::CutAfter(n) => stream.write_all(&body[..n.min(body.len())]),
        _ => stream.write_all(&body),
    }
}

fn content() -> Vec<u8> {
    (0..100_000u32).map(|i| (i * 7 % 251) as u8).collect()
}

fn sha(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn run(url: &Url, length: u64, sha256: &str, dir: &Path) -> Result<PathBuf> {
    let order = Order {
        url: url.clone(),
        length,
        sha256,
        dir,
        pause: Duration::from_millis(1),
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(fetch(&Transport::plain(), &order, &mut |_| {}))
}

#[test]
fn a_cut_transfer_goes_on_where_it_stopped() {
    let bytes = content();
    let dir = tempfile::tempdir().unwrap();
    let server = serve(
        bytes.clone(),
        vec![
            Manner::CutAfter(40_000),
            Manner::CutAfter(10_000),
            Manner::Good,
        ],
    );
    let file = run(&server.url, bytes.len() as u64, &sha(&bytes), dir.path()).unwrap();
    assert_eq!(fs::read(file).unwrap(), bytes);
    let ranges = server.ranges.lock().unwrap().clone();
    assert_eq!(
        ranges,
        [
            None,
            Some("bytes=40000-".into()),
            Some("bytes=50000-".into())
        ]
    );
    // Nothing but the file itself is left.
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_half_file_from_before_a_restart_is_continued() {
    let bytes = content();
    let sum = sha(&bytes);
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(format!("{sum}.part")), &bytes[..30_000]).unwrap();
    let server = serve(bytes.clone(), vec![Manner::Good]);
    run(&server.url, bytes.len() as u64, &sum, dir.path()).unwrap();
    assert_eq!(
        *server.ranges.lock().unwrap(),
        [Some("bytes=30000-".to_string())]
    );
    // And a complete one is not asked for again.
    run(&server.url, bytes.len() as u64, &sum, dir.path()).unwrap();
    assert_eq!(server.ranges.lock().unwrap().len(), 1);
}

#[test]
fn servers_that_ignore_or_mistake_ranges_are_survived() {
    for manner in [
        Manner::IgnoreRange,
        Manner::WrongRange,
        Manner::Status(416),
        Manner::Status(503),
    ] {
        let bytes = content();
        let dir = tempfile::tempdir().unwrap();
        let server = serve(
            bytes.clone(),
            vec![Manner::CutAfter(30_000), manner, Manner::Good],
        );
        let file = run(&server.url, bytes.len() as u64, &sha(&bytes), dir.path()).unwrap();
        assert_eq!(fs::read(file).unwrap(), bytes);
    }
}

#[test]
fn a_spoilt_half_file_is_thrown_away_once() {
    let bytes = content();
    let sum = sha(&bytes);
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(format!("{sum}.part")), vec![0; 30_000]).unwrap();
    let server = serve(bytes.clone(), vec![Manner::Good]);
    run(&server.url, bytes.len() as u64, &sum, dir.path()).unwrap();
    assert_eq!(server.ranges.lock().unwrap().len(), 2);
}

#[test]
fn what_the_signed_release_does_not_promise_is_refused() {
    let bytes = content();
    let cases = [
        (
            Manner::Good,
            bytes.len() as u64,
            sha(b"other"),
            Kind::Trust,
            "SHA-256",
        ),
        (
            Manner::TooMuch,
            bytes.len() as u64,
            sha(&bytes),
            Kind::Network,
            "sends more than",
        ),
        (
            Manner::Good,
            bytes.len() as u64 + 1,
            sha(&bytes),
            Kind::Network,
            "ended after",
        ),
        (
            Manner::Good,
            10,
            sha(&bytes),
            Kind::Network,
            "sends more than the 10 bytes",
        ),
        (Manner::Status(404), 10, sha(&bytes), Kind::Network, "404"),
    ];
    for (manner, length, sum, kind, want) in cases {
        let dir = tempfile::tempdir().unwrap();
        let server = serve(bytes.clone(), vec![manner]);
        let error = run(&server.url, length, &sum, dir.path()).unwrap_err();
        assert_eq!(crate::problem::kind_of(&error), kind, "{error:#}");
        assert!(format!("{error:#}").contains(want), "{error:#}");
        assert!(!dir.path().join(&sum).exists());
    }
}

#[test]
fn local_files_pass_the_same_checks() {
    let bytes = content();
    let dir = tempfile::tempdir().unwrap();
    let stick = tempfile::tempdir().unwrap();
    let path = stick.path().join("x");
    fs::write(&path, &bytes).unwrap();
    let url = Url::from_file_path(&path).unwrap();
    let file = run(&url, bytes.len() as u64, &sha(&bytes), dir.path()).unwrap();
    assert_eq!(fs::read(file).unwrap(), bytes);
    let error = run(&url, bytes.len() as u64, &sha(b"other"), dir.path()).unwrap_err();
    assert_eq!(crate::problem::kind_of(&error), Kind::Trust);
}

#[test]
fn halves_of_other_releases_are_cleared_away() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["aa.part", "bb.part", "bb"] {
        fs::write(dir.path().join(name), b"x").unwrap();
    }
    clear_others(&Order {
        url: Url::parse("https://x/").unwrap(),
        length: 1,
        sha256: "aa",
        dir: dir.path(),
        pause: Duration::ZERO,
    });
    let left: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .flatten()
        .map(|e| e.file_name())
        .collect();
    assert_eq!(left, ["aa.part"]);
}
