//! The server, judged by reqwest, curl and openssl.

use super::fault::{Fault, Times};
use super::*;
use crate::command::Command;
use std::fs;
use std::io::{Read, Write};

struct World {
    _dir: tempfile::TempDir,
    running: Running,
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
    ca: PathBuf,
    root: PathBuf,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("site");
        fs::create_dir_all(root.join("deltas")).unwrap();
        fs::write(root.join("deltas/a.delta"), content()).unwrap();
        fs::write(dir.path().join("secret"), "secret").unwrap();
        let files = tls::ensure(&dir.path().join("tls"), &[]).unwrap();
        let mut config = Config::new(&root, files.clone());
        (config.port, config.bind) = (0, Ipv4Addr::LOCALHOST.into());
        config.reports = Some(dir.path().join("reports.jsonl"));
        Self {
            running: start(config).unwrap(),
            client: client(&files.ca),
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
            ca: files.ca,
            root,
            _dir: dir,
        }
    }

    fn get(
        &self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> (u16, reqwest::header::HeaderMap, Vec<u8>) {
        let mut request = self.client.get(self.running.url() + path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.runtime.block_on(async {
            let response = request.send().await.unwrap();
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            (status, headers, response.bytes().await.unwrap().to_vec())
        })
    }

    fn post(&self, path: &str, body: Vec<u8>) -> u16 {
        let request = self.client.post(self.running.url() + path).body(body);
        self.runtime
            .block_on(request.send())
            .unwrap()
            .status()
            .as_u16()
    }
}

fn client(ca: &std::path::Path) -> reqwest::Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let ca = reqwest::Certificate::from_pem(&fs::read(ca).unwrap()).unwrap();
    reqwest::Client::builder()
        .tls_certs_only([ca])
        .no_proxy()
        .build()
        .unwrap()
}

fn content() -> Vec<u8> {
    (0..300_000u32).map(|i| (i % 251) as u8).collect()
}

#[test]
fn a_file_comes_whole_with_length_and_validators() {
    let world = World::new();
    let (status, headers, body) = world.get("deltas/a.delta", &[]);
    assert_eq!((status, body), (200, content()));
    assert_eq!(headers["content-length"], "300000");
    assert_eq!(headers["accept-ranges"], "bytes");
    let tag = headers["etag"].to_str().unwrap();
    assert!(tag.starts_with('"') && tag.len() > 4, "{tag}");
    let (status, _, body) = world.get("deltas/a.delta", &[("if-none-match", tag)]);
    assert_eq!((status, body.len()), (304, 0));
    let date = headers["last-modified"].to_str().unwrap();
    let (status, _, _) = world.get("deltas/a.delta", &[("if-modified-since", date)]);
    assert_eq!(status, 304);
}

#[test]
fn a_range_resumes_and_if_range_refuses_a_changed_file() {
    let world = World::new();
    let (_, headers, _) = world.get("deltas/a.delta", &[]);
    let tag = headers["etag"].to_str().unwrap().to_string();
    let date = headers["last-modified"].to_str().unwrap().to_string();
    for condition in [&tag, &date] {
        let (status, headers, body) = world.get(
            "deltas/a.delta",
            &[("range", "bytes=299000-"), ("if-range", condition)],
        );
        assert_eq!((status, body), (206, content()[299_000..].to_vec()));
        assert_eq!(headers["content-range"], "bytes 299000-299999/300000");
        assert_eq!(headers["content-length"], "1000");
    }
    let (status, headers, _) = world.get("deltas/a.delta", &[("range", "bytes=300000-")]);
    assert_eq!(status, 416);
    assert_eq!(headers["content-range"], "bytes */300000");

    // Another content of the same length: the whole file, never the new tail on the old head. The
    // range alone would not fit the shorter file either.
    for new in [vec![7; 300_000], vec![8; 1000]] {
        fs::write(world.root.join("deltas/a.delta"), &new).unwrap();
        let (status, _, body) = world.get(
            "deltas/a.delta",
            &[("range", "bytes=299000-"), ("if-range", &tag)],
        );
        assert_eq!((status, body), (200, new));
    }
    // A weak tag never holds a range.
    let weak = format!("W/{tag}");
    let (status, _, _) = world.get(
        "deltas/a.delta",
        &[("range", "bytes=0-9"), ("if-range", &weak)],
    );
    assert_eq!(status, 200);
}

#[test]
fn nothing_outside_the_directory_and_no_listing() {
    let world = World::new();
    for path in [
        "deltas/",
        "deltas",
        "",
        "no-such-file",
        "report",
        "deltas/a.delta/x",
        "deltas/a.delta/",
    ] {
        let (status, _, body) = world.get(path, &[]);
        assert_eq!(status, 404, "{path}: {status}");
        assert!(
            !String::from_utf8_lossy(&body).contains("a.delta"),
            "{path}"
        );
    }
    // curl sends the path as it stands; reqwest would tidy it up.
    for path in [
        "../secret",
        "deltas/../../secret",
        "%2e%2e/secret",
        "..%2fsecret",
        "deltas/%2e%2e%2f%2e%2e%2fsecret",
        "/%2fetc/passwd",
        "..%5csecret",
        "%00",
        &"long".repeat(100),
    ] {
        let answer = Command::new("curl", "curl")
            .args(["-sS", "--path-as-is", "-w", "\n%{http_code}", "--cacert"])
            .arg(&world.ca)
            .arg(format!("{}{path}", world.running.url()))
            .text()
            .unwrap();
        assert!(
            !answer.contains("secret") && !answer.contains("root:"),
            "{path}: {answer}"
        );
        assert!(
            answer.ends_with("404") || answer.ends_with("400"),
            "{path}: {answer}"
        );
    }
}

