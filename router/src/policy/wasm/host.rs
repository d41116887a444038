//! The functions a guest may call. Each answers from the frozen context of the present consultation; none waits, takes
//! a lock or leaves the process, and none shows a credential.

use std::collections::HashMap;
use std::time::Instant;

use serde_json::value::RawValue;
use wasmtime::component::{HasSelf, Linker};

use super::bindings::Policy;
use super::bindings::comfy_router::policy as wit;
use super::meter::{Line, LogBudget, Memory, Meter, Stop};
use crate::model::decision::{Hook, PolicyVersion};
use crate::model::job::ModelRef;
use crate::model::view::{Context, JobTexts, Totals};
use crate::policy::config::GuestLimits;

/// Parts of a name that make a header or `extra_data` key a credential, whatever an allow-list says.
const SECRET: [&str; 6] = ["authorization", "cookie", "token", "secret", "password", "api_key"];

/// What belongs to one guest.
pub(super) struct State {
    version: PolicyVersion,
    pub(super) memory: Memory,
    pub(super) meter: Meter,
    log: LogBudget,
    context: Context,
    job: Option<JobTexts>,
    /// Of the present job; others are refused.
    handle: u32,
    graph: Option<Graph>,
    random: u64,
}

/// Node id to its members, as JSON text: a node is read only when it is asked for.
type Graph = HashMap<String, Box<RawValue>>;

#[derive(serde::Deserialize)]
struct Node<'a> {
    #[serde(borrow, default)]
    inputs: HashMap<std::borrow::Cow<'a, str>, &'a RawValue>,
}

impl State {
    pub(super) fn new(version: PolicyVersion, limits: &GuestLimits) -> Self {
        Self {
            version,
            memory: Memory::new(limits),
            meter: Meter::new(0, std::time::Duration::ZERO),
            log: LogBudget::new(limits.log_bytes_per_second),
            context: Context::default(),
            job: None,
            handle: 0,
            graph: None,
            random: 0,
        }
    }

    /// Before each call. The handle is new each time, so that one kept from an earlier call names nothing.
    pub(super) fn enter(
        &mut self,
        hook: Hook,
        seed: u64,
        context: &Context,
        job: Option<&JobTexts>,
        meter: Meter,
    ) -> u32 {
        self.context.clone_from(context);
        self.job = job.cloned();
        self.handle = self.handle.wrapping_add(1);
        self.graph = None;
        // The hooks of one consultation share its seed and not their numbers.
        self.random = seed ^ (hook as u64).wrapping_mul(0xa076_1d64_78bd_642f);
        self.meter = meter;
        self.memory.refused = false;
        self.handle
    }

    fn texts(&self, job: u32) -> Option<&JobTexts> {
        self.job.as_ref().filter(|_| job == self.handle)
    }

    fn instance(&self, index: u32) -> Option<&crate::model::view::InstanceTexts> {
        self.context.fleet.get(index as usize)
    }
}

/// Everything a guest may import.
pub(super) fn link(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    Policy::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?;
    Ok(linker)
}

type Answer<T> = wasmtime::Result<T>;

impl State {
    fn spend(&mut self) -> Answer<()> {
        self.meter.spend().map_err(|stop: Stop| wasmtime::Error::from(stop))
    }
}

impl wit::types::Host for State {}

impl wit::fleet::Host for State {
    fn name(&mut self, instance: u32) -> Answer<Option<String>> {
        self.spend()?;
        Ok(self.instance(instance).map(|texts| texts.name.to_string()))
    }

    fn label(&mut self, instance: u32, key: String) -> Answer<Option<String>> {
        self.spend()?;
        Ok(self.instance(instance).and_then(|texts| texts.labels.get(&key).cloned()))
    }

    fn resident_models(&mut self, instance: u32) -> Answer<Vec<String>> {
        self.spend()?;
        let models = self.instance(instance).map(|texts| texts.resident.clone()).unwrap_or_default();
        Ok(models.iter().map(|model| format!("{}/{}", model.folder, model.name)).collect())
    }

    fn has_model(&mut self, instance: u32, folder: String, name: String) -> Answer<bool> {
        self.spend()?;
        Ok(self.instance(instance).is_some_and(|texts| texts.can.has_model(&ModelRef { folder, name })))
    }
}

fn totals(totals: Totals) -> wit::queue::Totals {
    wit::queue::Totals { queued: totals.queued, running: totals.running }
}

impl wit::queue::Host for State {
    fn all(&mut self) -> Answer<wit::queue::Totals> {
        self.spend()?;
        Ok(totals(self.context.all))
    }

