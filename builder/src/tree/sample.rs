//! Products and boards for the tests of the steps.

use std::path::Path;

use crate::project::{Merged, Project};

/// A product `demo` with `text` in its description (keys of the top level first), on the board
/// x86_64-uefi.
pub fn merged(text: &str) -> Merged {
    let text =
        format!("name = \"demo\"\nversion = \"1.0.0\"\nbase = {{ suite = \"trixie\" }}\n{text}");
    let project = Project {
        dir: Path::new("/nonexistent").into(),
        product: toml::from_str(&text).unwrap(),
    };
    project.merged(&project.board("x86_64-uefi").unwrap())
}