#[test]
fn tls_1_2_is_refused_unless_allowed() {
    let try_tls = |port: u16, version: &str| {
        let output = Command::new("openssl", "openssl")
            .args([
                "s_client",
                version,
                "-connect",
                &format!("localhost:{port}"),
            ])
            .into_std()
            .output()
            .expect("openssl (Debian package openssl)");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let world = World::new();
    let port = world.running.addr.port();
    assert!(try_tls(port, "-tls1_3").contains("New, TLSv1.3"));
    assert!(try_tls(port, "-tls1_2").contains("Cipher is (NONE)"));

    let files = tls::ensure(&world._dir.path().join("tls"), &[]).unwrap();
    let mut config = Config::new(&world.root, files);
    (config.port, config.allow_tls12) = (0, true);
    let old = start(config).unwrap();
    assert!(try_tls(old.addr.port(), "-tls1_2").contains("New, TLSv1.2"));
}

#[test]
fn reports_are_appended_one_a_line_and_limited() {
    let world = World::new();
    assert_eq!(world.post("report", br#"{"good": true}"#.to_vec()), 204);
    assert_eq!(world.post("report", b"\n{\"good\":\n false}".to_vec()), 204);
    assert_eq!(world.post("report", b"not json".to_vec()), 400);
    assert_eq!(
        world.post("report", vec![b' '; report::MAX_REPORT + 1]),
        413
    );
    assert_eq!(world.post("deltas/a.delta", Vec::new()), 405);
    let text = fs::read_to_string(world._dir.path().join("reports.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["report"]["good"], true);
    assert_eq!(lines[0]["from"], "127.0.0.1");
    assert_eq!(lines[1]["report"]["good"], false);
}

#[test]
fn a_cut_sends_so_many_bytes_once_and_the_log_tells() {
    let world = World::new();
    let faults = &world.running.faults;
    faults.arm("/deltas/", Fault::CutAfter(100_000), Times::Once);
    let url = world.running.url() + "deltas/a.delta";
    let got = world.runtime.block_on(async {
        let mut response = world.client.get(&url).send().await.unwrap();
        let mut got = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(piece)) => got.extend_from_slice(&piece),
                Ok(None) => panic!("the cut was not noticed"),
                Err(_) => break got,
            }
        }
    });
    assert_eq!(got, content()[..100_000]);
    assert_eq!(world.get("deltas/a.delta", &[]).2, content());

    faults.arm("/deltas/", Fault::Status(503), Times::Always);
    for _ in 0..2 {
        assert_eq!(world.get("deltas/a.delta", &[]).0, 503);
    }
    faults.clear();
    faults.arm("/", Fault::Slow(100_000), Times::Once);
    let begun = std::time::Instant::now();
    let (_, _, tail) = world.get("deltas/a.delta", &[("range", "bytes=270000-")]);
    assert_eq!(tail, content()[270_000..]);
    assert!(
        begun.elapsed() > Duration::from_millis(250),
        "{:?}",
        begun.elapsed()
    );

    let served = world.running.served();
    let bytes: Vec<(u16, u64)> = served.iter().map(|s| (s.status, s.bytes)).collect();
    assert_eq!(
        bytes,
        [
            (200, 100_000),
            (200, 300_000),
            (503, 0),
            (503, 0),
            (206, 30_000)
        ]
    );
    assert_eq!(served[4].range.as_deref(), Some("bytes=270000-"));
}

#[test]
fn a_stopped_server_is_gone_and_its_port_can_be_had_again() {
    let world = World::new();
    let (addr, url) = (world.running.addr, world.running.url());
    let files = tls::ensure(&world._dir.path().join("tls"), &[]).unwrap();
    world.running.stop().unwrap();
    assert!(world
        .runtime
        .block_on(world.client.get(&url).send())
        .is_err());

    let mut config = Config::new(&world.root, files);
    (config.port, config.bind) = (addr.port(), addr.ip());
    let again = start(config.clone()).unwrap();
    let error = start(config).unwrap_err();
    assert!(format!("{error:#}").contains("--port"), "{error:#}");
    let response = world
        .runtime
        .block_on(world.client.get(url + "deltas/a.delta").send())
        .unwrap();
    assert_eq!(response.status(), 200);
    drop(again);
}

#[test]
fn plain_http_and_noise_do_no_harm() {
    let world = World::new();
    for noise in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096][..], b""] {
        let mut plain = std::net::TcpStream::connect(world.running.addr).unwrap();
        plain.write_all(noise).unwrap();
        plain.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        let _ = plain.read_to_end(&mut answer);
        assert!(!answer.windows(4).any(|w| w == b"HTTP"));
    }
    assert_eq!(world.get("deltas/a.delta", &[]).0, 200);
}
