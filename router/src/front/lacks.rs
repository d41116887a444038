//! Which instance lacks what a prompt needs: said with every refusal of a prompt that none could run.

use serde_json::{Value, json};

use crate::comfy::PromptError;
use crate::comfy::errors::{Lacking, clip};
use crate::fleet::{InstanceInfo, State};
use crate::model::job::Needs;

/// Of a name that is repeated, in bytes; of names for each instance.
const MAX_NAME: usize = 200;
const MOST: usize = 20;

/// The refusal, with what each instance lacks of what it asks for.
pub(super) fn named(mut error: PromptError, instances: &[InstanceInfo]) -> PromptError {
    if !error.lacking.is_empty() {
        let each = instances.iter().map(|info| shown(info, &lacking(info, &error.lacking))).collect();
        error.extra_info.insert("instances".into(), Value::Array(each));
    }
    error
}

/// Refuses what each instance could run only a part of. Those that are down count with what they had: the job waits.
pub(super) fn nobody(needs: &Needs, instances: &[InstanceInfo]) -> Option<PromptError> {
    if instances.iter().any(|info| info.catalogue.capabilities().meets(needs)) {
        return None;
    }
    let needed =
        Lacking { classes: needs.classes.clone(), models: needs.models.clone(), ..Lacking::default() };
    let each: Vec<_> = instances.iter().map(|info| (info, lacking(info, &needed))).collect();
    let words = each.iter().filter(|(info, _)| !info.catalogue.is_empty());
    let details = words.map(|(info, lacking)| format!("{} lacks {}", info.id, words_of(lacking)));
    let message = "No instance has every node and model of this prompt";
    let mut error = PromptError::new("no_capable_instance", message, details.collect::<Vec<_>>().join("; "));
    let each = each.iter().map(|(info, lacking)| shown(info, lacking)).collect();
    error.extra_info.insert("instances".into(), Value::Array(each));
    Some(error)
}

fn lacking(info: &InstanceInfo, needed: &Lacking) -> Lacking {
    let can = info.catalogue.capabilities();
    Lacking {
        classes: needed
            .classes
            .iter()
            .filter(|class| !can.classes.contains(*class))
            .take(MOST)
            .cloned()
            .collect(),
        models: needed.models.iter().filter(|model| !can.has_model(model)).take(MOST).cloned().collect(),
        loaders: Vec::new(),
    }
}

fn nodes(lacking: &Lacking) -> Vec<&str> {
    lacking.classes.iter().map(|class| clip(class, MAX_NAME)).collect()
}

fn models(lacking: &Lacking) -> Vec<String> {
    lacking.models.iter().map(|model| format!("{}/{}", model.folder, clip(&model.name, MAX_NAME))).collect()
}

fn words_of(lacking: &Lacking) -> String {
    let nodes = nodes(lacking).into_iter().map(|class| format!("node {class}"));
    nodes
        .chain(models(lacking).into_iter().map(|model| format!("model {model}")))
        .collect::<Vec<_>>()
        .join(", ")
}

fn shown(info: &InstanceInfo, lacking: &Lacking) -> Value {
    let state = match info.state {
        State::Up => "up",
        State::Starting => "starting",
        State::Down { .. } => "down",
    };
    json!({"instance": info.id.as_str(), "state": state, "lacks": {"nodes": nodes(lacking), "models": models(lacking)}})
}
