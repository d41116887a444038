//! Values whose kind is not known before they are read: what is not of the expected one is skipped, not refused.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::comfy::errors::clip;

/// A text or a number.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Scalar<'a> {
    /// Neither.
    #[default]
    Other,
    Text(Cow<'a, str>),
    Number(f64),
}

impl Scalar<'_> {
    /// A number as its text, too: node ids are usually texts and sometimes numbers. Cut to `max` bytes.
    pub fn text(&self, max: usize) -> Option<String> {
        match self {
            Self::Other => None,
            Self::Text(text) => Some(clip(text, max).to_owned()),
            Self::Number(number) => Some(clip(&number.to_string(), max).to_owned()),
        }
    }

    pub fn number(&self) -> Option<f64> {
        if let Self::Number(number) = self { Some(*number) } else { None }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Scalar::Number(number as f64))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Scalar::Number(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Scalar::Number(number))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Scalar::Other)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Scalar::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        IgnoredAny.visit_seq(seq).map(|_| Scalar::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        IgnoredAny.visit_map(map).map(|_| Scalar::Other)
    }
}

/// An object read as a `T`; of anything else, the default.
#[derive(Debug, Clone, Default)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de> + Default> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ObjectVisitor(PhantomData)).map(Self)
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de> + Default> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<T, A::Error> {
        IgnoredAny.visit_seq(seq).map(|_| T::default())
    }

    fn visit_str<E>(self, _: &str) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_bool<E>(self, _: bool) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_unit<E>(self) -> Result<T, E> {
        Ok(T::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Pair<'a> {
        #[serde(borrow)]
        a: Scalar<'a>,
        b: Scalar<'a>,
    }

    fn pair(text: &str) -> Pair<'_> {
        serde_json::from_str::<Object<Pair<'_>>>(text).unwrap().0
    }

    #[test]
    fn a_scalar_is_whatever_it_is_and_no_kind_is_refused() {
        let read = |text: &'static str| serde_json::from_str::<Scalar<'_>>(text).unwrap();
        assert_eq!(read(r#""a""#), Scalar::Text(Cow::Borrowed("a")));
        assert_eq!(read(r#""\u0061\n""#).text(9).as_deref(), Some("a\n"));
        for (number, text) in [("5", "5"), ("-5", "-5"), ("0.5", "0.5"), ("1e2", "100")] {
            assert_eq!(read(number).text(9).as_deref(), Some(text));
            assert_eq!(read(number).number(), text.parse().ok());
        }
        for other in ["null", "true", "[1, [2]]", r#"{"a": {"b": "\ud800"}}"#] {
            assert_eq!(read(other), Scalar::Other, "{other}");
        }
        assert_eq!(read("\"ä\"").text(1).as_deref(), Some(""), "cut between characters");
    }

    #[test]
    fn what_is_no_object_is_the_default_and_other_members_are_skipped() {
        let both = Pair { a: Scalar::Number(1.0), b: Scalar::Text("x".into()) };
        assert_eq!(pair(r#"{"c": [1], "a": 1, "b": "x", "d": {}}"#), both);
        for other in ["null", "true", "1", "-1", "1.5", "\"a\"", "[1, \"x\"]"] {
            assert_eq!(pair(other), Pair::default(), "{other}");
        }
    }
}