    fn tenant(&mut self, tenant: u32) -> Answer<wit::queue::Totals> {
        self.spend()?;
        Ok(totals(self.context.tenants.get(tenant as usize).map(|(_, totals)| *totals).unwrap_or_default()))
    }

    fn tenant_name(&mut self, tenant: u32) -> Answer<Option<String>> {
        self.spend()?;
        Ok(self.context.tenants.get(tenant as usize).map(|(name, _)| name.to_string()))
    }

    fn client_name(&mut self, client: u32) -> Answer<Option<String>> {
        self.spend()?;
        Ok(self.context.clients.get(client as usize).map(|(name, _)| name.to_string()))
    }
}

impl wit::workflow::Host for State {
    fn node_classes(&mut self, job: u32) -> Answer<Vec<String>> {
        self.spend()?;
        Ok(self.texts(job).map(|texts| texts.needs.classes.clone()).unwrap_or_default())
    }

    fn models(&mut self, job: u32) -> Answer<Vec<wit::workflow::Model>> {
        self.spend()?;
        let models = self.texts(job).map(|texts| texts.needs.models.as_slice()).unwrap_or_default();
        let model = |m: &ModelRef| wit::workflow::Model { folder: m.folder.clone(), name: m.name.clone() };
        Ok(models.iter().map(model).collect())
    }

    fn input(&mut self, job: u32, node: String, name: String) -> Answer<Option<String>> {
        self.spend()?;
        let Some(texts) = self.texts(job) else { return Ok(None) };
        let body = texts.body.clone();
        let graph = self.graph.get_or_insert_with(|| serde_json::from_str(&body.prompt).unwrap_or_default());
        let Some(node) = graph.get(&node) else { return Ok(None) };
        let node: Option<Node<'_>> = serde_json::from_str(node.get()).ok();
        let value = node.and_then(|node| node.inputs.get(name.as_str()).map(|value| value.get().to_owned()));
        // An array is a link to another node's output, not a literal.
        Ok(value.filter(|value| !value.starts_with('[')))
    }

    fn extra_data(&mut self, job: u32, key: String) -> Answer<Option<String>> {
        self.spend()?;
        if secret(&key) {
            return Ok(None);
        }
        let Some(texts) = self.texts(job) else { return Ok(None) };
        let data: Graph = serde_json::from_str(&texts.body.extra_data).unwrap_or_default();
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
}

fn secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    SECRET.iter().any(|part| name.contains(part))
}

impl wit::clock::Host for State {
    fn now_ms(&mut self) -> Answer<f64> {
        self.spend()?;
        Ok(self.context.now_ms as f64)
    }
}

impl wit::random::Host for State {
    /// SplitMix64 (Steele, Lea and Flood, OOPSLA '14): any seed is as good as any other.
    fn next(&mut self) -> Answer<u32> {
        self.spend()?;
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Ok(((z ^ (z >> 31)) >> 32) as u32)
    }
}

impl wit::log::Host for State {
    fn enabled(&mut self, level: wit::log::Level) -> Answer<bool> {
        self.spend()?;
        Ok(match level {
            wit::log::Level::Error => tracing::enabled!(tracing::Level::ERROR),
            wit::log::Level::Warn => tracing::enabled!(tracing::Level::WARN),
            wit::log::Level::Info => tracing::enabled!(tracing::Level::INFO),
            wit::log::Level::Debug => tracing::enabled!(tracing::Level::DEBUG),
        })
    }

    fn write(&mut self, level: wit::log::Level, message: String) -> Answer<()> {
        self.spend()?;
        let Line::Kept { text, dropped_before } = self.log.take(&message, Instant::now()) else {
            return Ok(());
        };
        let policy = &self.version.name;
        if dropped_before > 0 {
            tracing::warn!(%policy, dropped = dropped_before, "the policy logs too much, lines were dropped");
        }
        match level {
            wit::log::Level::Error => tracing::error!(%policy, text, "policy says"),
            wit::log::Level::Warn => tracing::warn!(%policy, text, "policy says"),
            wit::log::Level::Info => tracing::info!(%policy, text, "policy says"),
            wit::log::Level::Debug => tracing::debug!(%policy, text, "policy says"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::wit::workflow::Host as _;
    use super::*;
    use crate::model::job::Body;
    use crate::policy::record::builtin_version;
    use crate::policy::sample;

    fn entered(texts: &JobTexts) -> (State, u32) {
        let mut state = State::new(builtin_version(), &GuestLimits::default());
        let meter = Meter::new(1_000, Duration::from_secs(60));
        let handle = state.enter(Hook::Route, 1, &sample::context(2), Some(texts), meter);
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
        state.enter(Hook::Route, 1, &sample::context(2), Some(&sample::job().texts), meter);
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
