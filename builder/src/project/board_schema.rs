//! The JSON Schema of board files, for editors and for reading them: a file that extends another board leaves
//! out what it takes over.

use bsp::board::Board;
use serde_json::{json, Map, Value};

/// Where definitions stand.
const DEFS: &str = "#/$defs/";
/// Ending of a definition of which nothing is required.
const PART: &str = "Part";

/// Of every board file.
pub fn any() -> Value {
    let mut whole = whole();
    let mut part = extending();
    let mut defs = take(&mut whole, "$defs");
    defs.extend(take(&mut part, "$defs"));
    for schema in [&mut whole, &mut part] {
        take(schema, "$schema");
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Board",
        "if": { "required": ["extends"] },
        "then": part,
        "else": whole,
        "$defs": defs,
    })
}

/// Of a file that extends nothing.
pub fn whole() -> Value {
    schemars::schema_for!(Board).to_value()
}

/// Of a file with `extends`: nothing is required in tables, which merge; all of it is in what takes the
/// other's place.
pub fn extending() -> Value {
    let mut schema = whole();
    let defs = take(&mut schema, "$defs");
    let mut parts = Map::new();
    let mut root = Value::Object(part(&schema, &defs, &mut parts));
    let mut all = defs;
    all.extend(parts);
    root["required"] = json!(["id", "description", "extends"]);
    root["properties"]["extends"] = json!({
        "type": "string",
        "description": "The board that this one takes everything over from that it does not say itself."
    });
    root["properties"]["remove"] = json!({
        "type": "array",
        "items": { "type": "string" },
        "description": "Keys of the other board that this one does not have, with dots for those in tables.",
        "examples": [["qemu", "boot.load-addresses"]]
    });
    root["$defs"] = Value::Object(all);
    root
}

fn take(schema: &mut Value, key: &str) -> Map<String, Value> {
    match schema.as_object_mut().and_then(|object| object.remove(key)) {
        Some(Value::Object(object)) => object,
        _ => Map::new(),
    }
}

/// A table's schema without what it requires; the tables in it are treated alike, in `parts`.
fn part(
    schema: &Value,
    defs: &Map<String, Value>,
    parts: &mut Map<String, Value>,
) -> Map<String, Value> {
    let mut table = schema.as_object().cloned().unwrap_or_default();
    table.remove("required");
    if let Some(Value::Object(properties)) = table.get_mut("properties") {
        for property in properties.values_mut() {
            loosen(property, defs, parts);
        }
    }
    table
}

/// Lets references to tables mean their parts, but for those in lists.
fn loosen(property: &mut Value, defs: &Map<String, Value>, parts: &mut Map<String, Value>) {
    if let Some(Value::Array(any)) = property.get_mut("anyOf") {
        any.iter_mut().for_each(|one| loosen(one, defs, parts));
    }
    let name = property.get("$ref").and_then(Value::as_str);
    let Some(name) = name
        .and_then(|name| name.strip_prefix(DEFS))
        .map(str::to_string)
    else {
        return;
    };
    let Some(target) = defs
        .get(&name)
        .filter(|def| def.get("properties").is_some())
    else {
        return;
    };
    let new = format!("{name}{PART}");
    property["$ref"] = json!(format!("{DEFS}{new}"));
    if !parts.contains_key(&new) {
        let made = part(target, defs, parts);
        parts.insert(new, Value::Object(made));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::read;

    fn findings(schema: &Value, text: &str) -> String {
        match read::structure("b.toml", text, schema) {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_part_of_a_table_will_do_and_nothing_unknown() {
        let good = "id = \"m\"\ndescription = \"d\"\nextends = \"rpi4\"\n[boot.environment]\nsize = \"32KiB\"\n[qemu]\nnetwork = false\n[device-trees]\ndetect = false\n";
        assert_eq!(findings(&extending(), good), "");
        for (bad, want) in [
            (
                "[boot.environment]\nsise = \"32KiB\"\n",
                "did you mean `size`?",
            ),
            ("[boot.environment]\nsize = 3\n", "must be a string"),
            (
                "[[disk.raw]]\nname = \"spl\"\n",
                "`offset` is missing in `disk.raw[0]`",
            ),
            ("[boot]\nbackend = \"uboat\"\n", "did you mean \"uboot\"?"),
        ] {
            let text = format!("id = \"m\"\ndescription = \"d\"\nextends = \"rpi4\"\n{bad}");
            let said = findings(&extending(), &text);
            assert!(said.contains(want), "{bad}: {said}");
        }
        let said = findings(&extending(), "id = \"m\"\nextends = \"rpi4\"\n");
        assert!(said.contains("`description` is missing"), "{said}");
    }

    /// Every reference of the schema for editors leads somewhere.
    #[test]
    fn no_reference_dangles() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(object) => {
                    let own = object.get("$ref").and_then(Value::as_str);
                    found.extend(own.map(str::to_string));
                    object.values().for_each(|value| references(value, found));
                }
                Value::Array(array) => array.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let schema = any();
        let mut found = Vec::new();
        references(&schema, &mut found);
        assert!(
            found.iter().any(|name| name.ends_with("EnvironmentPart")),
            "{found:?}"
        );
        for name in found {
            let key = name.strip_prefix(DEFS).unwrap();
            assert!(schema["$defs"].get(key).is_some(), "{name}");
        }
    }
}
