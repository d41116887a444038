//! Which instance has which node classes and models.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{RawQuery, State};
use hyper::StatusCode;
use serde_json::json;

use super::{Answer, Parts, shown};
use crate::fleet::InstanceInfo;

type Where<'a> = Vec<&'a str>;

/// Instances that are down count with what they had. `?partial`: only what some lack.
pub(super) async fn catalogue(State(parts): State<Arc<Parts>>, RawQuery(query): RawQuery) -> Answer {
    let partial = query.as_deref().is_some_and(|query| query.split('&').any(|pair| pair == "partial"));
    let instances = parts.fleet.instances();
    let known: Vec<&InstanceInfo> = instances.iter().filter(|info| !info.catalogue.is_empty()).collect();
    let wanted = |found: &Where<'_>| !partial || found.len() < known.len();
    let mut classes: BTreeMap<&str, Where<'_>> = BTreeMap::new();
    let mut models: BTreeMap<&str, BTreeMap<&str, Where<'_>>> = BTreeMap::new();
    for info in &known {
        let can = info.catalogue.capabilities();
        for class in &can.classes {
            classes.entry(class).or_default().push(info.id.as_str());
        }
        for (folder, names) in &can.models {
            let folder = models.entry(folder).or_default();
            for name in names {
                folder.entry(name).or_default().push(info.id.as_str());
            }
        }
    }
    classes.retain(|_, found| wanted(found));
    models.values_mut().for_each(|names| names.retain(|_, found| wanted(found)));
    models.retain(|_, names| !names.is_empty());
    let of: Vec<&str> = known.iter().map(|info| info.id.as_str()).collect();
    shown(StatusCode::OK, &json!({"instances": of, "classes": classes, "models": models}))
}
