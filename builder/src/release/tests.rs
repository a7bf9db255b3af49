//! Publication on small trees with real keys, judged by `ostree` itself.

use super::*;
use crate::command::Command;
use keys::keyfile::PrivateKey;
use std::fs;
use std::time::Duration;

const BOARD: &str = "test-board";

pub(super) struct World {
    pub(super) dir: tempfile::TempDir,
    pub(super) repo: PathBuf,
    keys: PathBuf,
    key: PrivateKey,
    cache: Cache,
}

impl World {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        fs::create_dir(&keys).unwrap();
        for role in ["root", "targets", "snapshot", "timestamp", "commit"] {
            let key = PrivateKey::generate().unwrap();
            key.save_new(&keys.join(format!("{role}.pem"))).unwrap();
        }
        let expiry = Expiry::from(SystemTime::now());
        let root = author::create_root(&Keyring::in_dir(&keys), &expiry).unwrap();
        fs::write(keys.join("root.json"), root).unwrap();
        let repo = dir.path().join("repo");
        ostree(&repo, &["init", "--mode=archive"]);
        Self {
            key: PrivateKey::load(&keys.join("commit.pem")).unwrap(),
            cache: Cache::at(dir.path().join("cache")).unwrap(),
            keys,
            repo,
            dir,
        }
    }

    /// A commit of a small tree; `seed` changes a little of it.
    pub(super) fn commit(&self, version: &str, seed: u8) -> String {
        self.commit_with(version, seed, "treeline.seed=0")
    }

    /// The same with one more string in its metadata.
    pub(super) fn commit_with(&self, version: &str, seed: u8, metadata: &str) -> String {
        let tree = self.dir.path().join(format!("tree-{version}-{seed}"));
        fs::create_dir_all(tree.join("usr/bin")).unwrap();
        fs::create_dir_all(tree.join("usr/empty")).unwrap();
        let mut big = noise(200_000);
        big[100_000] = seed;
        fs::write(tree.join("usr/bin/program"), big).unwrap();
        fs::write(tree.join("usr/bin/same"), "same").unwrap();
        fs::write(tree.join("usr/nothing"), "").unwrap();
        fs::write(tree.join(format!("usr/only-{version}")), version).unwrap();
        std::os::unix::fs::symlink("bin/program", tree.join("usr/link")).unwrap();
        ostree(
            &self.repo,
            &[
                "commit",
                "--branch=thing/test-board",
                "--no-bindings",
                "--owner-uid=0",
                "--owner-gid=0",
                "--no-xattrs",
                "--timestamp=@1700000000",
                "--add-metadata-string=treeline.product=thing",
                &format!("--add-metadata-string=treeline.board={BOARD}"),
                "--add-metadata-string=treeline.arch=amd64",
                &format!("--add-metadata-string={metadata}"),
                &format!("--add-metadata-string=version={version}"),
                &format!(
                    "--add-metadata-string=treeline.packages=base 1 amd64\nextra-{version} 2 all\nlib {version} amd64\n"
                ),
                &format!("--tree=dir={}", tree.display()),
            ],
        )
    }

    pub(super) fn sign(&self, commit: &str) {
        crate::commit::sign(&self.repo, commit, &self.key).unwrap();
    }

    fn signed(&self, version: &str, seed: u8) -> String {
        let commit = self.commit(version, seed);
        self.sign(&commit);
        commit
    }

    pub(super) fn request(&self, version: &str, commit: &str) -> Request {
        Request {
            repo: self.repo.clone(),
            updates: self.dir.path().join("updates"),
            keys: self.keys.clone(),
            commit_keys: vec![self.key.public_base64()],
            product: "thing".into(),
            board: BOARD.into(),
            channel: "stable".into(),
            version: version.into(),
            commit: commit.into(),
            epoch: 0,
            notes: String::new(),
            deltas: DEFAULT_DELTAS,
            compression: Compression::Small,
            compact: true,
            now: SystemTime::now(),
        }
    }

    pub(super) fn publish(&self, request: &Request) -> Result<Published> {
        publish(request, &self.cache, Progress::Quiet)
    }

    fn site(&self) -> Site {
        Site::open(&self.dir.path().join("updates"), &self.keys).unwrap()
    }

    fn release(&self, version: &str) -> Release {
        self.site().release(BOARD, version).unwrap().unwrap()
    }
}

/// Bytes that do not compress, the same every time.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 1u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn ostree(repo: &Path, args: &[&str]) -> String {
    Command::new("ostree", "ostree")
        .arg(format!("--repo={}", repo.display()))
        .args(args)
        .text()
        .unwrap()
}

