//! Supervision of emulated instances.

use comfyui_emulator::{Config, Emulator, Fault, Moment};

use super::*;
use crate::comfy::frame::Kind;

/// Looks often, so that no test waits for a timer.
fn quick() -> config::Fleet {
    config::Fleet { poll_ms: 50, ..config::Fleet::default() }
}

fn at(emulator: &Emulator, name: &str) -> config::Instance {
    let mut instance = config::Instance::at(emulator.url().parse().unwrap());
    instance.name = name.into();
    instance
}

struct World {
    emulator: Emulator,
    handle: Handle,
    events: mpsc::Receiver<FleetEvent>,
    id: InstanceId,
}

impl World {
    async fn new(config: config::Fleet) -> Self {
        let emulator = Emulator::start(Config::default()).await.unwrap();
        let (handle, events) = start(&config, &[at(&emulator, "one")]);
        Self { emulator, handle, events, id: "one".into() }
    }

    /// The next event but frames and figures.
    async fn change(&mut self) -> EventKind {
        loop {
            let event = self.next().await;
            if !matches!(event, EventKind::Frame(_) | EventKind::Info(_) | EventKind::Same(_)) {
                return event;
            }
        }
    }

    async fn next(&mut self) -> EventKind {
        let event = tokio::time::timeout(Duration::from_secs(30), self.events.recv()).await;
        event.expect("no event within 30 s").expect("the fleet ended").kind
    }

    async fn until_linked(&mut self) -> Arc<str> {
        assert!(matches!(self.change().await, EventKind::Up(_)));
        assert!(matches!(self.change().await, EventKind::SocketUp));
        self.handle.sid(&self.id).unwrap()
    }

    fn info(&self) -> InstanceInfo {
        self.handle.instance(&self.id).unwrap()
    }
}

fn prompt(sid: &str, id: UpstreamId) -> Bytes {
    let graph = serde_json::json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    });
    let body = serde_json::json!({"prompt": graph, "client_id": sid, "prompt_id": id.to_string()});
    Bytes::from(body.to_string())
}

#[tokio::test]
async fn a_job_is_followed_from_submission_to_its_last_event() {
    let mut world = World::new(quick()).await;
    let sid = world.until_linked().await;
    let info = world.info();
    assert_eq!((info.version.as_deref(), info.epoch, info.foreign), (Some("0.8.0"), 1, Foreign::default()));
    assert!(info.catalogue.class("PreviewImage").is_some());
    assert_eq!(world.handle.home(), Some(world.id.clone()));

    let id = UpstreamId::mint();
    let taken = world.handle.submit(&world.id, id, prompt(&sid, id)).await.unwrap();
    assert_eq!(taken.prompt_id, id.to_string());
    let mut kinds = Vec::new();
    while !matches!(kinds.last(), Some(Kind::Executing { node: None, .. })) {
        if let EventKind::Frame(frame) = world.next().await
            && frame.prompt_id() == Some(&id.to_string())
            && let Frame::Event(event) = frame
        {
            kinds.push(event.kind);
        }
    }
    assert_eq!(kinds[0], Kind::ExecutionStart);
    assert_eq!(kinds[kinds.len() - 2], Kind::ExecutionSuccess);
    let history = world.handle.history(&world.id, id).await.unwrap().unwrap();
    assert!(history.contains("\"outputs\""), "{history}");
    assert_eq!(world.handle.history(&world.id, UpstreamId::mint()).await.unwrap(), None);
    assert_eq!(world.handle.queue(&world.id).await.unwrap(), QueueSnapshot::default());
}

#[tokio::test]
async fn figures_that_do_not_change_do_not_grow_old() {
    let mut world = World::new(quick()).await;
    world.until_linked().await;
    for _ in 0..3 {
        let same = loop {
            if let EventKind::Same(info) = world.next().await {
                break info;
            }
        };
        assert!(memchr::memmem::find(&same.system_stats, b"vram_total").is_some());
    }
}

#[tokio::test]
async fn a_crash_and_a_return_are_told_in_order() {
    let mut world = World::new(quick()).await;
    let first = world.until_linked().await;
    world.emulator.crash().await;
    assert!(matches!(world.change().await, EventKind::SocketDown));
    assert!(matches!(world.change().await, EventKind::Down { .. }));
    assert_eq!(world.handle.sid(&world.id), None);
    assert_eq!(world.handle.home(), None);
    let id = UpstreamId::mint();
    let refused = world.handle.submit(&world.id, id, prompt("x", id)).await;
    assert!(matches!(refused, Err(SubmitError::Refused(_))), "{refused:?}");

    world.emulator.restart().await;
    let second = world.until_linked().await;
    assert_eq!(
        first, second,
        "what it ran before the crash must not matter, what it runs after a mere loss must"
    );
    assert_eq!(world.info().epoch, 2);
}

