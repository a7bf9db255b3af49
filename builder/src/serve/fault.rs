//! Faults for tests: the development server can be told to cut, slow down or refuse requests.
//!
//! Only `builder test` and the tests of this repository use it; `builder serve` never sets a fault.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection is cut after so many bytes of the body.
    CutAfter(u64),
    /// The body comes at so many bytes a second.
    Slow(u64),
    /// Nothing but this HTTP status.
    Status(u16),
}

/// How often a fault happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// For the first request that it fits.
    Once,
    /// Until [`Faults::clear`].
    Always,
}

/// The faults of a running server; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<VecDeque<Armed>>>);

#[derive(Debug)]
struct Armed {
    prefix: String,
    fault: Fault,
    times: Times,
}

impl Faults {
    /// Arms a fault for paths that begin with `prefix`, e.g. `/deltas/`. Of several that fit, the
    /// one armed first happens.
    pub fn arm(&self, prefix: &str, fault: Fault, times: Times) {
        self.lock().push_back(Armed {
            prefix: prefix.to_string(),
            fault,
            times,
        });
    }

    /// Disarms all.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// The fault that happens to this request.
    pub(super) fn take(&self, path: &str) -> Option<Fault> {
        let mut armed = self.lock();
        let index = armed.iter().position(|a| path.starts_with(&a.prefix))?;
        let fault = armed[index].fault;
        if armed[index].times == Times::Once {
            armed.remove(index);
        }
        Some(fault)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Armed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_happens_once_and_always_until_cleared() {
        let faults = Faults::default();
        faults.arm("/deltas/", Fault::CutAfter(5), Times::Once);
        faults.arm("/", Fault::Status(503), Times::Always);
        assert_eq!(faults.take("/tuf/x"), Some(Fault::Status(503)));
        assert_eq!(faults.take("/deltas/x"), Some(Fault::CutAfter(5)));
        assert_eq!(faults.take("/deltas/x"), Some(Fault::Status(503)));
        faults.clear();
        assert_eq!(faults.take("/deltas/x"), None);
    }
}
