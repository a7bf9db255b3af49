//! What people have to do when root metadata changes.

use std::path::Path;

use anyhow::Result;
use base64::engine::general_purpose::STANDARD;
use base64::Engine as _;
use keys::author::root::Progress;

use crate::cli::print;
use crate::manifest::shown;
use crate::project::ceremony::{self, Outcome};

const IN_GENERAL: &str = "\
No change of root metadata is under way.

  builder keys rotate KEY          another key for root-1, …, targets, snapshot or timestamp
  builder keys rotate root         a later expiry of root metadata
  builder keys threshold N         another number of root keys that must sign
  builder keys revoke KEY          the same for a key that was lost or stolen
  builder keys revoke root-2 --drop --old PUBLIC

Root keys that are in keys/ sign at once. If too few are, a draft is left in keys/root.draft.json; carry it on a
stick to the machines that have the others, sign it there, and bring it back. No step needs a network.
";

/// Prints the next steps.
pub(super) fn print(dir: &Path) -> Result<()> {
    match ceremony::progress(dir)? {
        None => print::text(IN_GENERAL),
        // Cut off while it was put in force.
        Some(progress) if progress.complete() => outcome(dir, &ceremony::finish(dir)?),
        Some(progress) => print::text(&waiting(dir, &progress)),
    }
}

/// Prints how a change ended.
pub(super) fn outcome(dir: &Path, outcome: &Outcome) -> Result<()> {
    match outcome {
        Outcome::Waiting(progress) => print::text(&waiting(dir, progress)),
        Outcome::Done { version } => print::line(format_args!(
            "Root metadata version {version} is in force. Publish it: `builder release` for what is built next, or \
             `builder keys refresh` if the targets key is the same. Devices that know any earlier version follow."
        )),
    }
}

fn waiting(dir: &Path, progress: &Progress) -> String {
    let draft = shown(&ceremony::draft_path(dir));
    let mut text = format!(
        "Root metadata version {} waits for signatures.\n\n",
        progress.version
    );
    for (whose, keys, threshold) in [
        (
            "the root keys of today",
            &progress.before,
            progress.before_threshold,
        ),
        ("the root keys of then", &progress.keys, progress.threshold),
    ] {
        text += &format!("  {threshold} of {whose} must sign:\n");
        for (key, signed) in keys {
            let mark = if *signed { "signed " } else { "missing" };
            text += &format!("    {mark}  {}\n", STANDARD.encode(key));
        }
    }
    text += &format!(
        "
  1. Copy {draft} to a stick, and carry it to a machine with a root key that is missing.
  2. There, without a network:  builder keys sign /stick/root.draft.json --key root-N.pem
  3. Carry it on to the next key, or bring it back:  builder keys accept /stick/root.draft.json
  4. When enough have signed, `accept` puts it in force; publish with `builder release`.
     To give it up:  builder keys ceremony --discard
"
    );
    text
}
