//! Real processes: shells that do as they are told.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Instant;

use super::*;
use crate::config::{Gpu, Instance, Launch, Secret, Url};

/// The shell writes its number to `pid` and goes on as the script says.
struct World {
    dir: tempfile::TempDir,
    launch: Launch,
}

impl World {
    fn new(script: &str) -> Self {
        let script = format!("echo $$ >> {{dir}}/pid; {script}");
        let command = ["sh", "-c", &script, "{port}"].map(str::to_owned).to_vec();
        let port = free_ports();
        let launch = Launch { command, gpus: Some(Vec::new()), port, stop_s: 1, ..Launch::default() };
        Self { dir: tempfile::tempdir().unwrap(), launch }
    }

    async fn start(&self) -> Result<(Service, Handle), StartError> {
        let site = Site { launch: &self.launch, dir: self.dir.path(), unset: &[] };
        let planned = plan(site, || Err("there are no GPUs".to_owned())).unwrap();
        let instances: Vec<_> = planned.iter().map(|planned| planned.instance.clone()).collect();
        Service::start(&self.launch, self.dir.path(), &instances, planned).await
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("local").join(name)
    }

    /// The processes so far, once there are so many.
    async fn pids(&self, count: usize) -> Vec<u32> {
        until("a process", || {
            let text = self.read("pid");
            let pids: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
            (pids.len() >= count && text.ends_with('\n')).then_some(pids)
        })
        .await
    }

    fn record(&self, pid: u32, began: u64, dir: &Path) {
        std::fs::create_dir_all(self.path("")).unwrap();
        let record = serde_json::json!({ "pid": pid, "began": began, "boot": system::boot(), "digest": "", "dir": dir });
        std::fs::write(self.path("process.json"), record.to_string()).unwrap();
    }

    fn recorded(&self, instance: &str) -> Option<u32> {
        Some(process::Process::recorded(&self.dir.path().join(instance))?.pid())
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for instance in std::fs::read_dir(self.dir.path()).unwrap().flatten() {
            let pids = std::fs::read_to_string(instance.path().join("pid")).unwrap_or_default();
            pids.lines().flat_map(str::parse).for_each(|pid| system::signal_group(pid, system::Signal::Kill));
        }
    }
}

/// The first of two where nobody listens. Each test has others, and nothing listens there in any.
fn free_ports() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    let free = |port: u16| program::bind(port).is_ok();
    loop {
        let port = NEXT.fetch_add(2, Ordering::Relaxed);
        if free(port) && free(port + 1) {
            return port;
        }
    }
}

async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within 30 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn lives(pid: u32) -> bool {
    system::began(pid).is_some()
}

fn local() -> InstanceId {
    InstanceId::from("local")
}

#[tokio::test]
async fn a_process_that_ends_is_started_again_and_its_log_goes_on() {
    let world = World::new("echo no such card; exit 3");
    let (service, _) = world.start().await.unwrap();
    let pids = world.pids(2).await;
    assert_ne!(pids[0], pids[1]);
    until("both said why", || world.read("log").starts_with("no such card\nno such card\n").then_some(()))
        .await;
    service.stop().await;
}

#[tokio::test]
async fn an_ordered_restart_ends_the_process_and_what_it_started() {
    let world = World::new("sleep 1000 & echo $! > {dir}/child; wait");
    let (service, handle) = world.start().await.unwrap();
    let first = world.pids(1).await[0];
    let child: u32 = until("a child", || world.read("child").trim().parse().ok()).await;
    handle.restart(&local()).await.unwrap();
    let second = world.pids(2).await[1];
    assert!(!lives(first) && lives(second));
    until("its child's end", || (!lives(child)).then_some(())).await;
    service.stop().await;
    assert!(!lives(second));
    assert!(matches!(handle.restart(&local()).await, Err(RestartError::Stopping)));
}

#[tokio::test]
async fn one_that_does_not_end_is_killed() {
    let world = World::new("trap '' TERM; echo yes > {dir}/deaf; while :; do sleep 0.05; done");
    let (service, _) = world.start().await.unwrap();
    let pid = world.pids(1).await[0];
    until("it hears nothing", || (world.read("deaf") == "yes\n").then_some(())).await;
    let before = Instant::now();
    service.stop().await;
    assert!(!lives(pid));
    assert!(before.elapsed() >= Duration::from_secs(world.launch.stop_s), "it had its time");
}

#[tokio::test]
async fn what_an_earlier_router_left_is_taken_up_if_it_is_the_same() {
    let mut world = World::new("sleep 1000");
    let (left, _) = world.start().await.unwrap();
    let first = world.pids(1).await[0];
    drop(left);
    world.launch.keep = true;
    let (kept, handle) = world.start().await.unwrap();
    kept.stop().await;
    assert!(lives(first), "it is left to the next");
    drop(handle);
    world.launch.env.insert("OTHER".into(), Secret::new("1"));
    world.launch.keep = false;
    let (service, handle) = world.start().await.unwrap();
    let second = world.pids(2).await[1];
    assert!(!lives(first) && lives(second), "another program replaces it");
    handle.restart(&local()).await.unwrap();
    assert_ne!(world.pids(3).await[2], second);
    service.stop().await;
}

