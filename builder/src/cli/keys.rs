//! `builder keys`

mod status;
mod steps;

use std::fs;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{bail, Context as _, Result};
use keys::author::{self, Delegation, Expiry, Keyring};
use keys::release::{channel_target, release_target};
use serde::Serialize;

use super::{print, Context};
use crate::manifest::shown;
use crate::project::ceremony::{self, Fate};
use crate::project::commit_key;
use crate::project::incoming::{self, Incoming};
use crate::project::secrets::{self, Wish};
use crate::project::Project;
use crate::secure_boot;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Makes what is missing in keys/; never overwrites
    Init {
        /// Root keys
        #[arg(long, default_value_t = 3, value_name = "N")]
        root_keys: u8,
        /// How many of them must sign
        #[arg(long, default_value_t = 2, value_name = "N")]
        root_threshold: u8,
        /// Encrypts root, targets and commit keys with a passphrase
        #[arg(long)]
        encrypt: bool,
    },
    /// Makes keys of your own for Secure Boot (UEFI) and signed FIT (U-Boot) in keys/secureboot/, with the files that firmware takes
    Secureboot,
    /// Prints the public parts of the keys that are here
    Show {
        /// JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Tells what is valid until when; exit code 10 if something expires soon, 11 if it has
    Status(status::Args),
    /// Puts another key in the place of one: root-1, …, targets, snapshot, timestamp, commit; `root` alone renews
    /// the time of validity
    Rotate(Replace),
    /// The same for a key that was lost or stolen: its file is removed; `--drop` leaves a root key out
    Revoke(Replace),
    /// Tells the next steps of a change that is not signed enough, and what to do in general
    Ceremony {
        /// Gives the change up
        #[arg(long)]
        discard: bool,
        /// Even if it has all its signatures
        #[arg(long, requires = "discard")]
        force: bool,
    },
    /// Changes how many of the root keys must sign
    Threshold {
        /// How many
        number: NonZeroU64,
    },
    /// Signs a draft of root metadata; needs neither a product nor a network
    Sign {
        /// The draft
        draft: PathBuf,
        /// A root key: a file, or `pkcs11:…`
        #[arg(long, value_name = "KEY")]
        key: PathBuf,
    },
    /// Takes over the signatures of a draft that comes back
    Accept {
        /// The draft
        draft: PathBuf,
    },
    /// Renews the snapshot and the timestamp of what is published: for the machine that publishes, without the targets key
    Refresh,
    /// Leaves the releases of boards, or targets by pattern, to a key of their own: keys/targets-NAME.pem
    Delegate {
        /// Name of the role
        name: String,
        /// A board whose releases and channels it signs; may be repeated
        #[arg(long, value_name = "ID")]
        board: Vec<String>,
        /// A pattern of target names (`*`, `?`, `[…]`); may be repeated
        #[arg(long, value_name = "PATTERN")]
        path: Vec<String>,
        /// Gives the key a passphrase, though the others have none
        #[arg(long)]
        encrypt: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Replace {
    /// The key
    key: String,
    /// The new key: a file, a key on a token (`pkcs11:…`), or a public key in base64 whose private half stays
    /// elsewhere (default: made here)
    #[arg(long, value_name = "KEY")]
    new: Option<String>,
    /// Public key of the root key that goes, if its file is not here
    #[arg(long, value_name = "BASE64")]
    old: Option<String>,
    /// Puts nothing in its place
    #[arg(long, conflicts_with = "new")]
    drop: bool,
    /// Gives the new key a passphrase, though the others have none
    #[arg(long, conflicts_with_all = ["new", "drop"])]
    encrypt: bool,
}

#[derive(Serialize)]
struct Key {
    role: String,
    public: String,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<ExitCode> {
    // Signing works beside a lone key, on a machine that knows no product.
    if let Action::Sign { draft, key } = &args.action {
        ceremony::sign(draft, key)?;
        print::line(format_args!(
            "Signed {}; carry it back, or on to the next key.",
            draft.display()
        ))?;
        return Ok(ExitCode::SUCCESS);
    }
    let project = context.project()?;
    if let Action::Status(args) = &args.action {
        return status::run(&project, args);
    }
    act(&project, &args.action)?;
    Ok(ExitCode::SUCCESS)
}

fn act(project: &Project, action: &Action) -> Result<()> {
    let dir = project.keys_dir();
    match action {
        Action::Init {
            root_keys,
            root_threshold,
            encrypt,
        } => init(
            &dir,
            Wish {
                root_keys: *root_keys,
                root_threshold: *root_threshold,
                encrypt: *encrypt,
            },
        ),
        Action::Secureboot => secure_boot_keys(project),
        Action::Show { json } => show(&secrets::public(&dir)?, *json),
        Action::Rotate(replace) => rotate(&dir, replace, Fate::Retired),
        Action::Revoke(replace) => rotate(&dir, replace, Fate::Destroyed),
        Action::Ceremony {
            discard: true,
            force,
        } => ceremony::discard(&dir, *force),
        Action::Ceremony { discard: false, .. } => steps::print(&dir),
        Action::Threshold { number } => steps::outcome(&dir, &ceremony::threshold(&dir, *number)?),
        Action::Accept { draft } => steps::outcome(&dir, &ceremony::take(&dir, draft)?),
        Action::Refresh => refresh(project),
        Action::Delegate {
            name,
            board,
            path,
            encrypt,
        } => {
            let delegation = delegation(name, board, path)?;
            delegate(project, delegation, *encrypt)
        }
        // Handled before a product is looked for.
        Action::Sign { .. } | Action::Status(_) => Ok(()),
    }
}

fn init(dir: &Path, wish: Wish) -> Result<()> {
    let made = secrets::init_as(dir, wish)?;
    let dir = shown(dir);
    if made.signing {
        print::line(format_args!(
            "Made signing keys in {dir}. They are secret; keep a copy: without them no device can be updated."
        ))?;
        print::line(format_args!(
            "Of the root keys {} of {} must sign: move them to places of their own, without a network.",
            wish.root_threshold, wish.root_keys
        ))?;
    }
    if made.tls {
        print::line(format_args!(
            "Made certificates for `builder serve` in {dir}/tls."
        ))?;
    }
    if !made.signing && !made.tls {
        print::line(format_args!("Nothing to do: {dir} is complete."))?;
    }
    Ok(())
}

fn secure_boot_keys(project: &Project) -> Result<()> {
    let keys = project.keys_dir();
    let made = secure_boot::make(&keys, &project.product.name)?;
    let dir = keys.join(secure_boot::DIRECTORY);
    let dir = shown(&dir);
    if !made {
        return print::line(format_args!("Nothing to do: {dir} is complete."));
    }
    print::line(format_args!(
        "Made PK, KEK and db in {dir}. The .key files are secret; keep a copy: without db.key no update starts on \
         machines that trust it."
    ))?;
    print::line(
        "UEFI: give a machine's firmware the certificates, PK last: .auth, .esl or .cer, whichever it takes. U-Boot: build it \
         with u-boot.dtsi in its device tree. Then set `secure-boot = \"own\"` in the board's section of product.toml.",
    )
}

fn rotate(dir: &Path, replace: &Replace, fate: Fate) -> Result<()> {
    let key = replace.key.as_str();
    let (old, new) = (replace.old.as_deref(), replace.new.as_deref());
    let made = Incoming::Made {
        encrypt: replace.encrypt,
    };
    let incoming = new.map_or(made, Incoming::Named);
    let renewal = key == "root" && !dir.join("root.pem").exists();
    let comes = new.is_some() || replace.encrypt;
    let chosen = old.is_some() || replace.drop || comes && key != "commit";
    if chosen && (matches!(key, "commit" | "commit-old") || renewal) {
        bail!("'{key}' does not take these options; root keys have numbers: root-1, root-2, …");
    }
    let outcome = match (key, fate) {
        ("commit", Fate::Retired) => {
            commit_key::rotate(dir, &incoming)?;
            return print::line(
                "Builds are signed by the former and by the new commit key now. When every device has such a \
                 release, end it with `builder keys revoke commit-old`.",
            );
        }
        ("commit-old", Fate::Destroyed) => {
            commit_key::drop_former(dir)?;
            return print::line("Builds are signed by the new commit key only, from the next release on.");
        }
        ("commit", Fate::Destroyed) => bail!(
            "devices know this commit key and no other yet: `builder keys rotate commit`, release to every device, \
             then `builder keys revoke commit-old`"
        ),
        ("root", Fate::Retired) if renewal => ceremony::renew(dir)?,
        _ if replace.drop => ceremony::drop_root_key(dir, key, old, fate)?,
        _ => ceremony::replace(dir, key, old, &incoming, fate)?,
    };
    steps::outcome(dir, &outcome)
}

fn refresh(project: &Project) -> Result<()> {
    let dir = project.keys_dir();
    let tuf = project.updates_dir().join("tuf");
    ceremony::publish_roots(&dir, &tuf)?;
    let expiry = Expiry::from(SystemTime::now());
    let done = author::refresh(&root(&dir)?, &Keyring::in_dir(&dir), &tuf, &expiry)?;
    print::line(format_args!(
        "Renewed; the timestamp has version {}.",
        done.timestamp_version
    ))
}

fn delegation(name: &str, boards: &[String], paths: &[String]) -> Result<Delegation> {
    let of_boards = boards
        .iter()
        .flat_map(|board| [release_target(board, "*"), channel_target(board, "*")]);
    let patterns: Vec<String> = of_boards.chain(paths.iter().cloned()).collect();
    if patterns.is_empty() {
        bail!("delegating to '{name}': say for what, with --board or --path");
    }
    Ok(Delegation {
        name: name.to_owned(),
        patterns,
    })
}

fn delegate(project: &Project, delegation: Delegation, encrypt: bool) -> Result<()> {
    let dir = project.keys_dir();
    let keyring = Keyring::in_dir(&dir);
    let key = keyring.of(&delegation.name);
    if !key.exists() && !key.with_extension("toml").exists() {
        let name = key.file_stem().unwrap_or_default().to_string_lossy();
        incoming::make(&dir, &name, &key, encrypt)?;
    }
    let tuf = project.updates_dir().join("tuf");
    ceremony::publish_roots(&dir, &tuf)?;
    let expiry = Expiry::from(SystemTime::now());
    author::delegate(&root(&dir)?, &keyring, &tuf, &delegation, &expiry)?;
    print::line(format_args!(
        "{} signs for {} now; `builder release` uses it.",
        shown(&key),
        delegation.patterns.join(", ")
    ))
}

fn root(dir: &Path) -> Result<Vec<u8>> {
    let file = dir.join("root.json");
    fs::read(&file)
        .with_context(|| format!("reading {}; `builder keys init` makes it", file.display()))
}

fn show(keys: &[(String, String)], json: bool) -> Result<()> {
    if json {
        let keys: Vec<Key> = keys
            .iter()
            .map(|(role, public)| Key {
                role: role.clone(),
                public: public.clone(),
            })
            .collect();
        return print::json(&keys);
    }
    let lines: String = keys
        .iter()
        .map(|(role, public)| format!("{role:10} {public}\n"))
        .collect();
    print::text(&lines)
}
