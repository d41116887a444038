//! What operators ordered about versions, kept so that it holds after a restart: which version serves in each lane, what it
//! would return to, a canary or shadow on trial. Owns `orders.json` and the components it names, by their digests, in the
//! policy's state directory; the loading thread alone writes them.
//!
//! An order holds until what is configured changes. Without one there is nothing here, and what is configured is loaded.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::config::Config;
use super::handle::{Settings, Source};
use super::loader::digest;
use super::wasm::Version;
use crate::model::job::WallMs;

/// What the configuration names for a lane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Configured {
    /// The file, or the name of a shipped policy; empty for the built-in.
    pub source: String,
    /// Of the component; empty where the file cannot be read.
    pub digest: String,
    pub settings: Settings,
}

/// A version as it can be loaded again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Held {
    pub name: String,
    /// Of the component alone.
    pub digest: String,
    pub settings: Settings,
    pub origin: String,
}

/// The versions of a lane.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Standing {
    pub live: Option<Held>,
    pub last_good: Option<Held>,
    /// With its share of the jobs.
    pub canary: Option<(Held, f64)>,
    pub shadow: Option<Held>,
    /// Digests of versions that could serve again at once.
    #[serde(skip)]
    pub shelf: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Order {
    /// What was configured when it was given.
    pub configured: Configured,
    pub at: WallMs,
    pub standing: Standing,
}

/// An order that holds, for the operator.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ordered {
    pub lane: Arc<str>,
    pub at: WallMs,
    /// What is configured and does not serve because of it: a file, a shipped policy, or empty for the built-in.
    pub configured: String,
    /// What serves by it; none when only a canary or shadow was ordered.
    pub serves: Option<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Orders {
    /// None: nothing is kept.
    dir: Option<PathBuf>,
    by_lane: BTreeMap<String, Order>,
}

impl Configured {
    pub(crate) fn of(source: Option<&Source>, settings: &Settings, config: &Config) -> Self {
        let name = match source {
            None => String::new(),
            Some(Source::File(path)) => path.display().to_string(),
            Some(source) => source.name(),
        };
        let bytes = source.cloned().and_then(|source| source.bytes(config).ok());
        let digest = bytes.map(|bytes| digest(&bytes)).unwrap_or_default();
        Self { source: name, digest, settings: settings.clone() }
    }

    /// A shipped policy is the same by its name: a newer router may have it built anew.
    pub(crate) fn is_still(&self, before: &Self, shipped: bool) -> bool {
        self.source == before.source
            && self.settings == before.settings
            && (shipped || self.digest.is_empty() || self.digest == before.digest)
    }
}

impl Held {
    pub(crate) fn of(version: &Version, origin: &str) -> Self {
        Self {
            name: version.id.name.to_string(),
            digest: version.component().to_string(),
            settings: serde_json::from_str(version.settings()).unwrap_or_default(),
            origin: origin.to_owned(),
        }
    }
}

impl Standing {
    /// Differs from what a start without orders comes to.
    fn is_ordered(&self, configured: &Configured) -> bool {
        let plain = match &self.live {
            None => configured.source.is_empty(),
            Some(live) => live.digest == configured.digest && live.settings == configured.settings,
        };
        !plain || self.canary.is_some() || self.shadow.is_some()
    }

    fn digests(&self) -> impl Iterator<Item = &str> {
        let trials = self.canary.iter().map(|(held, _)| held).chain(&self.shadow);
        let all = self.live.iter().chain(&self.last_good).chain(trials).map(|held| held.digest.as_str());
        all.chain(self.shelf.iter().map(String::as_str))
    }
}

