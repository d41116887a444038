//! Uploads. The router keeps them and names them by ComfyUI's rules, looking at its own names and at the instances' disks;
//! the home instance is given each at once, any other when a job needs it there.
//!
//! A tenant that is known by its key has a folder of its own on the instances, which it never sees.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::answer::{self, Answer, Answered};
use super::form::{self, Form};
use super::place::Place;
use super::{Call, Caller, Front, place};
use crate::assets::{Complete, Digest, Instances as _};
use crate::comfy::{PromptError, files, json};
use crate::model::id::InstanceId;
use crate::model::job::UploadRef;

/// Names tried, `a (1).png` and so on.
const MOST_NAMES: u32 = 100_000;

impl Front {
    pub(super) async fn upload_image(&self, call: Call) -> Answered {
        let limit = self.upload_limit().await;
        let (form, caller) = (form::read(call.request, limit, &self.parts.assets).await?, call.caller);
        let asked = asked(&form)?;
        let Form { image: Some((_, content)), subfolder, overwrite, .. } = form else {
            return Ok(answer::status(StatusCode::BAD_REQUEST));
        };
        let mine = |name: &str| place::own(&caller, &asked.named(name));
        let name = match overwrite {
            true => {
                content.keep(&mine(&asked.name), None).await.map_err(form::full)?;
                asked.name.clone()
            }
            false => self.claimed(content, &asked, mine).await?,
        };
        self.give_home(&mine(&name)).await;
        Ok(stored(&name, &subfolder, &asked.kind))
    }

    /// The original's colours with the upload's transparency: an instance does that, and what it makes is kept.
    pub(super) async fn upload_mask(&self, call: Call) -> Answered {
        let limit = self.upload_limit().await;
        let (form, caller) = (form::read(call.request, limit, &self.parts.assets).await?, call.caller);
        let asked = asked(&form)?;
        let Form { image: Some((_, content)), subfolder, overwrite, original_ref, .. } = form else {
            return Ok(answer::status(StatusCode::BAD_REQUEST));
        };
        let original = original_ref.as_deref().and_then(|text| json::parse::<Value>(text.as_bytes()).ok());
        let Some(original) = original else {
            return Ok(answer::refused(&PromptError::invalid_json("original_ref names no file")));
        };
        let Some(home) = self.parts.fleet.home() else { return Ok(answer::no_instance()) };
        let mine = |name: &str| place::own(&caller, &asked.named(name));
        let name = match overwrite {
            true => asked.name.clone(),
            false => self.free_name(content.digest(), &asked, &mine).await?.0,
        };
        if let Some(original) = self.original(&home, &call_place(&original), &caller).await
            && let Err(answer) = self.masked(&home, &content, &mine(&name), &original).await
        {
            return Ok(answer);
        }
        // As in ComfyUI: an original that is not there means that nothing is written, and the answer is the same.
        Ok(stored(&name, &subfolder, &asked.kind))
    }

    /// Has the instance make the picture, and keeps it.
    async fn masked(
        &self,
        home: &InstanceId,
        mask: &Complete,
        name: &UploadRef,
        original: &UploadRef,
    ) -> Result<(), Answer> {
        let reference = json!({
            "filename": original.name, "subfolder": original.subfolder, "type": original.kind,
        });
        let fleet = &self.parts.fleet;
        let failed = |what: &dyn std::fmt::Display| {
            tracing::warn!(instance = %home, file = name.name, error = %what, "a mask could not be merged");
            answer::text(StatusCode::BAD_GATEWAY, &format!("instance {home} did not merge the mask: {what}"))
        };
        let uploaded = fleet.upload_mask(home, name, mask.path(), &reference.to_string()).await;
        uploaded.map_err(|error| failed(&error))?;
        match self.parts.assets.fetch(home, name, name, fleet).await {
            Ok(kept) => {
                self.parts.assets.given(home, fleet.epoch(home), name, kept.digest()).await;
                self.changed(home);
                Ok(())
            }
            Err(crate::assets::FetchError::Absent) => Ok(()),
            Err(error) => Err(failed(&error)),
        }
    }

    /// The original of a mask, there on the instance under the name that is given back.
    async fn original(&self, home: &InstanceId, named: &UploadRef, caller: &Caller) -> Option<UploadRef> {
        let staged = match self.located(caller, named).await? {
            Place::At { instance, there } if instance == *home => return Some(there),
            place => self.staged_name(&place).await.ok()?,
        };
        let given = self.parts.assets.stage(home, std::slice::from_ref(&staged), &self.parts.fleet).await;
        given
            .inspect_err(
                |error| tracing::warn!(instance = %home, %error, "the original of a mask is lacking"),
            )
            .ok()?;
        Some(staged)
    }

    /// The first of ComfyUI's names that is free or holds this very content, which then has it.
    async fn claimed(
        &self,
        mut content: Complete,
        asked: &Asked,
        mine: impl Fn(&str) -> UploadRef,
    ) -> Result<String, Answer> {
        loop {
            let (name, _) = self.free_name(content.digest(), asked, &mine).await?;
            // Another upload may have taken it meanwhile.
            match content.claim(&mine(&name)).await.map_err(form::full)? {
                Ok(_) => return Ok(name),
                Err(refused) => content = refused,
            }
        }
    }

