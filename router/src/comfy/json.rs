//! JSON as Python writes it.
//!
//! Python's `json` reads and writes the bare words `NaN`, `Infinity` and `-Infinity`, which are not JSON. They are read
//! here as `null`, which is also what a browser's `JSON.stringify` makes of them: kept as they are, one such number in
//! one prompt would make `/queue` and `/history` unreadable for every browser.

mod loose;

use std::borrow::Cow;

use indexmap::IndexMap;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::errors::clip;
pub use loose::{Object, Scalar};

/// Deeper nesting is refused; `serde_json`'s own limit when it builds values.
pub const MAX_DEPTH: usize = 127;
/// Of a key that an error names, in bytes.
const MAX_SHOWN: usize = 200;

/// The members of an object, undecoded, in the order of their first appearance. Of equal keys the last counts, as in
/// Python.
pub type Members<'a> = IndexMap<String, &'a RawValue>;

#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    #[error("the text is not UTF-8 from byte {0} on")]
    NotUtf8(usize),
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("{0}")]
    Malformed(#[from] serde_json::Error),
}

/// Checks encoding and depth and replaces Python's non-numbers. Does not check the grammar: that is the parser's work.
pub fn text(bytes: &[u8]) -> Result<Cow<'_, str>, JsonError> {
    let text = std::str::from_utf8(bytes).map_err(|e| JsonError::NotUtf8(e.valid_up_to()))?;
    let words = scan(text.as_bytes())?;
    if words.is_empty() {
        return Ok(Cow::Borrowed(text));
    }
    let mut clean = String::with_capacity(text.len());
    let mut copied = 0;
    for (start, end) in words {
        clean.push_str(&text[copied..start]);
        clean.push_str("null");
        copied = end;
    }
    clean.push_str(&text[copied..]);
    Ok(Cow::Owned(clean))
}

/// Parses text of an instance, which may hold Python's non-numbers, and halves of characters: half an emoji that a page cut
/// off, or a byte of a file's name. Those are read as the replacement character.
pub fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, JsonError> {
    read(&text(bytes)?, |text| serde_json::from_str(text))
}

/// What `reader` makes of an instance's text as it came, or else of what is JSON in it (see [`parse`]); and the text without
/// non-numbers, which no client is to be sent.
pub fn tolerant<T>(
    given: &str,
    reader: impl Fn(&str) -> Result<T, serde_json::Error>,
) -> Result<(Cow<'_, str>, T), JsonError> {
    if !may_be_deep(given.as_bytes())
        && let Ok(read) = reader(given)
    {
        return Ok((Cow::Borrowed(given), read));
    }
    let clean = text(given.as_bytes())?;
    let read = read(&clean, reader)?;
    Ok((clean, read))
}

/// More brackets are opened than may be open at a time.
fn may_be_deep(bytes: &[u8]) -> bool {
    memchr::memchr2_iter(b'{', b'[', bytes).nth(MAX_DEPTH).is_some()
}

/// What `reader` makes of the text, or else of the text with whole characters only.
fn read<T>(text: &str, reader: impl Fn(&str) -> Result<T, serde_json::Error>) -> Result<T, JsonError> {
    match reader(text) {
        Ok(read) => Ok(read),
        Err(error) => Ok(reader(&with_whole_characters(text).ok_or(error)?)?),
    }
}

/// With the replacement character for every escaped surrogate that is not one of a pair; none where there is none.
fn with_whole_characters(text: &str) -> Option<String> {
    const REPLACEMENT: &str = "\\ufffd";
    let bytes = text.as_bytes();
    let unit = |at: usize| {
        let digits = text.get(at + 2..at + 6).filter(|_| bytes[at..].starts_with(b"\\u"))?;
        u16::from_str_radix(digits, 16).ok()
    };
    let (mut clean, mut copied, mut at) = (String::new(), 0, 0);
    while let Some(found) = memchr::memchr(b'\\', &bytes[at..]) {
        at += found;
        let low = |unit: u16| (0xdc00..0xe000).contains(&unit);
        match unit(at) {
            Some(0xd800..0xdc00) if unit(at + 6).is_some_and(low) => at += 12,
            Some(0xd800..0xe000) => {
                clean.push_str(&text[copied..at]);
                clean.push_str(REPLACEMENT);
                at += 6;
                copied = at;
            }
            _ => at += 2,
        }
        if at >= bytes.len() {
            break;
        }
    }
    (copied > 0).then(|| clean + &text[copied..])
}

/// An object read as a `T`. A derived reader would also take a list, member by member.
pub fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, serde_json::Error> {
    match text.trim_ascii_start().starts_with('{') {
        true => serde_json::from_str(text),
        false => Err(Error::custom("not an object")),
    }
}