#[tokio::test]
async fn one_that_answers_badly_or_is_gone_is_not_silent() {
    let patience = config::Fleet { health_timeout_ms: 500, failures: 1, ..quick() };
    let mut world = World::new(patience).await;
    world.until_linked().await;
    let silent = async |world: &mut World| loop {
        if let EventKind::Down { silent, .. } = world.change().await {
            return silent;
        }
    };
    world.emulator.control().inject(Fault::Freeze { at: Moment::Now });
    assert!(silent(&mut world).await);
    world.emulator.crash().await;
    assert!(!silent(&mut world).await, "and that is told though it was down before");
    world.emulator.restart().await;
    world.until_linked().await;
    for _ in 0..1_000 {
        world.emulator.control().inject(Fault::BreakAnswers { path: "/system_stats".into(), count: 1 });
    }
    assert!(!silent(&mut world).await);
}

#[tokio::test]
async fn a_restart_between_two_looks_is_seen_as_down_and_up() {
    // It never looks again by itself.
    let mut world = World::new(config::Fleet { poll_ms: 3_600_000, ..config::Fleet::default() }).await;
    let sid = world.until_linked().await;
    let id = UpstreamId::mint();
    world.handle.submit(&world.id, id, prompt(&sid, id)).await.unwrap();
    world.emulator.restart().await;
    let mut seen = Vec::new();
    loop {
        match world.change().await {
            EventKind::SocketUp => break,
            other => seen.push(other),
        }
    }
    // Whether a look fell into the moment of darkness or not, the order is the same.
    assert!(
        matches!(seen[..], [EventKind::SocketDown, EventKind::Down { .. }, EventKind::Up(_)]),
        "{seen:?}"
    );
    assert_eq!(world.info().epoch, 2);
}

#[tokio::test]
async fn prompts_of_others_are_counted() {
    let mut world = World::new(quick()).await;
    let sid = world.until_linked().await;
    let control = world.emulator.control();
    control.hold(comfyui_emulator::Each::Execution);
    let (ours, theirs) = (UpstreamId::mint(), UpstreamId::mint());
    world.handle.submit(&world.id, ours, prompt(&sid, ours)).await.unwrap();
    control.wait_held(1).await;
    let pool = pool(world.info().url);
    submit::submit(&pool, prompt("elsewhere", theirs), Duration::from_secs(20)).await.unwrap();
    while world.info().foreign != (Foreign { running: 0, pending: 1 }) {
        world.next().await;
    }
    // What is not running is not interrupted; what waits can be taken out.
    world.handle.interrupt(&world.id, theirs).await.unwrap();
    world.handle.dequeue(&world.id, theirs).await.unwrap();
    let queue = world.handle.queue(&world.id).await.unwrap();
    assert_eq!(queue, QueueSnapshot { running: vec![ours.to_string()], pending: vec![] });
    world.handle.free(&world.id, true, true).await.unwrap();
    control.release(1);
}

#[tokio::test]
async fn a_file_is_given_under_its_exact_name() {
    let mut world = World::new(quick()).await;
    world.until_linked().await;
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    std::fs::write(&source, vec![7; 200_000]).unwrap();
    let file = UploadRef { kind: "input".into(), subfolder: "a b".into(), name: "x \"y\" ü.png".into() };
    for _ in 0..2 {
        world.handle.upload(&world.id, &file, &source).await.unwrap();
    }
    let view = "/view?filename=x%20%22y%22%20%C3%BC.png&subfolder=a%20b&type=input";
    let request = Request::get(view).body(Body::empty()).unwrap();
    let answer = world.handle.forward(&world.id, request).await.unwrap();
    assert_eq!(answer.status(), 200);
    let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
    assert_eq!(body.len(), 200_000);
}

#[tokio::test]
async fn discovery_finds_a_comfyui_and_nothing_else() {
    let emulator = Emulator::start(Config::default()).await.unwrap();
    let port = emulator.addr().port();
    let web = scripted(|_, mut stream| async move {
        read_request(&mut stream).await;
        reply(&mut stream, &ok("<html>")).await;
    })
    .await;
    for (ports, expected) in [(port, 1), (web.port(), 0), (nowhere().await.port(), 0)] {
        let ports = config::PortRange { first: ports, last: ports };
        let found = discover(&config::Discover { ports, ..config::Discover::default() }).await;
        assert_eq!(found.len(), expected, "{found:?}");
    }
}

#[tokio::test]
async fn an_absent_instance_is_named_and_the_wait_for_a_first_look_ends() {
    let (handle, _events) = start(&quick(), &[config::Instance::at(nowhere().await)]);
    handle.looked().await;
    let shown = table(&handle.instances());
    assert!(shown.contains("down: connection refused"), "{shown}");
}
