//! Where values come from: the file, then environment variables, then flags; the later one wins, key by key.
//!
//! | variable | key |
//! |---|---|
//! | `COMFY_ROUTER_CONFIG` | the file itself |
//! | `COMFY_ROUTER_LISTEN`, `COMFY_ROUTER_ADMIN` | `listen`, `admin` |
//! | `COMFY_ROUTER_INSTANCES` | `instance`: URLs separated by commas, each `URL` or `NAME=URL` |
//! | `COMFY_ROUTER_STATE_DIR` | `ledger.dir` |
//! | `COMFY_ROUTER_POLICY` | `policy.file` |
//! | `COMFY_ROUTER_API_KEY` | one more of `front.api_keys`, named `env` |
//! | `COMFY_ROUTER_LOG`, `COMFY_ROUTER_LOG_FORMAT` | `log.level`, `log.format` |
//! | `COMFY_ROUTER__SECTION__KEY` | `section.key`, any: a TOML value, or else text |
//!
//! Any other name that begins with `COMFY_ROUTER_` is a mistake.

use std::fmt;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::mistake::{Mistake, Origin};

/// Everything a configuration is made from. The environment is given, not read, so that a test has its own.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Named by flag; wins over `COMFY_ROUTER_CONFIG`.
    pub file: Option<PathBuf>,
    pub env: Vec<(String, String)>,
    pub flags: Vec<Setting>,
}

/// A value given by a flag.
#[derive(Debug, Clone)]
pub struct Setting {
    /// As typed, such as `--listen`.
    pub flag: String,
    /// `section.key`.
    pub path: String,
    pub value: Value,
}

/// All sources as one table, and which came from where.
#[derive(Debug, Default)]
pub(super) struct Merged {
    pub(super) table: Table,
    file: Option<(PathBuf, String)>,
    set: Vec<(KeyPath, Origin)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct KeyPath(pub(super) Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

enum Reading {
    /// Text, whatever it looks like.
    Text,
    Instances,
    Key,
}

const VARIABLES: [(&str, &str, Reading); 9] = [
    ("COMFY_ROUTER_LISTEN", "listen", Reading::Text),
    ("COMFY_ROUTER_ADMIN", "admin", Reading::Text),
    ("COMFY_ROUTER_ADMIN_KEY", "admin_key", Reading::Text),
    ("COMFY_ROUTER_INSTANCES", "instance", Reading::Instances),
    ("COMFY_ROUTER_STATE_DIR", "ledger.dir", Reading::Text),
    ("COMFY_ROUTER_POLICY", "policy.file", Reading::Text),
    ("COMFY_ROUTER_API_KEY", "front.api_keys", Reading::Key),
    ("COMFY_ROUTER_LOG", "log.level", Reading::Text),
    ("COMFY_ROUTER_LOG_FORMAT", "log.format", Reading::Text),
];
const FILE_VARIABLE: &str = "COMFY_ROUTER_CONFIG";

impl Sources {
    /// The process's environment and the given flags.
    pub fn of_process(file: Option<PathBuf>, flags: Vec<Setting>) -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        };
        Self { file, env: std::env::vars_os().filter_map(text).collect(), flags }
    }

    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        let found = self.env.iter().find(|(key, value)| key == name && !value.is_empty());
        found.map(|(_, value)| value.as_str())
    }

    /// `comfy-router` in the user's state directory, as the XDG base directory specification places it.
    pub(super) fn default_state_dir(&self) -> Option<PathBuf> {
        let absolute = |name: &str| self.variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
        Some(base.join("comfy-router"))
    }

    pub(super) fn merge(&self, mistakes: &mut Vec<Mistake>) -> Merged {
        let mut merged = Merged::default();
        let file = self.file.clone().or_else(|| self.variable(FILE_VARIABLE).map(PathBuf::from));
        if let Some(path) = file {
            merged.read_file(path, mistakes);
        }
        for (name, value) in self.env.iter().filter(|(name, value)| is_ours(name) && !value.is_empty()) {
            merged.set_variable(name, value, mistakes);
        }
        for Setting { flag, path, value } in &self.flags {
            merged.set(path, value.clone(), Origin::Flag(flag.clone()), mistakes);
        }
        merged
    }
}

impl Setting {
    /// `--set section.key=value`: a TOML value, or else text.
    ///
    /// # Errors
    /// A message when there is no `=`.
    pub fn parse(flag: &str, text: &str) -> Result<Self, String> {
        let (path, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not KEY=VALUE"))?;
        Ok(Self { flag: flag.into(), path: path.trim().into(), value: toml_or_text(value.trim()) })
    }

    pub fn text(flag: &str, path: &str, value: impl Into<String>) -> Self {
        Self { flag: flag.into(), path: path.into(), value: Value::String(value.into()) }
    }

    /// The fleet as flags name it: `URL` or `NAME=URL` each.
    pub fn instances<'a>(flag: &str, texts: impl IntoIterator<Item = &'a str>) -> Self {
        Self { flag: flag.into(), path: "instance".into(), value: instances(texts) }
    }
}

impl Merged {
    /// Where the value at `path` was written.
    pub(super) fn origin(&self, path: &KeyPath) -> Origin {
        if let Some((_, origin)) = self.set.iter().rev().find(|(set, _)| path.0.starts_with(&set.0)) {
            return origin.clone();
        }
        match &self.file {
            Some((file, text)) => match line_of(text, path) {
                Some(line) => Origin::File { path: file.clone(), line: Some(line) },
                None => Origin::Nowhere,
            },
            None => Origin::Nowhere,
        }
    }

