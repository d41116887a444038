//! Recording, staging and restarting, with an uploader that counts.

use super::*;
use crate::clock::ManualClock;

struct World {
    dir: tempfile::TempDir,
    handle: Handle,
    max_bytes: u64,
    clock: Arc<ManualClock>,
}

const AGE_MS: u64 = 60_000;

fn opened(dir: &tempfile::TempDir, max_bytes: u64, clock: &Arc<ManualClock>) -> Handle {
    let bounds = |name: &str, max_age_ms| Bounds { dir: dir.path().join(name), max_bytes, max_age_ms };
    let config = Config { uploads: bounds("assets", None), outputs: bounds("outputs", Some(AGE_MS)) };
    let clock: Arc<dyn Clock> = clock.clone();
    open(config, &clock).unwrap()
}

impl World {
    fn new(max_bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::default());
        let handle = opened(&dir, max_bytes, &clock);
        Self { dir, handle, max_bytes, clock }
    }

    fn restart(&mut self) {
        self.handle = opened(&self.dir, self.max_bytes, &self.clock);
    }

    async fn record(&self, file: &UploadRef, content: &str) -> Result<Digest, RecordError> {
        let mut recording = self.handle.record().await?;
        for piece in content.as_bytes().chunks(3) {
            recording.write(piece).await?;
        }
        recording.finish(file).await
    }

    fn read(&self, file: &UploadRef) -> Option<String> {
        Some(std::fs::read_to_string(self.handle.find(file)?.path()).unwrap())
    }

    fn files(&self, folder: &str) -> usize {
        std::fs::read_dir(self.dir.path().join("assets").join(folder)).unwrap().count()
    }
}

/// Remembers what it was given.
#[derive(Default)]
struct Instance {
    epoch: u64,
    uploads: Mutex<Vec<(UploadRef, String)>>,
    broken: bool,
    /// What it has to give; its own tag.
    has: Option<String>,
}

impl Instance {
    fn uploads(&self) -> Vec<(String, String)> {
        self.uploads
            .lock()
            .unwrap()
            .iter()
            .map(|(file, content)| (file.name.clone(), content.clone()))
            .collect()
    }
}

impl Instances for Instance {
    fn epoch(&self, _: &InstanceId) -> u64 {
        self.epoch
    }

    async fn upload(&self, _: &InstanceId, file: &UploadRef, source: &Path) -> Result<(), String> {
        tokio::task::yield_now().await;
        if self.broken {
            return Err("no room".into());
        }
        let content = std::fs::read_to_string(source).unwrap();
        self.uploads.lock().unwrap().push((file.clone(), content));
        Ok(())
    }

    async fn download(&self, _: &InstanceId, _: &UploadRef, tag: Option<&str>) -> Result<Found, String> {
        match (&self.has, tag) {
            (None, _) => Ok(Found::Absent),
            (Some(has), Some(tag)) if has == tag => Ok(Found::Same),
            (Some(has), _) if self.broken => {
                let pieces = [Ok(has.clone()), Err(std::io::Error::other("cut"))];
                Ok(Found::Content { body: Body::from_stream(futures_util::stream::iter(pieces)), tag: None })
            }
            (Some(has), _) => Ok(Found::Content { body: Body::from(has.clone()), tag: Some(has.clone()) }),
        }
    }
}

fn file(name: &str) -> UploadRef {
    UploadRef { kind: "input".into(), subfolder: String::new(), name: name.into() }
}

fn pair(name: &str, content: &str) -> (String, String) {
    (name.into(), content.into())
}

#[tokio::test]
async fn an_instance_is_given_what_it_lacks_and_nothing_else() {
    let (world, mut instance, id) = (World::new(1_000), Instance::default(), InstanceId::from("one"));
    world.record(&file("a"), "first").await.unwrap();
    world.record(&file("b"), "second").await.unwrap();
    let needed = [file("a"), file("never recorded"), file("../a")];
    for _ in 0..2 {
        world.handle.stage(&id, &needed, &instance).await.unwrap();
    }
    assert_eq!(instance.uploads(), [pair("a", "first")]);
    // Another content under the same name is another file.
    world.record(&file("a"), "changed").await.unwrap();
    world.handle.stage(&id, &needed, &instance).await.unwrap();
    assert_eq!(instance.uploads()[1..], [pair("a", "changed")]);
    // After a restart it may have lost it.
    instance.epoch += 1;
    world.handle.stage(&id, &needed, &instance).await.unwrap();
    assert_eq!(instance.uploads()[2..], [pair("a", "changed")]);
}

