//! The boot script: [`crate::boot::state::decide`] for U-Boot's shell.
//!
//! U-Boot's distro boot finds the script on the firmware partition and gives it `devtype`, `devnum` (the
//! disk it came from). Rules for it, so that it runs in U-Boot as distributions build it:
//! - no `setexpr` (missing on some boards; only a U-Boot that checks signatures must have it): numbers are counted by chains and loops, places within a buffer
//!   are named through `base`;
//! - no bootcount, no environment of U-Boot's own: the copies are read and written as raw blocks;
//! - names that only the script uses are shell variables (`tl_…`); they survive that the environment is
//!   exchanged while a copy is rewritten;
//! - a name that is assigned nothing at the end of a line keeps its value: there are no empty values, 0 is no;
//! - `break` does not exist; a loop that is over goes on with its body skipped.
//!
//! The decision table, in the script's own words (`tl_known` is `good` of the state, or the spare record if
//! there is no state):
//!
//! | first entry | state | `tries` | booted | written |
//! |---|---|---|---|---|
//! | is `good` | sound | any | first | nothing |
//! | is `trial` | sound | 1–9 | first | `tries` − 1; if that fails, as with 0 |
//! | is `trial` | sound | 0 | entry that is `tl_known`, else second, else first | nothing |
//! | is neither | sound | any | the same | nothing |
//! | any | none | – | the same | nothing |
//!
//! A state is sound if its copy's checksum is right, `treeline` is 1, `good` is not empty and `tries` is one
//! digit. What identities are made of cannot be checked in this shell; an odd one equals no entry's.

mod boot;
mod menu;
mod sealed;
mod state;

pub use boot::VIRTUAL_BOARD;

use crate::board::{Environment, LoadAddresses, RegisterWrite};

/// Most entries that the script looks at.
pub const ENTRY_LIMIT: usize = 8;

/// Seconds that a message stands before the device restarts.
const MESSAGE_SECONDS: u32 = 5;

/// What the boot script must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptPlaces {
    /// Number of the root partition in the partition table, from 1.
    pub root_partition_number: u32,
    /// Where the boot state stands, on the disk that the script comes from.
    pub environment: Environment,
    /// Debian architecture: `arm64` kernels are started by `booti`, others by `bootz`.
    pub arch: String,
    /// Which device tree the kernel gets.
    pub device_tree: DeviceTree,
    /// Where things are loaded; `None`: where U-Boot's own `kernel_addr_r`, `ramdisk_addr_r` and
    /// `fdt_addr_r` say.
    pub addresses: Option<LoadAddresses>,
    /// What starts the hardware watchdog, before a kernel on trial. A confirmed deployment starts without: were
    /// the time too short for a board, its updates would fail, but it would not.
    pub watchdog: Vec<RegisterWrite>,
    /// Where the signed tree of a deployment is loaded; `None`: what starts is not signed.
    pub fit: Option<u64>,
}

/// Which device tree the kernel gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceTree {
    /// The one that U-Boot has itself, or was given by what started it.
    Loader,
    /// The deployment's, from its directory of device trees; one that has none boots with U-Boot's.
    Deployment {
        /// Path in that directory; `None`: what U-Boot calls `fdtfile`.
        name: Option<String>,
        /// Overlays to apply, in order: paths in that directory. If one fails, a deployment on trial has
        /// failed; a confirmed one boots without any.
        overlays: Vec<String>,
    },
    /// One of several of the deployment's, by the model that U-Boot has recognised.
    Detected {
        /// Paths in that directory: the one that U-Boot calls `fdtfile` is taken, the first if it calls
        /// none of them so.
        files: Vec<String>,
        /// As above.
        overlays: Vec<String>,
    },
}

/// The boot script (text; [`super::image()`] makes of it what U-Boot loads).
///
/// Whatever it meets, the device boots something or restarts: it never stops at U-Boot's prompt. What cannot
/// be loaded during a trial restarts the device, so that the boot counts; otherwise every other entry is tried
/// before that.
pub fn boot_script(places: &ScriptPlaces) -> String {
    [
        head(places),
        state::read(&places.environment),
        menu::read(places.root_partition_number),
        menu::identify(),
        state::choose(&places.environment),
        boot::boot(places),
    ]
    .join("\n")
}

