//! The part of the script that loads an entry and starts it.

use super::menu::{suffix, ARGUMENTS, PATHS};
use super::sealed;
use super::{DeviceTree, ScriptPlaces, ENTRY_LIMIT, MESSAGE_SECONDS};
use crate::board::RegisterWrite;

/// Variable of U-Boot that no real board sets: address of an overlay, hexadecimal.
pub const VIRTUAL_BOARD: &str = "treeline_virtual_board";
/// Room for what overlays add to a device tree, in bytes.
const OVERLAY_ROOM: u32 = 0x1_0000;

/// Boots the chosen entry; if that fails, restarts (a counted boot) or tries the others first.
pub(super) fn boot(places: &ScriptPlaces) -> String {
    let numbers: Vec<String> = (1..=ENTRY_LIMIT).map(|entry| entry.to_string()).collect();
    let numbers = numbers.join(" ");
    let partition = format!("{:x}", places.root_partition_number);
    format!(
        "\
# Loads and starts an entry. One that was counted has this one chance; otherwise the others follow.
tl_tried=0
for tl_entry in ${{tl_choice}} {numbers}; do
  tl_now=1
  if test ${{tl_tried}} = 1; then
    if test ${{tl_counted}} = 1; then tl_now=0; fi
    if test ${{tl_entry}} = ${{tl_choice}}; then tl_now=0; fi
  fi
  tl_tried=1
  setenv tl_kernel_image
{pick}\
{words}\
  if test -z \"${{tl_kernel_image}}\"; then tl_now=0; fi
  if test ${{tl_now}} = 1; then
    echo \"Treeline: booting entry ${{tl_entry}} (${{tl_kernel_image}})\"
    tl_ok=1
{tree}\
    tl_rd=-
    if test -n \"${{tl_ramdisk_image}}\"; then
      if {load_ramdisk}; then
        tl_rd=${{tl_ramdisk}}:${{filesize}}
      else
        tl_ok=0
      fi
    fi
    if test ${{tl_ok}} = 1; then
      if {load_kernel}; then
{start}\
      fi
    fi
    echo \"Treeline: entry ${{tl_entry}} could not be started\"
  fi
done
echo \"Treeline: no deployment could be started; restarting in {MESSAGE_SECONDS} seconds\"
sleep {MESSAGE_SECONDS}
reset
",
        words = places.fit.map_or(String::new(), |_| sealed::words()),
        pick = pick(&partition),
        tree = device_tree(&places.device_tree, &partition),
        load_ramdisk = load(&partition, "tl_ramdisk", "${tl_ramdisk_image}"),
        load_kernel = load(&partition, "tl_kernel", "${tl_kernel_image}"),
        start = start(places, &partition),
    )
}

/// Starts what has been loaded.
fn start(places: &ScriptPlaces, partition: &str) -> String {
    let watchdog = watchdog(&places.watchdog);
    if let Some(fit) = places.fit {
        return sealed::start(fit, &places.device_tree, partition, &watchdog);
    }
    let command = if places.arch == "arm64" {
        "booti"
    } else {
        "bootz"
    };
    format!("{watchdog}        {command} ${{tl_kernel}} ${{tl_rd}} ${{tl_dt}}\n")
}

/// Loads a file of the root partition.
fn load(partition: &str, address: &str, path: &str) -> String {
    load_to(partition, &format!("${{{address}}}"), path)
}

/// The same, to an address in numbers.
pub(super) fn load_to(partition: &str, address: &str, path: &str) -> String {
    format!("load ${{tl_type}} ${{tl_number}}:{partition} {address} {path}")
}

/// Starts the hardware watchdog for a deployment on trial; that of a virtual board may be another.
fn watchdog(start: &[RegisterWrite]) -> String {
    if start.is_empty() {
        return String::new();
    }
    let writes: String = start
        .iter()
        .map(|write| format!("            mw.l {:x} {:x}\n", write.address, write.value))
        .collect();
    format!(
        "        if test ${{tl_counted}} = 1; then
          if test -z \"${{{VIRTUAL_BOARD}}}\"; then
{writes}          fi
        fi
"
    )
}

/// Copies the parts of entry `tl_entry` to names without a number.
fn pick(partition: &str) -> String {
    let mut text = String::new();
    for entry in 1..=ENTRY_LIMIT {
        let word = if entry == 1 { "if" } else { "elif" };
        let suffix = suffix(entry);
        text.push_str(&format!("  {word} test ${{tl_entry}} = {entry}; then\n"));
        for key in PATHS {
            text.push_str(&format!("    setenv tl_{key} \"${{{key}{suffix}}}\"\n"));
        }
        text.push_str(&arguments(entry, partition));
    }
    text.push_str("  fi\n");
    text
}

