//! Recording, staging and restarting, with an uploader that counts.

use super::*;

struct World {
    dir: tempfile::TempDir,
    handle: Handle,
    max_bytes: u64,
}

impl World {
    fn new(max_bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let handle = open(Config { dir: dir.path().join("assets"), max_bytes }).unwrap();
        Self { dir, handle, max_bytes }
    }

    fn restart(&mut self) {
        self.handle =
            open(Config { dir: self.dir.path().join("assets"), max_bytes: self.max_bytes }).unwrap();
    }

    async fn record(&self, file: &UploadRef, content: &str) -> Result<Digest, RecordError> {
        let mut recording = self.handle.record().await?;
        for piece in content.as_bytes().chunks(3) {
            recording.write(piece).await?;
        }
        recording.finish(file).await
    }

    fn read(&self, file: &UploadRef) -> Option<String> {
        Some(std::fs::read_to_string(self.handle.path(file)?).unwrap())
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

impl Uploader for Instance {
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
async fn a_restart_keeps_names_and_contents_and_clears_the_rest() {
    let mut world = World::new(1_000);
    world.record(&file("a"), "same").await.unwrap();
    world.record(&file("b"), "same").await.unwrap();
    world.record(&file("c"), "old").await.unwrap();
    world.record(&file("c"), "new").await.unwrap();
    let mut unfinished = world.handle.record().await.unwrap();
    unfinished.write(b"half").await.unwrap();
    assert_eq!((world.files("contents"), world.files("incoming")), (3, 1));
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
    assert_eq!(world.files("contents"), 2, "the old content of c has no name any more");
    world.record(&file("d"), "later").await.unwrap();
    world.restart();
    assert_eq!(world.read(&file("d")).as_deref(), Some("later"));
}

#[tokio::test]
async fn the_longest_unused_make_room() {
    let mut world = World::new(10);
    world.record(&file("a"), "aaaa").await.unwrap();
    world.record(&file("b"), "bbbb").await.unwrap();
    assert!(world.handle.path(&file("a")).is_some(), "and a is of use again");
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
    assert_eq!(std::fs::read_dir(world.dir.path()).unwrap().count(), 1);
}
