//! The last calls of a version, written to a file once when it is switched off: what was asked, what came back.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::model::decision::{Consultation, Fallback, Hook, PolicyVersion};

/// Calls remembered.
const CALLS: usize = 8;
/// Files kept; the oldest go first.
const FILES: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct Evidence {
    calls: VecDeque<Call>,
    /// Once for each version: the first time is the one that tells something.
    told: bool,
}

#[derive(Debug)]
struct Call {
    asked: Arc<Consultation>,
    hook: Hook,
    answered: Result<String, (Fallback, String)>,
    took_us: u32,
}

impl Evidence {
    pub(crate) fn remember(
        &mut self,
        asked: &Arc<Consultation>,
        hook: Hook,
        answered: Result<String, (Fallback, String)>,
        took_us: u32,
    ) {
        if self.told {
            return;
        }
        if self.calls.len() == CALLS {
            self.calls.pop_front();
        }
        self.calls.push_back(Call { asked: asked.clone(), hook, answered, took_us });
    }

    /// Written beside the policy thread, which has no time for disks.
    pub(crate) fn dump(&mut self, dir: Option<&Path>, version: &PolicyVersion, settings: &str, at: u64) {
        let calls = std::mem::take(&mut self.calls);
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        let Some(dir) = dir.map(|dir| dir.join("dumps")) else { return };
        let (version, settings) = (version.clone(), settings.to_owned());
        let write = move || {
            let body = json!({
                "version": version,
                "settings": serde_json::from_str::<Value>(&settings).unwrap_or_default(),
                "at": at,
                "calls": calls.iter().map(Call::shown).collect::<Vec<_>>(),
            });
            let file = dir.join(format!("{at}-{}-{}.json", safe(&version.name), version.digest));
            match store(&dir, &file, &body) {
                Ok(()) => {
                    tracing::error!(file = %file.display(), "the last calls of the policy were written down")
                }
                Err(error) => {
                    tracing::warn!(file = %file.display(), %error, "cannot write the last calls down")
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().name("policy-dump".to_owned()).spawn(write) {
            tracing::warn!(%error, "no thread to write the last calls down");
        }
    }
}

impl Call {
    fn shown(&self) -> Value {
        let Consultation { seed, context, question, job } = &*self.asked;
        let answer = match &self.answered {
            Ok(said) => json!({"said": said}),
            Err((reason, message)) => json!({"failed": reason, "message": message}),
        };
        json!({
            "hook": self.hook,
            "took_us": self.took_us,
            "answer": answer,
            "job": job,
            "seed": seed,
            "now_ms": context.now_ms,
            "instances": context.fleet.iter().map(|texts| &texts.name).collect::<Vec<_>>(),
            "question": question,
        })
    }
}

fn safe(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).take(64).collect()
}

fn store(dir: &Path, file: &Path, body: &Value) -> std::io::Result<()> {
    fs::create_dir_all(dir)?;
    let mut kept: Vec<PathBuf> = fs::read_dir(dir)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    // Names begin with the time.
    kept.sort_unstable();
    let over = (kept.len() + 1).saturating_sub(FILES);
    kept.iter().take(over).for_each(|old| drop(fs::remove_file(old)));
    let part = file.with_extension("part");
    fs::write(&part, serde_json::to_vec_pretty(body)?)?;
    fs::rename(part, file)
}
