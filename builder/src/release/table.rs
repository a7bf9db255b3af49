//! Releases as tables for people.

use std::fmt;

use super::{delta, CompactFile, Published};

impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} {} for {} in {}{}",
            self.product,
            self.version,
            self.board,
            self.channel,
            if self.repeated { " (again)" } else { "" }
        )?;
        writeln!(
            f,
            "commit {}, {} installed",
            self.commit,
            size(self.installed_bytes)
        )?;
        writeln!(
            f,
            "  {:<24} {:>10} {:>8} {:>10} {:>10} {:>10} {:>7}",
            "from", "size", "of full", "compact", "its memory", "its disk", "time"
        )?;
        for file in &self.files {
            let from = match (&file.from_version, &file.from) {
                (Some(version), Some(commit)) => format!("{version} ({})", delta::short(commit)),
                _ => "nothing".to_string(),
            };
            writeln!(
                f,
                "  {from:<24} {:>10} {:>6.1} %{}{}{}",
                size(file.bytes),
                file.ratio * 100.0,
                file.compact
                    .as_ref()
                    .map_or_else(String::new, ToString::to_string),
                if file.offered {
                    ""
                } else {
                    "  not offered: not smaller"
                },
                if file.cached { "  cached" } else { "" },
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for CompactFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            " {:>10} {:>10} {:>10} {:>7}",
            size(self.bytes),
            size(self.memory_bytes),
            size(self.scratch_bytes),
            self.time
        )
    }
}

/// Bytes for people: three digits and a unit of 1000.
pub(super) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 999.5 || unit == "GB" {
            let digits = match unit {
                "B" => 0,
                _ if value < 9.995 => 2,
                _ if value < 99.95 => 1,
                _ => 0,
            };
            return format!("{value:.digits$} {unit}");
        }
        value /= 1000.0;
    }
    format!("{bytes} B")
}
