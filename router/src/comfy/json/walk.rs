//! A walk over a JSON text: the grammar checked, the members that are wanted handed out undecoded, nothing built.
//!
//! For what arrives thousands of times a second and of which a few members are looked at. `serde_json` reads the same texts
//! (a test compares them), but for Python's non-numbers, which are noticed here and left in place.

use std::borrow::Cow;

use super::MAX_DEPTH;

/// The text is not JSON, or nested deeper than [`MAX_DEPTH`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

#[derive(Debug)]
pub struct Walk<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    non_numbers: bool,
}

impl<'a> Walk<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0, depth: 0, non_numbers: false }
    }

    /// What it walked over holds `NaN`, `Infinity` or `-Infinity`.
    pub fn met_non_numbers(&self) -> bool {
        self.non_numbers
    }

    /// The first byte of what comes next; 0 at the end.
    pub fn next_byte(&mut self) -> u8 {
        while let b' ' | b'\n' | b'\r' | b'\t' = self.byte() {
            self.at += 1;
        }
        self.byte()
    }

    /// Past an object. `member` is told each key and walks past its value.
    pub fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, &str) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.list(b'{', b'}', |walk| {
            if walk.next_byte() != b'"' {
                return Err(Malformed);
            }
            let start = walk.at;
            let escaped = walk.string()?;
            let quoted = &walk.text[start..walk.at];
            walk.eat(b':')?;
            match escaped {
                false => member(walk, &quoted[1..quoted.len() - 1]),
                true => member(walk, &string(quoted).ok_or(Malformed)?),
            }
        })
    }

    /// Past a value, which is given as it stands.
    pub fn value(&mut self) -> Result<&'a str, Malformed> {
        let first = self.next_byte();
        let start = self.at;
        match first {
            b'"' => self.string().map(drop)?,
            b'{' => self.object(|walk, _| walk.value().map(drop))?,
            b'[' => self.list(b'[', b']', |walk| walk.value().map(drop))?,
            b'-' | b'0'..=b'9' => self.number()?,
            b't' => self.word("true")?,
            b'f' => self.word("false")?,
            b'n' => self.word("null")?,
            b'N' => self.non_number("NaN")?,
            b'I' => self.non_number("Infinity")?,
            _ => return Err(Malformed),
        }
        Ok(&self.text[start..self.at])
    }

    /// Nothing follows.
    pub fn end(&mut self) -> Result<(), Malformed> {
        self.next_byte();
        if self.at == self.text.len() { Ok(()) } else { Err(Malformed) }
    }

    #[inline]
    fn byte(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or(0)
    }

    fn eat(&mut self, byte: u8) -> Result<(), Malformed> {
        if self.next_byte() != byte {
            return Err(Malformed);
        }
        self.at += 1;
        Ok(())
    }

    fn list(
        &mut self,
        open: u8,
        close: u8,
        mut item: impl FnMut(&mut Self) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.eat(open)?;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Malformed);
        }
        if self.next_byte() != close {
            item(self)?;
            while self.next_byte() == b',' {
                self.at += 1;
                item(self)?;
            }
        }
        self.eat(close)?;
        self.depth -= 1;
        Ok(())
    }

    /// True if there are escapes in it.
    fn string(&mut self) -> Result<bool, Malformed> {
        let mut escaped = false;
        self.at += 1;
        loop {
            self.at += plain(&self.text.as_bytes()[self.at..]);
            match self.byte() {
                b'"' => break,
                b'\\' => self.escape()?,
                // A control character, or the end of the text.
                _ => return Err(Malformed),
            }
            escaped = true;
        }
        self.at += 1;
        Ok(escaped)
    }

    fn escape(&mut self) -> Result<(), Malformed> {
        let rest = &self.text.as_bytes()[self.at + 1..];
        self.at += match rest {
            [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            [b'u', a, b, c, d, ..] if [a, b, c, d].iter().all(|digit| digit.is_ascii_hexdigit()) => 6,
            _ => return Err(Malformed),
        };
        Ok(())
    }

    fn number(&mut self) -> Result<(), Malformed> {
        if self.byte() == b'-' {
            self.at += 1;
            if self.byte() == b'I' {
                return self.non_number("Infinity");
            }
        }
        if self.byte() == b'0' {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.byte() == b'.' {
            self.at += 1;
            self.digits()?;
        }
        if let b'e' | b'E' = self.byte() {
            self.at += 1;
            if let b'+' | b'-' = self.byte() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    /// One or more.
    fn digits(&mut self) -> Result<(), Malformed> {
        let start = self.at;
        while self.byte().is_ascii_digit() {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(Malformed) }
    }

    fn non_number(&mut self, word: &str) -> Result<(), Malformed> {
        self.non_numbers = true;
        self.word(word)
    }

    fn word(&mut self, word: &str) -> Result<(), Malformed> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(Malformed);
        }
        self.at += word.len();
        Ok(())
    }
}

/// How many bytes go before the first that a string does not hold as it is, eight at a time.
fn plain(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const TOPS: u64 = ONES << 7;
    // The top bit of each byte below `limit`, and perhaps of bytes after such a one.
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & TOPS;
    let is = |word: u64, byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    let (words, rest) = bytes.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = below(word, 0x20) | is(word, b'"') | is(word, b'\\');
        if found != 0 {
            return at * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let special = |byte: &u8| matches!(byte, 0..0x20 | b'"' | b'\\');
    words.len() * 8 + rest.iter().position(special).unwrap_or(rest.len())
}

/// The string that a value is. None for any other value, and where an escape stands for half a character.
pub fn string(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(raw).ok().map(Cow::Owned) } else { Some(inner.into()) }
}

#[cfg(test)]
mod tests {
    use indexmap::IndexMap;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::{Index, select};
    use serde_json::Value;
    use serde_json::value::RawValue;

    use super::*;

    type Members = Vec<(String, String)>;

    fn walked(text: &str) -> Option<Members> {
        let (mut walk, mut members) = (Walk::new(text), Members::new());
        let whole = walk.object(|walk, key| {
            members.push((key.to_owned(), walk.value()?.to_owned()));
            Ok(())
        });
        whole.and_then(|()| walk.end()).ok().map(|()| members)
    }

    /// The same by `serde_json`, but equal keys.
    fn read(text: &str) -> Option<IndexMap<String, String>> {
        let members: IndexMap<String, &RawValue> = serde_json::from_str(text).ok()?;
        Some(members.into_iter().map(|(key, raw)| (key, raw.get().to_owned())).collect())
    }

    fn same(text: &str) -> Result<(), TestCaseError> {
        let walked = walked(text).map(|members| members.into_iter().collect::<IndexMap<_, _>>());
        prop_assert_eq!(walked, read(text), "{}", text);
        Ok(())
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<Option<bool>>().prop_map(|bool| bool.map_or(Value::Null, Value::from)),
            any::<f64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 40, 5, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..5).prop_map(Value::from),
                vec((".{0,6}", inner), 0..5).prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_object_is_walked_as_serde_reads_it(value in value(), pretty in any::<bool>()) {
            let text = if pretty { format!("{value:#}") } else { value.to_string() };
            if value.is_object() {
                prop_assert!(walked(&text).is_some());
            }
            same(&text)?;
        }

        #[test]
        fn what_is_wrong_somewhere_is_refused_as_serde_refuses_it(
            value in value(),
            cuts in vec((any::<Index>(), 0..3_usize, select(vec!["", "\"", "\\", "\\u12", "\\ud800", "{", "}", "[", "]", ",", ":", "0", "-", ".", "e", "t", "null", "\u{1}", "é", " "])), 1..4),
        ) {
            let mut text: Vec<char> = format!(r#"{{"a":{value},"b\u0041":1.5e3}}"#).chars().collect();
            for (place, length, with) in cuts {
                let from = place.index(text.len() + 1);
                text.splice(from..(from + length).min(text.len()), with.chars());
            }
            same(&text.into_iter().collect::<String>())?;
        }
    }

    #[test]
    fn small_things_are_read_as_serde_reads_them() {
        for value in [
            "0",
            "-0",
            "01",
            "-",
            "1.",
            ".5",
            "1e",
            "1e+",
            "1E-7",
            "+1",
            "tru",
            "true1",
            "nul",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\\ud800\"",
            "\"\t\"",
            "\"\\",
            "\"",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{\"x\":1,}",
            "{x:1}",
            "{\"x\" 1}",
            "{1:1}",
            "",
        ] {
            same(&format!("{{\"a\": {value} }}")).unwrap();
            same(&format!("{{\"a\": {value}")).unwrap();
        }
        for text in ["", " ", "[]", "1", "{}", "{} ", " {}", "{} x", "{}{}", "{\"\\ud800\":1}", "\u{feff}{}"]
        {
            same(text).unwrap();
        }
    }

    #[test]
    fn nesting_is_bounded_and_costs_no_more_than_its_length() {
        let nested = |depth: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
        assert!(walked(&nested(MAX_DEPTH - 1)).is_some());
        assert_eq!(walked(&nested(MAX_DEPTH)), None);
        assert_eq!(walked(&format!(r#"{{"a":{}"#, "[{\"a\":".repeat(100_000))), None);
    }

    #[test]
    fn pythons_non_numbers_are_noticed_outside_strings() {
        let met = |text: &str| {
            let mut walk = Walk::new(text);
            walk.value().map(|_| walk.met_non_numbers())
        };
        assert_eq!(met(r#"{"a": ["NaN", -1, "Infinity"]}"#), Ok(false));
        for word in ["NaN", "Infinity", "-Infinity"] {
            assert_eq!(met(&format!(r#"{{"a": [1, {word}]}}"#)), Ok(true));
            assert_eq!(met(&format!(r#"[{}"#, &word[..word.len() - 1])), Err(Malformed));
        }
    }
}
