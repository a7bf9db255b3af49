//! The static configuration for petitboot, which reads GRUB's configuration with a parser of its own.
//!
//! What that parser knows was read in its source (`discover/grub2/` of petitboot): variables, `if`, `for`, functions,
//! `[`, `search`, `source`, `load_env`, `save_env`, `echo` and menu entries, and of these not everything:
//!
//! - it runs the script when it discovers the partition, and decides on the default entry while it reads the entry.
//!   So the choice is made by a function that [`super::menu`] calls before its first entry;
//! - `load_env` and `save_env` know only the partition of the configuration, and paths below its directory; the first
//!   takes no names, and says that all is well whatever happened;
//! - `source` says the opposite of how it went;
//! - there is no `regexp`, `unset`, `sleep` or `reboot`. What is not an identity is no entry's, either, so that
//!   comparing is enough; and what cannot be booted leaves petitboot in its menu.
//!
//! GRUB reads the script as well and decides the same: that is how it is tested.

use super::{quote, GrubPlaces, HOOK, HOOK_WANTED, MENU_LIMIT};
use crate::boot::state::MAX_TRIES;
use crate::boot::{GOOD_PATH, STATE_PATH};

/// Path of the configuration: at the top of the partition, so that petitboot takes paths in it from there.
pub const PETITBOOT_CONFIG: &str = "grub.cfg";

/// The static configuration of a board whose firmware is petitboot, for [`PETITBOOT_CONFIG`] on the firmware
/// partition. The root partition must have been discovered before, so it stands before that one on the disk.
pub fn petitboot_config(places: &GrubPlaces) -> String {
    [
        HEAD.to_owned(),
        read_state(),
        choose(),
        read_menu(&places.root_fs_uuid),
    ]
    .join("\n")
}

const HEAD: &str = "\
# Chooses the deployment to boot and counts the boots of one on trial. Read by petitboot. Never changes.
";

