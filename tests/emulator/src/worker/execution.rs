//! One execution: runs the nodes of a prompt, sends its events in ComfyUI's order, and becomes a history entry.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError},
};

use indexmap::IndexMap;
use serde_json::{Map, Value as Json, json};

use super::{
    cache::{self, Cached},
    order::Order,
    progress::Progress,
};
use crate::{
    config::Flavour,
    control::{
        fault::{Failure, Moment},
        gate::Each,
        oracle::Outcome,
    },
    life::{Life, now_ms},
    nodes::{
        models,
        run::{self, Call, Inputs, Raised, Ran},
        value::{Value, fingerprint},
    },
    queue::Item,
};

const OOM_TIPS: &str = "This error means you ran out of memory on your GPU.\n\nTIPS: If the workflow worked before you \
                        might have accidentally set the batch_size to a large number.";

pub(crate) struct Execution {
    pub(crate) life: Arc<Life>,
    pub(crate) item: Arc<Item>,
    client: Option<String>,
    order: u64,
    progress: Progress,
    executed: Vec<String>,
    messages: Vec<Json>,
    /// What nodes showed, by node id.
    shown: IndexMap<String, Json>,
    signatures: HashMap<String, u64>,
    outcome: Outcome,
    failure: Option<Failure>,
    passed_gate: bool,
}

/// An image for the preview channel.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) bytes: Vec<u8>,
    pub(crate) png: bool,
}

impl Execution {
    /// Tells the oracle first: whatever happens later, this execution was started.
    pub(crate) fn begin(life: Arc<Life>, item: Arc<Item>) -> Self {
        let client = item.client_id().map(str::to_owned);
        let order =
            life.machine.oracle.started(life.number, &item.prompt_id, client.as_deref(), &item.inputs_hash);
        life.interrupt.clear();
        life.hub.set_owner(client.clone());
        Self {
            failure: life.machine.faults.take_failure(),
            client,
            order,
            progress: Progress::default(),
            executed: Vec::new(),
            messages: Vec::new(),
            shown: IndexMap::new(),
            signatures: HashMap::new(),
            outcome: Outcome::Error,
            passed_gate: false,
            life,
            item,
        }
    }

    pub(crate) fn order(&self) -> u64 {
        self.order
    }

    pub(crate) fn outcome(&self) -> Outcome {
        self.outcome
    }

    pub(crate) async fn run(&mut self) {
        self.message("execution_start", json!({ "prompt_id": self.item.prompt_id }), false);
        self.life.reach(Moment::Started).await;
        if self.item.prompt.values().any(|node| !node.get("inputs").is_some_and(Json::is_object)) {
            self.life.die_silently().await;
        }
        self.prepare_cache();
        let (life, item) = (Arc::clone(&self.life), Arc::clone(&self.item));
        let mut order = Order::default();
        for output in &item.outputs {
            order.add(&item.prompt, output, |id| self.cached(id).is_some());
        }
        let is_output = |id: &str| {
            let class = item.prompt.get(id).and_then(|node| node["class_type"].as_str());
            class.and_then(|class| life.machine.catalogue.class(class)).is_some_and(|class| class.is_output)
        };
        while let Some(id) = order.next(is_output) {
            if !self.node(&id).await {
                life.hub.set_last_node(None);
                return;
            }
            order.done(&id);
        }
        self.outcome = Outcome::Success;
        self.message("execution_success", json!({ "prompt_id": item.prompt_id }), false);
        life.hub.set_last_node(None);
    }

    fn prepare_cache(&mut self) {
        self.signatures = cache::signatures(&self.item.prompt, &self.life.machine.dirs);
        self.life.cache.lock().unwrap_or_else(PoisonError::into_inner).retain(&self.signatures);
        self.drop_other_loras();
        let nodes: Vec<&String> = self.item.prompt.keys().filter(|id| self.cached(id).is_some()).collect();
        let data = json!({ "nodes": nodes, "prompt_id": self.item.prompt_id });
        self.message("execution_cached", data, false);
    }

    /// Patches of LoRAs that this prompt does not use are undone.
    fn drop_other_loras(&self) {
        let wanted = models::named_models(&self.item.prompt, &["loras"]);
        if let Some(gpu) = &self.life.machine.gpu {
            let unused =
                |name: &str| name.starts_with("loras/") && !wanted.iter().any(|(_, path)| path == name);
            gpu.unload(self.life.machine.owner, unused);
        }
    }

    fn cached(&self, id: &str) -> Option<Cached> {
        let signature = *self.signatures.get(id)?;
        self.life.cache.lock().unwrap_or_else(PoisonError::into_inner).get(signature).cloned()
    }

    /// False when the execution is over.
    async fn node(&mut self, id: &str) -> bool {
        if let Some(cached) = self.cached(id) {
            self.show_cached(id, cached).await;
            return true;
        }
        self.progress.start(id);
        self.send_progress_state();
        if let Some(client) = &self.client {
            self.life.hub.set_last_node(Some(id));
            let data = json!({ "node": id, "display_node": id, "prompt_id": self.item.prompt_id });
            self.life.hub.send(Some(client), "executing", &data);
        }
        let inputs = self.inputs(id);
        match self.execute(id, &inputs).await {
            Ok(ran) => {
                self.finish_node(id, &ran).await;
                true
            }
            Err(raised) => {
                self.fail(id, &inputs, raised);
                false
            }
        }
    }

