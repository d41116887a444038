//! A record of which only some fields are given, over one that is quiet. Fields are named as in the WIT, with underscores.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::policy::tools::explain;

/// The model keeps the readings of a GPU together; the WIT has no such record.
const GROUP: &str = "gpu";

/// The one field that has another name there.
const RENAMED: (&str, &str) = ("utilization_percent", "gpu_utilization_percent");

/// An object with these members and no others.
pub(super) fn object<'a>(value: &'a Value, names: &[&str]) -> Result<&'a Map<String, Value>, String> {
    let Value::Object(object) = value else { return Err("an object is expected".to_owned()) };
    match object.keys().find(|key| !names.contains(&key.as_str())) {
        Some(key) => Err(format!("unknown `{key}`, expected {}", names.join(", "))),
        None => Ok(object),
    }
}

/// A list of records, each over the quiet one of its row.
pub(super) fn overlays<T: Serialize + DeserializeOwned>(
    quiet: impl Fn(u32) -> T,
    given: Option<&Value>,
    record: &str,
    path: &str,
) -> Result<Vec<T>, String> {
    let list = match given {
        None => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(format!("{path}: a list is expected")),
    };
    let row =
        |(n, given): (usize, &Value)| overlay(&quiet(n as u32), Some(given), record, &format!("{path}[{n}]"));
    list.iter().enumerate().map(row).collect()
}

/// `record` is its name in the WIT, for messages.
pub(super) fn overlay<T: Serialize + DeserializeOwned>(
    quiet: &T,
    given: Option<&Value>,
    record: &str,
    path: &str,
) -> Result<T, String> {
    let mut fields = flat(serde_json::to_value(quiet).map_err(|error| format!("{path}: {error}"))?);
    let given = match given {
        None => &Map::new(),
        Some(Value::Object(given)) => given,
        Some(_) => return Err(format!("{path}: an object is expected")),
    };
    for (key, value) in given {
        if !fields.contains_key(key) {
            let known: Vec<&str> = fields.keys().map(String::as_str).collect();
            let at = explain::at(record, None);
            return Err(format!("{path}: unknown field `{key}`, expected one of {}{at}", known.join(", ")));
        }
        fields.insert(key.clone(), value.clone());
        // One after the other, because serde does not say which field it was.
        if let Err(error) = whole::<T>(&fields) {
            return Err(format!("{path}.{key}: {error}{}", explain::at(record, Some(key))));
        }
    }
    whole(&fields).map_err(|error| format!("{path}: {error}"))
}

fn flat(value: Value) -> Map<String, Value> {
    let Value::Object(mut fields) = value else { return Map::new() };
    if let Some(Value::Object(group)) = fields.shift_remove(GROUP) {
        for (key, value) in group {
            let key = if key == RENAMED.0 { RENAMED.1.to_owned() } else { key };
            fields.insert(key, value);
        }
    }
    fields
}

fn whole<T: DeserializeOwned>(fields: &Map<String, Value>) -> Result<T, serde_json::Error> {
    let mut grouped = fields.clone();
    // Fields that are not the group's are ignored there.
    let mut group = fields.clone();
    if let Some(value) = group.shift_remove(RENAMED.1) {
        group.insert(RENAMED.0.to_owned(), value);
    }
    grouped.insert(GROUP.to_owned(), Value::Object(group));
    serde_json::from_value(Value::Object(grouped))
}