impl Orders {
    /// As they were left. What cannot be read is no order, and said.
    pub(crate) fn open(dir: Option<&Path>) -> Self {
        let Some(dir) = dir else { return Self::default() };
        let file = dir.join("orders.json");
        let by_lane = match fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::error!(file = %file.display(), %error, "orders about policy versions cannot be read, what is configured serves");
                BTreeMap::new()
            }),
            Err(_) => BTreeMap::new(),
        };
        Self { dir: Some(dir.to_owned()), by_lane }
    }

    pub(crate) fn of(&self, lane: &str) -> Option<&Order> {
        self.by_lane.get(lane)
    }

    pub(crate) fn shown(&self) -> Vec<Ordered> {
        let shown = |(lane, order): (&String, &Order)| {
            let Order { configured, at, standing } = order;
            let live = standing.live.as_ref();
            let other =
                live.filter(|live| live.digest != configured.digest || live.settings != configured.settings);
            Ordered {
                lane: lane.as_str().into(),
                at: *at,
                configured: configured.source.clone(),
                serves: other.map(|live| format!("{} {}", live.name, live.digest)),
            }
        };
        self.by_lane.iter().map(shown).collect()
    }

    /// How each lane stands now. True when an order came, changed or ended, and it is on disk.
    pub(crate) fn note(
        &mut self,
        lanes: &[(Arc<str>, Configured, Standing)],
        now: WallMs,
    ) -> std::io::Result<bool> {
        let mut next = BTreeMap::new();
        for (lane, configured, standing) in
            lanes.iter().filter(|(_, configured, its)| its.is_ordered(configured))
        {
            let known = self.by_lane.get(&**lane).filter(|order| order.is(configured, standing));
            let order = known.cloned().unwrap_or_else(|| Order {
                configured: configured.clone(),
                // The same version serves since then.
                at: self
                    .of(lane)
                    .filter(|order| order.standing.live == standing.live)
                    .map_or(now, |order| order.at),
                standing: Standing { shelf: Vec::new(), ..standing.clone() },
            });
            next.insert(lane.to_string(), order);
        }
        let changed = self.by_lane != next;
        if changed {
            self.write(&next)?;
            self.by_lane = next;
        }
        Ok(changed)
    }

    fn write(&self, orders: &BTreeMap<String, Order>) -> std::io::Result<()> {
        let Some(dir) = &self.dir else { return Ok(()) };
        store(dir, "orders.json", &serde_json::to_vec_pretty(orders)?)
    }

    /// The component may be needed again.
    pub(crate) fn keep(&self, digest: &str, bytes: &[u8]) -> std::io::Result<()> {
        let Some(dir) = self.versions() else { return Ok(()) };
        match fs::read(dir.join(file(digest))) {
            Ok(there) if there == bytes => Ok(()),
            _ => store(&dir, &file(digest), bytes),
        }
    }

    /// Only what some lane could still serve is kept.
    pub(crate) fn prune(&self, lanes: &[(Arc<str>, Configured, Standing)]) -> std::io::Result<()> {
        let Some(dir) = self.versions().filter(|dir| dir.is_dir()) else { return Ok(()) };
        let needed: BTreeSet<String> =
            lanes.iter().flat_map(|(_, _, standing)| standing.digests()).map(file).collect();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if !entry.file_name().to_str().is_some_and(|name| needed.contains(name)) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// The component with this digest, exactly as it was kept.
    pub(crate) fn component(&self, wanted: &str) -> std::io::Result<Vec<u8>> {
        let missing = || std::io::Error::new(std::io::ErrorKind::NotFound, "the component was not kept");
        let bytes = fs::read(self.versions().ok_or_else(missing)?.join(file(wanted)))?;
        match digest(&bytes) == wanted {
            true => Ok(bytes),
            false => {
                Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "the kept component is damaged"))
            }
        }
    }

    fn versions(&self) -> Option<PathBuf> {
        Some(self.dir.as_ref()?.join("versions"))
    }
}

impl Order {
    fn is(&self, configured: &Configured, standing: &Standing) -> bool {
        let kept = |standing: &Standing| Standing { shelf: Vec::new(), ..standing.clone() };
        self.configured == *configured && kept(&self.standing) == kept(standing)
    }
}

