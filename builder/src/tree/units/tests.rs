use super::*;
use crate::command::Command;
use std::path::Path;

const UNITS: [(&str, &str); 6] = [
    (
        "net.service",
        "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\nRequiredBy=a.target b.target\n\
         Also=net.socket gone.service\nAlias=dbus-net.service\n",
    ),
    ("net.socket", "[Socket]\nListenStream=1\n[Install]\nWantedBy=sockets.target\n"),
    (
        "tty@.service",
        "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=getty.target\nDefaultInstance=tty1\n",
    ),
    ("tun@.service", "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=%i.target\n"),
    ("static.service", "[Service]\nExecStart=/bin/true\n"),
    ("systemd-firstboot.service", "[Service]\nExecStart=/bin/true\n"),
];

fn base() -> Tree {
    let mut tree = Tree::new();
    for (name, text) in UNITS {
        tree.insert(&join(SHIPPED, name), Node::file(text, 0o644))
            .unwrap();
    }
    tree
}

fn links(tree: &Tree) -> Vec<String> {
    tree.below(CONFIGURED)
        .filter_map(|(path, node)| {
            let target = node.link_target()?;
            Some(format!("{} -> {target}", &path[CONFIGURED.len() + 1..]))
        })
        .collect()
}

fn applied(text: &str) -> Result<Vec<String>> {
    let mut tree = base();
    apply(&mut tree, &toml::from_str(text).unwrap())?;
    Ok(links(&tree)
        .into_iter()
        .filter(|link| !link.starts_with("systemd-firstboot"))
        .collect())
}

/// The links that the host's `systemctl` makes in the same root.
fn by_systemctl(units: &[&str]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let shipped = dir.path().join(SHIPPED);
    std::fs::create_dir_all(&shipped).unwrap();
    std::fs::create_dir_all(dir.path().join(CONFIGURED)).unwrap();
    for (name, text) in UNITS {
        std::fs::write(shipped.join(name), text).unwrap();
    }
    Command::new("systemctl", "systemd")
        .arg(format!("--root={}", dir.path().display()))
        .arg("enable")
        .args(units)
        .run()
        .unwrap();
    let mut found = Vec::new();
    collect(&dir.path().join(CONFIGURED), Path::new(""), &mut found);
    found.sort();
    found
}

fn collect(dir: &Path, prefix: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = prefix.join(entry.file_name());
        match std::fs::read_link(entry.path()) {
            Ok(target) => {
                let target = target
                    .display()
                    .to_string()
                    .replace("/lib/systemd", "/usr/lib/systemd");
                let target = target.replace("/usr/usr/", "/usr/");
                found.push(format!("{} -> {target}", name.display()));
            }
            Err(_) => collect(&entry.path(), &name, found),
        }
    }
}

#[test]
fn enabling_makes_the_links_that_systemctl_makes() {
    for units in [
        &["net.service"][..],
        &["tty@.service"],
        &["tty@ttyS0.service", "tun@vpn.service"],
    ] {
        let list = units
            .iter()
            .map(|unit| format!("{unit:?}"))
            .collect::<Vec<_>>()
            .join(",");
        let ours = applied(&format!("enable = [{list}]")).unwrap();
        assert_eq!(ours, by_systemctl(units), "{units:?}");
        assert!(!ours.is_empty());
    }
}

#[test]
fn disabling_takes_links_away_and_masking_leads_to_nothing() {
    let mut tree = base();
    enable(&mut tree, "net.service").unwrap();
    let units: Units =
        toml::from_str("disable = [\"net.service\"]\nmask = [\"net.socket\"]").unwrap();
    apply(&mut tree, &units).unwrap();
    assert_eq!(
        links(&tree),
        [
            "net.socket -> /dev/null",
            "systemd-firstboot.service -> /dev/null"
        ]
    );
    enable(&mut tree, "net.service").unwrap();
    let left = links(&tree);
    assert!(
        left.iter()
            .any(|link| link.starts_with("multi-user.target.wants/net.service")),
        "{left:?}"
    );
}

#[test]
fn mistakes_are_explained() {
    for (text, says) in [
        ("enable = [\"nett.service\"]", "did you mean net.service?"),
        ("mask = [\"entirely-different.service\"]", "overlay"),
        ("enable = [\"static.service\"]", "[Install]"),
        ("enable = [\"tun@.service\"]", "tun@name.service"),
    ] {
        let error = format!("{:#}", applied(text).unwrap_err());
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn a_drop_in_of_the_overlay_can_give_an_install_section() {
    let mut tree = base();
    tree.insert(
        "etc/systemd/system/static.service.d/x.conf",
        Node::file("[Install]\nWantedBy=multi-user.target\n", 0o644),
    )
    .unwrap();
    enable(&mut tree, "static.service").unwrap();
    assert_eq!(
        links(&tree),
        ["multi-user.target.wants/static.service -> /usr/lib/systemd/system/static.service"]
    );
}
