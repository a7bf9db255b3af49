//! The static configuration: [`crate::boot::state::decide`] as a GRUB script.

use super::{quote, sealed, GrubPlaces, MENU_LIMIT};
use crate::boot::state::MAX_TRIES;
use crate::boot::{GOOD_PATH, STATE_PATH};

/// The same rule as [`crate::boot::state::is_valid_id`]; longer ones cannot match an entry.
pub(super) const ID_PATTERN: &str = "^[A-Za-z0-9][A-Za-z0-9._-]*$";

/// Function of the script: says why, and restarts the device.
pub(super) const RESTART: &str = "treeline_restart";

/// Modules that the script needs, and what leads to it.
pub(super) const MODULES: [&str; 15] = [
    "part_gpt",
    "fat",
    "ext2",
    "normal",
    "configfile",
    "search",
    "search_fs_uuid",
    "regexp",
    "test",
    "echo",
    "sleep",
    "reboot",
    "loadenv",
    "linux",
    "boot",
];

/// Seconds that a message stands on the screen before the device restarts.
const MESSAGE_SECONDS: u32 = 10;

/// The static boot-loader configuration (for the firmware partition, at [`crate::board::Boot::config`]).
///
/// Whatever it meets, the device boots something or restarts: it never waits for a person. A kernel
/// that cannot be loaded during a trial restarts the device, so that the boot counts; otherwise every
/// other entry is tried before that. Escape held down at the right moment shows the menu.
///
/// Sealed, it stands in the image of a GRUB that takes signed files only (see [`super::sealed`]).
pub fn static_config(places: &GrubPlaces) -> String {
    [
        head(places.sealed.is_some()),
        terminals(&places.consoles),
        find_root(places),
        places.sealed.map(sealed::find_firmware).unwrap_or_default(),
        read_state(load_env(places.sealed.is_some())),
        if places.sealed.is_some() {
            sealed::read_menu()
        } else {
            read_menu()
        },
        first_entry(load_env(places.sealed.is_some())),
        other_entry(),
        boot(),
    ]
    .join("\n")
}

/// The firmware partition is where this file is; sealed, it is found later.
fn head(sealed: bool) -> String {
    let firmware = if sealed {
        sealed::HEAD
    } else {
        "set firmware=\"$root\"\n"
    };
    format!(
        "# Chooses the deployment to boot and counts the boots of one on trial. Never changes.\n\
         set pager=0\n{firmware}"
    )
}

/// The command that reads the boot state, which nobody signs.
fn load_env(sealed: bool) -> &'static str {
    if sealed {
        "load_env --skip-sig"
    } else {
        "load_env"
    }
}

/// A machine without a serial port keeps the firmware's console.
fn terminals(consoles: &[String]) -> String {
    if consoles.is_empty() {
        return String::new();
    }
    let names = consoles.join(" ");
    let set = format!("terminal_input {names}\n  terminal_output {names}");
    if consoles.iter().any(|name| name == "serial") {
        format!("if serial --unit=0 --speed=115200; then\n  {set}\nfi\n")
    } else {
        format!("{}\n", set.replace("\n  ", "\n"))
    }
}

fn find_root(places: &GrubPlaces) -> String {
    let number = places.root_partition_number;
    let uuid = quote(&places.root_fs_uuid);
    format!(
        "\
function treeline_restart {{
  echo \"Treeline: $1; restarting in {MESSAGE_SECONDS} seconds\"
  sleep {MESSAGE_SECONDS}
  reboot
}}

# The root partition, first on the disk that this file is on.
set disk=
regexp --set=1:disk '^(.+),[^,]+$' \"$firmware\"
set found=
if search --no-floppy --fs-uuid --set=root --hint=\"$disk,gpt{number}\" {uuid}; then
  set found=1
fi
if [ -z \"$found\" ]; then
  treeline_restart \"the root partition is missing\"
fi
"
    )
}