/// A bare repository as on a device, without a need to be root.
fn device(world: &World, name: &str) -> PathBuf {
    let repo = world.dir.path().join(name);
    ostree(&repo, &["init", "--mode=bare-user"]);
    repo
}

fn apply(repo: &Path, updates: &Path, artifact: &Artifact) {
    let file = updates.join(&artifact.path);
    assert_eq!(fs::metadata(&file).unwrap().len(), artifact.length);
    assert_eq!(crate::cache::sha256_file(&file).unwrap(), artifact.sha256);
    ostree(
        repo,
        &["static-delta", "apply-offline", file.to_str().unwrap()],
    );
}

#[test]
fn the_whole_and_then_a_delta_give_the_commits_with_their_signatures() {
    let world = World::new();
    let (one, two) = (world.signed("1.0", 1), world.signed("1.1", 2));
    let first = world.publish(&world.request("1.0", &one)).unwrap();
    assert_eq!((first.files.len(), first.repeated), (1, false));
    let second = world.publish(&world.request("1.1", &two)).unwrap();
    assert_eq!(second.files.len(), 2);
    assert_eq!(second.files[1].from_version.as_deref(), Some("1.0"));
    assert!(second.files[1].ratio < 0.2, "{second}");

    let updates = world.dir.path().join("updates");
    let repo = device(&world, "device");
    apply(&repo, &updates, &world.release("1.0").full);
    ostree(&repo, &["refs", "--create=now", &one]);
    ostree(&repo, &["fsck"]);
    let release = world.release("1.1");
    assert_eq!(release.deltas[0].from, one);
    assert_eq!(
        release.deltas[0].file.path,
        format!("deltas/{BOARD}/{}-{}.delta", &one[..8], &two[..8])
    );
    apply(&repo, &updates, &release.deltas[0].file);
    ostree(&repo, &["refs", "--force", "--create=now", &two]);
    ostree(&repo, &["fsck"]);
    assert_eq!(ostree(&repo, &["cat", "now", "/usr/only-1.1"]), "1.1");
    let got = Commit::load(&contents::open(&repo).unwrap(), &two).unwrap();
    keys::commit::verify(
        &[world.key.public_base64()],
        &got.bytes(),
        &got.signatures(),
    )
    .unwrap();
    // Into an empty repository too.
    let fresh = device(&world, "fresh");
    apply(&fresh, &updates, &release.full);
    ostree(&fresh, &["refs", "--create=now", &two]);
    ostree(&fresh, &["fsck"]);
}

#[test]
fn the_whole_is_the_same_every_time_and_fast_only_differs_in_size() {
    let world = World::new();
    let commit = world.signed("1.0", 1);
    let repo = contents::open(&world.repo).unwrap();
    let commit = Commit::load(&repo, &commit).unwrap();
    let write = |name: &str, compression| {
        let out = world.dir.path().join(name);
        full::write(&repo, &commit, compression, &out).unwrap();
        fs::read(out).unwrap()
    };
    let small = write("a", Compression::Small);
    assert_eq!(small, write("b", Compression::Small));
    write("fast", Compression::Fast);
    let device = device(&world, "device");
    let file = world.dir.path().join("fast");
    ostree(
        &device,
        &["static-delta", "apply-offline", file.to_str().unwrap()],
    );
    ostree(&device, &["refs", "--create=now", &commit.checksum]);
    ostree(&device, &["fsck"]);
}

#[test]
fn many_objects_of_all_kinds_survive_several_parts() {
    let world = World::new();
    let tree = world.dir.path().join("tree");
    for dir in 0..20 {
        let dir = tree.join(format!("d{dir}"));
        fs::create_dir_all(&dir).unwrap();
        for file in 0..40u32 {
            let content: Vec<u8> = (0..40_000).map(|i: u32| (i * file) as u8).collect();
            fs::write(dir.join(format!("f{file}.x{}", file % 3)), content).unwrap();
        }
    }
    fs::write(tree.join("large.so.1"), vec![1; 40 << 20]).unwrap();
    std::os::unix::fs::symlink("x".repeat(200), tree.join("long-link")).unwrap();
    let commit = ostree(
        &world.repo,
        &[
            "commit",
            "--branch=b",
            "--owner-uid=1000",
            "--owner-gid=3",
            &format!("--tree=dir={}", tree.display()),
        ],
    );
    let repo = contents::open(&world.repo).unwrap();
    let out = world.dir.path().join("full");
    let commit = Commit::load(&repo, &commit).unwrap();
    full::write(&repo, &commit, Compression::Fast, &out).unwrap();
    let device = device(&world, "device");
    ostree(
        &device,
        &["static-delta", "apply-offline", out.to_str().unwrap()],
    );
    ostree(&device, &["refs", "--create=now", &commit.checksum]);
    ostree(&device, &["fsck"]);
}