    async fn execute(&mut self, id: &str, inputs: &Inputs) -> Result<Ran, Raised> {
        self.pass_gates().await;
        self.life.checkpoint().await;
        if self.life.interrupt.consume() {
            return Err(Raised::Interrupted);
        }
        self.life.gate_deaf(Each::Inside).await;
        let life = Arc::clone(&self.life);
        let class = self.class_of(id).to_owned();
        let output_types =
            life.machine.catalogue.class(&class).map(|class| class.outputs.clone()).unwrap_or_default();
        let fingerprint = fingerprint(&(life.machine.config.seed, self.signatures.get(id)));
        let call = Call {
            execution: self,
            node: id,
            class: &class,
            output_types: &output_types,
            inputs,
            fingerprint,
        };
        run::run(call).await
    }

    async fn pass_gates(&mut self) {
        if !std::mem::replace(&mut self.passed_gate, true) {
            self.life.gate(Each::Execution).await;
        }
        self.life.gate(Each::Node).await;
    }

    async fn finish_node(&mut self, id: &str, ran: &Ran) {
        let signature = self.signatures.get(id).copied().unwrap_or_default();
        self.life.cache.lock().unwrap_or_else(PoisonError::into_inner).put(signature, id, ran);
        self.life.machine.oracle.ran(self.order, id);
        if let Some(ui) = &ran.ui {
            self.shown.insert(id.into(), ui.clone());
            self.send_executed(id, ui);
            self.life.reach(Moment::Executed).await;
        }
        self.progress.finish(id);
        self.send_progress_state();
        self.executed.push(id.into());
        self.life.reach(Moment::AfterNodes(self.executed.len() as u64)).await;
    }

    /// A cached output is announced again with the files of the earlier run.
    async fn show_cached(&mut self, id: &str, cached: Cached) {
        if !std::mem::replace(&mut self.passed_gate, true) {
            self.life.gate(Each::Execution).await;
        }
        let known = self.life.machine.config.flavour == Flavour::V0_8_0 || cached.node == id;
        let ui = cached.ui.filter(|_| known);
        if let Some(ui) = &ui {
            self.shown.insert(id.into(), ui.clone());
        }
        self.send_executed(id, &ui.unwrap_or(Json::Null));
        self.life.reach(Moment::Executed).await;
        self.progress.finish(id);
        self.send_progress_state();
    }

    fn fail(&mut self, id: &str, inputs: &Inputs, raised: Raised) {
        let mut data = json!({
            "prompt_id": self.item.prompt_id,
            "node_id": id,
            "node_type": self.class_of(id),
            "executed": self.executed,
        });
        let Raised::Error { exception_type, message } = raised else {
            self.outcome = Outcome::Interrupted;
            self.message("execution_interrupted", data, true);
            return;
        };
        let out_of_memory = exception_type == "torch.OutOfMemoryError";
        if let (true, Some(gpu)) = (out_of_memory, &self.life.machine.gpu) {
            gpu.unload(self.life.machine.owner, |_| true);
        }
        let shown: Map<String, Json> =
            inputs.iter().map(|(name, value)| (name.clone(), json!([value.shown()]))).collect();
        data["exception_message"] =
            json!(format!("{message}\n{}", if out_of_memory { OOM_TIPS } else { "" }));
        data["exception_type"] = json!(exception_type);
        data["traceback"] = json!([
            "  File \"execution.py\", line 0, in execute\n    output_data, output_ui, has_subgraph, has_pending_tasks = await get_output_data(prompt_id, unique_id, obj, input_data_all)\n"
        ]);
        data["current_inputs"] = Json::Object(shown);
        data["current_outputs"] = json!(self.item.prompt.keys().collect::<Vec<_>>());
        self.message("execution_error", data, false);
    }

    fn class_of(&self, id: &str) -> &str {
        self.item.prompt.get(id).and_then(|node| node["class_type"].as_str()).unwrap_or_default()
    }

    fn inputs(&self, id: &str) -> Inputs {
        let inputs = self.item.prompt.get(id).and_then(|node| node["inputs"].as_object());
        let resolve = |value: &Json| match cache::link(value) {
            Some((from, slot)) => {
                let outputs = self.cached(from).map(|cached| cached.outputs).unwrap_or_default();
                cache::linked(&outputs, slot)
            }
            None => Value::literal(value),
        };
        inputs.into_iter().flatten().map(|(name, value)| (name.clone(), resolve(value))).collect()
    }

