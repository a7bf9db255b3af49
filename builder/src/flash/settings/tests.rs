use super::*;
use bsp::first_boot::{Access, FirstBoot};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA me";

fn read(user: Option<&str>, meta: Option<&str>) -> Result<FirstBoot> {
    let mut settings = FirstBoot {
        format: 1,
        ..FirstBoot::default()
    };
    read_nocloud(&mut settings, user, meta, "root")?;
    settings.check().map_err(anyhow::Error::msg)?;
    Ok(settings)
}

fn root(keys: &[&str]) -> Vec<Access> {
    vec![Access {
        user: "root".into(),
        keys: keys.iter().map(|key| (*key).to_string()).collect(),
    }]
}

#[test]
fn the_three_things_of_nocloud_are_understood() {
    let meta = "instance-id: i-1\nlocal-hostname: gw-7\n";
    let config = format!(
        "#cloud-config\nssh_authorized_keys:\n  - {KEY}\nruncmd:\n  - echo hello > /var/it\n  - [ touch, \"/var/a b\", 3 ]\n"
    );
    let settings = read(Some(&config), Some(meta)).unwrap();
    assert_eq!(settings.hostname.as_deref(), Some("gw-7"));
    assert_eq!(settings.ssh, root(&[KEY]));
    assert_eq!(
        settings.script.as_deref(),
        Some("#!/bin/sh\necho hello > /var/it\n'touch' '/var/a b' '3'\n")
    );
    let script = "#!/bin/sh\ntouch /var/x\n";
    let settings = read(Some(script), None).unwrap();
    assert_eq!(settings.script.as_deref(), Some(script));
    let json = format!("{{\"local-hostname\": \"gw-8\", \"public-keys\": {{\"me\": \"{KEY}\"}}}}");
    let settings = read(None, Some(&json)).unwrap();
    assert_eq!(
        (settings.hostname.as_deref(), settings.ssh),
        (Some("gw-8"), root(&[KEY]))
    );
    let users = format!("#cloud-config\nhostname: a\nusers:\n - default\n - name: op\n   ssh_authorized_keys: [\"{KEY}\"]\n");
    let settings = read(Some(&users), None).unwrap();
    assert_eq!(settings.ssh[0].user, "op");
}

#[test]
fn what_would_have_no_effect_is_an_error() {
    for (user, says) in [
        ("#cloud-config\npackages: [vim]\n", "packages"),
        (
            "#cloud-config\nusers:\n - name: op\n   sudo: ALL\n",
            "users.sudo",
        ),
        ("#cloud-config\nhostname: [a]\n", "must be text"),
        ("#cloud-config\nhostname: A_b\n", "hostname must be"),
        ("#cloud-config\n: :\n - [", "YAML"),
        ("## template: jinja\n", "must begin with"),
        (
            "#cloud-config\npreserve_hostname: true\n",
            "can only be false",
        ),
    ] {
        let error = format!("{:#}", read(Some(user), None).unwrap_err());
        assert!(error.contains(says), "{user}: {error}");
    }
    assert!(read(None, Some("network-interfaces: x\n")).is_err());
}
