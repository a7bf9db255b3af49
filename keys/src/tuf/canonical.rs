//! Canonical JSON, over which metadata is signed: no white space, members sorted by code points,
//! nothing escaped but `"` and `\`, whole numbers only.

use serde_json::Value;

/// The canonical form; `None` if the value has a number that is not whole, which has none.
pub(crate) fn canonical(value: &Value) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    write(value, &mut out)?;
    Some(out)
}

fn write(value: &Value, out: &mut Vec<u8>) -> Option<()> {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) if number.is_f64() => return None,
        Value::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Value::String(text) => write_text(text, out),
        Value::Array(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write(item, out)?;
            }
            out.push(b']');
        }
        Value::Object(members) => {
            // The order of UTF-8 bytes is that of code points.
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
            out.push(b'{');
            for (i, (name, member)) in members.into_iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_text(name, out);
                out.push(b':');
                write(member, out)?;
            }
            out.push(b'}');
        }
    }
    Some(())
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for &byte in text.as_bytes() {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_that_of_olpc() {
        for (json, expected) in [
            (
                r#"{ "b": 1, "a": [true, null, -5] }"#,
                Some(r#"{"a":[true,null,-5],"b":1}"#),
            ),
            (r#""\n\u00e4\"\\\/""#, Some("\"\n\u{e4}\\\"\\\\/\"")),
            (
                r#"{"\uff5e":1,"\ud83d\ude00":2,"a":3}"#,
                Some("{\"a\":3,\"\u{ff5e}\":1,\"\u{1f600}\":2}"),
            ),
            ("18446744073709551615", Some("18446744073709551615")),
            ("1.5", None),
            ("1e3", None),
            ("[]", Some("[]")),
        ] {
            let value: Value = serde_json::from_str(json).unwrap();
            let found = canonical(&value);
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{json}");
        }
    }
}