    /// One step of a progress bar, with an image perhaps; where interrupts are noticed.
    pub(crate) fn progress(
        &mut self,
        node: &str,
        value: u32,
        max: u32,
        frame: Option<&Frame>,
    ) -> Result<(), Raised> {
        if self.life.interrupt.consume() {
            return Err(Raised::Interrupted);
        }
        let hub = &self.life.hub;
        let client = self.client.as_deref();
        let with_metadata = hub.wants_preview_metadata(client);
        self.progress.update(node, value, max);
        self.send_progress_state();
        if let (Some(frame), true) = (frame, with_metadata) {
            hub.send_binary(client, self.metadata_frame(node, frame));
        }
        let data = json!({ "value": value, "max": max, "prompt_id": self.item.prompt_id, "node": node });
        hub.send(client, "progress", &data);
        if let (Some(frame), false) = (frame, with_metadata) {
            hub.send_binary(client, plain_frame(frame));
        }
        Ok(())
    }

    /// Binary type 3: to all sockets, with a node id and no prompt id.
    pub(crate) fn progress_text(&self, node: &str, text: &str) {
        let length = node.len() as u32;
        let frame = [&3_u32.to_be_bytes(), &length.to_be_bytes(), node.as_bytes(), text.as_bytes()].concat();
        self.life.hub.send_binary(None, frame);
    }

    fn metadata_frame(&self, node: &str, frame: &Frame) -> Vec<u8> {
        let metadata = crate::pyjson::dumps(&json!({
            "node_id": node,
            "prompt_id": self.item.prompt_id,
            "display_node_id": node,
            "parent_node_id": null,
            "real_node_id": node,
            "image_type": if frame.png { "image/png" } else { "image/jpeg" },
        }));
        let length = metadata.len() as u32;
        [&4_u32.to_be_bytes(), &length.to_be_bytes(), metadata.as_bytes(), &frame.bytes].concat()
    }

    /// Whether samplers show previews: the option of the instance, which 0.8.0 lets a prompt override.
    pub(crate) fn previews(&self) -> bool {
        let config = &self.life.machine.config;
        let method = self.item.extra_data.get("preview_method").and_then(Json::as_str);
        match method.filter(|_| config.flavour == Flavour::V0_8_0) {
            None | Some("default") => config.preview,
            Some(method) => method != "none",
        }
    }

    pub(crate) fn failure_for_node(&mut self) -> Option<Raised> {
        let samples = self.item.prompt.values().any(|node| node["class_type"] == "KSampler");
        let failure = self.failure.take_if(|failure| matches!(failure, Failure::Error(_)) || !samples)?;
        Some(match failure {
            Failure::Error(message) => Raised::error("RuntimeError", message),
            Failure::OutOfMemory => Raised::out_of_memory(),
        })
    }

    /// Out of memory strikes at the sampler, where there is one.
    pub(crate) fn failure_for_sampler(&mut self) -> bool {
        self.failure.take_if(|failure| *failure == Failure::OutOfMemory).is_some()
    }

    pub(crate) fn base_models(&self) -> Vec<(String, String)> {
        models::named_models(&self.item.prompt, &["checkpoints", "diffusion_models"])
    }

    /// Five letters that differ between instances, lives and nodes.
    pub(crate) fn letters(&self, node: &str) -> String {
        let hash =
            fingerprint(&(self.life.machine.config.seed, self.life.number, self.life.machine.owner, node));
        hash.to_le_bytes().iter().take(5).map(|byte| char::from(b'a' + byte % 26)).collect()
    }

    fn send_progress_state(&self) {
        let state = self.progress.state(&self.item.prompt_id);
        self.life.hub.send(self.client.as_deref(), "progress_state", &state);
    }

    fn send_executed(&self, id: &str, output: &Json) {
        if let Some(client) = &self.client {
            let data =
                json!({ "node": id, "display_node": id, "output": output, "prompt_id": self.item.prompt_id });
            self.life.hub.send(Some(client), "executed", &data);
        }
    }

    /// Remembered for history; sent to the owner, or to all if it is a broadcast and there is none.
    fn message(&mut self, event: &str, mut data: Json, broadcast: bool) {
        data["timestamp"] = json!(now_ms());
        if self.client.is_some() || broadcast {
            self.life.hub.send(self.client.as_deref(), event, &data);
        }
        self.messages.push(json!([event, data]));
    }

    pub(crate) fn into_history(self) -> Json {
        let success = self.outcome == Outcome::Success;
        let meta: Map<String, Json> = self.shown.keys().map(|id| (id.clone(), meta(id))).collect();
        json!({
            "prompt": self.item.remembered(),
            "outputs": Json::Object(self.shown.into_iter().collect()),
            "status": {
                "status_str": if success { "success" } else { "error" },
                "completed": success,
                "messages": self.messages,
            },
            "meta": meta,
        })
    }
}

fn meta(id: &str) -> Json {
    json!({ "node_id": id, "display_node": id, "parent_node": null, "real_node_id": id })
}

fn plain_frame(frame: &Frame) -> Vec<u8> {
    let format: u32 = if frame.png { 2 } else { 1 };
    [&1_u32.to_be_bytes()[..], &format.to_be_bytes(), &frame.bytes].concat()
}