/// Sets `bootargs` to those of an entry, without a quote or blank lost: the shell would eat some, so they go
/// through memory as `name=value`, and the number behind the name is cut out there.
fn arguments(entry: usize, partition: &str) -> String {
    if entry == 1 {
        // Those of an entry that was tried before may stand there.
        let load = load(partition, "tl_kernel", "/boot/${tl_menu}/uEnv.txt");
        return format!(
            "    if {load}; then\n      env import -t ${{tl_kernel}} ${{filesize}} {ARGUMENTS}\n    fi\n"
        );
    }
    let name = format!("{ARGUMENTS}{}", suffix(entry));
    let (from, to) = (name.len(), ARGUMENTS.len());
    let size = 0x4000;
    let tail = size - from;
    format!(
        "    env export -t -s {size:x} ${{tl_kernel}} {name}
    base ${{tl_kernel}}
    cp.b {from:x} {size:x} {tail:x}
    cp.b {size:x} {to:x} {tail:x}
    base 0
    env import -t ${{tl_kernel}} {end:x} {ARGUMENTS}
",
        end = to + tail,
    )
}

/// Sets `tl_dt` to the address of the device tree, or clears `tl_ok`.
fn device_tree(rule: &DeviceTree, partition: &str) -> String {
    let own = "\
      if fdt addr ${fdt_addr}; then
        tl_dt=${fdt_addr}
      else
        tl_dt=${fdtcontroladdr}
      fi
";
    let (name, overlays, detect) = match rule {
        DeviceTree::Loader => return own.into(),
        DeviceTree::Deployment { name, overlays } => (
            name.as_deref().unwrap_or("${fdtfile}"),
            overlays,
            String::new(),
        ),
        DeviceTree::Detected { files, overlays } => ("${tl_dt_file}", overlays, detect(files)),
    };
    let load_tree = load(partition, "tl_tree", "${tl_dt_path}");
    let overlays = apply(overlays, partition, &load_tree);
    let virtual_board = virtual_board();
    format!(
        "\
{detect}\
    setenv tl_dt_path
    if test -n \"${{tl_fdt_file}}\"; then
      setenv tl_dt_path \"${{tl_fdt_file}}\"
    elif test -n \"${{tl_fdtdir}}\"; then
      setenv tl_dt_path \"${{tl_fdtdir}}/{name}\"
    fi
    if test -n \"${{tl_dt_path}}\"; then
      if {load_tree}; then
        tl_dt=${{tl_tree}}
{overlays}\
{virtual_board}\
      else
        tl_ok=0
      fi
    else
{own}\
    fi
"
    )
}

/// Where U-Boot was started by QEMU, which lacks some of the board, an overlay that says so stands in memory and
/// [`VIRTUAL_BOARD`] holds its address.
fn virtual_board() -> String {
    format!(
        "\
        if test -n \"${{{VIRTUAL_BOARD}}}\"; then
          fdt addr ${{tl_tree}}
          fdt resize {OVERLAY_ROOM:x}
          if fdt apply ${{{VIRTUAL_BOARD}}}; then
            echo \"Treeline: this is a virtual board\"
          else
            tl_ok=0
          fi
        fi
"
    )
}

/// Sets `tl_dt_file` to the device tree of the model that U-Boot has recognised.
fn detect(files: &[String]) -> String {
    let first = files.first().map_or("", String::as_str);
    format!(
        "\
    setenv tl_dt_file {first}
    for tl_file in {}; do
      if test \"${{fdtfile}}\" = \"${{tl_file}}\"; then
        setenv tl_dt_file \"${{tl_file}}\"
      fi
    done
",
        files.join(" ")
    )
}

/// Applies the overlays. One that fails leaves the tree damaged: on trial that is the end of the attempt,
/// otherwise the tree is loaded once more and goes without.
fn apply(overlays: &[String], partition: &str, load_tree: &str) -> String {
    if overlays.is_empty() {
        return String::new();
    }
    let load_overlay = load(partition, "tl_ramdisk", "${tl_fdtdir}/${tl_overlay}");
    format!(
        "\
        fdt addr ${{tl_tree}}
        fdt resize {OVERLAY_ROOM:x}
        tl_overlaid=1
        for tl_overlay in {list}; do
          if test ${{tl_overlaid}} = 1; then
            tl_overlaid=0
            if {load_overlay}; then
              if fdt apply ${{tl_ramdisk}}; then
                tl_overlaid=1
              fi
            fi
          fi
        done
        if test ${{tl_overlaid}} = 0; then
          echo \"Treeline: an overlay could not be applied\"
          if test ${{tl_counted}} = 1; then
            tl_ok=0
          elif {load_tree}; then
            fdt addr ${{tl_tree}}
          else
            tl_ok=0
          fi
        fi
",
        list = overlays.join(" "),
    )
}