    /// ComfyUI's loop. True: the name holds this content already.
    async fn free_name(
        &self,
        content: Digest,
        asked: &Asked,
        mine: &impl Fn(&str) -> UploadRef,
    ) -> Result<(String, bool), Answer> {
        let (stem, ending) = split_ending(&asked.name);
        for count in 0..MOST_NAMES {
            let name = if count == 0 { asked.name.clone() } else { format!("{stem} ({count}){ending}") };
            let file = mine(&name);
            match self.parts.assets.find(&file) {
                Some(kept) if kept.digest() == content => return Ok((name, true)),
                Some(_) => {}
                None => match self.on_disk(&file).await {
                    None => return Ok((name, false)),
                    Some(there) if there == content => return Ok((name, true)),
                    Some(_) => {}
                },
            }
        }
        Err(answer::text(StatusCode::CONFLICT, "every name of this kind is taken"))
    }

    /// What instances have under a name that the router does not know; none if none has it. Where they differ, any of it.
    async fn on_disk(&self, file: &UploadRef) -> Option<Digest> {
        for instance in self.havers(file).await {
            // Read like a file that is kept, and given up: only its digest is wanted.
            match self.parts.assets.digest(&instance, file, &self.parts.fleet).await {
                Ok(digest) => return Some(digest),
                Err(error) => {
                    tracing::info!(%instance, file = file.name, %error, "file could not be compared")
                }
            }
        }
        None
    }

    /// So that lists and pages of the home instance show it at once.
    async fn give_home(&self, file: &UploadRef) {
        let Some(home) = self.parts.fleet.home() else { return };
        let given = self.parts.assets.stage(&home, std::slice::from_ref(file), &self.parts.fleet).await;
        if let Err(error) = given {
            // It is kept: whichever instance runs its job is given it then.
            tracing::warn!(instance = %home, file = file.name, %error, "the home instance was not given an upload");
        }
        self.changed(&home);
    }

    fn changed(&self, home: &InstanceId) {
        self.lists_changed();
        self.parts.fleet.refresh(home);
    }
}

/// Where an upload is to lie.
#[derive(Debug)]
struct Asked {
    kind: String,
    subfolder: String,
    name: String,
}

impl Asked {
    fn named(&self, name: &str) -> UploadRef {
        UploadRef { kind: self.kind.clone(), subfolder: self.subfolder.clone(), name: name.to_owned() }
    }
}

/// ComfyUI's own checks, in its order.
fn asked(form: &Form) -> Result<Asked, Answer> {
    let kind = form.kind.as_deref().unwrap_or("input");
    if !matches!(kind, "input" | "output" | "temp") {
        return Err(answer::refused(&PromptError::invalid_json("type is none of input, output and temp")));
    }
    let bad = || answer::status(StatusCode::BAD_REQUEST);
    let (name, _) = form.image.as_ref().filter(|(name, _)| !name.is_empty()).ok_or_else(bad)?;
    let asked = Asked { kind: kind.to_owned(), subfolder: form.subfolder.clone(), name: name.clone() };
    match crate::assets::checked(&asked.named(name)) {
        Ok(_) => Ok(asked),
        Err(error) => {
            tracing::info!(%error, "upload refused");
            Err(bad())
        }
    }
}

fn stored(name: &str, subfolder: &str, kind: &str) -> Answer {
    answer::json_value(StatusCode::OK, &json!({"name": name, "subfolder": subfolder, "type": kind}))
}

/// The file that `original_ref` names.
fn call_place(original: &Value) -> UploadRef {
    let text = |name: &str| original[name].as_str().unwrap_or_default();
    let (name, annotated) = files::annotation(text("filename"));
    let kind = annotated.or(Some(text("type")).filter(|kind| !kind.is_empty())).unwrap_or("output");
    UploadRef { kind: kind.to_owned(), subfolder: text("subfolder").to_owned(), name: name.to_owned() }
}

/// Python's `os.path.splitext`.
fn split_ending(name: &str) -> (&str, &str) {
    let base = name.rfind('/').map_or(0, |at| at + 1);
    let leading = name[base..].bytes().take_while(|byte| *byte == b'.').count();
    match name[base + leading..].rfind('.') {
        Some(at) => name.split_at(base + leading + at),
        None => (name, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_are_split_as_python_does() {
        for (name, expected) in [
            ("a.png", ("a", ".png")),
            ("a.tar.gz", ("a.tar", ".gz")),
            ("a", ("a", "")),
            (".png", (".png", "")),
            ("..png", ("..png", "")),
            (".a.png", (".a", ".png")),
            ("a.b/c", ("a.b/c", "")),
            ("a.b/.c", ("a.b/.c", "")),
            ("s/a.png", ("s/a", ".png")),
            ("", ("", "")),
        ] {
            assert_eq!(split_ending(name), expected, "{name:?}");
        }
    }

    #[test]
    fn the_original_of_a_mask_is_named_as_view_names_it() {
        let named = |original: Value| files::reference(&call_place(&original));
        assert_eq!(named(json!({"filename": "a.png"})), "a.png [output]");
        assert_eq!(named(json!({"filename": "a.png", "type": "input", "subfolder": "s"})), "s/a.png");
        assert_eq!(named(json!({"filename": "a.png [temp]", "type": "input"})), "a.png [temp]");
        assert_eq!(named(json!([])), " [output]");
    }
}
