//! Which instances are started, where, and with what.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::Path;

use super::SpawnError;
use super::process::Process;
use super::program::{Program, VISIBLE};
use crate::config::{Gpu, Instance, Launch, Url};
use crate::model::id::InstanceId;

/// Without a word of the operator's, no more than this many share a GPU, however much memory it has.
const MOST_THAT_FIT: u32 = 16;
const GIB: f64 = (1_u64 << 30) as f64;

/// A GPU as the driver tells of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Card {
    pub index: u32,
    pub uuid: String,
    pub name: String,
    /// Not every driver tells.
    pub memory_bytes: Option<u64>,
}

/// An instance, and what starts it.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    pub instance: Instance,
    pub(super) program: Program,
}

#[derive(Debug, thiserror::Error, PartialEq)]
pub enum PlanError {
    #[error(
        "no GPU to launch instances on: {0}\n  name them with launch.gpus, or write launch.gpus = [] for instances without"
    )]
    NoGpu(String),
    #[error("launch.gpus names {named}, the driver lists {known}")]
    NoSuchGpu { named: String, known: String },
    #[error(
        "launch.gpus names the GPU of `{0}` more than once: write it once, and launch.per_gpu for more instances on each"
    )]
    Twice(InstanceId),
    #[error("launch.vram_gib is {needed}, which no GPU holds: {known}")]
    TooLarge { needed: f64, known: String },
    #[error("launch.vram_gib is set, and the driver does not tell how much memory there is: {0}")]
    Unmeasured(String),
    #[error("launch.port is {first}, which leaves no ports for {count} instances")]
    Ports { first: u16, count: usize },
    #[error("`{0}` would be launched, and is also the name of an [[instance]]")]
    Name(InstanceId),
    #[error("{url} would be launched as `{name}`, and is also used elsewhere in the configuration")]
    Url { name: InstanceId, url: Url },
    #[error("instances are launched on Linux only")]
    NotHere,
}

/// One GPU, or none, and how many instances it is given.
#[derive(Debug, Clone, PartialEq)]
struct Place {
    name: String,
    /// As CUDA is told.
    visible: Option<String>,
    gpu: Option<Gpu>,
    count: u32,
}

/// What all of them have in common.
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    pub launch: &'a Launch,
    /// Each has a folder of its own in it.
    pub dir: &'a Path,
    /// Variables of the router that no instance may see.
    pub unset: &'a [String],
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}: {}", self.instance.name, self.instance.url, self.program.command.join(" "))?;
        self.program.gpu().map_or(Ok(()), |gpu| write!(f, ", on GPU {gpu}"))
    }
}

impl Planned {
    /// Why it could not be started now, as far as that can be seen. One that an earlier router left is taken up, or ended.
    pub fn obstacle(&self) -> Option<SpawnError> {
        let left = Process::recorded(&self.program.dir);
        left.is_none().then(|| self.program.obstacle()).flatten()
    }
}

/// Everything that the configuration asks for. `cards` says what the driver lists, or why it lists none.
pub fn plan(
    site: Site<'_>,
    cards: impl FnOnce() -> Result<Vec<Card>, String>,
) -> Result<Vec<Planned>, PlanError> {
    let launch = site.launch;
    if launch.is_off() {
        return Ok(Vec::new());
    }
    if !cfg!(target_os = "linux") {
        return Err(PlanError::NotHere);
    }
    let places = places(launch, cards)?;
    let each: Vec<_> = places.iter().flat_map(|place| (0..place.count).map(move |at| (place, at))).collect();
    if usize::from(u16::MAX - launch.port) + 1 < each.len() {
        return Err(PlanError::Ports { first: launch.port, count: each.len() });
    }
    let ports = launch.port..=u16::MAX;
    let planned: Vec<_> = ports.zip(each).map(|(port, (place, at))| site.planned(port, place, at)).collect();
    let mut names = HashSet::new();
    match planned.iter().find(|planned| !names.insert(&planned.instance.name)) {
        Some(twice) => Err(PlanError::Twice(twice.instance.name.clone())),
        None => Ok(planned),
    }
}

/// They must get along with what else is configured: `others`, and ports of this machine that are `taken`.
pub fn apart(planned: &[Planned], others: &[Instance], taken: &[u16]) -> Result<(), PlanError> {
    for Planned { instance, .. } in planned {
        let port = instance.url.port();
        let here = |url: &Url| matches!(url.host(), "127.0.0.1" | "localhost" | "::1") && url.port() == port;
        if others.iter().any(|other| other.name == instance.name) {
            return Err(PlanError::Name(instance.name.clone()));
        }
        if taken.contains(&port) || others.iter().any(|other| here(&other.url)) {
            return Err(PlanError::Url { name: instance.name.clone(), url: instance.url.clone() });
        }
    }
    Ok(())
}

