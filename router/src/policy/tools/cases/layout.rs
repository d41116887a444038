//! JSON as people write it: whatever fits is on one line.

use serde_json::Value;

const WIDTH: usize = 110;

pub(super) fn text(value: &Value) -> String {
    let mut text = String::new();
    put(&mut text, value, 0, 0);
    text.push('\n');
    text
}

/// `used` is what already stands on the line.
fn put(text: &mut String, value: &Value, indent: usize, used: usize) {
    let flat = flat(value);
    let small = flat.len() + used + indent * 2 < WIDTH;
    match value {
        Value::Array(items) if !small && !items.is_empty() => {
            lines(text, '[', ']', indent, items.iter().map(|item| (None, item)));
        }
        Value::Object(members) if !small && !members.is_empty() => {
            lines(text, '{', '}', indent, members.iter().map(|(key, value)| (Some(key), value)));
        }
        _ => text.push_str(&flat),
    }
}

fn lines<'a>(
    text: &mut String,
    open: char,
    close: char,
    indent: usize,
    items: impl Iterator<Item = (Option<&'a String>, &'a Value)>,
) {
    text.push(open);
    let mut first = true;
    for (key, value) in items {
        text.push_str(if first { "\n" } else { ",\n" });
        first = false;
        text.push_str(&"  ".repeat(indent + 1));
        let key = key.map(|key| format!("{}: ", Value::from(key.as_str()))).unwrap_or_default();
        text.push_str(&key);
        put(text, value, indent + 1, key.len());
    }
    text.push('\n');
    text.push_str(&"  ".repeat(indent));
    text.push(close);
}

fn flat(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(flat).collect::<Vec<_>>().join(", ")),
        Value::Object(members) if members.is_empty() => "{}".to_owned(),
        Value::Object(members) => {
            let members: Vec<String> = members
                .iter()
                .map(|(key, value)| format!("{}: {}", Value::from(key.as_str()), flat(value)))
                .collect();
            format!("{{ {} }}", members.join(", "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_things_stay_on_a_line_and_nothing_changes() {
        let long: Vec<Value> =
            (0..4).map(|n| serde_json::json!({"instance": n, "name": "x".repeat(40)})).collect();
        let value = serde_json::json!({"a": [1, 2], "b": {}, "c": long, "d\"": "e\n"});
        let text = text(&value);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        assert!(
            text.contains("\n  \"a\": [1, 2],\n") && text.contains("\n    { \"instance\": 0, "),
            "{text}"
        );
    }
}
