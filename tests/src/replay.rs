//! One script played against any ComfyUI address, and two plays compared: a ComfyUI by itself, and the router in front
//! of one. What may differ without a fault is in [`known`], each with a row in `docs/compatibility.md`.

pub mod known;
mod normal;
mod player;
mod script;

use std::fmt;

use serde_json::Value;

pub use player::{Asked, Stage};

/// What was heard in one scene of the script, with ids, times and file numbers taken out.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub scene: &'static str,
    /// The request, or the client and the job whose events these are.
    pub what: String,
    pub heard: Value,
}

/// A play, in order.
#[derive(Debug, Default)]
pub struct Transcript {
    pub entries: Vec<Entry>,
    /// Every request made, for comparison with the recordings.
    pub asked: Vec<Asked>,
}

/// Plays the whole script.
///
/// # Panics
/// When the server does not do what the script waits for, within the harness's deadline.
pub async fn play(base: &str, stage: Stage) -> Transcript {
    script::play(player::Player::new(base, stage)).await
}

/// Something that two plays do not have in common.
#[derive(Debug)]
pub struct Difference {
    pub entry: Entry,
    pub other: Option<Value>,
    /// The known differences that explain it whole; none if something is left over.
    pub known: Option<Vec<&'static str>>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.known {
            Some(keys) => write!(f, "known ({})", keys.join(", "))?,
            None => f.write_str("UNEXPLAINED")?,
        }
        writeln!(f, ": {} / {}", self.entry.scene, self.entry.what)?;
        let mut places = Vec::new();
        apart("", &self.entry.heard, self.other.as_ref().unwrap_or(&Value::Null), &mut places);
        places.into_iter().try_for_each(|place| writeln!(f, "  {place}"))
    }
}

/// The innermost places where two values differ.
fn apart(path: &str, direct: &Value, router: &Value, places: &mut Vec<String>) {
    match (direct, router) {
        _ if direct == router => {}
        (Value::Object(ours), Value::Object(theirs)) => {
            let names: std::collections::BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
            let of = |members: &serde_json::Map<String, Value>, name: &str| members.get(name).cloned();
            for name in names {
                let (ours, theirs) = (of(ours, name), of(theirs, name));
                apart(
                    &format!("{path}/{name}"),
                    &ours.unwrap_or_default(),
                    &theirs.unwrap_or_default(),
                    places,
                );
            }
        }
        (Value::Array(ours), Value::Array(theirs)) if ours.len() == theirs.len() => {
            for (at, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
                apart(&format!("{path}/{at}"), ours, theirs, places);
            }
        }
        _ => places.push(format!("{path}: direct {direct}, router {router}")),
    }
}

/// Everything that `router` heard otherwise than `direct`.
pub fn differences(direct: &Transcript, router: &Transcript) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut left: Vec<&Entry> = router.entries.iter().collect();
    for entry in &direct.entries {
        let at = left.iter().position(|other| (other.scene, &other.what) == (entry.scene, &entry.what));
        let other = at.map(|at| left.remove(at));
        if other.is_none_or(|other| other.heard != entry.heard) {
            found.push(Difference {
                known: known::explanation(entry, other),
                entry: entry.clone(),
                other: other.map(|other| other.heard.clone()),
            });
        }
    }
    found.extend(left.into_iter().map(|entry| Difference {
        known: known::explanation(&Entry { heard: Value::Null, ..entry.clone() }, Some(entry)),
        entry: Entry { heard: Value::Null, ..entry.clone() },
        other: Some(entry.heard.clone()),
    }));
    found
}