#[test]
fn again_changes_nothing_and_is_told() {
    let world = World::new();
    let (one, two) = (world.signed("1.0", 1), world.signed("1.1", 2));
    world.publish(&world.request("1.0", &one)).unwrap();
    let mut request = world.request("1.1", &two);
    request.notes = "Faster.".into();
    world.publish(&request).unwrap();
    let before = world.release("1.1");
    request.now += Duration::from_secs(100);
    request.notes = String::new();
    let again = world.publish(&request).unwrap();
    assert!(again.repeated && again.files.iter().all(|file| file.cached));
    assert_eq!(world.release("1.1"), before);
    assert_eq!(before.notes, "Faster.");
    // An older one again does not become the newest.
    world.publish(&world.request("1.0", &one)).unwrap();
    let channel = world.site().channel(BOARD, "stable").unwrap().unwrap();
    assert_eq!(channel.versions, ["1.1", "1.0"]);
    let reference = format!("thing/{BOARD}/stable");
    assert_eq!(
        ostree(&world.site().repo(), &["rev-parse", &reference]),
        two
    );
    // A damaged file is made good from the cache.
    let file = world.dir.path().join("updates").join(&before.full.path);
    fs::write(&file, "damaged").unwrap();
    world.publish(&request).unwrap();
    assert!(delta::is_intact(&world.site().dir, &before.full));
    assert_eq!(world.release("1.1"), before);
}

#[test]
fn what_must_not_be_released_is_refused_and_nothing_is_published() {
    let world = World::new();
    let commit = world.commit("1.0", 1);
    let request = world.request("1.0", &commit);
    let refused = |request: &Request, wanted: &str| {
        let error = format!("{:#}", world.publish(request).unwrap_err());
        assert!(error.contains(wanted), "{error}");
    };
    refused(&request, "not signed");
    world.sign(&commit);
    let mut other = request.clone();
    other.commit_keys = vec![PrivateKey::generate().unwrap().public_base64()];
    refused(&other, "another key");
    refused(
        &Request {
            board: "pi".into(),
            ..request.clone()
        },
        "treeline.board",
    );
    refused(
        &Request {
            version: "2".into(),
            ..request.clone()
        },
        "builder build",
    );
    refused(
        &Request {
            channel: "a/b".into(),
            ..request.clone()
        },
        "channel 'a/b'",
    );
    refused(
        &Request {
            commit: "0".repeat(64),
            ..request.clone()
        },
        "reading commit 000",
    );
    assert!(!world.dir.path().join("updates/tuf").exists());

    let with_epoch = Request {
        epoch: 3,
        ..request.clone()
    };
    world.publish(&with_epoch).unwrap();
    refused(&request, "epoch 3");
    let changed = world.signed("1.0", 9);
    refused(
        &Request {
            commit: changed,
            ..with_epoch
        },
        "raise `version`",
    );
    let next = world.signed("1.1", 2);
    refused(&world.request("1.1", &next), "set `epoch = 3`");
    let guard = world.site().lock().unwrap();
    refused(&request, "another release is being published");
    drop(guard);
}

#[test]
fn deltas_come_from_the_last_few_of_the_channel_and_old_ones_stay() {
    let world = World::new();
    let versions = ["1.0", "1.1", "1.2", "1.3"];
    let commits: Vec<String> = (1..)
        .zip(versions)
        .map(|(i, v)| world.signed(v, i))
        .collect();
    for (version, commit) in versions.iter().zip(&commits) {
        let request = Request {
            deltas: 2,
            ..world.request(version, commit)
        };
        world.publish(&request).unwrap();
    }
    let from = |version: &str| -> BTreeSet<String> {
        world
            .release(version)
            .deltas
            .iter()
            .map(|d| d.from.clone())
            .collect()
    };
    assert_eq!(
        from("1.3"),
        BTreeSet::from([commits[2].clone(), commits[1].clone()])
    );
    // Another channel has no earlier release; what was published before stays.
    let request = Request {
        channel: "testing".into(),
        ..world.request("1.3", &commits[3])
    };
    let published = world.publish(&request).unwrap();
    assert_eq!(published.files.len(), 1);
    assert_eq!(from("1.3").len(), 2);
    let request = Request {
        deltas: 3,
        ..world.request("1.3", &commits[3])
    };
    assert_eq!(world.publish(&request).unwrap().files.len(), 4);
    assert_eq!(from("1.3").len(), 3);
}