#[tokio::test]
async fn what_a_client_uploaded_through_an_instance_is_there() {
    let (world, instance, id) = (World::new(1_000), Instance::default(), InstanceId::from("one"));
    let content = world.record(&file("a"), "first").await.unwrap();
    world.handle.given(&id, instance.epoch, &file("a"), content).await;
    world.handle.stage(&id, &[file("a")], &instance).await.unwrap();
    assert!(instance.uploads().is_empty());
    world.handle.stage(&InstanceId::from("other"), &[file("a")], &instance).await.unwrap();
    assert_eq!(instance.uploads().len(), 1);
}

#[tokio::test]
async fn two_attempts_send_a_file_once() {
    let (world, instance, id) = (World::new(1_000), Instance::default(), InstanceId::from("one"));
    world.record(&file("a"), "first").await.unwrap();
    let needed = [file("a")];
    let stage = || world.handle.stage(&id, &needed, &instance);
    let (first, second, third) = tokio::join!(stage(), stage(), stage());
    assert!(first.is_ok() && second.is_ok() && third.is_ok());
    assert_eq!(instance.uploads().len(), 1);
}

#[tokio::test]
async fn a_failed_upload_is_told_and_tried_again() {
    let (world, mut instance, id) = (World::new(1_000), Instance::default(), InstanceId::from("one"));
    world.record(&file("a"), "first").await.unwrap();
    instance.broken = true;
    let error = world.handle.stage(&id, &[file("a")], &instance).await.unwrap_err();
    assert_eq!(error.to_string(), "`a` could not be given to the instance: no room");
    instance.broken = false;
    world.handle.stage(&id, &[file("a")], &instance).await.unwrap();
    assert_eq!(instance.uploads().len(), 1);
}

#[tokio::test]
async fn of_countless_names_the_longest_unused_are_forgotten_and_given_again() {
    let (world, instance, id) = (World::new(1_000), Instance::default(), InstanceId::from("one"));
    let [old, new] = ["old.png", "new.png"].map(file);
    let digest = world.record(&old, "old").await.unwrap();
    world.record(&new, "new").await.unwrap();
    let stage = async |file: &UploadRef| {
        world.handle.stage(&id, std::slice::from_ref(file), &instance).await.unwrap();
    };
    stage(&old).await;
    for n in 0..2 * MOST_GIVEN {
        world.handle.given(&id, 0, &file(&format!("{n}.png")), digest).await;
        if n % 1_000 == 0 {
            stage(&new).await;
        }
    }
    assert!(world.handle.lock()[&id].files.len() <= MOST_GIVEN);
    stage(&old).await;
    let given: Vec<_> = instance.uploads.lock().unwrap().iter().map(|(file, _)| file.name.clone()).collect();
    assert_eq!(given, ["old.png", "new.png", "old.png"]);
}

#[tokio::test]
async fn a_restart_keeps_names_and_contents_and_clears_the_rest() {
    let mut world = World::new(1_000);
    world.record(&file("a"), "same").await.unwrap();
    world.record(&file("b"), "same").await.unwrap();
    world.record(&file("c"), "old").await.unwrap();
    world.record(&file("c"), "new").await.unwrap();
    let mut unfinished = world.handle.record().await.unwrap();
    unfinished.write(b"half").await.unwrap();
    assert_eq!(
        (world.files("contents"), world.files("incoming")),
        (2, 1),
        "the old content of c has no name"
    );
    drop(unfinished);
    assert_eq!(world.files("incoming"), 0);
    // As a crash leaves it: half a line at the end.
    let journal = world.dir.path().join("assets/names.jsonl");
    let mut text = std::fs::read_to_string(&journal).unwrap();
    text.push_str("\n{\"named\":{\"fi");
    std::fs::write(&journal, text).unwrap();

    world.restart();
    assert_eq!(world.read(&file("a")).as_deref(), Some("same"));
    assert_eq!(world.read(&file("b")).as_deref(), Some("same"));
    assert_eq!(world.read(&file("c")).as_deref(), Some("new"));
    assert_eq!(world.files("contents"), 2);
    world.record(&file("d"), "later").await.unwrap();
    world.restart();
    assert_eq!(world.read(&file("d")).as_deref(), Some("later"));
}