fn head(places: &ScriptPlaces) -> String {
    let [kernel, ramdisk, device_tree] = match places.addresses {
        Some(at) => [at.kernel, at.ramdisk, at.device_tree].map(|a| format!("{a:#x}")),
        None => {
            ["kernel_addr_r", "ramdisk_addr_r", "fdt_addr_r"].map(|name| format!("${{{name}}}"))
        }
    };
    format!(
        "\
# Chooses the deployment to boot and counts the boots of one on trial. Never changes.
tl_kernel={kernel}
tl_ramdisk={ramdisk}
tl_tree={device_tree}
tl_type=${{devtype}}
tl_number=${{devnum}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::Size;
    use crate::boot::state::MAX_TRIES;
    use crate::boot::uboot::fit;

    fn places() -> ScriptPlaces {
        ScriptPlaces {
            root_partition_number: 11,
            environment: Environment {
                offset: Size(0x40_0000),
                redundant_offset: Size(0x48_0000),
                size: Size(0x4000),
            },
            arch: "arm64".into(),
            device_tree: DeviceTree::Loader,
            addresses: None,
            watchdog: Vec::new(),
            fit: None,
        }
    }

    fn scripts() -> Vec<String> {
        let overlays = |names: &[&str]| DeviceTree::Deployment {
            name: Some("x.dtb".into()),
            overlays: names.iter().map(|name| (*name).into()).collect(),
        };
        let places = places();
        [
            DeviceTree::Loader,
            overlays(&[]),
            overlays(&["a.dtbo", "b.dtbo"]),
            DeviceTree::Detected {
                files: vec!["v/a.dtb".into(), "v/b.dtb".into()],
                overlays: vec!["a.dtbo".into()],
            },
        ]
        .into_iter()
        .map(|device_tree| ScriptPlaces {
            device_tree,
            ..places.clone()
        })
        .flat_map(|places| {
            [None, Some(0x4020_0000)].map(|fit| ScriptPlaces {
                fit,
                ..places.clone()
            })
        })
        .map(|places| boot_script(&places))
        .collect()
    }

    /// What the script does is proven by a real U-Boot in `tests/tests/uboot_script.rs`; here is what no boot
    /// would show.
    #[test]
    fn the_shell_meets_nothing_that_it_does_not_know() {
        for text in scripts() {
            // U-Boot's own limit for a script that it looks for.
            assert!(text.len() < 0x1_0000, "{}", text.len());
            for line in text.lines().map(str::trim) {
                assert!(!line.ends_with('='), "an empty value: {line}");
                // A U-Boot that checks signatures is built for the purpose.
                let sealed = text.contains(fit::sealed::FIT_PATH);
                for word in ["break", "setexpr", "while", "local"] {
                    let known = sealed && word == "setexpr";
                    assert!(
                        known || !line.split_whitespace().any(|w| w == word),
                        "{line}"
                    );
                }
            }
            let count = |word: &str| {
                let words = text.lines().flat_map(|line| line.split([' ', ';']));
                words.filter(|w| *w == word).count()
            };
            assert_eq!(count("if"), count("fi"), "{text}");
            assert_eq!(count("for"), count("done"), "{text}");
            assert!(text.ends_with("reset\n"), "{text}");
        }
    }

    #[test]
    fn the_watchdog_starts_last_and_only_for_a_trial() {
        let mut places = places();
        assert!(!boot_script(&places).contains("mw.l"));
        places.watchdog = vec![RegisterWrite {
            address: 0x1c2_0cb4,
            value: 0xb1,
        }];
        let text = boot_script(&places);
        let start = "\
        if test ${tl_counted} = 1; then
          if test -z \"${treeline_virtual_board}\"; then
            mw.l 1c20cb4 b1
          fi
        fi
        booti ";
        assert!(text.contains(start), "{text}");
    }

    #[test]
    fn numbers_are_hexadecimal() {
        let text = &scripts()[0];
        for part in ["${tl_number}:b ", " 2000 20;", " 2400 20;", "-s 3fff "] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn every_number_of_boots_has_its_branch() {
        for tries in 1..=MAX_TRIES {
            let branch = format!("= x{tries}; then tl_left={}\n", tries - 1);
            assert!(scripts()[0].contains(&branch), "{branch}");
        }
    }
}
