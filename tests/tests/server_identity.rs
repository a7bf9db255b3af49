//! Who speaks to whom: the agent's transport before `builder serve`'s server over real TLS. Certificates are made by
//! OpenSSL; the proxy is a small one that knows CONNECT and nothing else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use bsp::device::Update;
use builder::serve::{self, tls, Config, Running};
use device_agent::paths::Paths;
use device_agent::problem::{kind_of, Kind};
use device_agent::transport::Transport;
use keys::client::TransportErrorKind;
use treeline_tests::run;

const CONTENT: &str = "content";
/// A name that no resolver knows: only the proxy does.
const BEHIND: &str = "updates.treeline.invalid";

/// A product's server, and a device's root directory that trusts its authority.
struct World {
    dir: tempfile::TempDir,
    server: Running,
    pin: String,
}

fn openssl(dir: &Path, line: &str) {
    let mut command = Command::new("openssl");
    command.args(line.split_whitespace()).current_dir(dir);
    run(&mut command).expect("running openssl (Debian package openssl)");
}

impl World {
    /// `mutual`: the server wants certificates of the authority `fleet`.
    fn new(mutual: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        let new = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30";
        for ca in ["fleet", "foreign"] {
            openssl(
                at,
                &format!("{new} -subj /CN={ca} -keyout {ca}.key -out {ca}.pem"),
            );
            openssl(
                at,
                &format!(
                    "{new} -subj /CN=device -CA {ca}.pem -CAkey {ca}.key -keyout of-{ca}.key -out of-{ca}.pem \
                     -addext basicConstraints=critical,CA:FALSE -addext extendedKeyUsage=clientAuth"
                ),
            );
        }
        let site = at.join("site");
        fs::create_dir(&site).unwrap();
        fs::write(site.join("file"), CONTENT).unwrap();
        let files = tls::ensure(&at.join("tls"), &[BEHIND.to_owned()]).unwrap();
        let root = at.join("root");
        let trusted = root.join(bsp::device::CA_PATH);
        fs::create_dir_all(trusted.parent().unwrap()).unwrap();
        fs::copy(&files.ca, trusted).unwrap();
        let pin = tls::pin(&files.cert).unwrap().to_string();
        let mut config = Config::new(site, files);
        (config.bind, config.port) = (Ipv4Addr::LOCALHOST.into(), 0);
        config.client_ca = mutual.then(|| at.join("fleet.pem"));
        let server = serve::start(config).unwrap();
        Self { dir, server, pin }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// Gives the device the certificate of this authority.
    fn certified(&self, by: &str) -> Update {
        let own = self.root().join("var/own");
        fs::create_dir_all(&own).unwrap();
        for kind in ["pem", "key"] {
            let file = own.join(format!("device.{kind}"));
            fs::copy(self.dir.path().join(format!("of-{by}.{kind}")), &file).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        }
        Update {
            client_certificate: Some("/var/own/device.pem".into()),
            client_key: Some("/var/own/device.key".into()),
            ..Update::default()
        }
    }

    fn transport(&self, update: &Update) -> anyhow::Result<Transport> {
        Transport::new(&Paths::below(&self.root()), update)
    }

    fn get(&self, host: &str, update: &Update) -> anyhow::Result<String> {
        let transport = self.transport(update)?;
        let url = format!("https://{host}:{}/file", self.server.addr.port()).parse()?;
        let mut content = Vec::new();
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(transport.read(&url, 1000, &mut content))?;
        Ok(String::from_utf8(content)?)
    }
}

#[test]
fn a_device_with_a_certificate_of_the_fleet_is_served_and_no_other() {
    let world = World::new(true);
    let own = world.certified("fleet");
    assert_eq!(world.get("localhost", &own).unwrap(), CONTENT);
    // Certificate and key in one file.
    let one = world.root().join("var/own/both.pem");
    let both = ["pem", "key"]
        .map(|kind| fs::read(world.dir.path().join(format!("of-fleet.{kind}"))).unwrap());
    fs::write(&one, both.concat()).unwrap();
    fs::set_permissions(&one, Permissions::from_mode(0o600)).unwrap();
    let together = Update {
        client_certificate: Some("/var/own/both.pem".into()),
        ..Update::default()
    };
    assert_eq!(world.get("localhost", &together).unwrap(), CONTENT);
    let served = world.server.served().len();
    for update in [Update::default(), world.certified("foreign")] {
        let error = world.get("localhost", &update).unwrap_err();
        assert_eq!(kind_of(&error), Kind::Network, "{error:#}");
    }
    assert_eq!(world.server.served().len(), served, "nothing was answered");
}

#[test]
fn a_server_with_another_key_than_the_pinned_is_not_spoken_to() {
    let (world, other) = (World::new(false), World::new(false));
    let pinned = |pins: &[&String]| Update {
        pinned_keys: pins.iter().map(ToString::to_string).collect(),
        ..Update::default()
    };
    for right in [pinned(&[&world.pin]), pinned(&[&other.pin, &world.pin])] {
        assert_eq!(world.get("localhost", &right).unwrap(), CONTENT);
    }
    let served = world.server.served().len();
    let error = world.get("localhost", &pinned(&[&other.pin])).unwrap_err();
    let text = format!("{error:#}");
    assert_eq!(kind_of(&error), Kind::Trust, "{text}");
    assert!(
        text.contains("pinned-keys") && text.contains(&world.pin),
        "{text}"
    );
    // The metadata client tells it apart as well.
    let transport = world.transport(&pinned(&[&other.pin])).unwrap();
    let url = (world.server.url() + "file").parse().unwrap();
    let error = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(keys::client::Transport::fetch(&transport, url))
        .err()
        .unwrap();
    assert_eq!(error.kind(), TransportErrorKind::Untrusted);
    assert_eq!(world.server.served().len(), served, "nothing was answered");
    // A pin does not stand in for the certificate: the authority must be known as well.
    let ca = world.root().join(bsp::device::CA_PATH);
    fs::copy(other.root().join(bsp::device::CA_PATH), ca).unwrap();
    let error = world.get("localhost", &pinned(&[&world.pin])).unwrap_err();
    assert!(format!("{error:#}").contains("certificate"), "{error:#}");
}

#[test]
fn mistakes_in_the_devices_files_are_named() {
    let world = World::new(true);
    let good = world.certified("fleet");
    let own = world.root().join("var/own");
    let readable = own.join("readable.key");
    fs::copy(own.join("device.key"), &readable).unwrap();
    fs::set_permissions(&readable, Permissions::from_mode(0o640)).unwrap();
    let foreign = own.join("foreign.key");
    fs::copy(world.dir.path().join("of-foreign.key"), foreign).unwrap();
    fs::write(own.join("empty.pem"), "").unwrap();
    let set = |place: fn(&mut Update) -> &mut Option<String>, value: &str| {
        let mut update = good.clone();
        *place(&mut update) = Some(value.to_owned());
        update
    };
    for (update, says) in [
        (
            set(|u| &mut u.client_certificate, "/var/own/none.pem"),
            "none.pem",
        ),
        (
            set(|u| &mut u.client_certificate, "/var/own/empty.pem"),
            "no certificate",
        ),
        (
            set(|u| &mut u.client_key, "/var/own/device.pem"),
            "private key",
        ),
        (
            set(|u| &mut u.client_key, "/var/own/readable.key"),
            "others may use it (mode 0640)",
        ),
        (
            set(|u| &mut u.client_key, "/var/own/foreign.key"),
            "client-certificate",
        ),
        (
            set(|u| &mut u.proxy, "http://name:secret@["),
            "update.proxy",
        ),
    ] {
        let error = world.transport(&update).unwrap_err();
        let text = format!("{error:#}");
        assert_eq!(kind_of(&error), Kind::Config, "{text}");
        assert!(text.contains(says) && !text.contains("secret"), "{text}");
    }
}

/// A key in a SoftHSM token that is made in `dir`; the certificate's request comes from OpenSSL by way of the public key.
fn token(world: &World) -> Vec<String> {
    let dir = world.dir.path().join("token");
    fs::create_dir_all(dir.join("store")).unwrap();
    let config = dir.join("softhsm2.conf");
    let text = format!("directories.tokendir = {}\n", dir.join("store").display());
    fs::write(&config, text).unwrap();
    let with = format!("SOFTHSM2_CONF={}", config.display());
    let module = "--module /usr/lib/softhsm/libsofthsm2.so --token-label device";
    let tool = |line: &str| {
        let mut command = Command::new("env");
        command.arg(&with).args(line.split_whitespace());
        run(&mut command)
            .expect("running pkcs11-tool and softhsm2-util (packages opensc, softhsm2)");
    };
    tool("softhsm2-util --init-token --free --label device --so-pin 12345678 --pin 1234");
    tool(&format!(
        "pkcs11-tool {module} --login --pin 1234 --keypairgen --key-type EC:prime256v1 --id 01"
    ));
    let public = dir.join("public.der");
    tool(&format!(
        "pkcs11-tool {module} --read-object --type pubkey --id 01 -o {}",
        public.display()
    ));
    certify(world, &public);
    let sign = format!(
        "env {with} pkcs11-tool {module} --login --pin 1234 --sign --mechanism ECDSA --signature-format openssl --id 01"
    );
    sign.split_whitespace().map(String::from).collect()
}

/// A key in a TPM, which swtpm plays.
fn chip(world: &World) -> (Vec<String>, Chip) {
    let dir = world.dir.path().join("tpm");
    fs::create_dir_all(&dir).unwrap();
    let socket = dir.join("socket");
    let child = Command::new("swtpm")
        .args(["socket", "--tpm2", "--flags", "startup-clear"])
        .arg("--tpmstate")
        .arg(format!("dir={}", dir.display()))
        .arg("--server")
        .arg(format!("type=unixio,path={}", socket.display()))
        .arg("--ctrl")
        .arg(format!("type=unixio,path={}.ctrl", socket.display()))
        .spawn()
        .expect("running swtpm (Debian package swtpm)");
    let chip = Chip(child);
    for _ in 0..600 {
        if socket.exists() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let with = format!("TPM2TOOLS_TCTI=swtpm:path={}", socket.display());
    let tool = |line: &str| {
        let mut command = Command::new("env");
        command
            .arg(&with)
            .args(line.split_whitespace())
            .current_dir(&dir);
        run(&mut command).expect("running tpm2-tools (Debian package tpm2-tools)");
    };
    tool("tpm2_createprimary -Q -C o -G ecc -c primary.ctx");
    tool("tpm2_create -Q -C primary.ctx -G ecc256:ecdsa-sha256 -u key.pub -r key.priv");
    tool("tpm2_flushcontext -Q -t");
    tool("tpm2_load -Q -C primary.ctx -u key.pub -r key.priv -c key.ctx");
    tool("tpm2_evictcontrol -Q -C o -c key.ctx 0x81000001");
    tool("tpm2_flushcontext -Q -t");
    tool("tpm2_readpublic -Q -c 0x81000001 -f der -o public.der");
    certify(world, &dir.join("public.der"));
    let sign =
        format!("env {with} tpm2_sign -Q -c 0x81000001 -g sha256 -d -f plain -o /dev/stdout");
    (sign.split_whitespace().map(String::from).collect(), chip)
}

/// Ended with the test.
struct Chip(std::process::Child);

impl Drop for Chip {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The fleet's certificate for a public key (DER) whose private one nobody has.
fn certify(world: &World, public: &Path) {
    let at = world.dir.path();
    let own = world.root().join("var/own");
    fs::create_dir_all(&own).unwrap();
    let public = public.display();
    openssl(
        at,
        &format!("pkey -pubin -inform DER -in {public} -out public.pem"),
    );
    fs::write(
        at.join("client.ext"),
        "basicConstraints=critical,CA:FALSE\nextendedKeyUsage=clientAuth\n",
    )
    .unwrap();
    let request = "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=device -keyout spare.key -out device.csr";
    openssl(at, request);
    let out = own.join("device.pem");
    openssl(
        at,
        &format!(
            "x509 -req -in device.csr -force_pubkey public.pem -CA fleet.pem -CAkey fleet.key -days 30 -extfile client.ext -out {}",
            out.display()
        ),
    );
}

#[test]
fn a_key_in_a_token_or_a_chip_never_leaves_it() {
    let world = World::new(true);
    let with = |signer: Vec<String>| Update {
        client_certificate: Some("/var/own/device.pem".into()),
        client_signer: signer,
        ..Update::default()
    };
    let token = with(token(&world));
    assert_eq!(world.get("localhost", &token).unwrap(), CONTENT);
    let (sign, chip) = chip(&world);
    let tpm = with(sign);
    assert_eq!(world.get("localhost", &tpm).unwrap(), CONTENT);
    // The certificate is for the chip's key now; the token's signature is no good.
    let served = world.server.served().len();
    world.get("localhost", &token).unwrap_err();
    drop(chip);
    let error = format!("{:#}", world.get("localhost", &tpm).unwrap_err());
    assert!(error.contains("update.client-signer"), "{error}");
    assert_eq!(world.server.served().len(), served, "nothing was answered");
}

/// A proxy for one connection at a time: it notes what it is asked for, and leads every name to this host.
fn proxy() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://user:secret@{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = asked.clone();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            let mut lines = BufReader::new(client.try_clone().unwrap()).lines();
            let head: Vec<String> = lines
                .by_ref()
                .map_while(|line| line.ok().filter(|line| !line.is_empty()))
                .collect();
            noted.lock().unwrap().extend(head.iter().cloned());
            let port: u16 = head[0].split([':', ' ']).nth(2).unwrap().parse().unwrap();
            let server = TcpStream::connect(("127.0.0.1", port)).unwrap();
            (&client).write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| copied(&client, &server));
                copied(&server, &client);
            });
        }
    });
    (address, asked)
}

fn copied(mut from: &TcpStream, mut to: &TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

#[test]
fn a_configured_proxy_is_gone_through_and_sees_nothing() {
    let world = World::new(true);
    let (address, asked) = proxy();
    let mut update = world.certified("fleet");
    world.get(BEHIND, &update).unwrap_err();
    assert!(asked.lock().unwrap().is_empty());
    update.proxy = Some(address);
    update.pinned_keys = vec![world.pin.clone()];
    assert_eq!(world.get(BEHIND, &update).unwrap(), CONTENT);
    let asked = asked.lock().unwrap().join("\n");
    let connect = format!("CONNECT {BEHIND}:{} HTTP/1.1\n", world.server.addr.port());
    assert!(asked.starts_with(&connect), "{asked}");
    // user:secret
    assert!(
        asked
            .to_lowercase()
            .contains("proxy-authorization: basic dxnlcjpzzwnyzxq="),
        "{asked}"
    );
    assert!(!asked.contains("/file"), "{asked}");
}
