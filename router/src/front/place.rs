//! Where the files lie that clients name, and under which name an instance is given them.
//!
//! A file may be kept by the router (uploads), lie on the one instance that made it (results, which all instances number
//! alike), or have been put on instances' disks by hand. Who is known by a key finds what is its own, and what was put there
//! for everybody.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use axum::body::Body;
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use hyper::{Method, Request, StatusCode};

use super::answer::{self, Answer};
use super::{Caller, Front};
use crate::assets::FetchError;
use crate::comfy::files;
use crate::comfy::graph::Named;
use crate::model::event::OutputFile;
use crate::model::id::InstanceId;
use crate::model::job::{Rename, UploadRef};

/// Marks the folder of a tenant on the instances.
const MARK: char = '@';
/// Files of one prompt that are looked for.
const MOST: usize = 512;
/// So many at a time.
const AT_ONCE: usize = 16;
/// An instance that does not answer in time may have the file.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// By the router, under this name; instances are given it under the same.
    Kept(UploadRef),
    /// On one instance.
    At { instance: InstanceId, there: UploadRef },
    /// Wherever a job may run, under this name.
    Everywhere(UploadRef),
}

/// The files of one prompt.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    /// Not there, wherever the prompt may run.
    pub(super) absent: HashSet<UploadRef>,
    places: HashMap<UploadRef, Place>,
    named: Vec<Named>,
}

/// What an instance must be given for a prompt.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) uploads: Vec<UploadRef>,
    pub(super) renames: Vec<Rename>,
    pub(super) kib: u32,
}

/// The name of a caller's own upload.
pub(super) fn own(caller: &Caller, file: &UploadRef) -> UploadRef {
    if !caller.apart {
        return file.clone();
    }
    let folder = format!("{MARK}{}", caller.tenant);
    let subfolder = match file.subfolder.is_empty() {
        true => folder,
        false => format!("{folder}/{}", file.subfolder),
    };
    UploadRef { subfolder, ..file.clone() }
}

/// Does it lie in some tenant's folder?
pub(super) fn is_somebodys(file: &UploadRef) -> bool {
    let whole = format!("{}/{}", file.subfolder, file.name).replace('\\', "/");
    whole
        .split('/')
        .find(|part| !part.is_empty() && *part != ".")
        .is_some_and(|first| first.starts_with(MARK))
}

impl Front {
    /// Looks for every file that a prompt names.
    pub(super) async fn inputs(&self, caller: &Caller, named: Vec<Named>) -> Inputs {
        let files: HashSet<UploadRef> = named.iter().map(|named| named.file.clone()).collect();
        if files.len() > MOST {
            // The instance looks again; but a tenant is shown nothing that was not looked at.
            let absent = if caller.apart { files } else { HashSet::new() };
            return Inputs { absent, ..Inputs::default() };
        }
        let looked_for = files.into_iter().map(async |file| {
            let place = self.located(caller, &file).await;
            (file, place)
        });
        let found: Vec<_> = stream::iter(looked_for).buffer_unordered(AT_ONCE).collect().await;
        let mut inputs = Inputs { named, ..Inputs::default() };
        for (file, place) in found {
            match place {
                Some(place) => drop(inputs.places.insert(file, place)),
                None => drop(inputs.absent.insert(file)),
            }
        }
        inputs
    }

    /// Before a job is taken: what it reads of other instances' files is kept, so that it can be given to any.
    pub(super) async fn gather(&self, inputs: &Inputs, needed: &[UploadRef]) -> Result<Gathered, Answer> {
        let mut gathered = Gathered::default();
        let mut bytes = 0;
        for file in needed {
            let staged = match inputs.places.get(file) {
                Some(place) => {
                    self.staged_name(place).await.map_err(|error| answer::not_gathered(&file.name, &error))?
                }
                None => file.clone(),
            };
            bytes += self.parts.assets.find(&staged).map_or(0, |kept| kept.bytes());
            if staged != *file {
                let value = files::reference(&staged);
                let named = inputs.named.iter().filter(|named| named.file == *file);
                gathered.renames.extend(named.map(|named| Rename {
                    node: named.node.clone(),
                    input: named.input.clone(),
                    value: value.clone(),
                }));
            }
            gathered.uploads.push(staged);
        }
        gathered.kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        Ok(gathered)
    }

    /// The name under which any instance has a file or can be given it. The error is that of its one instance.
    pub(super) async fn staged_name(&self, place: &Place) -> Result<UploadRef, FetchError> {
        let (instance, there) = match place {
            Place::Kept(name) | Place::Everywhere(name) => return Ok(name.clone()),
            Place::At { instance, there } => (instance, there),
        };
        let tagged = tagged(instance, there);
        match self.parts.assets.fetch(instance, there, &tagged, &self.parts.fleet).await {
            Ok(_) => Ok(tagged),
            Err(error) => {
                tracing::warn!(%instance, file = there.name, %error, "file could not be taken from its instance");
                // A copy of it, if perhaps not of today.
                self.parts.assets.find(&tagged).map(|_| tagged).ok_or(error)
            }
        }
    }

    /// Where a file lies that this caller names; none if it is not there, or not the caller's to see.
    pub(super) async fn located(&self, caller: &Caller, file: &UploadRef) -> Option<Place> {
        if let (Some(instance), subfolder) = files::untag(&file.subfolder) {
            let there = UploadRef { subfolder: subfolder.to_owned(), ..file.clone() };
            return self.located_at(caller, instance, there).await;
        }
        let own = own(caller, file);
        if self.parts.assets.find(&own).is_some() {
            return Some(Place::Kept(own));
        }
        if file.kind != "input" {
            let tenant = caller.apart.then_some(caller.tenant.as_str());
            if let Some(instance) = self.writer(file, None, tenant).await {
                return self.located_at(caller, instance, file.clone()).await;
            }
        }
        if caller.apart && (file.kind != "input" || is_somebodys(file)) {
            return None;
        }
        self.put_by_hand(file).await
    }

