//! What a question showed, as far as an operator wants to read it. Kept as it is, and written as JSON only where it is
//! stored or told: whoever decides has no time for that.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::decision::Progress;
use super::id::InstanceId;
use super::view::{Candidate, Load};

/// An object in JSON.
#[derive(Debug, Clone)]
pub enum Seen {
    /// As it was stored.
    Json(Box<RawValue>),
    Load(Load),
    Progress(Progress),
    Instances(Arc<InstancesSeen>),
}

/// Of a route or place question.
#[derive(Debug, Serialize)]
pub struct InstancesSeen {
    pub candidates: Vec<CandidateSeen>,
    #[serde(skip_serializing_if = "is_zero")]
    pub more_candidates: usize,
    pub excluded: Vec<Excluded>,
    #[serde(skip_serializing_if = "is_zero")]
    pub more_excluded: usize,
}

#[derive(Debug, Serialize)]
pub struct CandidateSeen {
    pub name: InstanceId,
    #[serde(flatten)]
    pub candidate: Candidate,
}

#[derive(Debug, Serialize)]
pub struct Excluded {
    pub name: InstanceId,
    pub why: Cow<'static, str>,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

impl Seen {
    /// Of anything that is an object in JSON, at once.
    pub fn of(shown: &impl Serialize) -> Option<Self> {
        serde_json::value::to_raw_value(shown).ok().map(Self::Json)
    }

    /// What was stored; none when it is no JSON.
    pub fn stored(text: String) -> Option<Self> {
        RawValue::from_string(text).ok().map(Self::Json)
    }

    pub fn json(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Json(text) => Some(text.get().into()),
            typed => serde_json::to_string(typed).ok().map(Cow::Owned),
        }
    }
}

impl PartialEq for Seen {
    fn eq(&self, other: &Self) -> bool {
        self.json() == other.json()
    }
}

impl Serialize for Seen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Json(text) => text.serialize(serializer),
            Self::Load(load) => load.serialize(serializer),
            Self::Progress(progress) => progress.serialize(serializer),
            Self::Instances(instances) => instances.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Seen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(Self::Json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_written_as_it_always_was() {
        let candidate = Candidate { instance: 3, load_ms: Some(40), ..Candidate::default() };
        let shown = InstancesSeen {
            candidates: vec![CandidateSeen { name: "gpu3".into(), candidate }],
            more_candidates: 2,
            excluded: vec![Excluded { name: "gpu4".into(), why: "down".into() }],
            more_excluded: 0,
        };
        let seen = Seen::Instances(Arc::new(shown));
        let expected = concat!(
            r#"{"candidates":[{"name":"gpu3","instance":3,"free_slots":0,"running":0,"pending":0,"#,
            r#""models_resident":0,"load_ms":40,"free_in_ms":null,"run_ms":null,"gpu":{"vram_free_mib":null,"#,
            r#""vram_total_mib":null,"utilization_percent":null,"temperature_c":null,"slowdown_margin_c":null,"#,
            r#""power_mw":null,"power_limit_mw":null,"throttled":null,"reading_age_ms":null},"failures":0,"#,
            r#""same_signature":false}],"more_candidates":2,"excluded":[{"name":"gpu4","why":"down"}]}"#,
        );
        assert_eq!(seen.json().as_deref(), Some(expected));
        assert_eq!(Seen::stored(expected.to_owned()), Some(seen.clone()), "read again it is the same");
        let within = serde_json::json!({ "seen": seen });
        assert_eq!(within["seen"]["candidates"][0]["name"], "gpu3");
        assert_eq!(serde_json::from_value::<Seen>(within["seen"].clone()).ok().as_ref(), Some(&seen));
    }

    #[test]
    fn figures_are_seen_by_their_names_and_what_is_no_json_is_left_out() {
        let load = Seen::Load(Load { queued: 7, ..Load::default() });
        assert!(load.json().is_some_and(|text| text.starts_with(r#"{"queued":7,"running":0,"#)));
        assert_eq!(Seen::of(&Load { queued: 7, ..Load::default() }), Some(load));
        assert_eq!(Seen::stored("{\"queued\":".into()), None);
    }
}
