//! The configuration as written, before defaults that depend on other keys.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::{Table, Value};

use super::instance::{Gpu, Url};
use super::launch::Launch;
use super::mistake::{Mistake, Origin};
use super::policy::Policy;
use super::routes::Route;
use super::sections::{Discover, Fleet, Front, Ledger, Limits, Log, Outputs, Secret, Telemetry, Timeouts};
use super::sources::{KeyPath, Merged, Step, one_line};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Written {
    pub(super) listen: Option<String>,
    pub(super) admin: Option<String>,
    pub(super) admin_key: Secret,
    pub(super) discover: Discover,
    pub(super) launch: Launch,
    pub(super) fleet: Fleet,
    pub(super) ledger: Ledger,
    pub(super) policy: Policy,
    pub(super) telemetry: Telemetry,
    pub(super) limits: Limits,
    pub(super) timeouts: Timeouts,
    pub(super) front: Front,
    pub(super) outputs: Outputs,
    pub(super) log: Log,
    pub(super) route: Vec<Route>,
    pub(super) instance: Vec<WrittenInstance>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WrittenInstance {
    pub(super) name: Option<String>,
    pub(super) url: Option<Url>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) gpu: Option<Gpu>,
    pub(super) slots: Option<u32>,
    pub(super) ahead: Option<u32>,
    pub(super) restart: Option<Vec<String>>,
}

/// Reads the table; a key that cannot be read is reported and left at its default.
pub(super) fn read(merged: &Merged, mistakes: &mut Vec<Mistake>) -> Written {
    let mut reader = Reader { merged, mistakes, wrong: Vec::new() };
    for (key, value) in &merged.table {
        reader.check(&KeyPath::keys(&[key]), value);
    }
    let mut good = Value::Table(merged.table.clone());
    // The last first, so that removing an element leaves the places of the others.
    for path in reader.wrong.iter().rev() {
        remove(&mut good, &path.0);
    }
    match good.try_into() {
        Ok(written) => written,
        Err(error) => {
            if mistakes.is_empty() {
                mistakes.push(Mistake::new(Origin::Nowhere, "", one_line(error.message())));
            }
            Written::default()
        }
    }
}

struct Reader<'a> {
    merged: &'a Merged,
    mistakes: &'a mut Vec<Mistake>,
    wrong: Vec<KeyPath>,
}

impl Reader<'_> {
    /// serde stops at the first error, so each key is tried in a table of its own. Every key is optional there.
    fn check(&mut self, path: &KeyPath, value: &Value) {
        match value {
            Value::Table(table) => {
                if self.try_alone(path, Value::Table(Table::new())) {
                    table
                        .iter()
                        .for_each(|(key, value)| self.check(&path.then(Step::Key(key.clone())), value));
                }
            }
            Value::Array(items) if items.iter().any(Value::is_table) => {
                for (index, item) in items.iter().enumerate() {
                    self.check(&path.then(Step::Index(index)), item);
                }
            }
            leaf => {
                self.try_alone(path, leaf.clone());
            }
        }
    }

    fn try_alone(&mut self, path: &KeyPath, value: Value) -> bool {
        let alone = path.0.iter().rev().fold(value, |inner, step| match step {
            Step::Key(key) => Value::Table(Table::from_iter([(key.clone(), inner)])),
            Step::Index(_) => Value::Array(vec![inner]),
        });
        let Err(error) = alone.try_into::<Written>() else { return true };
        let what = one_line(error.message());
        self.mistakes.push(Mistake::new(self.merged.origin(path), path.to_string(), what));
        self.wrong.push(path.clone());
        false
    }
}

fn remove(value: &mut Value, path: &[Step]) {
    match (value, path) {
        (Value::Table(table), [Step::Key(key)]) => {
            table.remove(key);
        }
        (Value::Table(table), [Step::Key(key), rest @ ..]) => {
            if let Some(inner) = table.get_mut(key) {
                remove(inner, rest);
            }
        }
        // An element keeps its place, so that later mistakes name the right one.
        (Value::Array(items), [Step::Index(index)]) => {
            if let Some(item) = items.get_mut(*index) {
                *item = Value::Table(Table::new());
            }
        }
        (Value::Array(items), [Step::Index(index), rest @ ..]) => {
            if let Some(inner) = items.get_mut(*index) {
                remove(inner, rest);
            }
        }
        _ => {}
    }
}