fn places(
    launch: &Launch,
    cards: impl FnOnce() -> Result<Vec<Card>, String>,
) -> Result<Vec<Place>, PlanError> {
    let named = launch.gpus.as_deref();
    if named.is_some_and(<[Gpu]>::is_empty) {
        let count = launch.per_gpu.unwrap_or(1);
        return Ok(vec![Place { name: "local".into(), visible: None, gpu: None, count }]);
    }
    match (cards(), named) {
        (Ok(cards), None) if cards.is_empty() => Err(PlanError::NoGpu("the driver lists none".into())),
        (Ok(cards), None) => measured(launch, &cards),
        (Ok(cards), Some(named)) => measured(launch, &chosen(named, &cards)?),
        // Taken as they are named, if nothing need be known of them.
        (Err(_), Some(named)) if launch.vram_gib.is_none() => {
            let count = launch.per_gpu.unwrap_or(1);
            Ok(named.iter().enumerate().map(|(at, gpu)| unknown(at, gpu, count)).collect())
        }
        (Err(reason), _) => Err(PlanError::NoGpu(reason)),
    }
}

fn chosen(named: &[Gpu], cards: &[Card]) -> Result<Vec<Card>, PlanError> {
    let found = |gpu: &Gpu| {
        let is = |card: &&Card| match gpu {
            Gpu::Index(index) => card.index == *index,
            Gpu::Uuid(uuid) => card.uuid == *uuid,
        };
        let none = || PlanError::NoSuchGpu { named: shown(gpu), known: listed(cards) };
        cards.iter().find(is).cloned().ok_or_else(none)
    };
    named.iter().map(found).collect()
}

fn measured(launch: &Launch, cards: &[Card]) -> Result<Vec<Place>, PlanError> {
    let Some(needed) = launch.vram_gib else {
        return Ok(cards.iter().map(|card| place(card, launch.per_gpu.unwrap_or(1))).collect());
    };
    if let Some(dark) = cards.iter().find(|card| card.memory_bytes.is_none()) {
        return Err(PlanError::Unmeasured(listed(std::slice::from_ref(dark))));
    }
    let places: Vec<_> = cards.iter().map(|card| place(card, fitting(launch, card, needed))).collect();
    if places.iter().all(|place| place.count == 0) {
        return Err(PlanError::TooLarge { needed, known: listed(cards) });
    }
    Ok(places)
}

fn fitting(launch: &Launch, card: &Card, needed: f64) -> u32 {
    let count = ((gib(card) / needed) as u32).min(launch.per_gpu.unwrap_or(MOST_THAT_FIT));
    if count < launch.per_gpu.unwrap_or(1) {
        let (gpu, name, gib) = (card.index, &card.name, format_args!("{:.1}", gib(card)));
        tracing::warn!(gpu, %name, %gib, count, "by launch.vram_gib no more instances fit on this GPU");
    }
    count
}

/// By its UUID: CUDA counts GPUs in another order than the driver unless it is told not to.
fn place(card: &Card, count: u32) -> Place {
    Place {
        name: format!("gpu{}", card.index),
        visible: Some(card.uuid.clone()),
        gpu: Some(Gpu::Uuid(card.uuid.clone())),
        count,
    }
}

fn unknown(at: usize, gpu: &Gpu, count: u32) -> Place {
    let name = match gpu {
        Gpu::Index(index) => format!("gpu{index}"),
        Gpu::Uuid(_) => format!("gpu-{at}"),
    };
    Place { name, visible: Some(shown(gpu)), gpu: Some(gpu.clone()), count }
}

fn shown(gpu: &Gpu) -> String {
    match gpu {
        Gpu::Index(index) => index.to_string(),
        Gpu::Uuid(uuid) => uuid.clone(),
    }
}

fn listed(cards: &[Card]) -> String {
    let one = |card: &Card| format!("{} ({}, {:.1} GiB, {})", card.index, card.name, gib(card), card.uuid);
    let all: Vec<_> = cards.iter().map(one).collect();
    if all.is_empty() { "none".into() } else { all.join(", ") }
}

