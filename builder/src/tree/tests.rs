use super::*;

fn tree() -> Tree {
    let mut tree = Tree::new();
    tree.insert("usr/bin/sh", Node::file("#", 0o755)).unwrap();
    tree.insert("bin", Node::symlink("usr/bin")).unwrap();
    tree.insert("etc/a", Node::symlink("/bin/../bin/sh"))
        .unwrap();
    tree.insert("etc/loop", Node::symlink("loop")).unwrap();
    tree.insert("etc-b", Node::file("b", 0o644)).unwrap();
    tree
}

#[test]
fn links_are_followed_inside_the_tree() {
    let tree = tree();
    for (path, to) in [
        ("etc/a", Some("usr/bin/sh")),
        ("bin/sh", Some("usr/bin/sh")),
        ("/bin/", Some("usr/bin")),
        ("../../bin", Some("usr/bin")),
        ("etc/loop", None),
        ("etc/none", None),
        ("", Some("")),
    ] {
        assert_eq!(tree.resolve(path).as_deref(), to, "{path}");
    }
    assert_eq!(tree.read("etc/a").unwrap(), b"#");
    assert!(tree.read("etc").is_err() && tree.read("none").is_err());
}

#[test]
fn inserting_follows_links_and_keeps_directories() {
    let mut tree = tree();
    tree.insert("bin/ls", Node::file("l", 0o755)).unwrap();
    assert!(tree.contains("usr/bin/ls") && !tree.contains("bin/ls"));
    tree.insert("usr/bin", Node::dir(0o700)).unwrap();
    assert!(tree.contains("usr/bin/ls"));
    assert_eq!(tree.get("usr/bin").unwrap().mode, 0o700);
    let error = tree.insert("etc-b/c", Node::dir(0o755)).unwrap_err();
    assert!(error.to_string().contains("/etc-b is a file"), "{error}");
}

#[test]
fn moving_and_removing_take_what_is_below_and_nothing_else() {
    let mut tree = tree();
    tree.rename("etc", "usr/etc").unwrap();
    assert!(tree.contains("usr/etc/a") && !tree.contains("etc") && tree.contains("etc-b"));
    assert!(tree.rename("usr", "etc-b").is_err());
    assert!(tree.remove("usr/etc") && !tree.remove("usr/etc"));
    assert!(!tree.contains("usr/etc/a") && tree.contains("usr/bin/sh"));
    let names: Vec<_> = tree.children("").map(|(name, _)| name).collect();
    assert_eq!(names, ["bin", "etc-b", "usr"]);
}

#[test]
fn relative_targets_lead_there() {
    for (link, target, expected) in [
        ("home", "var/home", "var/home"),
        ("usr/local", "var/usrlocal", "../var/usrlocal"),
        (
            "etc/systemd/system/a.wants/x",
            "usr/lib/x",
            "../../../../usr/lib/x",
        ),
        ("usr/lib/a", "usr/lib/b", "b"),
    ] {
        assert_eq!(relative_target(link, target), expected);
    }
}