#[test]
fn a_delta_as_large_as_the_whole_is_not_offered() {
    let world = World::new();
    let one = world.signed("1.0", 1);
    world.publish(&world.request("1.0", &one)).unwrap();
    // Nothing in common with the first.
    let tree = world.dir.path().join("other");
    fs::create_dir_all(&tree).unwrap();
    fs::write(tree.join("file"), "quite another content").unwrap();
    let two = ostree(
        &world.repo,
        &[
            "commit",
            "--branch=other",
            "--add-metadata-string=treeline.product=thing",
            &format!("--add-metadata-string=treeline.board={BOARD}"),
            "--add-metadata-string=version=2.0",
            &format!("--tree=dir={}", tree.display()),
        ],
    );
    world.sign(&two);
    let published = world.publish(&world.request("2.0", &two)).unwrap();
    assert!(!published.files[1].offered, "{published}");
    assert!(published.to_string().contains("not offered"));
    assert!(world.release("2.0").deltas.is_empty());
}

#[test]
fn plain_ostree_clients_pull_over_https() {
    use crate::serve;
    let world = World::new();
    let one = world.signed("1.0", 1);
    world.publish(&world.request("1.0", &one)).unwrap();
    let tls = serve::tls::ensure(&world.dir.path().join("tls"), &[]).unwrap();
    let mut config = serve::Config::new(world.dir.path().join("updates"), tls.clone());
    config.port = 0;
    let server = serve::start(config).unwrap();
    let client = device(&world, "client");
    ostree(
        &client,
        &[
            "remote",
            "add",
            "--no-gpg-verify",
            &format!("--set=tls-ca-path={}", tls.ca.display()),
            "thing",
            &format!("{}repo", server.url()),
        ],
    );
    let reference = format!("thing/{BOARD}/stable");
    assert!(ostree(&client, &["remote", "refs", "thing"]).contains(&reference));
    ostree(&client, &["pull", "thing", &reference]);
    assert_eq!(
        ostree(&client, &["rev-parse", &format!("thing:{reference}")]),
        one
    );
    let two = world.signed("1.1", 2);
    world.publish(&world.request("1.1", &two)).unwrap();
    ostree(&client, &["pull", "thing", &reference]);
    assert_eq!(
        ostree(&client, &["rev-parse", &format!("thing:{reference}")]),
        two
    );
    ostree(&client, &["fsck"]);
    let got = Commit::load(&contents::open(&client).unwrap(), &two).unwrap();
    keys::commit::verify(
        &[world.key.public_base64()],
        &got.bytes(),
        &got.signatures(),
    )
    .unwrap();
}

#[test]
fn installed_bytes_count_every_object_once() {
    let world = World::new();
    let commit = world.signed("1.0", 1);
    let repo = contents::open(&world.repo).unwrap();
    let contents = Commit::load(&repo, &commit)
        .unwrap()
        .contents(&repo)
        .unwrap();
    assert_eq!(contents.files.len(), 5);
    // /, /usr, /usr/bin, /usr/empty
    assert_eq!(contents.dirs.len(), 4);
    // The empty file and the short link take no block.
    let files = 200_704 + 4096 + 4096 + 5 * 256;
    // Four directories; four contents and one set of permissions as objects.
    assert_eq!(
        contents.installed_bytes(&repo).unwrap(),
        files + (4 + 4 + 1) * (4096 + 256)
    );
}

#[test]
fn releases_are_listed_by_board_and_channel() {
    let world = World::new();
    let (updates, keys) = (world.dir.path().join("updates"), &world.keys);
    assert!(list(&updates, keys)
        .unwrap()
        .to_string()
        .contains("nothing"));
    let (one, two) = (world.signed("1.0", 1), world.signed("1.1", 2));
    world.publish(&world.request("1.0", &one)).unwrap();
    world.publish(&world.request("1.1", &two)).unwrap();
    let request = Request {
        channel: "beta".into(),
        ..world.request("1.1", &two)
    };
    world.publish(&request).unwrap();
    let released = list(&updates, keys).unwrap();
    let found: Vec<(&str, Vec<&str>)> = released
        .0
        .iter()
        .map(|c| {
            let versions = c.releases.iter().map(|r| r.version.as_str());
            (c.channel.as_str(), versions.collect())
        })
        .collect();
    assert_eq!(
        found,
        [("beta", vec!["1.1"]), ("stable", vec!["1.1", "1.0"])]
    );
    let text = released.to_string();
    assert!(text.contains("1.0: ") && text.contains(&two[..8]), "{text}");
    // A released version is found by its name.
    let side = diff::find(&updates, keys, &world.repo, BOARD, "1.0").unwrap();
    assert_eq!(side.commit, one);
}

#[test]
fn sizes_have_three_digits() {
    for (bytes, text) in [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (57_702_472, "57.7 MB"),
        (999_499, "999 kB"),
        (999_999, "1.00 MB"),
        (12_345_678_901, "12.3 GB"),
    ] {
        assert_eq!(table::size(bytes), text);
    }
}
