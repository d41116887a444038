//! What was expected against what was said. An expectation may leave out members that do not matter to it.

use serde_json::Value;

/// Where the two differ first, as a path; none when everything expected is there.
pub(super) fn difference(expected: &Value, got: &Value) -> Option<String> {
    at("", expected, got).map(|path| if path.is_empty() { "the whole".to_owned() } else { path })
}

fn at(path: &str, expected: &Value, got: &Value) -> Option<String> {
    match (expected, got) {
        (Value::Object(expected), Value::Object(got)) => expected.iter().find_map(|(key, value)| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            at(&path, value, got.get(key).unwrap_or(&Value::Null))
        }),
        (Value::Array(expected), Value::Array(got)) if expected.len() == got.len() => expected
            .iter()
            .zip(got)
            .enumerate()
            .find_map(|(n, (expected, got))| at(&format!("{path}[{n}]"), expected, got)),
        (Value::Number(expected), Value::Number(got)) => {
            let (expected, got) = (expected.as_f64()?, got.as_f64()?);
            let near = (expected - got).abs() <= 1e-9 * expected.abs().max(1.0);
            (!near).then(|| path.to_owned())
        }
        _ => (expected != got).then(|| path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_expected_is_compared() {
        let got = json!({"ranked": [1, 0], "reason": "models loaded", "score": 100.0});
        for same in [json!({}), json!({"ranked": [1, 0]}), json!({"score": 100})] {
            assert_eq!(difference(&same, &got), None, "{same}");
        }
        for (other, path) in [
            (json!({"ranked": [0, 1]}), "ranked[0]"),
            (json!({"ranked": [1]}), "ranked"),
            (json!({"hold_ms": 5}), "hold_ms"),
            (json!({"score": 100.1}), "score"),
            (json!([]), "the whole"),
        ] {
            assert_eq!(difference(&other, &got).as_deref(), Some(path), "{other}");
        }
    }
}
