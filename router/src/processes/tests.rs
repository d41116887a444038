//! Real processes: shells that do as they are told.

use std::path::PathBuf;
use std::time::Instant;

use super::*;
use crate::config::{Instance, Launch, Url};

/// The shell writes its number to `pid` and goes on as the script says.
struct World {
    dir: tempfile::TempDir,
    launch: Launch,
}

impl World {
    fn new(script: &str) -> Self {
        let script = format!("echo $$ >> {{dir}}/pid; {script}");
        let command = ["sh", "-c", &script, "{port}"].map(str::to_owned).to_vec();
        let launch = Launch { command, gpus: Some(Vec::new()), stop_s: 1, ..Launch::default() };
        Self { dir: tempfile::tempdir().unwrap(), launch }
    }

    async fn start(&self) -> Result<(Service, Handle), StartError> {
        let planned = plan(&self.launch, self.dir.path(), || unreachable!("there are no GPUs")).unwrap();
        let instances: Vec<_> = planned.iter().map(|planned| planned.instance.clone()).collect();
        Service::start(&self.launch, self.dir.path(), &instances, planned).await
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("local").join(name)
    }

    /// The processes so far, once there are so many.
    async fn pids(&self, count: usize) -> Vec<u32> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let text = std::fs::read_to_string(self.path("pid")).unwrap_or_default();
            let pids: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
            if pids.len() >= count && text.ends_with('\n') {
                return pids;
            }
            assert!(Instant::now() < deadline, "{pids:?}, not {count}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
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
    service.stop().await;
    let log = std::fs::read_to_string(world.path("log")).unwrap();
    assert!(log.lines().count() >= 2 && log.lines().all(|line| line == "no such card"), "{log}");
}

#[tokio::test]
async fn an_ordered_restart_ends_the_process_and_what_it_started() {
    let world = World::new("sleep 1000 & echo $! > {dir}/child; wait");
    let (service, handle) = world.start().await.unwrap();
    let first = world.pids(1).await[0];
    let child = || std::fs::read_to_string(world.path("child")).ok()?.trim().parse::<u32>().ok();
    while child().is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let child = child().unwrap();
    handle.restart(&local()).await.unwrap();
    let second = world.pids(2).await[1];
    assert!(!lives(first) && lives(second));
    // It was given to init, which reaps it in its own time.
    while lives(child) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    service.stop().await;
    assert!(!lives(second));
    assert!(matches!(handle.restart(&local()).await, Err(RestartError::Stopping)));
}

#[tokio::test]
async fn one_that_does_not_end_is_killed() {
    let world = World::new("trap '' TERM; while :; do sleep 0.05; done");
    let (service, _) = world.start().await.unwrap();
    let pid = world.pids(1).await[0];
    service.stop().await;
    assert!(!lives(pid));
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
    world.launch.env.insert("OTHER".into(), "1".into());
    world.launch.keep = false;
    let (service, handle) = world.start().await.unwrap();
    let second = world.pids(2).await[1];
    assert!(!lives(first) && lives(second), "another program replaces it");
    handle.restart(&local()).await.unwrap();
    assert_ne!(world.pids(3).await[2], second);
    service.stop().await;
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
async fn a_record_of_a_process_whose_number_another_has_now_means_nothing() {
    let world = World::new("sleep 1000");
    let folder = world.path("");
    std::fs::create_dir_all(&folder).unwrap();
    let record = serde_json::json!({ "pid": std::process::id(), "began": 1,
        "program": { "command": ["sh"], "env": {}, "cwd": null, "dir": folder } });
    std::fs::write(folder.join("process.json"), record.to_string()).unwrap();
    let (service, _) = world.start().await.unwrap();
    assert_ne!(world.pids(1).await[0], std::process::id());
    service.stop().await;
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named_and_nothing_is_left_running() {
    let mut world = World::new("sleep 1000");
    world.launch.command[0] = "/nowhere/python".into();
    let error = world.start().await.map(drop).unwrap_err().to_string();
    assert!(error.contains("local") && error.contains("/nowhere/python"), "{error}");
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
