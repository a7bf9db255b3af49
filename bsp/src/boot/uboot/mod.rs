//! The U-Boot backend: the boot state in a redundant environment, the rule in a boot script.
//!
//! Works with U-Boot binaries as distributions ship them, which neither count boots nor know this
//! environment: the script reads and writes it as raw blocks. It stands outside every partition, in two
//! copies, and can be read and changed from Linux with `fw_printenv` and `fw_setenv`.

pub mod env;
#[cfg(feature = "host")]
pub mod fit;
#[cfg(feature = "host")]
mod image;
#[cfg(feature = "host")]
pub mod script;
pub mod store;

use crate::board::Environment;
#[cfg(feature = "host")]
use crate::board::ScriptImage;

use super::state::BootState;
use super::variables::Variables;
use env::EnvError;

#[cfg(feature = "host")]
pub use script::{boot_script, DeviceTree, ScriptPlaces, VIRTUAL_BOARD};
pub use store::UbootStore;

/// Bytes from `load-addresses.fit` on that what is signed takes while it is judged.
pub const FIT_ROOM: u64 = 0x1_4000;

/// The script `text` as U-Boot loads it, made at `time` (seconds since 1970; U-Boot shows it and no more).
///
/// # Errors
/// If a flattened image tree cannot be written, which no text brings about.
#[cfg(feature = "host")]
pub fn image(format: ScriptImage, text: &str, time: u32) -> Result<Vec<u8>, vm_fdt::Error> {
    match format {
        ScriptImage::Legacy => Ok(image::image(text, time)),
        ScriptImage::Fit => fit::image(text, time),
    }
}

/// What the disk holds at the factory: both copies, as (bytes from the start of the disk, content).
pub fn environment_area(
    environment: &Environment,
    first: &BootState,
) -> Result<Vec<(u64, Vec<u8>)>, EnvError> {
    let mut variables = Variables::new();
    env::set_state(&mut variables, first)?;
    // The second copy is the older one, and the spare record.
    [(environment.offset, 1), (environment.redundant_offset, 0)]
        .into_iter()
        .map(|(offset, flag)| {
            let copy = env::render_copy(flag, &variables, environment.size.0)?;
            Ok((offset.0, copy))
        })
        .collect()
}

/// The configuration of `fw_printenv` and `fw_setenv` (`/etc/fw_env.config`) for an environment on
/// `device`, the whole disk.
pub fn fw_env_config(device: &str, environment: &Environment) -> String {
    let mut text = String::from(
        "# The boot state of Treeline, for fw_printenv and fw_setenv. Device, offset, size.\n",
    );
    for offset in [environment.offset, environment.redundant_offset] {
        let size = environment.size.0;
        text.push_str(&format!("{device} {:#x} {size:#x}\n", offset.0));
    }
    text
}
