use super::*;
use crate::command::Command;
use crate::tree::{Content, Node};

fn sample() -> Assembled {
    let mut tree = Tree::new();
    tree.insert("usr/bin/tool", Node::file(vec![5; 300_000], 0o4755))
        .unwrap();
    let mut capable = Node::file("ping", 0o755).owned(3, 4);
    capable
        .xattrs
        .insert(b"user.capability".to_vec(), vec![1, 0, 2]);
    tree.insert("usr/bin/ping", capable).unwrap();
    tree.insert("usr/empty", Node::file("", 0o600)).unwrap();
    tree.insert("usr/same", Node::file("", 0o600)).unwrap();
    tree.insert("bin", Node::symlink("usr/bin")).unwrap();
    tree.insert("tmp", Node::dir(0o1777).owned(7, 8)).unwrap();
    Assembled {
        tree,
        kernel_version: "6.1".into(),
    }
}

fn meta() -> CommitMeta {
    CommitMeta {
        reference: "demo/board".into(),
        version: "1.0".into(),
        timestamp: 1_700_000_000,
        metadata: BTreeMap::from([("treeline.board".into(), "board".into())]),
    }
}

fn ostree_cli(repo: &Path, args: &[&str]) -> String {
    Command::new("ostree", "ostree")
        .arg(format!("--repo={}", repo.display()))
        .args(args)
        .text()
        .unwrap()
}

#[test]
fn libostree_finds_the_commit_whole() {
    let dir = tempfile::tempdir().unwrap();
    let repo = dir.path().join("repo");
    let checksum = commit(&repo, &sample(), &meta(), Progress::Quiet).unwrap();
    ostree_cli(&repo, &["fsck"]);
    assert_eq!(ostree_cli(&repo, &["rev-parse", "demo/board"]), checksum);
    let listing = ostree_cli(&repo, &["ls", "-R", "-X", &checksum]);
    for line in [
        "d01777 7 8      0 { @a(ayay) [] } /tmp",
        "-04755 0 0 300000 { @a(ayay) [] } /usr/bin/tool",
        "l00777 0 0      0 { @a(ayay) [] } /bin -> usr/bin",
        "-00600 0 0      0 { @a(ayay) [] } /usr/empty",
    ] {
        assert!(listing.contains(line), "{line}\nnot in\n{listing}");
    }
    assert!(listing.contains("user.capability"), "{listing}");
    let shown = ostree_cli(
        &repo,
        &["show", "--print-metadata-key=treeline.board", &checksum],
    );
    assert_eq!(shown, "'board'");
}

#[test]
fn the_same_tar_has_the_checksums_that_libostree_gives_it() {
    let dir = tempfile::tempdir().unwrap();
    let (repo, other) = (dir.path().join("repo"), dir.path().join("other"));
    let tar = dir.path().join("t.tar");
    let mut builder = tar::Builder::new(std::fs::File::create(&tar).unwrap());
    let mut add = |path: &str, kind: tar::EntryType, mode: u32, owner: u64, content: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner);
        header.set_gid(owner + 1);
        if kind.is_symlink() {
            header
                .set_link_name(std::str::from_utf8(content).unwrap())
                .unwrap();
            header.set_size(0);
            builder
                .append_data(&mut header, path, std::io::empty())
                .unwrap();
        } else {
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, path, content).unwrap();
        }
    };
    use tar::EntryType::{Directory, Regular, Symlink};
    add("./", Directory, 0o755, 0, b"");
    add("usr/", Directory, 0o755, 0, b"");
    add("usr/bin/", Directory, 0o2750, 5, b"");
    add("usr/bin/su", Regular, 0o4755, 0, &[9; 70_000]);
    add("usr/bin.d", Regular, 0o640, 70_000, b"x");
    add("usr/bin-x/", Directory, 0o700, 0, b"");
    add("usr/sh", Symlink, 0o777, 2, b"bin/su");
    builder.finish().unwrap();

    let assembled = Assembled {
        tree: Tree::from_tar(&tar).unwrap(),
        kernel_version: "6.1".into(),
    };
    let checksum = commit(&repo, &assembled, &meta(), Progress::Quiet).unwrap();
    ostree_cli(&other, &["init", "--mode=archive"]);
    let tree = format!("--tree=tar={}", tar.display());
    ostree_cli(&other, &["commit", "--branch=b", &tree]);
    // `-C` prints the checksum of every file, and of every directory's content and metadata.
    let ours = ostree_cli(&repo, &["ls", "-R", "-C", "-X", &checksum]);
    assert_eq!(ours.lines().count(), 7, "{ours}");
    assert_eq!(ours, ostree_cli(&other, &["ls", "-R", "-C", "-X", "b"]));
}

#[test]
fn committing_again_gives_the_same_and_a_change_gives_another() {
    let dir = tempfile::tempdir().unwrap();
    let repo = dir.path().join("repo");
    let first = commit(&repo, &sample(), &meta(), Progress::Quiet).unwrap();
    assert_eq!(
        commit(&repo, &sample(), &meta(), Progress::Quiet).unwrap(),
        first
    );
    let elsewhere = dir.path().join("elsewhere");
    assert_eq!(
        commit(&elsewhere, &sample(), &meta(), Progress::Quiet).unwrap(),
        first
    );
    let mut changed = sample();
    changed
        .tree
        .insert("usr/bin/new", Node::file("n", 0o755))
        .unwrap();
    assert_ne!(
        commit(&repo, &changed, &meta(), Progress::Quiet).unwrap(),
        first
    );
}

#[test]
fn a_file_that_shrank_stops_the_commit_and_leaves_the_ref() {
    let dir = tempfile::tempdir().unwrap();
    let repo = dir.path().join("repo");
    let first = commit(&repo, &sample(), &meta(), Progress::Quiet).unwrap();
    let host = dir.path().join("file");
    std::fs::write(&host, "short").unwrap();
    let mut assembled = sample();
    let mut node = Node::file("", 0o644);
    node.kind = Kind::File(Content::Host {
        path: host,
        len: 100,
    });
    assembled.tree.insert("usr/host", node).unwrap();
    let error = commit(&repo, &assembled, &meta(), Progress::Quiet).unwrap_err();
    assert!(format!("{error:#}").contains("/usr/host"), "{error:#}");
    assert_eq!(ostree_cli(&repo, &["rev-parse", "demo/board"]), first);
}

#[test]
fn signatures_of_several_keys_are_kept_and_hold() {
    let dir = tempfile::tempdir().unwrap();
    let repo = dir.path().join("repo");
    let checksum = commit(&repo, &sample(), &meta(), Progress::Quiet).unwrap();
    let (first, second) = (
        keys::keyfile::PrivateKey::generate().unwrap(),
        keys::keyfile::PrivateKey::generate().unwrap(),
    );
    for key in [&first, &second, &first] {
        sign(&repo, &checksum, key).unwrap();
    }
    let repository = open(&repo).unwrap();
    let commit = repository
        .load_variant(ObjectType::Commit, &checksum)
        .unwrap();
    let detached = repository
        .read_commit_detached_metadata(&checksum, NO_CANCEL)
        .unwrap()
        .unwrap();
    let dict = glib::VariantDict::new(Some(&detached));
    let signatures: Vec<Vec<u8>> = dict.lookup(SIGNATURES).unwrap().unwrap();
    assert_eq!(signatures.len(), 2);
    for key in [first, second] {
        keys::commit::verify(&[key.public_base64()], commit.data(), &signatures).unwrap();
    }
    ostree_cli(&repo, &["fsck"]);
}
