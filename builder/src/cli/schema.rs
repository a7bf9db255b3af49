//! `builder schema`

use anyhow::Result;

use super::print;
use crate::manifest;

pub(super) fn run() -> Result<()> {
    print::json(&manifest::schema())
}
