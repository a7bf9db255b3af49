//! The part of the script that reads the entries.

use super::ENTRY_LIMIT;
use crate::device::ID_KARG;

/// What libostree's U-Boot backend calls the paths of an entry; from the second entry on with its number
/// behind it.
pub(super) const PATHS: [&str; 4] = ["kernel_image", "ramdisk_image", "fdtdir", "fdt_file"];
/// The kernel arguments, likewise; and where U-Boot takes them from.
pub(super) const ARGUMENTS: &str = "bootargs";

/// All keys of an entry.
fn keys(entry: usize) -> Vec<String> {
    let suffix = suffix(entry);
    let keys = PATHS.iter().chain([&ARGUMENTS]);
    keys.map(|key| format!("{key}{suffix}")).collect()
}

/// The number behind a key.
pub(super) fn suffix(entry: usize) -> String {
    if entry == 1 {
        String::new()
    } else {
        entry.to_string()
    }
}

/// Reads the entries. Right after a power cut, U-Boot may see an older state of the root file system (it
/// does not replay the journal), so the places that the link can lead to are tried as well.
pub(super) fn read(root_partition_number: u32) -> String {
    let mut clear = String::new();
    let mut import = String::new();
    for entry in 1..=ENTRY_LIMIT {
        let keys = keys(entry);
        for key in &keys {
            clear.push_str(&format!("setenv {key}; "));
        }
        clear.push('\n');
        import.push_str(&format!(
            "      env import -t ${{tl_kernel}} ${{filesize}} {}\n",
            keys.join(" ")
        ));
    }
    format!(
        "\
# The entries.
tl_menu=loader
{clear}\
for tl_loader in loader loader.0 loader.1; do
  if test -z \"${{kernel_image}}\"; then
    if load ${{tl_type}} ${{tl_number}}:{root_partition_number:x} ${{tl_kernel}} /boot/${{tl_loader}}/uEnv.txt; then
      tl_menu=${{tl_loader}}
{import}\
    fi
  fi
done
"
    )
}

/// Finds the entries that the state names: `tl_at_known` is the number of the first one that is known to be
/// good, `tl_first_on_trial` is set if the first one is on trial.
pub(super) fn identify() -> String {
    let mut text = String::from("tl_at_known=0\ntl_first_on_trial=0\n");
    for entry in 1..=ENTRY_LIMIT {
        let suffix = suffix(entry);
        let trial = if entry == 1 {
            format!(
                "  \
  if test \"x${{tl_word}}\" = \"x{ID_KARG}=${{tl_trial}}\"; then
    tl_first_on_trial=1
  fi
"
            )
        } else {
            String::new()
        };
        text.push_str(&format!(
            "\
for tl_word in ${{bootargs{suffix}}}; do
  if test \"x${{tl_word}}\" = \"x{ID_KARG}=${{tl_known}}\"; then
    if test ${{tl_at_known}} = 0; then
      tl_at_known={entry}
    fi
  fi
{trial}done
"
        ));
    }
    text
}
