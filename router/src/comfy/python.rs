//! Values as Python reads and prints them: ComfyUI's errors quote them, and its checks convert them.

use std::cmp::Ordering;

use serde_json::Value;

/// A JSON number. Python tells integers from floats, and prints them differently.
#[derive(Debug, Clone, Copy)]
pub enum Num {
    Int(i128),
    Float(f64),
}

impl Num {
    /// From JSON text.
    pub fn parse(text: &str) -> Option<Self> {
        if !text.contains(['.', 'e', 'E'])
            && let Ok(int) = text.parse()
        {
            return Some(Self::Int(int));
        }
        text.parse().ok().map(Self::Float)
    }

    pub fn as_f64(self) -> f64 {
        match self {
            Self::Int(int) => int as f64,
            Self::Float(float) => float,
        }
    }

    /// Python's `int(x)`.
    fn truncated(self) -> Self {
        match self {
            Self::Float(float) if float.abs() < 1e38 => Self::Int(float as i128),
            other => other,
        }
    }

    pub fn value(self) -> Value {
        match self {
            Self::Float(float) => Value::from(float),
            Self::Int(int) => match (i64::try_from(int), u64::try_from(int)) {
                (Ok(int), _) => Value::from(int),
                (_, Ok(int)) => Value::from(int),
                _ => Value::from(int as f64),
            },
        }
    }
}

impl PartialEq for Num {
    fn eq(&self, other: &Self) -> bool {
        self.partial_cmp(other) == Some(Ordering::Equal)
    }
}

impl PartialOrd for Num {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(b)),
            (a, b) => a.as_f64().partial_cmp(&b.as_f64()),
        }
    }
}

impl std::fmt::Display for Num {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Int(int) => write!(f, "{int}"),
            Self::Float(float) => f.write_str(&float_text(*float)),
        }
    }
}

/// Python's `repr` of a float: the shortest text that reads back, with a point or an exponent.
fn float_text(float: f64) -> String {
    let size = float.abs();
    if !float.is_finite() {
        return format!("{float}").to_ascii_lowercase();
    }
    if size != 0.0 && !(1e-4..1e16).contains(&size) {
        let text = format!("{float:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    if float.fract() == 0.0 { format!("{float:.1}") } else { format!("{float}") }
}

/// `int(x)`, or the text of its exception.
pub fn int(value: &Value) -> Result<Num, String> {
    match value {
        Value::Number(number) => Ok(number_of(number).truncated()),
        Value::Bool(flag) => Ok(Num::Int(i128::from(*flag))),
        Value::String(text) => digits(text.trim())
            .and_then(|digits| digits.parse().ok())
            .map(Num::Int)
            .ok_or_else(|| format!("invalid literal for int() with base 10: {}", repr(value))),
        other => Err(format!(
            "int() argument must be a string, a bytes-like object or a real number, not '{}'",
            type_name(other)
        )),
    }
}

/// `int(text)`, at the ends of what can be counted where it is beyond them; none where Python raises.
pub fn int_of(text: &str) -> Option<i64> {
    let digits = digits(text.trim())?;
    match digits.parse::<i64>() {
        Ok(int) => Some(int),
        Err(error) => match error.kind() {
            std::num::IntErrorKind::PosOverflow => Some(i64::MAX),
            std::num::IntErrorKind::NegOverflow => Some(i64::MIN),
            _ => None,
        },
    }
}

/// `bool(x)`
pub fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
    }
}

/// `float(x)`, or the text of its exception.
pub fn float(value: &Value) -> Result<Num, String> {
    match value {
        Value::Number(number) => Ok(Num::Float(number_of(number).as_f64())),
        Value::Bool(flag) => Ok(Num::Float(f64::from(u8::from(*flag)))),
        Value::String(text) => digits(text.trim())
            .and_then(|digits| digits.parse().ok())
            .map(Num::Float)
            .ok_or_else(|| format!("could not convert string to float: {}", repr(value))),
        other => {
            Err(format!("float() argument must be a string or a real number, not '{}'", type_name(other)))
        }
    }
}

/// Python lets single underscores separate digits.
fn digits(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let between = |at: usize| {
        at > 0 && bytes[at - 1].is_ascii_digit() && bytes.get(at + 1).is_some_and(u8::is_ascii_digit)
    };
    let well_placed = bytes.iter().enumerate().all(|(at, byte)| *byte != b'_' || between(at));
    well_placed.then(|| text.replace('_', ""))
}

fn number_of(number: &serde_json::Number) -> Num {
    Num::parse(&number.to_string()).unwrap_or(Num::Float(f64::NAN))
}