/// Sets `good`, `trial`, `tries` and `state=1` if there is a state, and `known` to the identity that is
/// worth returning to.
fn read_state(load_env: &str) -> String {
    format!(
        "\
# The spare record, then the state. What is torn or foreign counts as absent.
set spare=
unset treeline
unset good
if {load_env} -f \"($firmware)/{GOOD_PATH}\" treeline good; then
  if [ \"$treeline\" = 1 ]; then
    if regexp '{ID_PATTERN}' \"$good\"; then
      set spare=\"$good\"
    fi
  fi
fi
set state=
unset treeline
unset good
unset trial
unset tries
if {load_env} -f \"($firmware)/{STATE_PATH}\" treeline good trial tries; then
  if [ \"$treeline\" = 1 ]; then
    if regexp '{ID_PATTERN}' \"$good\"; then
      if regexp '^[0-{MAX_TRIES}]$' \"$tries\"; then
        if [ -z \"$trial\" ]; then
          set state=1
        elif regexp '{ID_PATTERN}' \"$trial\"; then
          set state=1
        fi
      fi
    fi
  fi
fi
if [ -n \"$state\" ]; then
  set known=\"$good\"
else
  set known=\"$spare\"
  set good=
  set trial=
  set tries=
fi
"
    )
}

/// Sources the menu. Right after a power cut, GRUB may see an older state of the root file system (it
/// does not replay the journal), so the places that the link can lead to are tried as well.
fn read_menu() -> String {
    let mut text = String::from("# The menu: entries in order, and their identities.\n");
    for number in 1..=MENU_LIMIT {
        text.push_str(&format!("unset treeline_{number}\n"));
    }
    text.push_str(
        "\
for loader in loader loader.0 loader.1; do
  if [ -z \"$treeline_1\" ]; then
    if [ -f \"($root)/boot/$loader/grub.cfg\" ]; then
      source \"($root)/boot/$loader/grub.cfg\"
    fi
  fi
done
if [ -z \"$treeline_1\" ]; then
  treeline_restart \"there is no boot menu on the root partition\"
fi
",
    );
    text
}

/// The first two lines of the rule: the default entry is good, or on trial with boots left.
fn first_entry(load_env: &str) -> String {
    let mut count = String::new();
    for tries in 1..=MAX_TRIES {
        let word = if tries == 1 { "if" } else { "elif" };
        let left = tries - 1;
        count.push_str(&format!(
            "    {word} [ \"$tries\" = {tries} ]; then set left={left}\n"
        ));
    }
    format!(
        "\
set choice=
set counted=
if [ -n \"$state\" ]; then
  if [ \"$treeline_1\" = \"$good\" ]; then
    set choice=0
    set treeline_name=\"$treeline_1\"
  elif [ \"$treeline_1\" = \"$trial\" ]; then
    set left=
{count}    fi
    if [ -n \"$left\" ]; then
      # A boot that could not be counted is not made: only what reads back counts.
      set tries=\"$left\"
      if save_env -f \"($firmware)/{STATE_PATH}\" tries; then
        unset tries
        if {load_env} -f \"($firmware)/{STATE_PATH}\" tries; then
          if [ \"$tries\" = \"$left\" ]; then
            set choice=0
            set counted=1
            set treeline_name=\"$treeline_1 (on trial, boots left: $left)\"
          fi
        fi
      fi
    fi
  fi
fi
"
    )
}

/// The last line of the rule: the good entry, else the second, else the first.
fn other_entry() -> String {
    let mut chain = String::new();
    for number in 1..=MENU_LIMIT {
        let word = if number == 1 { "if" } else { "elif" };
        let index = number - 1;
        chain.push_str(&format!(
            "    {word} [ \"$treeline_{number}\" = \"$known\" ]; then\n      \
             set choice={index}\n      set treeline_name=\"$treeline_{number}\"\n"
        ));
    }
    format!(
        "\
if [ -z \"$choice\" ]; then
  if [ -n \"$known\" ]; then
{chain}    fi
  fi
fi
if [ -z \"$choice\" ]; then
  if [ -n \"$treeline_2\" ]; then
    set choice=1
    set treeline_name=\"$treeline_2\"
  else
    set choice=0
    set treeline_name=\"$treeline_1\"
  fi
fi
"
    )
}

fn boot() -> String {
    let mut text = String::from(
        "\
# What GRUB does when the chosen entry cannot be loaded: restart if that boot was counted, else the
# other entries, then restart. The entry that restarts comes after all others.
set others=0
set restart=1
",
    );
    for number in 2..=MENU_LIMIT {
        let index = number - 1;
        text.push_str(&format!(
            "if [ -n \"$treeline_{number}\" ]; then set others=\"$others {index}\"; set restart={number}; fi\n"
        ));
    }
    text.push_str(
        "\
if [ -n \"$counted\" ]; then
  set fallback=\"$restart\"
else
  set fallback=\"$others $restart\"
fi
menuentry 'Restart' --unrestricted --id 'treeline-restart' {
  treeline_restart \"no deployment could be loaded\"
}
set default=\"$choice\"
set timeout_style=hidden
set timeout=0
echo \"Treeline: booting $treeline_name\"
",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::script_check;
    use super::*;

    fn places(consoles: &[&str]) -> GrubPlaces {
        GrubPlaces {
            root_fs_uuid: "060155e5-c228-85e9-ad57-bc21476ce294".into(),
            root_partition_number: 2,
            consoles: consoles.iter().map(|name| (*name).into()).collect(),
            sealed: None,
        }
    }

    #[test]
    fn a_sealed_script_reads_no_script_that_nobody_signed() {
        let sealed = GrubPlaces {
            sealed: Some(1),
            ..places(&["console", "serial"])
        };
        let text = static_config(&sealed);
        script_check(&text).unwrap();
        for line in text.lines().map(str::trim) {
            let sources = line.starts_with("source") || line.starts_with("configfile");
            assert!(
                !sources || line.contains(sealed::BOOT_SCRIPT_PATH),
                "{line}"
            );
            assert!(!line.contains("load_env -f"), "{line}");
        }
        assert!(!text.contains("set firmware=\"$root\""));
        assert_eq!(text.matches("menuentry").count(), MENU_LIMIT + 1);
    }

    /// What the script does is proven by a real GRUB in `tests/tests/grub_script.rs`.
    #[test]
    fn grub_accepts_the_script() {
        for consoles in [&[][..], &["console"], &["console", "serial"], &["serial"]] {
            let text = static_config(&places(consoles));
            script_check(&text).unwrap();
            assert_eq!(
                text.contains("if serial"),
                consoles.contains(&"serial"),
                "{text}"
            );
        }
    }

    #[test]
    fn every_number_of_boots_has_its_branch() {
        let text = static_config(&places(&[]));
        for tries in 1..=MAX_TRIES {
            let branch = format!("[ \"$tries\" = {tries} ]; then set left={}", tries - 1);
            assert!(text.contains(&branch), "{branch}");
        }
    }
}
