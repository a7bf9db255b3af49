//! The hooks and the stand-in for dpkg, run by the machine's own shell on directories.

use super::*;

/// Packages with programs of this machine in place of Debian's.
fn packages(dir: &Path) -> Vec<Unpacked> {
    let package = |name: &str, files: &[&str]| {
        let root = dir.join(name);
        for file in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::copy("/bin/true", &path).unwrap();
        }
        Unpacked {
            name: name.into(),
            dir: root,
        }
    };
    let packages = vec![
        package("dash", &["usr/bin/dash"]),
        package("coreutils", &["usr/bin/cat", "usr/bin/uname"]),
        package(
            "dpkg",
            &["usr/bin/dpkg", "usr/bin/dpkg-deb", "usr/bin/dpkg-query"],
        ),
        package(
            "libc6",
            &[
                "usr/lib64/ld-linux-x86-64.so.2",
                "usr/lib/x86_64-linux-gnu/libc.so.6",
                "usr/lib/x86_64-linux-gnu/gconv/BIG5.so",
                "usr/bin/getent",
            ],
        ),
    ];
    fs::write(dir.join("coreutils/usr/bin/script"), "#!/bin/sh\n").unwrap();
    packages
}

/// Every path below `dir`, links with their target.
fn listing(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(dir).unwrap().display().to_string();
            match fs::read_link(&path) {
                Ok(target) => found.push(format!("{name} -> {}", target.display())),
                Err(_) => found.push(name),
            }
            if path.is_dir() && !path.is_symlink() {
                open.push(path);
            }
        }
    }
    found.sort();
    found
}

fn hook(hook: &Path, root: &Path) -> Result<()> {
    Command::new(hook, "dash").arg(root).run()
}

#[test]
fn only_programs_that_are_the_same_everywhere_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let packages = packages(&dir.path().join("packages"));
    let to = dir.path().join("to");
    fs::create_dir(&to).unwrap();
    prepare(&packages, &to).unwrap();
    assert_eq!(
        listing(&to.join("native")),
        [
            "aside",
            "bin",
            "bin/cat",
            "bin/dash",
            "bin/dpkg",
            "bin/dpkg-deb",
            "bin/sh -> dash",
            "lib",
            "lib/libc.so.6",
            "lib64",
            "lib64/ld-linux-x86-64.so.2",
            "libexec",
            "libexec/dpkg",
        ]
    );
    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    let error = format!("{:#}", prepare(&packages[1..], &other).unwrap_err());
    assert!(
        error.contains("bin/dash") && error.contains("update-lock"),
        "{error}"
    );
}

#[test]
fn what_the_hooks_put_into_a_tree_they_take_out_again() {
    let dir = tempfile::tempdir().unwrap();
    let packages = packages(&dir.path().join("packages"));
    let hooks = prepare(&packages, dir.path()).unwrap();
    for own_lib64 in [false, true] {
        let root = dir.path().join(format!("root-{own_lib64}"));
        fs::create_dir_all(root.join("usr/lib")).unwrap();
        fs::create_dir_all(root.join("var/lib/dpkg/info")).unwrap();
        let list = root.join("var/lib/dpkg/info/dash.list");
        fs::write(&list, "/usr/bin/dash\n").unwrap();
        if own_lib64 {
            fs::create_dir(root.join("usr/lib64")).unwrap();
            fs::write(root.join("usr/lib64/ld64.so.2"), "").unwrap();
            symlink("usr/lib64", root.join("lib64")).unwrap();
        }
        let before = listing(&root);
        hook(&hooks.put, &root).unwrap();
        assert!(root.join("lib64/ld-linux-x86-64.so.2").is_symlink());
        assert_eq!(
            fs::read_link(root.join("lib64")).unwrap(),
            Path::new("usr/lib64")
        );
        hook(&hooks.take, &root).unwrap();
        assert_eq!(listing(&root), before);

        // Files of a package that went into the wrong place would be lost.
        hook(&hooks.put, &root).unwrap();
        fs::write(&list, "/usr/lib/x86_64-linux-gnu/libx.so\n").unwrap();
        let error = hook(&hooks.take, &root).unwrap_err().to_string();
        assert!(error.contains("dash.list"), "{error}");
    }
}

#[test]
fn a_tree_with_such_libraries_of_its_own_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let hooks = prepare(&packages(&dir.path().join("packages")), dir.path()).unwrap();
    let root = dir.path().join("root");
    fs::create_dir_all(root.join(LIBRARIES)).unwrap();
    let before = listing(&root);
    hook(&hooks.put, &root).unwrap();
    hook(&hooks.take, &root).unwrap();
    assert_eq!(listing(&root), before);
}

#[test]
fn while_packages_are_configured_the_interpreters_are_this_machines() {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    for sub in [
        "usr/bin",
        ".treeline/bin",
        ".treeline/libexec",
        ".treeline/aside",
    ] {
        fs::create_dir_all(at(sub)).unwrap();
    }
    for name in ["dash", "perl"] {
        fs::write(at(&format!("usr/bin/{name}")), "tree").unwrap();
        fs::write(at(&format!(".treeline/bin/{name}")), "machine").unwrap();
    }
    let here = dir.path().display().to_string();
    let report = format!(
        "#!/bin/sh\necho \"$0 $*: $(cat {here}/usr/bin/dash)\" | sed 's|{here}||' >>{here}/log\n"
    );
    script(&at("usr/bin/dpkg"), &report).unwrap();
    script(&at(".treeline/libexec/dpkg"), &report).unwrap();
    let text = include_str!("foreign/dpkg.sh")
        .replace("/.treeline/bin/dash", "/bin/sh")
        .replace("/.treeline/", &format!("{here}/.treeline/"))
        .replace("/usr/bin/", &format!("{here}/usr/bin/"));
    script(&at("dpkg"), &text).unwrap();
    for line in [
        "--compare-versions 1 lt 2",
        "--print-architecture",
        "--install --force-depends --status-fd=7 a.deb b.deb",
    ] {
        Command::new(at("dpkg"), "dash")
            .args(line.split(' '))
            .run()
            .unwrap();
    }
    assert_eq!(
        fs::read_to_string(at("log")).unwrap(),
        "/.treeline/libexec/dpkg --compare-versions 1 lt 2: tree\n\
         /usr/bin/dpkg --print-architecture: tree\n\
         /usr/bin/dpkg --unpack --force-depends --status-fd=7 a.deb b.deb: tree\n\
         /usr/bin/dpkg --configure --force-depends --status-fd=7 --pending: machine\n"
    );
    assert_eq!(fs::read_to_string(at("usr/bin/perl")).unwrap(), "tree");
    assert!(!at("usr/bin/dash").is_symlink());
}