/// Sets `good` and `trial`, `state=1` if there is a state, `left` to the boots that the trial has left after this one,
/// and `known` to the identity that is worth returning to.
fn read_state() -> String {
    let mut count = String::new();
    for tries in 1..=MAX_TRIES {
        let left = tries - 1;
        count.push_str(&format!(
            "    elif [ \"$tries\" = {tries} ]; then\n      set state=1\n      set left={left}\n"
        ));
    }
    format!(
        "\
# The spare record, then the state. What is torn or foreign counts as absent.
set treeline=
set good=
set read=
if load_env -f /{GOOD_PATH}; then
  set read=1
fi
set spare=
if [ \"$treeline\" = 1 ]; then
  set spare=\"$good\"
fi
set treeline=
set good=
set trial=
set tries=
if load_env -f /{STATE_PATH}; then
  set read=1
fi
set state=
set left=
if [ \"$treeline\" = 1 ]; then
  if [ -n \"$good\" ]; then
    if [ \"$tries\" = 0 ]; then
      set state=1
{count}    fi
  fi
fi
if [ -n \"$state\" ]; then
  set known=\"$good\"
else
  set known=\"$spare\"
fi
"
    )
}

/// The function that the menu calls when it has told the identities: sets `default` and `root`.
fn choose() -> String {
    let mut chain = String::new();
    for number in 1..=MENU_LIMIT {
        let word = if number == 1 { "if" } else { "elif" };
        let index = number - 1;
        chain.push_str(&format!(
            "      {word} [ \"$early_{number}\" = \"$known\" ]; then\n        set choice={index}\n"
        ));
    }
    format!(
        "\
function {HOOK} {{
  set choice=
  if [ -n \"$state\" ]; then
    if [ \"$early_1\" = \"$good\" ]; then
      set choice=0
    elif [ \"$early_1\" = \"$trial\" ]; then
      if [ -n \"$left\" ]; then
        # A boot that could not be counted is not made: only what reads back counts.
        set tries=\"$left\"
        if save_env -f /{STATE_PATH} tries; then
          set tries=
          if load_env -f /{STATE_PATH}; then
            set read=1
          fi
          if [ \"$tries\" = \"$left\" ]; then
            set choice=0
          fi
        fi
      fi
    fi
  fi
  if [ -z \"$choice\" ]; then
    if [ -n \"$known\" ]; then
{chain}      fi
    fi
  fi
  if [ -z \"$choice\" ]; then
    if [ -n \"$early_2\" ]; then
      set choice=1
    else
      set choice=0
    fi
  fi
  set default=\"$choice\"
  set root=\"$system\"
}}
"
    )
}

fn read_menu(root_fs_uuid: &str) -> String {
    let uuid = quote(root_fs_uuid);
    let mut text =
        String::from("# The menu: it calls the function above, then lists its entries.\n");
    for number in 1..=MENU_LIMIT {
        text.push_str(&format!("set early_{number}=\n"));
    }
    text.push_str(&format!(
        "\
set {HOOK_WANTED}=1
search --no-floppy --fs-uuid --set=system {uuid}
for loader in loader loader.0 loader.1; do
  if [ -z \"$early_1\" ]; then
    if [ -f \"($system)/boot/$loader/grub.cfg\" ]; then
      source \"($system)/boot/$loader/grub.cfg\"
    fi
  fi
done
set timeout_style=hidden
set timeout=0
"
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::script_check;
    use super::*;
    use crate::boot::entry::BootEntry;

    fn script() -> String {
        petitboot_config(&GrubPlaces {
            root_fs_uuid: "060155e5-c228-85e9-ad57-bc21476ce294".into(),
            root_partition_number: 1,
            consoles: Vec::new(),
            sealed: None,
        })
    }

    /// First words of lines and of what follows `if`, `elif`, `then` and a semicolon.
    fn commands(script: &str) -> Vec<&str> {
        let lines = script
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'));
        lines
            .flat_map(|line| line.split("; "))
            .flat_map(|part| {
                let part = part.trim();
                let inner = ["if ", "elif ", "then "]
                    .iter()
                    .find_map(|word| part.strip_prefix(word));
                [Some(part), inner]
            })
            .flatten()
            .filter_map(|part| part.split_whitespace().next())
            .collect()
    }

    /// What the script does is proven by a real GRUB in `tests/tests/grub_script.rs`; petitboot itself is in no
    /// package, so this is what its source says.
    #[test]
    fn petitboot_knows_every_word() {
        const KEYWORDS: &[&str] = &[
            "if",
            "elif",
            "else",
            "fi",
            "then",
            "for",
            "do",
            "done",
            "function",
            "menuentry",
            "}",
        ];
        const COMMANDS: &[&str] = &[
            "set", "[", "search", "source", "load_env", "save_env", "linux", "initrd",
        ];
        let entry = BootEntry {
            title: "It's a shop".into(),
            linux: "/ostree/shop-a/vmlinuz".into(),
            initrd: vec!["/ostree/shop-a/initramfs.img".into()],
            options: "quiet treeline.id=a".into(),
            ..BootEntry::default()
        };
        let menu = super::super::menu(&[entry.clone(), entry]);
        for text in [script(), menu] {
            script_check(&text).unwrap();
            for word in commands(&text) {
                assert!(
                    KEYWORDS.contains(&word) || COMMANDS.contains(&word) || word == HOOK,
                    "{word}"
                );
            }
            // A backslash is a letter to petitboot, and a quote behind it begins a text.
            assert!(!text.contains('\\'), "{text}");
        }
    }

    #[test]
    fn the_words_are_found() {
        assert_eq!(
            commands("# no\nif a b; then c d; fi\n"),
            ["if", "a", "then", "c", "fi"]
        );
    }

    /// The only forms that it takes: `-f`, a path, and names for `save_env` alone.
    #[test]
    fn environment_blocks_are_named_as_petitboot_wants_it() {
        let text = script();
        let uses: Vec<_> = text.lines().filter(|line| line.contains("_env ")).collect();
        assert_eq!(uses.len(), 4);
        for line in uses {
            let line = line.trim();
            assert!(
                line.starts_with("if load_env -f /treeline/") && line.ends_with(".env; then")
                    || line == "if save_env -f /treeline/state.env tries; then",
                "{line}"
            );
        }
    }
}