fn gib(card: &Card) -> f64 {
    card.memory_bytes.unwrap_or_default() as f64 / GIB
}

impl Site<'_> {
    fn planned(&self, port: u16, place: &Place, at: u32) -> Planned {
        let name = if place.count == 1 { place.name.clone() } else { format!("{}-{at}", place.name) };
        let dir = self.dir.join(&name);
        let filled = |text: &str| {
            let gpu = place.visible.as_deref().unwrap_or_default();
            let text = text.replace("{port}", &port.to_string()).replace("{name}", &name);
            text.replace("{gpu}", gpu).replace("{dir}", &dir.display().to_string())
        };
        let mut env = BTreeMap::new();
        if let Some(visible) = &place.visible {
            env.insert(VISIBLE.to_owned(), visible.clone());
            env.insert("CUDA_DEVICE_ORDER".to_owned(), "PCI_BUS_ID".to_owned());
        }
        env.extend(self.launch.env.iter().map(|(key, value)| (key.clone(), filled(value.reveal()))));
        let mut command: Vec<_> = self.launch.command.iter().map(|part| filled(part)).collect();
        // A path is one from where it is started.
        if let (Some(cwd), true) = (&self.launch.cwd, command[0].contains('/')) {
            command[0] = cwd.join(&command[0]).to_string_lossy().into_owned();
        }
        let (cwd, unset) = (self.launch.cwd.clone(), self.unset.to_vec());
        let program = Program { command, env, unset, cwd, dir, port };
        let mut instance = Instance::at(Url::new("127.0.0.1", port));
        instance.name = name.as_str().into();
        instance.gpu.clone_from(&place.gpu);
        instance.launched = true;
        Planned { instance, program }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch() -> Launch {
        let command = ["comfy", "--port", "{port}", "--out={dir}/{name}"].map(str::to_owned).to_vec();
        Launch { command, ..Launch::default() }
    }

    fn card(index: u32, gib: u64) -> Card {
        let uuid = format!("GPU-{index}");
        Card { index, uuid, name: "H200".into(), memory_bytes: Some(gib << 30) }
    }

    fn plan_of(launch: &Launch, cards: Result<Vec<Card>, String>) -> Result<Vec<Planned>, PlanError> {
        plan(Site { launch, dir: Path::new("/state/instances"), unset: &[] }, || cards)
    }

    fn names(planned: &[Planned]) -> Vec<&str> {
        planned.iter().map(|planned| planned.instance.name.as_str()).collect()
    }

    #[test]
    fn each_gpu_gets_one_pinned_by_its_uuid_with_a_port_and_a_folder_of_its_own() {
        let planned = plan_of(&launch(), Ok(vec![card(0, 24), card(1, 24)])).unwrap();
        assert_eq!(names(&planned), ["gpu0", "gpu1"]);
        let Planned { instance, program } = &planned[1];
        assert_eq!(instance.url, Url::new("127.0.0.1", 8189));
        assert_eq!((&instance.gpu, instance.launched), (&Some(Gpu::Uuid("GPU-1".into())), true));
        assert_eq!(program.command, ["comfy", "--port", "8189", "--out=/state/instances/gpu1/gpu1"]);
        assert_eq!(program.env["CUDA_VISIBLE_DEVICES"], "GPU-1");
        assert_eq!(program.gpu(), Some("GPU-1"));
        assert_eq!((program.dir.as_path(), program.port), (Path::new("/state/instances/gpu1"), 8189));
        let mut beside = launch();
        beside.cwd = Some("/opt/comfy".into());
        for (written, meant) in
            [("venv/bin/python", "/opt/comfy/venv/bin/python"), ("/bin/py", "/bin/py"), ("py", "py")]
        {
            beside.command[0] = written.into();
            assert_eq!(plan_of(&beside, Ok(vec![card(0, 24)])).unwrap()[0].program.command[0], meant);
        }
    }

    #[test]
    fn memory_bounds_how_many_share_a_gpu() {
        let with = |vram_gib, per_gpu| Launch { vram_gib, per_gpu, ..launch() };
        let count = |launch: &Launch, gib: &[u64]| {
            let cards = (0..).zip(gib).map(|(index, gib)| card(index, *gib)).collect();
            plan_of(launch, Ok(cards)).map(|planned| planned.len())
        };
        assert_eq!(count(&with(None, Some(3)), &[24]), Ok(3));
        assert_eq!(count(&with(Some(11.0), None), &[24, 48]), Ok(2 + 4));
        assert_eq!(count(&with(Some(11.0), Some(3)), &[24, 48]), Ok(2 + 3));
        assert_eq!(count(&with(Some(30.0), None), &[24, 48]), Ok(1), "the small one is left out");
        assert_eq!(count(&with(Some(1.0), None), &[141]), Ok(16), "some bound there is");
        let error = count(&with(Some(80.0), None), &[24]).unwrap_err().to_string();
        assert!(error.contains("80") && error.contains("0 (H200, 24.0 GiB, GPU-0)"), "{error}");
        let two = plan_of(&with(Some(11.0), None), Ok(vec![card(0, 24)])).unwrap();
        assert_eq!(names(&two), ["gpu0-0", "gpu0-1"]);
    }

    #[test]
    fn gpus_are_those_named_and_need_no_driver_unless_memory_is_asked_for() {
        let named = |gpus: &[Gpu]| Launch { gpus: Some(gpus.to_vec()), ..launch() };
        let uuid = |uuid: &str| Gpu::Uuid(uuid.into());
        let cards = || Ok(vec![card(0, 24), card(1, 24)]);
        assert_eq!(names(&plan_of(&named(&[uuid("GPU-1")]), cards()).unwrap()), ["gpu1"]);
        let error = plan_of(&named(&[Gpu::Index(7)]), cards()).unwrap_err().to_string();
        assert!(error.contains("names 7") && error.contains("1 (H200"), "{error}");
        for twice in [[Gpu::Index(1), Gpu::Index(1)], [Gpu::Index(1), uuid("GPU-1")]] {
            let error = plan_of(&named(&twice), cards()).unwrap_err();
            assert_eq!(error, PlanError::Twice("gpu1".into()));
        }
        let dark = || Ok(vec![Card { memory_bytes: None, ..card(0, 0) }]);
        assert_eq!(names(&plan_of(&launch(), dark()).unwrap()), ["gpu0"]);
        let measured = Launch { vram_gib: Some(8.0), ..launch() };
        assert!(matches!(plan_of(&measured, dark()), Err(PlanError::Unmeasured(_))));
        assert!(matches!(plan_of(&launch(), Ok(Vec::new())), Err(PlanError::NoGpu(_))));
        let none = || Err("no library".to_owned());
        let blind = plan_of(&named(&[Gpu::Index(3), uuid("GPU-x")]), none()).unwrap();
        assert_eq!(names(&blind), ["gpu3", "gpu-1"]);
        let visible: Vec<_> = blind.iter().map(|one| &one.program.env["CUDA_VISIBLE_DEVICES"]).collect();
        assert_eq!(visible, ["3", "GPU-x"]);
        assert_eq!(plan_of(&launch(), none()), Err(PlanError::NoGpu("no library".into())));
        let measured = Launch { vram_gib: Some(8.0), ..named(&[Gpu::Index(0)]) };
        assert_eq!(plan_of(&measured, none()), Err(PlanError::NoGpu("no library".into())));
    }

    #[test]
    fn without_gpus_nothing_is_pinned() {
        let launch = Launch { gpus: Some(Vec::new()), per_gpu: Some(2), ..launch() };
        let planned = plan_of(&launch, Err("no library".into())).unwrap();
        assert_eq!(names(&planned), ["local-0", "local-1"]);
        assert!(planned.iter().all(|one| one.program.env.is_empty() && one.instance.gpu.is_none()));
    }

    #[test]
    fn what_is_launched_must_get_along_with_what_is_configured() {
        let planned = plan_of(&launch(), Ok(vec![card(0, 24)])).unwrap();
        let other =
            |name: &str, url: &str| Instance { name: name.into(), ..Instance::at(url.parse().unwrap()) };
        assert_eq!(apart(&planned, &[other("a", "http://10.0.0.1:8188")], &[7188]), Ok(()));
        let clash = |other| apart(&planned, &[other], &[]).unwrap_err();
        assert!(matches!(clash(other("gpu0", "http://127.0.0.1:9000")), PlanError::Name(_)));
        assert!(matches!(clash(other("a", "http://localhost:8188")), PlanError::Url { .. }));
        assert!(matches!(apart(&planned, &[], &[8188]), Err(PlanError::Url { .. })));
        let late = Launch { port: u16::MAX, ..launch() };
        let error = plan_of(&late, Ok(vec![card(0, 24), card(1, 24)])).unwrap_err();
        assert_eq!(error, PlanError::Ports { first: u16::MAX, count: 2 });
    }
}