/// Digests are ours, but a file of orders may have been edited.
fn file(digest: &str) -> String {
    let safe: String = digest.chars().filter(char::is_ascii_hexdigit).take(64).collect();
    format!("{safe}.wasm")
}

/// Whole or not at all, also after a loss of power.
fn store(dir: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(dir)?;
    let part = dir.join(format!("{name}.part"));
    let mut file = fs::File::create(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&part, dir.join(name))?;
    fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(bytes: &[u8]) -> Held {
        Held { name: "p".into(), digest: digest(bytes), settings: Settings::new(), origin: "upload".into() }
    }

    fn configured(bytes: &[u8]) -> Configured {
        Configured { source: "/etc/p.wasm".into(), digest: digest(bytes), settings: Settings::new() }
    }

    fn lane(file: &[u8], live: &[u8], shelf: &[&[u8]]) -> [(Arc<str>, Configured, Standing); 1] {
        let shelf = shelf.iter().map(|bytes| digest(bytes)).collect();
        [(
            "policy".into(),
            configured(file),
            Standing { live: Some(held(live)), shelf, ..Standing::default() },
        )]
    }

    #[test]
    fn an_order_is_there_again_and_gone_when_what_is_configured_serves() {
        let folder = tempfile::tempdir().unwrap();
        let mut orders = Orders::open(Some(folder.path()));
        assert!(!orders.note(&lane(b"a", b"a", &[]), 1).unwrap(), "what is configured serves");
        assert!(orders.note(&lane(b"a", b"b", &[]), 2).unwrap());
        assert!(!orders.note(&lane(b"a", b"b", &[b"c"]), 3).unwrap(), "nothing new");
        let again = Orders::open(Some(folder.path()));
        assert_eq!(again.of("policy"), orders.of("policy"));
        assert_eq!(again.shown()[0].at, 2);
        assert!(orders.note(&lane(b"b", b"b", &[]), 4).unwrap());
        assert_eq!(Orders::open(Some(folder.path())).of("policy"), None);
    }

    #[test]
    fn components_are_kept_while_they_could_serve_and_only_whole() {
        let folder = tempfile::tempdir().unwrap();
        let orders = Orders::open(Some(folder.path()));
        for bytes in [b"a", b"b", b"c"] {
            orders.keep(&digest(bytes), bytes).unwrap();
        }
        orders.prune(&lane(b"a", b"b", &[b"c"])).unwrap();
        assert_eq!(orders.component(&digest(b"b")).unwrap(), b"b");
        assert_eq!(orders.component(&digest(b"c")).unwrap(), b"c");
        assert!(orders.component(&digest(b"a")).is_err(), "it is configured, and read from its file");
        fs::write(folder.path().join("versions").join(file(&digest(b"b"))), "x").unwrap();
        assert!(orders.component(&digest(b"b")).unwrap_err().to_string().contains("damaged"));
        orders.keep(&digest(b"b"), b"b").unwrap();
        assert_eq!(orders.component(&digest(b"b")).unwrap(), b"b", "it is whole again");
        assert!(orders.component("../../orders").is_err());
    }

    #[test]
    fn what_is_configured_is_the_same_by_content_and_settings() {
        let before = configured(b"a");
        assert!(configured(b"a").is_still(&before, false) && !configured(b"b").is_still(&before, false));
        assert!(configured(b"b").is_still(&before, true), "a shipped one by its name");
        let gone = Configured { digest: String::new(), ..configured(b"a") };
        assert!(gone.is_still(&before, false), "a file that cannot be read says nothing");
        let mut told = configured(b"a");
        told.settings.insert("x".into(), 1.into());
        assert!(!told.is_still(&before, false));
    }

    #[test]
    fn a_file_of_orders_that_cannot_be_read_is_no_order() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("orders.json"), "{\"policy\": 7}").unwrap();
        assert_eq!(Orders::open(Some(folder.path())).of("policy"), None);
        assert_eq!(Orders::open(None).shown(), []);
    }
}
