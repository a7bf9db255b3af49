//! A delta in Treeline's own format, made by the builder from an archive repository, applied by the agent in a
//! device's repository, and judged by `ostree`: every object is there, and the tree is the same.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

use std::fs;
use std::path::Path;
use std::process::Command;

use builder::cache::Cache;
use builder::release::compact as compact_delta;
use device_agent::compact;
use device_agent::stage::Wanted;
use keys::keyfile::PrivateKey;
use treeline_tests::run;

fn ostree(repo: &Path, args: &[&str]) -> String {
    let mut command = Command::new("ostree");
    command.arg(format!("--repo={}", repo.display())).args(args);
    run(&mut command).unwrap().trim().to_owned()
}

/// A library of so many functions, compiled.
fn library(dir: &Path, out: &Path, functions: usize, word: &str) {
    let mut text = String::from("#include <stdio.h>\n");
    for i in 0..functions {
        text += &format!(
            "int f{i}(int a) {{ printf(\"{word} {i} %d\\n\", a); return a{}; }}\n",
            if i > 0 {
                format!(" + f{}(a / 2)", i - 1)
            } else {
                String::new()
            }
        );
    }
    let source = dir.join("library.c");
    fs::write(&source, text).unwrap();
    run(Command::new("cc")
        .args(["-O2", "-shared", "-fPIC", "-o"])
        .arg(out)
        .arg(source))
    .unwrap();
}

fn commit(repo: &Path, tree: &Path, key: &PrivateKey) -> String {
    let metadata = |text: &str| format!("--add-metadata-string={text}");
    let checksum = ostree(
        repo,
        &[
            "commit",
            "--orphan",
            "--owner-uid=0",
            "--owner-gid=0",
            "--no-xattrs",
            &metadata("treeline.product=demo"),
            &metadata("treeline.board=board"),
            &metadata("version=1"),
            tree.to_str().unwrap(),
        ],
    );
    builder::commit::sign(repo, &checksum, key).unwrap();
    checksum
}

#[test]
fn the_agent_makes_of_the_builders_delta_what_ostree_calls_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (archive, device, tree) = (
        dir.path().join("archive"),
        dir.path().join("device"),
        dir.path().join("tree"),
    );
    let key = PrivateKey::generate().unwrap();
    ostree(&archive, &["init", "--mode=archive"]);
    // Contents as they are, owners in attributes: like a device's, for any user.
    ostree(&device, &["init", "--mode=bare-user"]);

    let lib = tree.join("usr/lib/device-agent");
    fs::create_dir_all(&lib).unwrap();
    fs::write(lib.join("kargs"), "root=UUID=1\n").unwrap();
    fs::write(tree.join("usr/empty"), "").unwrap();
    fs::write(tree.join("usr/gone"), "text\n".repeat(999)).unwrap();
    std::os::unix::fs::symlink("lib/one", tree.join("usr/link")).unwrap();
    library(
        dir.path(),
        &tree.join("usr/lib/libdemo.so.1.2"),
        300,
        "number",
    );
    let from = commit(&archive, &tree, &key);

    fs::remove_file(tree.join("usr/gone")).unwrap();
    fs::write(tree.join("usr/new"), "something\n").unwrap();
    fs::remove_file(tree.join("usr/link")).unwrap();
    std::os::unix::fs::symlink("lib/another", tree.join("usr/link")).unwrap();
    fs::remove_file(tree.join("usr/lib/libdemo.so.1.2")).unwrap();
    library(
        dir.path(),
        &tree.join("usr/lib/libdemo.so.1.3"),
        310,
        "numbers",
    );
    // The second is made from the first, which is new itself and not yet where objects are.
    library(dir.path(), &tree.join("usr/lib/plugin"), 100, "plugin");
    library(dir.path(), &tree.join("usr/lib/plugin2"), 101, "plugin");
    let to = commit(&archive, &tree, &key);

    ostree(&device, &["pull-local", archive.to_str().unwrap(), &from]);
    let cache = Cache::at(dir.path().join("cache")).unwrap();
    let made = compact_delta::between(&archive, &from, &to, &cache).unwrap();
    // What the two libraries have in common is kept, and the delta from it is the same.
    let plans = fs::read_dir(cache.root().join("plans")).unwrap();
    assert!(plans.count() > 0);
    let again = compact_delta::between(&archive, &from, &to, &cache).unwrap();
    assert!(again.made.bytes == made.made.bytes);
    let whole = fs::metadata(tree.join("usr/lib/libdemo.so.1.3"))
        .unwrap()
        .len();
    let files = &made.made.files;
    let cost = |path: &str| files.iter().find(|f| f.path == path).unwrap();
    assert!(cost("/usr/lib/libdemo.so.1.3").cost < whole / 10);
    assert_eq!(
        cost("/usr/lib/plugin2").from.as_deref(),
        Some("/usr/lib/plugin")
    );
    let file = dir.path().join("delta");
    fs::write(&file, &made.made.bytes).unwrap();

    let repo = ostree_of(&device);
    let keys = [key.public_base64()];
    let wanted = Wanted {
        commit: &to,
        product: "demo",
        board: "board",
        keys: &keys,
    };
    // Too little room agreed: nothing stays.
    let before = objects(&device);
    assert!(compact::apply(&repo, &file, &from, made.need.output_bytes - 1, &wanted).is_err());
    assert_eq!(objects(&device), before);
    let verified = compact::apply(&repo, &file, &from, made.need.output_bytes, &wanted).unwrap();
    assert_eq!(verified.commit, to);

    // It fails, and with it `run`, if an object is missing or damaged.
    ostree(&device, &["fsck"]);
    assert!(ostree(&device, &["show", &to]).contains(&to));
    let tree_of = |repo: &Path| ostree(repo, &["ls", "-R", "-C", "-X", &to]);
    assert_eq!(tree_of(&device), tree_of(&archive));

    // The same delta once more, on what is there already, and on a device without the old commit.
    compact::apply(&repo, &file, &from, made.need.output_bytes, &wanted).unwrap();
    let bare = dir.path().join("bare");
    ostree(&bare, &["init", "--mode=bare-user"]);
    let error = compact::apply(&ostree_of(&bare), &file, &from, u64::MAX, &wanted).unwrap_err();
    assert!(
        format!("{error:#}").contains("the commit the delta starts from"),
        "{error:#}"
    );
}

/// Names of all objects in a repository.
fn objects(repo: &Path) -> String {
    let mut find = Command::new("find");
    find.arg(repo.join("objects")).args(["-type", "f"]);
    let found = run(&mut find).unwrap();
    let mut names: Vec<&str> = found.lines().collect();
    names.sort_unstable();
    names.join("\n")
}

fn ostree_of(path: &Path) -> ostree::Repo {
    let repo = ostree::Repo::new_for_path(path);
    repo.open(ostree::gio::Cancellable::NONE).unwrap();
    repo
}
