//! The oracle: every execution this instance ever started, whatever became of it. Tests compare it with the
//! router's ledger, so it survives emulated crashes, and the SIGKILL of the process when it has a file.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use crate::{files, life::now_ms};

/// How an execution ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Success,
    Error,
    Interrupted,
    /// The process died under it.
    Crashed,
}

/// One execution, in the order of starting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Execution {
    /// Counts from 0 over all lives of the instance.
    pub order: u64,
    /// Which life of the process ran it, from 1.
    pub life: u64,
    pub prompt_id: String,
    pub client_id: Option<String>,
    /// Milliseconds since 1970.
    pub started_ms: u64,
    pub ended_ms: Option<u64>,
    /// `None` while it runs.
    pub outcome: Option<Outcome>,
    /// Nodes that really ran, not those from the cache.
    pub nodes_run: Vec<String>,
    pub inputs_hash: String,
}

/// Hash of a prompt graph that does not depend on key order.
pub fn inputs_hash(prompt: &Value) -> String {
    files::sha256_hex(sorted(prompt).to_string().as_bytes())
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut pairs: Vec<_> = map.iter().collect();
            pairs.sort_by_key(|(key, _)| *key);
            Value::Object(
                pairs.into_iter().map(|(key, value)| (key.clone(), sorted(value))).collect::<Map<_, _>>(),
            )
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

#[derive(Debug)]
pub(crate) struct Oracle {
    executions: watch::Sender<Vec<Execution>>,
    file: Option<Mutex<File>>,
}

impl Oracle {
    pub(crate) fn open(path: Option<&Path>) -> io::Result<Self> {
        let open = |path: &Path| OpenOptions::new().create(true).append(true).open(path).map(Mutex::new);
        Ok(Self { executions: watch::Sender::new(Vec::new()), file: path.map(open).transpose()? })
    }

    /// Notes a start, on disk before it returns; gives the order of the execution.
    pub(crate) fn started(
        &self,
        life: u64,
        prompt_id: &str,
        client_id: Option<&str>,
        inputs_hash: &str,
    ) -> u64 {
        let mut execution = Execution {
            order: 0,
            life,
            prompt_id: prompt_id.into(),
            client_id: client_id.map(str::to_owned),
            started_ms: now_ms(),
            ended_ms: None,
            outcome: None,
            nodes_run: Vec::new(),
            inputs_hash: inputs_hash.into(),
        };
        execution.order = self.executions.borrow().len() as u64;
        self.append("started", &execution);
        let order = execution.order;
        self.executions.send_modify(|all| all.push(execution));
        order
    }

    pub(crate) fn ran(&self, order: u64, node: &str) {
        self.change(order, |execution| execution.nodes_run.push(node.into()));
    }

    pub(crate) fn ended(&self, order: u64, outcome: Outcome) {
        self.change(order, |execution| {
            execution.ended_ms = Some(now_ms());
            execution.outcome = Some(outcome);
        });
        if let Some(execution) = self.executions.borrow().get(order as usize) {
            self.append("ended", execution);
        }
    }

    /// The process died: what ran will never end.
    pub(crate) fn crashed(&self) {
        let open: Vec<u64> =
            self.executions.borrow().iter().filter(|e| e.outcome.is_none()).map(|e| e.order).collect();
        for order in open {
            self.ended(order, Outcome::Crashed);
        }
    }

    pub(crate) fn executions(&self) -> Vec<Execution> {
        self.executions.borrow().clone()
    }

    pub(crate) async fn wait(&self, mut until: impl FnMut(&[Execution]) -> bool) -> Vec<Execution> {
        let mut changes = self.executions.subscribe();
        match changes.wait_for(|all| until(all)).await {
            Ok(all) => all.clone(),
            Err(_) => Vec::new(),
        }
    }

    /// Forgets the executions in memory; the file keeps them. Orders start from 0 again.
    pub(crate) fn reset(&self) {
        self.executions.send_modify(Vec::clear);
    }

    fn change(&self, order: u64, change: impl FnOnce(&mut Execution)) {
        self.executions.send_if_modified(|all| match all.get_mut(order as usize) {
            Some(execution) => {
                change(execution);
                true
            }
            None => false,
        });
    }

    fn append(&self, event: &str, execution: &Execution) {
        let Some(file) = &self.file else { return };
        let mut line = json!({ "event": event });
        if let (Value::Object(line), Ok(Value::Object(fields))) = (&mut line, serde_json::to_value(execution))
        {
            line.extend(fields);
        }
        let mut file: MutexGuard<'_, File> = file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(format!("{line}\n").as_bytes()).expect("the oracle file takes a line");
        file.flush().expect("the oracle file takes a line");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_knows_a_start_before_the_end() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("oracle.jsonl");
        let oracle = Oracle::open(Some(&path)).expect("the file opens");
        let order = oracle.started(1, "p", Some("c"), "h");
        let lines = std::fs::read_to_string(&path).expect("lines");
        assert!(lines.starts_with(r#"{"event":"started","order":0,"life":1,"prompt_id":"p""#), "{lines}");
        oracle.ran(order, "3");
        oracle.crashed();
        let execution = oracle.executions().remove(0);
        assert_eq!((execution.outcome, execution.nodes_run), (Some(Outcome::Crashed), vec!["3".to_owned()]));
        assert_eq!(std::fs::read_to_string(&path).expect("lines").lines().count(), 2);
    }

    #[test]
    fn key_order_does_not_change_the_hash() {
        assert_eq!(
            inputs_hash(&json!({"a": 1, "b": {"c": 2, "d": 3}})),
            inputs_hash(&json!({"b": {"d": 3, "c": 2}, "a": 1}))
        );
        assert_ne!(inputs_hash(&json!({"a": 1})), inputs_hash(&json!({"a": 1.0})));
    }
}
