//! The texts of the present jobs. Credentials are never shown.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::value::RawValue;

use super::{Answer, State, wit};
use crate::model::job::ModelRef;

/// Parts of a name that make a header or `extra_data` key a credential, whatever an allow-list says.
const SECRET: [&str; 6] = ["authorization", "cookie", "token", "secret", "password", "api_key"];

/// An object's members by their names, as JSON text: a node is read only when it is asked for.
pub(super) type Graph = HashMap<String, Box<RawValue>>;

#[derive(serde::Deserialize)]
struct Node<'a> {
    #[serde(borrow, default)]
    inputs: HashMap<Cow<'a, str>, &'a RawValue>,
}

#[derive(serde::Deserialize)]
struct Class<'a> {
    #[serde(borrow)]
    class_type: Cow<'a, str>,
}

impl wit::workflow::Host for State {
    fn node_classes(&mut self, job: u32) -> Answer<Vec<String>> {
        self.spend_much()?;
        Ok(self.texts(job).map(|texts| texts.needs.classes.clone()).unwrap_or_default())
    }

    fn models(&mut self, job: u32) -> Answer<Vec<wit::workflow::Model>> {
        self.spend_much()?;
        let models = self.texts(job).map(|texts| texts.needs.models.as_slice()).unwrap_or_default();
        let model = |m: &ModelRef| wit::workflow::Model { folder: m.folder.clone(), name: m.name.clone() };
        Ok(models.iter().map(model).collect())
    }

    fn input(&mut self, job: u32, node: String, name: String) -> Answer<Option<String>> {
        self.spend_much()?;
        let Some(texts) = self.texts(job) else { return Ok(None) };
        let body = texts.body.clone();
        let graph = members_of(&mut self.graph, job, &body.prompt);
        let Some(node) = graph.get(&node) else { return Ok(None) };
        let node: Option<Node<'_>> = serde_json::from_str(node.get()).ok();
        let value = node.and_then(|node| node.inputs.get(name.as_str()).map(|value| value.get().to_owned()));
        // An array is a link to another node's output, not a literal.
        Ok(value.filter(|value| !value.starts_with('[')))
    }

    fn extra_data(&mut self, job: u32, key: String) -> Answer<Option<String>> {
        self.spend_much()?;
        if secret(&key) {
            return Ok(None);
        }
        let Some(texts) = self.texts(job) else { return Ok(None) };
        let body = texts.body.clone();
        let data = members_of(&mut self.extra_data, job, &body.extra_data);
        Ok(data.get(&key).map(|value| value.get().to_owned()))
    }

    fn header(&mut self, job: u32, name: String) -> Answer<Option<String>> {
        self.spend()?;
        if secret(&name) {
            return Ok(None);
        }
        let headers = self.texts(job).map(|texts| texts.body.headers.as_slice()).unwrap_or_default();
        Ok(headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(&name)).map(|(_, value)| value.clone()))
    }

    fn nodes(&mut self, job: u32, class: String) -> Answer<Vec<String>> {
        self.spend_much()?;
        let Some(texts) = self.texts(job) else { return Ok(Vec::new()) };
        let body = texts.body.clone();
        let of_class = |node: &RawValue| {
            serde_json::from_str::<Class<'_>>(node.get()).is_ok_and(|node| node.class_type == class.as_str())
        };
        let graph = members_of(&mut self.graph, job, &body.prompt);
        let mut ids: Vec<String> =
            graph.iter().filter(|(_, node)| of_class(node)).map(|(id, _)| id.clone()).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    fn graph(&mut self, job: u32) -> Answer<String> {
        self.spend_much()?;
        Ok(self.texts(job).map(|texts| texts.body.prompt.clone()).unwrap_or_default())
    }
}

/// Read once for each job that is asked about.
fn members_of<'a>(known: &'a mut Option<(u32, Graph)>, job: u32, text: &str) -> &'a Graph {
    if known.as_ref().is_none_or(|(of, _)| *of != job) {
        *known = Some((job, serde_json::from_str(text).unwrap_or_default()));
    }
    &known.get_or_insert_default().1
}

fn secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    SECRET.iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::wit::workflow::Host as _;
    use super::*;
    use crate::model::decision::Hook;
    use crate::model::job::Body;
    use crate::model::view::JobTexts;
    use crate::policy::config::GuestLimits;
    use crate::policy::record::builtin_version;
    use crate::policy::sample;
    use crate::policy::state::Space;
    use crate::policy::wasm::meter::Meter;

    fn entered(texts: &JobTexts) -> (State, u32) {
        let mut state = State::new(builtin_version(), &GuestLimits::default(), Space::default(), false);
        let meter = Meter::new(1_000, Duration::from_secs(60));
        let handle = state.enter(Hook::Route, 1, &sample::context(2), vec![texts.clone()], meter);
        (state, handle)
    }

    fn said(value: &str) -> Option<String> {
        Some(value.to_owned())
    }

    #[test]
    fn literal_inputs_are_shown_and_links_are_not() {
        let (mut state, job) = entered(&sample::job().texts);
        assert_eq!(state.input(job, "3".into(), "steps".into()).unwrap(), said("20"));
        assert_eq!(state.input(job, "3".into(), "model".into()).unwrap(), None);
        assert_eq!(state.input(job, "9".into(), "steps".into()).unwrap(), None);
    }

    #[test]
    fn a_handle_of_another_call_names_nothing() {
        let (mut state, job) = entered(&sample::job().texts);
        assert_eq!(state.node_classes(job).unwrap().len(), 3);
        let meter = Meter::new(1_000, Duration::from_secs(60));
        state.enter(Hook::Route, 1, &sample::context(2), vec![sample::job().texts], meter);
        assert!(state.node_classes(job).unwrap().is_empty());
        assert!(state.models(job).unwrap().is_empty());
    }

    #[test]
    fn credentials_are_never_shown() {
        let body = Body {
            extra_data: r#"{"auth_token_comfy_org":"t","api_key_comfy_org":"k","note":"n"}"#.into(),
            headers: vec![("Authorization".into(), "b".into()), ("X-API-Key".into(), "k".into())],
            ..Body::default()
        };
        let (mut state, job) = entered(&JobTexts { body: Arc::new(body), ..JobTexts::default() });
        for key in ["auth_token_comfy_org", "api_key_comfy_org", "API_KEY_comfy_org"] {
            assert_eq!(state.extra_data(job, key.into()).unwrap(), None, "{key}");
        }
        for name in ["authorization", "x-api-key"] {
            assert_eq!(state.header(job, name.into()).unwrap(), None, "{name}");
        }
        assert_eq!(state.extra_data(job, "note".into()).unwrap(), said("\"n\""));
    }

    #[test]
    fn a_prompt_that_is_no_json_has_no_inputs() {
        let body = Body { prompt: "{{{".into(), extra_data: "[".into(), ..Body::default() };
        let (mut state, job) = entered(&JobTexts { body: Arc::new(body), ..JobTexts::default() });
        assert_eq!(state.input(job, "3".into(), "steps".into()).unwrap(), None);
        assert_eq!(state.extra_data(job, "note".into()).unwrap(), None);
    }
}