#[tokio::test]
async fn the_longest_unused_make_room() {
    let mut world = World::new(10);
    world.record(&file("a"), "aaaa").await.unwrap();
    world.record(&file("b"), "bbbb").await.unwrap();
    assert!(world.handle.find(&file("a")).is_some(), "and a is of use again");
    world.record(&file("c"), "cccc").await.unwrap();
    assert_eq!(world.read(&file("b")), None);
    for _ in 0..2 {
        assert_eq!(world.read(&file("a")).as_deref(), Some("aaaa"));
        assert_eq!(world.read(&file("c")).as_deref(), Some("cccc"));
        assert_eq!(world.files("contents"), 2);
        world.restart();
    }
    let error = world.record(&file("d"), "ddddddddddd").await.unwrap_err();
    assert!(matches!(error, RecordError::TooLarge { limit: 10 }), "{error}");
    assert_eq!(world.files("incoming"), 0);
}

#[tokio::test]
async fn a_hostile_name_is_not_recorded_and_touches_nothing() {
    let world = World::new(1_000);
    for name in ["../../x", "/etc/passwd", "a\0b", "", "..", "C:\\x"] {
        let error = world.record(&file(name), "x").await.unwrap_err();
        assert!(matches!(error, RecordError::Name(_)), "{name:?}: {error}");
    }
    assert_eq!((world.files("contents"), world.files("incoming")), (0, 0));
    assert_eq!(std::fs::read_dir(world.dir.path()).unwrap().count(), 2);
}

#[tokio::test]
async fn a_name_is_claimed_once_and_the_same_content_may_have_it_again() {
    let world = World::new(1_000);
    let complete = async |content: &str| {
        let mut recording = world.handle.record().await.unwrap();
        recording.write(content.as_bytes()).await.unwrap();
        recording.complete().await.unwrap()
    };
    let first = complete("one").await.claim(&file("a")).await.unwrap();
    assert!(first.is_ok());
    assert!(complete("one").await.claim(&file("a")).await.unwrap().is_ok());
    let other = complete("two").await.claim(&file("a")).await.unwrap().unwrap_err();
    assert_eq!(world.read(&file("a")).as_deref(), Some("one"));
    assert!(other.claim(&file("a (1)")).await.unwrap().is_ok(), "what is refused can be named otherwise");
    assert_eq!(world.read(&file("a (1)")).as_deref(), Some("two"));
    drop(complete("three").await);
    assert_eq!((world.files("contents"), world.files("incoming")), (2, 0));
}

#[tokio::test]
async fn a_file_is_fetched_again_only_when_it_changed_and_never_in_part() {
    let (world, id) = (World::new(1_000), InstanceId::from("one"));
    let mut instance = Instance { has: Some("first".into()), ..Instance::default() };
    let there = file("ComfyUI_00001_.png");
    let name = UploadRef { subfolder: "~one".into(), ..there.clone() };
    let fetched = async |instance: &Instance| {
        let kept = world.handle.fetch(&id, &there, &name, instance).await?;
        Ok::<_, FetchError>(std::fs::read_to_string(kept.path()).unwrap())
    };
    assert_eq!(fetched(&instance).await.unwrap(), "first");
    assert_eq!(fetched(&instance).await.unwrap(), "first");
    instance.has = Some("second".into());
    instance.broken = true;
    assert!(matches!(fetched(&instance).await, Err(FetchError::Broken(_))));
    assert_eq!(world.read(&name).as_deref(), Some("first"), "what came in part is not kept");
    assert_eq!(world.files("incoming"), 0);
    instance.broken = false;
    assert_eq!(fetched(&instance).await.unwrap(), "second");
    instance.has = None;
    assert!(matches!(fetched(&instance).await, Err(FetchError::Absent)));
}

