//! Sizes and offsets as people write them.

use serde::{Deserialize, Serialize};

/// A size in bytes, written as a number with a binary unit: `"64MiB"`, `"1GiB"`, `"512KiB"`, `"4096"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    /// One MiB.
    pub const MIB: u64 = 1024 * 1024;
}

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let factor = match &text[digits.len()..] {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1u64 << 40,
            unit => {
                return Err(format!(
                    "size \"{text}\": unknown unit \"{unit}\"; try KiB, MiB or GiB"
                ))
            }
        };
        let number: u64 = digits
            .trim()
            .parse()
            .map_err(|_| format!("size \"{text}\" is not a number with a unit; try \"512MiB\""))?;
        number
            .checked_mul(factor)
            .map(Size)
            .ok_or_else(|| format!("size \"{text}\" is larger than any disk"))
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (unit, bytes) in [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
            if self.0 >= bytes && self.0 % bytes == 0 {
                return write!(f, "{}{unit}", self.0 / bytes);
            }
        }
        write!(f, "{}B", self.0)
    }
}

impl Serialize for Size {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "host")]
impl schemars::JsonSchema for Size {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A number of bytes with a binary unit.",
            "pattern": "^[0-9]+(B|KiB|MiB|GiB|TiB)?$",
            "examples": ["512MiB", "2GiB"]
        })
    }
}