/// The name of the value's type.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "NoneType",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float",
        Value::Number(_) => "int",
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Object(_) => "dict",
    }
}

/// `str(x)`
pub fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => repr(other),
    }
}

/// `repr(x)`
pub fn repr(value: &Value) -> String {
    match value {
        Value::Null => "None".into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::Number(number) => number_of(number).to_string(),
        Value::String(text) => quoted(text),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(repr).collect::<Vec<_>>().join(", "))
        }
        Value::Object(members) => {
            let member = |(name, value): (&String, &Value)| format!("{}: {}", quoted(name), repr(value));
            format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(", "))
        }
    }
}

fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

/// `a == b`: numbers and booleans compare by value.
pub fn equal(a: &Value, b: &Value) -> bool {
    let number = |value: &Value| match value {
        Value::Number(number) => Some(number_of(number)),
        Value::Bool(flag) => Some(Num::Int(i128::from(*flag))),
        _ => None,
    };
    match (number(a), number(b)) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_print_as_in_python() {
        let cases = [
            (json!(2), "2"),
            (json!(2.0), "2.0"),
            (json!(0.1), "0.1"),
            (json!(1e16), "1e+16"),
            (json!(0.00001), "1e-05"),
            (json!(-1.5e-7), "-1.5e-07"),
            (json!(18_446_744_073_709_551_615_u64), "18446744073709551615"),
            (json!([null, true, "a"]), "[None, True, 'a']"),
            (json!({"k": 1.5}), "{'k': 1.5}"),
            (json!("it's"), "\"it's\""),
            (json!("it's \"so\""), "'it\\'s \"so\"'"),
            (json!("a\n\u{1}é\\"), "'a\\n\\x01é\\\\'"),
        ];
        for (value, expected) in cases {
            assert_eq!(repr(&value), expected);
        }
        assert_eq!(text(&json!("x")), "x");
    }

    #[test]
    fn conversions_fail_in_pythons_words() {
        assert_eq!(int(&json!(" 1_000 ")), Ok(Num::Int(1000)));
        assert_eq!(int(&json!(-2.9)), Ok(Num::Int(-2)));
        assert_eq!(int(&json!(true)), Ok(Num::Int(1)));
        assert_eq!(float(&json!("1e3")), Ok(Num::Float(1000.0)));
        let failed = |found: Result<Num, String>| found.expect_err("no number");
        assert_eq!(failed(int(&json!("1.0"))), "invalid literal for int() with base 10: '1.0'");
        assert_eq!(failed(int(&json!("1__0"))), "invalid literal for int() with base 10: '1__0'");
        assert!(failed(int(&json!(null))).ends_with("a real number, not 'NoneType'"));
        assert_eq!(failed(float(&json!("x"))), "could not convert string to float: 'x'");
        assert!(failed(float(&json!({}))).ends_with("not 'dict'"));
    }

    #[test]
    fn integers_of_texts_are_clamped_and_nothing_else_is_one() {
        for (text, int) in [(" 5 ", 5), ("+5", 5), ("-1", -1), ("1_000", 1000), ("007", 7)] {
            assert_eq!(int_of(text), Some(int), "{text}");
        }
        assert_eq!(int_of(&"9".repeat(40)), Some(i64::MAX));
        assert_eq!(int_of(&format!("-{}", "9".repeat(40))), Some(i64::MIN));
        for text in ["", " ", "x", "1.0", "1e3", "0x1", "1__0", "_1", "1_", "- 1", "+", "nan"] {
            assert_eq!(int_of(text), None, "{text}");
        }
    }

    #[test]
    fn empty_things_and_zeros_are_false() {
        for value in
            [json!(null), json!(false), json!(0), json!(0.0), json!(-0.0), json!(""), json!([]), json!({})]
        {
            assert!(!truthy(&value), "{value}");
        }
        for value in [json!(true), json!(-1), json!(0.5), json!("false"), json!([0]), json!({"a": 0})] {
            assert!(truthy(&value), "{value}");
        }
    }

    #[test]
    fn numbers_compare_by_value() {
        assert!(Num::Int(2) == Num::Float(2.0) && Num::Int(3) > Num::Float(2.5));
        assert!(
            equal(&json!(1), &json!(1.0)) && equal(&json!(1), &json!(true)) && !equal(&json!("1"), &json!(1))
        );
        let (a, b) = (Num::parse("18446744073709551615"), Num::parse("18446744073709551616"));
        assert!(a < b, "as integers, not as floats");
    }
}
