//! Literal inputs: coercion as Python's constructors do it, range, membership.

use serde_json::{Number, Value, json};

use super::Input;
use crate::pyjson;

/// The value as it will be stored, or the error entry.
pub(super) fn check(input: &Input<'_>, value: Value, has_own_check: bool) -> Result<Value, Value> {
    let value = match value {
        Value::Object(mut map) if map.contains_key("__value__") => {
            map.remove("__value__").unwrap_or_default()
        }
        other => other,
    };
    let value = coerce(input.kind(), &value).map_err(|message| conversion_error(input, &value, &message))?;
    if !has_own_check {
        range(input, &value)?;
        membership(input, &value)?;
    }
    Ok(value)
}

fn coerce(kind: &Value, value: &Value) -> Result<Value, String> {
    match kind.as_str() {
        Some("INT") => int(value),
        Some("FLOAT") => float(value),
        Some("STRING") => Ok(json!(pyjson::text(value))),
        Some("BOOLEAN") => Ok(json!(truthy(value))),
        _ => Ok(value.clone()),
    }
}

fn int(value: &Value) -> Result<Value, String> {
    match value {
        Value::Number(number) if number.is_f64() => {
            Ok(json!(number.as_f64().unwrap_or_default().trunc() as i64))
        }
        Value::Number(_) => Ok(value.clone()),
        Value::Bool(flag) => Ok(json!(i64::from(*flag))),
        Value::String(text) => {
            let wrong = || format!("invalid literal for int() with base 10: {}", pyjson::repr(value));
            text.trim().replace('_', "").parse::<i64>().map(|number| json!(number)).map_err(|_| wrong())
        }
        other => Err(format!(
            "int() argument must be a string, a bytes-like object or a real number, not '{}'",
            type_name(other)
        )),
    }
}

fn float(value: &Value) -> Result<Value, String> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::Bool(flag) => Some(f64::from(u8::from(*flag))),
        Value::String(text) => match text.trim().parse::<f64>() {
            Ok(number) => Some(number),
            Err(_) => return Err(format!("could not convert string to float: {}", pyjson::repr(value))),
        },
        other => {
            return Err(format!(
                "float() argument must be a string or a real number, not '{}'",
                type_name(other)
            ));
        }
    };
    Ok(number.and_then(Number::from_f64).map_or(Value::Null, Value::Number))
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "NoneType",
        Value::Object(_) => "dict",
        Value::Array(_) => "list",
        _ => "object",
    }
}

pub(crate) fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

fn conversion_error(input: &Input<'_>, value: &Value, message: &str) -> Value {
    let kind = pyjson::text(input.kind());
    let details = format!("{}, {}, {message}", input.name, pyjson::text(value));
    let extra =
        json!({ "input_config": input.config(), "received_value": value, "exception_message": message });
    input.error(
        "invalid_input_type",
        &format!("Failed to convert an input value to a {kind} value"),
        &details,
        extra,
    )
}

fn range(input: &Input<'_>, value: &Value) -> Result<(), Value> {
    let Some(number) = value.as_f64() else { return Ok(()) };
    let extra = || json!({ "input_config": input.config(), "received_value": value });
    let shown = pyjson::text(value);
    if let Some(min) = input.option("min").filter(|min| min.as_f64().is_some_and(|min| number < min)) {
        let message = format!("Value {shown} smaller than min of {}", pyjson::text(min));
        return Err(input.error("value_smaller_than_min", &message, input.name, extra()));
    }
    if let Some(max) = input.option("max").filter(|max| max.as_f64().is_some_and(|max| number > max)) {
        let message = format!("Value {shown} bigger than max of {}", pyjson::text(max));
        return Err(input.error("value_bigger_than_max", &message, input.name, extra()));
    }
    Ok(())
}

fn membership(input: &Input<'_>, value: &Value) -> Result<(), Value> {
    let options = match input.kind() {
        Value::Array(options) => Some(options),
        Value::String(kind) if kind == "COMBO" => input.option("options").and_then(Value::as_array),
        _ => None,
    };
    let Some(options) = options.filter(|options| !options.contains(value)) else { return Ok(()) };
    let short = options.len() <= 20;
    let list =
        if short { pyjson::repr(&json!(options)) } else { format!("(list of length {})", options.len()) };
    let details = format!("{}: '{}' not in {list}", input.name, pyjson::text(value));
    let config = if short { input.config() } else { Value::Null };
    let extra = json!({ "input_config": config, "received_value": value });
    Err(input.error("value_not_in_list", "Value not in list", &details, extra))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_convert_as_in_python() {
        assert_eq!(int(&json!(" 12 ")), Ok(json!(12)));
        assert_eq!(int(&json!(2.9)), Ok(json!(2)));
        assert_eq!(int(&json!("abc")), Err("invalid literal for int() with base 10: 'abc'".into()));
        assert_eq!(float(&json!(2)), Ok(json!(2.0)));
        assert_eq!(float(&json!("x")), Err("could not convert string to float: 'x'".into()));
        assert!(int(&Value::Null).expect_err("none").ends_with("not 'NoneType'"));
    }
}
