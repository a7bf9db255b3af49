//! The part of the script that starts only what is signed.
//!
//! Of an entry, which is written on the device, only two words are taken: who it is, and where its deployment stands. Its
//! other arguments come from the signed tree there. U-Boot must have `setexpr` with regular expressions, without
//! which nothing starts.

use super::boot::load_to;
use super::DeviceTree;
use crate::boot::uboot::fit::sealed::{
    arguments_address, ARGUMENTS, CONFIGURATION, FIT_PATH, OWN_ARGUMENTS, VARIABLE,
};
use crate::boot::NOT_LOADED;
use crate::device::ID_KARG;

/// What the two words may be made of. U-Boot's expressions know no ranges.
const LETTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._/=-";
/// The kernel argument that says which deployment is booted.
const OSTREE_KARG: &str = "ostree";

/// Sets `tl_id` and `tl_place` of an entry. The kernel splits its arguments at more kinds of blanks than this shell, so
/// each of the two must be made of letters that are none.
pub(super) fn words() -> String {
    let take = |name: &str, karg: &str, begin: &str| {
        let expression = karg.replace('.', "[.]");
        format!(
            "    \
    setenv tl_rest
    setexpr tl_rest sub \"^{expression}=({begin}[{LETTERS}]+)$\" \"\\\\1\" \"${{tl_word}}\"
    if test -n \"${{tl_rest}}\"; then
      if test \"x{karg}=${{tl_rest}}\" = \"x${{tl_word}}\"; then
        setenv {name} \"${{tl_rest}}\"
      fi
    fi
"
        )
    };
    format!(
        "  \
  setenv tl_id
  setenv tl_place
  for tl_word in ${{bootargs}}; do
{}{}  done
  if test -z \"${{tl_place}}\"; then setenv tl_kernel_image; fi
  if test -z \"${{tl_id}}\"; then setenv tl_kernel_image; fi
",
        take("tl_id", ID_KARG, ""),
        take("tl_place", OSTREE_KARG, "/ostree/boot"),
    )
}

/// Loads the signed tree, has everything judged, adds the two words to the signed arguments, and starts.
pub(super) fn start(fit: u64, tree: &DeviceTree, partition: &str, watchdog: &str) -> String {
    let configuration = format!("{fit:x}#{CONFIGURATION}");
    let device_tree = match tree {
        // Not `fdt_addr`: on some machines U-Boot moves the kernel onto that.
        DeviceTree::Loader => "${fdtcontroladdr}",
        DeviceTree::Deployment { .. } | DeviceTree::Detected { .. } => &configuration,
    };
    let at = arguments_address(fit);
    let scratch = at + ARGUMENTS as u64;
    let name = "tl_own=";
    format!(
        "        \
        tl_judged=0
        if {load}; then
          if bootm start {configuration} {configuration} {device_tree}; then
            tl_judged=1
          fi
        fi
        if test ${{tl_judged}} = 0; then
          echo \"{NOT_LOADED} ${{tl_id}}\"
        else
          setenv tl_own \"{OSTREE_KARG}=${{tl_place}} {ID_KARG}=${{tl_id}}{blanks}\"
          env export -t -s {ARGUMENTS:x} {scratch:x} tl_own
          cp.b {from:x} {to:x} {OWN_ARGUMENTS:x}
          setenv bootargs
          if env import -t {at:x} {ARGUMENTS:x} bootargs; then
{watchdog}\
            bootm loados; bootm ramdisk; bootm fdt; bootm prep; bootm go
          fi
        fi
",
        load = load_to(
            partition,
            &format!("{fit:x}"),
            &format!("${{tl_place}}/{FIT_PATH}")
        ),
        blanks = " ".repeat(OWN_ARGUMENTS),
        from = scratch + name.len() as u64,
        to = at + VARIABLE.len() as u64,
    )
}