/// An object's members; an error if it is anything but an object.
pub fn members(raw: &RawValue) -> Result<Members<'_>, serde_json::Error> {
    serde_json::from_str(raw.get())
}

/// The members of an object whose keys are all different. Readers disagree about which of two equal ones counts, and
/// what the router checks must be what an instance runs.
pub fn unique_members(raw: &RawValue) -> Result<Members<'_>, serde_json::Error> {
    serde_json::from_str::<Unique<'_>>(raw.get()).map(|Unique(members)| members)
}

struct Unique<'a>(Members<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for Unique<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(UniqueVisitor).map(Unique)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Members::new();
        while let Some((key, value)) = map.next_entry::<String, &RawValue>()? {
            if let Some((twice, _)) = members.get_key_value(&key) {
                return Err(Error::custom(format!("the key `{}` appears twice", clip(twice, MAX_SHOWN))));
            }
            members.insert(key, value);
        }
        Ok(members)
    }
}

/// Where the non-numbers are. One pass, no recursion: the text may be hostile.
fn scan(bytes: &[u8]) -> Result<Vec<(usize, usize)>, JsonError> {
    let mut words = Vec::new();
    let mut depth = 0usize;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = end_of_string(bytes, at + 1);
                continue;
            }
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(JsonError::TooDeep);
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'N' | b'I' | b'-' => {
                if let Some(word) = ["NaN", "Infinity", "-Infinity"]
                    .into_iter()
                    .find(|word| bytes[at..].starts_with(word.as_bytes()))
                {
                    words.push((at, at + word.len()));
                    at += word.len();
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    Ok(words)
}

/// The index after the closing quote, or the end of the text.
fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    while let Some(found) = bytes.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += found;
        if bytes[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    bytes.len()
}

/// A JSON string literal.
pub fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn non_numbers_become_null_outside_strings_only() {
        let given = br#"{"a":NaN,"b":[-Infinity,Infinity,-1],"c":"NaN \" Infinity","d":"\\"}"#;
        let clean = text(given).unwrap();
        assert_eq!(clean, r#"{"a":null,"b":[null,null,-1],"c":"NaN \" Infinity","d":"\\"}"#);
    }

    #[test]
    fn half_a_character_costs_itself_and_nothing_else() {
        let read = |text: &str| parse::<serde_json::Value>(text.as_bytes()).unwrap();
        assert_eq!(read(r#"["cut \ud83d", 1]"#), serde_json::json!(["cut \u{fffd}", 1]));
        assert_eq!(
            read(r#"["\ud83d\ude00\udcff\ud83dx"]"#),
            serde_json::json!(["\u{1f600}\u{fffd}\u{fffd}x"])
        );
        assert_eq!(
            read(r#"["\\ud83d", "\ud800\ud83d\ude00"]"#),
            serde_json::json!(["\\ud83d", "\u{fffd}\u{1f600}"])
        );
        for broken in [r#"["\ud83d"#, r#"["\ud8"]"#, r#"["\ud83d\"#, "[\"\\ud83d\\uéé\"", r#"["\udcff", ]"#]
        {
            assert!(parse::<serde_json::Value>(broken.as_bytes()).is_err(), "{broken}");
        }
    }

    #[test]
    fn clean_text_is_not_copied() {
        assert!(matches!(text(br#"{"a":-1.5}"#).unwrap(), Cow::Borrowed(_)));
    }

    #[test]
    fn hostile_texts_are_refused_without_recursion() {
        let deep = "[".repeat(200_000);
        assert!(matches!(text(deep.as_bytes()), Err(JsonError::TooDeep)));
        assert!(matches!(text(b"{\"a\":\"\xff\"}"), Err(JsonError::NotUtf8(6))));
        for unclosed in [&b"\""[..], b"\"\\", b"{\"a", b"\"\\\""] {
            assert!(parse::<serde_json::Value>(unclosed).is_err(), "{unclosed:?}");
        }
    }

    #[test]
    fn the_deepest_text_allowed_can_be_built() {
        let deep = "[".repeat(MAX_DEPTH) + &"]".repeat(MAX_DEPTH);
        assert!(parse::<serde_json::Value>(deep.as_bytes()).is_ok());
    }

    #[test]
    fn of_equal_keys_the_last_counts() {
        let raw: Box<RawValue> = serde_json::from_str(r#"{"a":1,"b":2,"a":3}"#).unwrap();
        let members = members(&raw).unwrap();
        assert_eq!(members["a"].get(), "3");
        assert_eq!(members.len(), 2);
        let refused = unique_members(&raw).unwrap_err().to_string();
        assert!(refused.contains("the key `a` appears twice"), "{refused}");
    }
}
