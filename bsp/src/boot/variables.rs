//! The boot state as named variables: what every boot environment holds, whatever its format.
//!
//! | variable | content |
//! |---|---|
//! | `treeline` | `1`: these variables are ours, in this form |
//! | `good` | identity of the last confirmed deployment |
//! | `trial` | identity on trial; absent or empty without one |
//! | `tries` | one digit; absent in a spare record |

use std::collections::BTreeMap;

use super::state::{is_valid_id, BootState};

/// Names and values.
pub type Variables = BTreeMap<String, String>;

/// Marks our variables.
pub const MARK: &str = "treeline";
/// Value of [`MARK`]; another one is somebody else's state.
pub const FORMAT: &str = "1";
/// Identity of the last confirmed deployment.
pub const GOOD: &str = "good";
/// Identity on trial.
pub const TRIAL: &str = "trial";
/// Boots it still has.
pub const TRIES: &str = "tries";

/// The boot state; `None` if it is foreign or makes no sense.
pub fn to_state(variables: &Variables) -> Option<BootState> {
    let good = to_good(variables)?;
    let trial = match variables.get(TRIAL).map(String::as_str) {
        None | Some("") => None,
        Some(id) if is_valid_id(id) => Some(id.to_owned()),
        Some(_) => return None,
    };
    let tries = match variables.get(TRIES)?.as_bytes() {
        [digit @ b'0'..=b'9'] => digit - b'0',
        _ => return None,
    };
    Some(BootState { good, trial, tries })
}

/// The confirmed identity; `None` if the variables are foreign or it makes no sense.
pub fn to_good(variables: &Variables) -> Option<String> {
    let ours = variables.get(MARK).is_some_and(|mark| mark == FORMAT);
    let good = variables.get(GOOD).filter(|id| ours && is_valid_id(id))?;
    Some(good.clone())
}