#[tokio::test]
async fn results_are_kept_apart_and_for_a_time() {
    let (mut world, id) = (World::new(1_000), InstanceId::from("one"));
    let instance = Instance { has: Some("picture".into()), ..Instance::default() };
    let name = UploadRef { subfolder: "~one".into(), ..file("a") };
    world.handle.fetch_output(&id, &file("a"), &name, &instance).await.unwrap();
    assert_eq!((world.files("contents"), world.files("../outputs/contents")), (0, 1));
    world.restart();
    assert_eq!(world.read(&name).as_deref(), Some("picture"));
    world.clock.advance(std::time::Duration::from_millis(AGE_MS + 1));
    assert_eq!(world.read(&name), None);
    let other = UploadRef { subfolder: "~one".into(), ..file("b") };
    let later = Instance { has: Some("other".into()), ..Instance::default() };
    world.handle.fetch_output(&id, &file("b"), &other, &later).await.unwrap();
    assert_eq!(world.files("../outputs/contents"), 1, "what is too old is gone from the disk");
}

#[tokio::test]
async fn a_forgotten_result_goes_with_its_content_unless_another_name_has_it_or_it_was_of_use_meanwhile() {
    let (mut world, id) = (World::new(1_000), InstanceId::from("one"));
    let preview = |name: &str| UploadRef { kind: "temp".into(), subfolder: "~one".into(), ..file(name) };
    let keep = async |world: &World, name: &str, content: &str| {
        let instance = Instance { has: Some(content.into()), ..Instance::default() };
        world.handle.fetch_output(&id, &file(name), &preview(name), &instance).await.unwrap();
    };
    for (name, content) in [("a", "same"), ("b", "same"), ("c", "other"), ("d", "used")] {
        keep(&world, name, content).await;
    }
    let result = UploadRef { kind: "output".into(), ..preview("e") };
    let instance = Instance { has: Some("a result".into()), ..Instance::default() };
    world.handle.fetch_output(&id, &file("e"), &result, &instance).await.unwrap();
    let held = world.handle.held_outputs("temp");
    assert_eq!(held.len(), 4);
    assert!(world.handle.find(&preview("d")).is_some(), "somebody reads it");
    let gone: Vec<Held> = held.into_iter().filter(|held| held.file.name != "b").collect();
    assert_eq!(world.handle.forget_outputs(gone).await.unwrap(), 2);
    for _ in 0..2 {
        assert_eq!((world.read(&preview("a")), world.read(&preview("c"))), (None, None));
        assert_eq!(world.read(&preview("b")).as_deref(), Some("same"));
        assert_eq!(world.read(&preview("d")).as_deref(), Some("used"));
        assert_eq!(world.read(&result).as_deref(), Some("a result"));
        assert_eq!(world.files("../outputs/contents"), 3);
        world.restart();
    }
}

#[tokio::test]
async fn a_result_that_is_being_read_is_dropped_when_nobody_reads_it_any_more() {
    let (world, id) = (World::new(1_000), InstanceId::from("one"));
    let name = UploadRef { kind: "temp".into(), subfolder: "~one".into(), ..file("a") };
    let instance = Instance { has: Some("picture".into()), ..Instance::default() };
    let reader = world.handle.fetch_output(&id, &file("a"), &name, &instance).await.unwrap();
    let held = world.handle.held_outputs("temp");
    assert_eq!(world.handle.forget_outputs(held).await.unwrap(), 1);
    assert!(world.handle.find(&name).is_none());
    assert_eq!(std::fs::read_to_string(reader.path()).unwrap(), "picture");
    drop(reader);
    world.handle.forget_outputs(Vec::new()).await.unwrap();
    assert_eq!(world.files("../outputs/contents"), 0);
}
