//! Holds a document against a JSON Schema: every unknown key, wrong type, missing key and number out
//! of range at once, where serde would stop at the first. Only the part of JSON Schema that schemars
//! writes for our types is understood; serde reads the same text afterwards, so nothing slips through.

use std::ops::Range;

use serde_json::{Map, Value};
use toml::de::{DeTable, DeValue};
use toml::Spanned;

use super::finding::Finding;
use super::nearest;

/// Everything in `document` that `schema` does not allow.
pub fn check(document: &DeTable<'_>, schema: &Value) -> Vec<Finding> {
    let mut walk = Walk {
        root: schema,
        findings: Vec::new(),
    };
    walk.table(document, None, schema, &mut Vec::new());
    walk.findings
}

struct Walk<'s> {
    root: &'s Value,
    findings: Vec<Finding>,
}

impl<'s> Walk<'s> {
    fn table(
        &mut self,
        table: &DeTable<'_>,
        span: Option<Range<usize>>,
        schema: &'s Value,
        path: &mut Vec<String>,
    ) {
        let properties = schema.get("properties").and_then(Value::as_object);
        let additional = schema.get("additionalProperties");
        for (key, value) in table {
            let name: &str = key.get_ref();
            let known = properties.and_then(|p| p.get(name));
            match known.or(additional.filter(|a| a.is_object())) {
                Some(schema) => {
                    path.push(name.to_string());
                    self.value(value, schema, path);
                    path.pop();
                }
                None if additional == Some(&Value::Bool(false)) => {
                    let finding = self.unknown_key(name, key.span(), properties, path);
                    self.findings.push(finding);
                }
                None => {}
            }
        }
        let required = schema.get("required").and_then(Value::as_array);
        for name in required.into_iter().flatten().filter_map(Value::as_str) {
            if !table.keys().any(|key| key.get_ref() == name) {
                let finding = missing_key(name, span.clone(), properties, path);
                self.findings.push(finding);
            }
        }
    }

    fn value(&mut self, value: &Spanned<DeValue<'_>>, schema: &'s Value, path: &mut Vec<String>) {
        let schema = self.resolve(schema);
        let wanted = types(schema);
        let got = json_type(value.get_ref());
        if !wanted.is_empty() && !wanted.contains(&got) {
            let text = format!(
                "`{}` is {}; it must be {}",
                path.join("."),
                with_article(value.get_ref().type_str()),
                with_article(toml_type(wanted[0]))
            );
            let mut finding = Finding::new(Some(value.span()), text);
            if let Some(hint) = type_hint(wanted[0], value.get_ref(), path) {
                finding = finding.hint(hint);
            }
            self.findings.push(finding);
            return;
        }
        match value.get_ref() {
            DeValue::Table(table) => self.table(table, Some(value.span()), schema, path),
            DeValue::Array(array) => {
                let Some(items) = schema.get("items") else {
                    return;
                };
                for (index, item) in array.iter().enumerate() {
                    let last = path.pop().unwrap_or_default();
                    path.push(format!("{last}[{index}]"));
                    self.value(item, items, path);
                    path.pop();
                    path.push(last);
                }
            }
            DeValue::String(text) => self.word(text, value.span(), schema, path),
            DeValue::Integer(number) => {
                let parsed = i64::from_str_radix(number.as_str(), number.radix());
                self.number(parsed.ok(), value.span(), schema, path);
            }
            _ => {}
        }
    }

    /// A string against the words an enumeration knows.
    fn word(&mut self, text: &str, span: Range<usize>, schema: &Value, path: &[String]) {
        let words = words(schema);
        if words.is_empty() || words.contains(&text) {
            return;
        }
        let message = format!("`{}` cannot be \"{text}\"", path.join("."));
        let hint = match nearest(text, words.iter().copied()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("one of: {}", words.join(", ")),
        };
        self.findings
            .push(Finding::new(Some(span), message).hint(hint));
    }

    fn number(&mut self, n: Option<i64>, span: Range<usize>, schema: &Value, path: &[String]) {
        let bound = |name| schema.get(name).and_then(Value::as_i64);
        let low = bound("minimum").unwrap_or(i64::MIN);
        let high = bound("maximum").unwrap_or(i64::MAX);
        if n.is_some_and(|n| (low..=high).contains(&n)) {
            return;
        }
        let range = match (bound("minimum"), bound("maximum")) {
            (Some(low), Some(high)) => format!("from {low} to {high}"),
            (Some(low), None) => format!("{low} or more"),
            _ => "smaller".to_string(),
        };
        let message = format!("`{}` must be {range}", path.join("."));
        self.findings.push(Finding::new(Some(span), message));
    }

