//! What flows between emulated nodes: a fingerprint that depends on everything upstream, and the little substance
//! that matters, such as pictures and latent sizes.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value as Json;

use crate::picture::Picture;

#[derive(Debug, Clone)]
pub(crate) struct Value {
    pub(crate) fingerprint: u64,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Literal(Json),
    Images(Vec<Picture>),
    Latent {
        width: u32,
        height: u32,
        batch: u32,
    },
    /// Models, conditionings and whatever else only has an identity.
    Opaque,
}

impl Value {
    pub(crate) fn literal(json: &Json) -> Self {
        Self { fingerprint: fingerprint(&json.to_string()), kind: Kind::Literal(json.clone()) }
    }

    pub(crate) fn images(&self) -> &[Picture] {
        match &self.kind {
            Kind::Images(pictures) => pictures,
            _ => &[],
        }
    }

    /// As `current_inputs` of an error shows it: scalars as they are, the rest as text.
    pub(crate) fn shown(&self) -> Json {
        match &self.kind {
            Kind::Literal(json @ (Json::Array(_) | Json::Object(_))) => {
                Json::String(crate::pyjson::repr(json))
            }
            Kind::Literal(json) => json.clone(),
            Kind::Images(_) => Json::String("tensor([[[[...]]]])".into()),
            Kind::Latent { .. } => Json::String("{'samples': tensor([[[[...]]]])}".into()),
            Kind::Opaque => {
                Json::String(format!("<comfy object at 0x{:012x}>", self.fingerprint & 0xffff_ffff_ffff))
            }
        }
    }
}

/// A stable hash: the same in every process of the same build, which is all the colours need.
pub(crate) fn fingerprint(parts: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}

/// The colour that stands for a generated picture.
pub(crate) fn colour(fingerprint: u64) -> [u8; 3] {
    let [r, g, b, ..] = fingerprint.to_le_bytes();
    [r, g, b]
}