#[tokio::test]
async fn one_may_take_the_port_that_another_leaves() {
    let mut world = World::new("sleep 1000");
    world.launch.gpus = Some(vec![Gpu::Index(1)]);
    let (left, _) = world.start().await.unwrap();
    until("a process", || world.recorded("gpu1")).await;
    drop(left);
    world.launch.gpus = Some(vec![Gpu::Index(0), Gpu::Index(1)]);
    let (service, _) = world.start().await.unwrap();
    assert!(world.recorded("gpu0").is_some() && world.recorded("gpu1").is_some());
    service.stop().await;
}

#[tokio::test]
async fn what_a_wrapper_started_is_waited_for() {
    let world = World::new(
        "trap 'exit 0' TERM; sh -c 'trap \"sleep 0.3; echo yes > {dir}/done; exit 0\" TERM; echo $$ > {dir}/child; while :; do sleep 0.05; done' & wait",
    );
    let (service, _) = world.start().await.unwrap();
    let child: u32 = until("a child", || world.read("child").trim().parse().ok()).await;
    service.stop().await;
    assert_eq!((lives(child), world.read("done").as_str()), (false, "yes\n"), "it had its time");
}

#[tokio::test]
async fn one_that_is_launched_no_more_is_ended() {
    let mut world = World::new("sleep 1000");
    let (left, _) = world.start().await.unwrap();
    let pid = world.pids(1).await[0];
    drop(left);
    world.launch.command.clear();
    let (service, _) = world.start().await.unwrap();
    assert!(!lives(pid));
    service.stop().await;
}

#[tokio::test]
async fn one_that_ends_takes_with_it_what_it_started() {
    let world = World::new("sleep 1000 & echo $! > {dir}/child; exit 3");
    let (service, _) = world.start().await.unwrap();
    let child: u32 = until("a child", || world.read("child").trim().parse().ok()).await;
    until("its child's end", || (!lives(child)).then_some(())).await;
    service.stop().await;
}

#[tokio::test]
async fn a_record_of_a_process_whose_number_another_has_now_means_nothing() {
    let world = World::new("sleep 1000");
    world.record(std::process::id(), 1, &world.path(""));
    let (service, _) = world.start().await.unwrap();
    assert_ne!(world.pids(1).await[0], std::process::id());
    service.stop().await;
}

#[tokio::test]
async fn a_copy_of_a_record_ends_nobodys_process() {
    let theirs = World::new("sleep 1000");
    let (service, _) = theirs.start().await.unwrap();
    let pid = theirs.pids(1).await[0];
    let copy = World::new("sleep 1000");
    copy.record(pid, system::began(pid).unwrap(), &theirs.path(""));
    let (other, _) = copy.start().await.unwrap();
    assert_ne!(copy.pids(1).await[0], pid);
    other.stop().await;
    assert!(lives(pid));
    service.stop().await;
}

#[tokio::test]
async fn what_is_recorded_is_the_routers_own_business_and_holds_no_secrets() {
    use std::os::unix::fs::PermissionsExt;
    let mut world = World::new("sleep 1000");
    world.launch.env.insert("TOKEN".into(), Secret::new("hf_secret"));
    let (service, _) = world.start().await.unwrap();
    let mode = std::fs::metadata(world.path("process.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!world.read("process.json").contains("hf_secret"));
    service.stop().await;
}

#[tokio::test]
async fn a_start_that_fails_is_told_and_leaves_nothing_running() {
    let mut world = World::new("sleep 1000");
    world.launch.command[0] = "/nowhere/python".into();
    let error = world.start().await.map(drop).unwrap_err().to_string();
    assert!(error.contains("local") && error.contains("/nowhere/python"), "{error}");

    let mut world = World::new("sleep 1000");
    (world.launch.per_gpu, world.launch.keep) = (Some(2), true);
    let _taken = std::net::TcpListener::bind(("127.0.0.1", world.launch.port + 1)).unwrap();
    let error = world.start().await.map(drop).unwrap_err().to_string();
    assert!(error.contains("local-1") && error.contains("end what listens there"), "{error}");
    assert!(!world.dir.path().join("local-0/process.json").exists(), "the first was ended again");
}

#[tokio::test]
async fn others_are_restarted_by_their_own_command_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str, restart: &[&str]| Instance {
        name: name.into(),
        restart: restart.iter().map(|&part| part.to_owned()).collect(),
        ..Instance::at(Url::new("127.0.0.1", 1))
    };
    let file = dir.path().join("restarted");
    let script = format!("echo $COMFY_INSTANCE > {}", file.display());
    let instances = [at("a", &["sh", "-c", &script]), at("b", &[])];
    let (_service, handle) =
        Service::start(&Launch::default(), dir.path(), &instances, Vec::new()).await.unwrap();
    handle.restart(&"a".into()).await.unwrap();
    assert_eq!(std::fs::read_to_string(file).unwrap(), "a\n");
    assert!(matches!(handle.restart(&"b".into()).await, Err(RestartError::Unsupervised)));
    assert!(matches!(handle.restart(&"c".into()).await, Err(RestartError::NoSuchInstance(_))));
}