    fn unknown_key(
        &self,
        name: &str,
        span: Range<usize>,
        properties: Option<&Map<String, Value>>,
        path: &[String],
    ) -> Finding {
        let known: Vec<&str> = properties
            .into_iter()
            .flat_map(|p| p.keys().map(String::as_str))
            .collect();
        let place = if path.is_empty() {
            String::new()
        } else {
            format!(" in `{}`", path.join("."))
        };
        let finding = Finding::new(Some(span), format!("unknown key `{name}`{place}"));
        let dashed = name.replace('_', "-");
        if let Some(key) = known.iter().find(|key| **key == dashed) {
            return finding.hint(format!("did you mean `{key}`?"));
        }
        if let Some(home) = self.home_of(&dashed, path) {
            return finding.hint(format!("`{dashed}` belongs {home}"));
        }
        match nearest(&dashed, known.iter().copied()) {
            Some(near) => finding.hint(format!("did you mean `{near}`?")),
            None => finding.hint(format!("known keys: {}", known.join(", "))),
        }
    }

    /// The table one step from the root that knows `key`, or the root itself.
    fn home_of(&self, key: &str, path: &[String]) -> Option<String> {
        let sections = self.root.get("properties")?.as_object()?;
        if !path.is_empty() && sections.contains_key(key) {
            return Some("at the top level, before the first [section]".to_string());
        }
        sections.iter().find_map(|(section, schema)| {
            let properties = self.resolve(schema).get("properties")?.as_object()?;
            let elsewhere = path.first().is_none_or(|here| here != section);
            (elsewhere && properties.contains_key(key)).then(|| format!("in [{section}]"))
        })
    }

    /// Follows references and takes the meaning of "this or null".
    fn resolve(&self, mut schema: &'s Value) -> &'s Value {
        // Our schemas nest two deep; the bound keeps a reference cycle from looping.
        for _ in 0..8 {
            if let Some(name) = schema
                .get("$ref")
                .and_then(Value::as_str)
                .and_then(|r| r.strip_prefix("#/$defs/"))
            {
                match self.root.get("$defs").and_then(|defs| defs.get(name)) {
                    Some(target) => schema = target,
                    None => break,
                }
            } else if let Some(one) = schema
                .get("anyOf")
                .and_then(Value::as_array)
                .and_then(|any| any.iter().find(|s| types(s) != ["null"]))
            {
                schema = one;
            } else {
                break;
            }
        }
        schema
    }
}

fn missing_key(
    name: &str,
    span: Option<Range<usize>>,
    properties: Option<&Map<String, Value>>,
    path: &[String],
) -> Finding {
    let message = if path.is_empty() {
        format!("`{name}` is missing")
    } else {
        format!("`{name}` is missing in `{}`", path.join("."))
    };
    let finding = Finding::new(span, message);
    let about = properties
        .and_then(|p| p.get(name))
        .and_then(|schema| schema.get("description"))
        .and_then(Value::as_str);
    match about {
        Some(about) => finding.hint(format!("{name}: {}", about.replace('\n', " "))),
        None => finding,
    }
}

/// The JSON types a schema allows, without `null`; empty: any.
fn types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several
            .iter()
            .filter_map(Value::as_str)
            .filter(|name| *name != "null")
            .collect(),
        _ => Vec::new(),
    }
}

/// The words of an enumeration, in either of the two forms schemars writes.
fn words(schema: &Value) -> Vec<&str> {
    let plain = schema.get("enum").and_then(Value::as_array);
    let described = schema.get("oneOf").and_then(Value::as_array);
    plain
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .chain(
            described
                .into_iter()
                .flatten()
                .filter_map(|one| one.get("const").and_then(Value::as_str)),
        )
        .collect()
}

fn json_type(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "string",
        DeValue::Integer(_) => "integer",
        DeValue::Float(_) => "number",
        DeValue::Boolean(_) => "boolean",
        DeValue::Datetime(_) => "datetime",
        DeValue::Array(_) => "array",
        DeValue::Table(_) => "object",
    }
}

fn toml_type(json: &str) -> &str {
    match json {
        "object" => "table",
        other => other,
    }
}

fn with_article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {noun}")
}

/// How the line would be right, where that can be told.
fn type_hint(wanted: &str, value: &DeValue<'_>, path: &[String]) -> Option<String> {
    let key = path.last()?;
    let shown = match value {
        DeValue::String(text) => format!("\"{text}\""),
        DeValue::Integer(number) => number.as_str().to_string(),
        DeValue::Float(number) => number.as_str().to_string(),
        _ => String::new(),
    };
    match (wanted, value) {
        ("string", DeValue::Integer(_) | DeValue::Float(_)) => {
            let lead = if key.ends_with(']') {
                String::new()
            } else {
                format!("{key} = ")
            };
            Some(format!("put it in quotes: {lead}\"{shown}\""))
        }
        ("array", DeValue::Table(_)) => Some(format!("one section each: [[{}]]", path.join("."))),
        ("array", DeValue::String(_)) => Some(format!("put it in brackets: {key} = [{shown}]")),
        ("object", _) => Some(format!("write it as a section: [{}]", path.join("."))),
        ("boolean", _) => Some(format!("write {key} = true or {key} = false")),
        ("integer", DeValue::String(text)) if text.parse::<i64>().is_ok() => {
            Some(format!("leave the quotes out: {key} = {text}"))
        }
        _ => None,
    }
}