    async fn located_at(&self, caller: &Caller, instance: InstanceId, there: UploadRef) -> Option<Place> {
        if caller.apart && !self.is_own(caller, &instance, &there).await {
            return None;
        }
        if self.outputs_shared && there.kind == "output" {
            return Some(Place::Everywhere(there));
        }
        let instances = self.parts.fleet.instances();
        let up = instances.iter().any(|info| info.id == instance && info.is_up());
        if up && self.has(&instance, &there).await != Some(false) {
            // The only instance reads its own file.
            return Some(if instances.len() == 1 {
                Place::Everywhere(there)
            } else {
                Place::At { instance, there }
            });
        }
        let kept = tagged(&instance, &there);
        self.parts.assets.find(&kept).map(|_| Place::Kept(kept))
    }

    /// What the router knows nothing of. Instances that are down are not asked, and nothing is said for them.
    async fn put_by_hand(&self, file: &UploadRef) -> Option<Place> {
        let instances = self.parts.fleet.instances();
        let up: Vec<_> = instances.iter().filter(|info| info.is_up()).collect();
        let answers = join_all(up.iter().map(|info| self.has(&info.id, file))).await;
        if !answers.is_empty() && answers.iter().all(|has| *has == Some(false)) {
            return None;
        }
        let same_everywhere = file.kind == "input" || instances.len() == 1;
        let haver = up.iter().zip(&answers).find(|(_, has)| **has == Some(true));
        match haver {
            Some((info, _)) if !same_everywhere || answers.contains(&Some(false)) => {
                Some(Place::At { instance: info.id.clone(), there: file.clone() })
            }
            _ => Some(Place::Everywhere(file.clone())),
        }
    }

    /// The instance that wrote a file last, of those that the ledger knows; only this tenant's, if one is named.
    pub(super) async fn writer(
        &self,
        file: &UploadRef,
        instance: Option<&InstanceId>,
        tenant: Option<&str>,
    ) -> Option<InstanceId> {
        let found = self.parts.ledger.locate(&output(file), instance, tenant).await;
        found.inspect_err(|error| tracing::warn!(error = %error, "file could not be located")).ok()?
    }

    /// Did a job of this tenant write that file?
    pub(super) async fn is_own(&self, caller: &Caller, instance: &InstanceId, there: &UploadRef) -> bool {
        self.parts.assets.told().is_of(&caller.tenant, instance, &output(there))
            || self.writer(there, Some(instance), Some(&caller.tenant)).await.is_some()
    }

    /// The instances that are up and have a file, the home instance first.
    pub(super) async fn havers(&self, file: &UploadRef) -> Vec<InstanceId> {
        let instances = self.parts.fleet.instances();
        let up: Vec<_> = instances.iter().filter(|info| info.is_up()).map(|info| &info.id).collect();
        let answers = join_all(up.iter().map(|id| self.has(id, file))).await;
        up.into_iter().zip(answers).filter(|(_, has)| *has == Some(true)).map(|(id, _)| id.clone()).collect()
    }

    /// None: it does not say.
    async fn has(&self, instance: &InstanceId, file: &UploadRef) -> Option<bool> {
        let request =
            Request::builder().method(Method::HEAD).uri(files::view_path(file)).body(Body::empty()).ok()?;
        let answer =
            tokio::time::timeout(PATIENCE, self.parts.fleet.forward(instance, request)).await.ok()?.ok()?;
        match answer.status() {
            status if status.is_success() => Some(true),
            StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN => Some(false),
            _ => None,
        }
    }
}

/// A file of one instance, under the name that all can have it by.
pub(super) fn tagged(instance: &InstanceId, there: &UploadRef) -> UploadRef {
    UploadRef { subfolder: files::tag(instance, &there.subfolder), ..there.clone() }
}

fn output(file: &UploadRef) -> OutputFile {
    OutputFile { kind: file.kind.clone(), subfolder: file.subfolder.clone(), filename: file.name.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(subfolder: &str, name: &str) -> UploadRef {
        UploadRef { kind: "input".into(), subfolder: subfolder.into(), name: name.into() }
    }

    fn caller(apart: bool) -> Caller {
        Caller { tenant: "ann".into(), apart }
    }

    #[test]
    fn who_is_known_by_a_key_has_a_folder_of_its_own() {
        assert_eq!(own(&caller(true), &file("", "a.png")), file("@ann", "a.png"));
        assert_eq!(own(&caller(true), &file("@bob", "a.png")), file("@ann/@bob", "a.png"));
        assert_eq!(own(&caller(false), &file("s", "a.png")), file("s", "a.png"));
    }

    #[test]
    fn the_folder_of_a_tenant_is_known_however_it_is_written() {
        for (subfolder, name) in [
            ("@bob", "a"),
            ("@bob/s", "a"),
            ("", "@bob/a"),
            ("./@bob", "a"),
            (".", "./@bob/a"),
            ("", ".\\@bob\\a"),
            ("/", "@bob/a"),
        ] {
            assert!(is_somebodys(&file(subfolder, name)), "{subfolder:?} {name:?}");
        }
        assert!(!is_somebodys(&file("s", "@a.png")) && !is_somebodys(&file("", "a@b")));
    }
}