    /// Relative paths in the file are relative to the file.
    pub(super) fn beside_file(&self, path: &Path, key: &KeyPath) -> PathBuf {
        match (&self.file, self.origin(key)) {
            (Some((file, _)), Origin::File { .. }) => file.parent().unwrap_or(Path::new("")).join(path),
            _ => path.to_owned(),
        }
    }

    fn read_file(&mut self, path: PathBuf, mistakes: &mut Vec<Mistake>) {
        let origin = |line| Origin::File { path: path.clone(), line };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => {
                return mistakes.push(Mistake::new(origin(None), "", format!("cannot be read: {error}")));
            }
        };
        let (_, errors) = DeTable::parse_recoverable(&text);
        for error in &errors {
            let line = error.span().map(|span| line_at(&text, span.start));
            mistakes.push(Mistake::new(origin(line), "", one_line(error.message())));
        }
        // With syntax errors there is no table to trust: the keys that follow an error may belong anywhere.
        if errors.is_empty() {
            self.table = text.parse().unwrap_or_default();
        }
        self.file = Some((path, text));
    }

    fn set_variable(&mut self, name: &str, value: &str, mistakes: &mut Vec<Mistake>) {
        let origin = Origin::Variable(name.into());
        if let Some((_, path, reading)) = VARIABLES.iter().find(|(known, ..)| *known == name) {
            let value = match reading {
                Reading::Text => Value::String(value.into()),
                Reading::Instances => instances(value.split(',')),
                Reading::Key => self.with_key(value),
            };
            return self.set(path, value, origin, mistakes);
        }
        if let Some(path) = name.strip_prefix("COMFY_ROUTER__") {
            let path = path.split("__").map(str::to_lowercase).collect::<Vec<_>>().join(".");
            return self.set(&path, toml_or_text(value), origin, mistakes);
        }
        let known: Vec<_> = VARIABLES.iter().map(|(known, ..)| *known).collect();
        let help = format!("known are {FILE_VARIABLE}, {} and COMFY_ROUTER__SECTION__KEY", known.join(", "));
        mistakes.push(Mistake::new(origin, "", "is not a variable of comfy-router").help(help));
    }

    fn with_key(&self, key: &str) -> Value {
        let present =
            self.table.get("front").and_then(|front| front.get("api_keys")).and_then(Value::as_array);
        let mut keys = present.cloned().unwrap_or_default();
        let text = |text: &str| Value::String(text.into());
        keys.push(Table::from_iter([("name".to_owned(), text("env")), ("key".to_owned(), text(key))]).into());
        Value::Array(keys)
    }

    fn set(&mut self, path: &str, value: Value, origin: Origin, mistakes: &mut Vec<Mistake>) {
        let keys: Vec<&str> = path.split('.').collect();
        let (last, parents) = keys.split_last().unwrap_or((&"", &[]));
        let mut table = &mut self.table;
        for key in parents {
            let next = table.entry(*key).or_insert_with(|| Value::Table(Table::new()));
            match next.as_table_mut() {
                Some(next) => table = next,
                None => return mistakes.push(Mistake::new(origin, path, format!("`{key}` is no section"))),
            }
        }
        table.insert((*last).to_owned(), value);
        self.set.push((KeyPath::keys(&keys), origin));
    }
}

impl KeyPath {
    pub(super) fn keys(keys: &[&str]) -> Self {
        Self(keys.iter().map(|key| Step::Key((*key).to_owned())).collect())
    }

    #[must_use]
    pub(super) fn then(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(position, step)| match step {
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) if position == 0 => f.write_str(key),
            Step::Key(key) => write!(f, ".{key}"),
        })
    }
}

fn is_ours(name: &str) -> bool {
    name.starts_with("COMFY_ROUTER_") && name != FILE_VARIABLE
}

fn toml_or_text(text: &str) -> Value {
    let parsed = format!("value = {text}").parse::<Table>().ok();
    parsed.and_then(|mut table| table.remove("value")).unwrap_or_else(|| Value::String(text.into()))
}

fn instances<'a>(texts: impl IntoIterator<Item = &'a str>) -> Value {
    let one = |text: &str| {
        // `=` before the scheme ends a name; later it could only be part of a query.
        let (name, url) = match text.split_once('=') {
            Some((name, url)) if !name.contains("://") => (Some(name), url),
            _ => (None, text),
        };
        let entries = [("name", name), ("url", Some(url))];
        let present =
            entries.into_iter().filter_map(|(key, text)| Some((key.to_owned(), text?.trim().into())));
        Value::Table(present.collect())
    };
    Value::Array(texts.into_iter().map(str::trim).filter(|text| !text.is_empty()).map(one).collect())
}

fn line_of(text: &str, path: &KeyPath) -> Option<usize> {
    let root = DeTable::parse(text).ok()?;
    let mut found = None;
    let mut value = DeValue::Table(root.into_inner());
    for step in &path.0 {
        let next = match (step, value) {
            (Step::Key(key), DeValue::Table(mut table)) => {
                let name = table.keys().find(|name| name.get_ref() == key.as_str())?.clone();
                found = Some(name.span().start);
                table.remove(&name)?
            }
            (Step::Index(index), DeValue::Array(array)) => {
                let item = array.into_iter().nth(*index)?;
                found = Some(item.span().start);
                item
            }
            _ => return found.map(|at| line_at(text, at)),
        };
        value = next.into_inner();
    }
    found.map(|at| line_at(text, at))
}

fn line_at(text: &str, at: usize) -> usize {
    1 + text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
}

pub(super) fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
