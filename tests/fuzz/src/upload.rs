//! Bodies of `POST /upload/image`: a form that is streamed to disk, in pieces as they come.

use std::path::Path;
use std::sync::Arc;
use std::sync::OnceLock;

use axum::body::Body;
use bytes::Bytes;
use comfy_router::assets::{self, Bounds};
use comfy_router::clock::SystemClock;
use comfy_router::front::{Form, read_form};
use hyper::Request;
use hyper::header::CONTENT_TYPE;
use tokio::runtime::Runtime;

/// Of a form. Small, so that inputs pass it.
const LIMIT: u64 = 4 << 10;

struct World {
    folder: tempfile::TempDir,
    runtime: Runtime,
    assets: assets::Handle,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let bounds = |name| Bounds { dir: folder.path().join(name), max_bytes: LIMIT / 2, max_age_ms: None };
        let config = assets::Config { uploads: bounds("uploads"), outputs: bounds("outputs") };
        let clock: Arc<dyn comfy_router::clock::Clock> = Arc::new(SystemClock::default());
        let assets = assets::open(config, &clock).expect("it opens");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { folder, runtime, assets }
    }
}

/// The first line is the content type, the rest the body; its last byte says how long its pieces are.
pub fn upload(data: &[u8]) {
    thread_local! {
        static WORLD: OnceLock<World> = const { OnceLock::new() };
    }
    let (kind, body) = data.split_at(data.iter().position(|byte| *byte == b'\n').unwrap_or(0));
    let piece = 1 + usize::from(*body.last().unwrap_or(&0));
    let pieces: Vec<Result<Bytes, std::io::Error>> = body
        .get(1..)
        .unwrap_or_default()
        .chunks(piece)
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    let body = Body::from_stream(futures_util::stream::iter(pieces));
    let Ok(request) = Request::post("/upload/image").header(CONTENT_TYPE, kind).body(body) else { return };
    WORLD.with(|world| {
        let world = world.get_or_init(World::new);
        match world.runtime.block_on(read_form(request, LIMIT, &world.assets)) {
            Ok(form) => taken(form, data.len() as u64),
            Err(answer) => {
                assert!(answer.status().is_client_error(), "the disk is fine: {}", answer.status())
            }
        }
        // Nothing was given a name, so nothing is kept.
        assert_eq!(incoming(world.folder.path()), 0, "a file was left behind");
    });
}

fn taken(form: Form, sent: u64) {
    let texts = [form.kind.as_deref(), Some(&*form.subfolder), form.original_ref.as_deref()];
    let texts: usize = texts.into_iter().flatten().map(str::len).sum();
    // What is no UTF-8 becomes up to three times as long.
    assert!(texts as u64 <= 3 * sent.min(LIMIT), "{texts} bytes of text from {sent}");
    if let Some((_, content)) = &form.image {
        let bytes = std::fs::metadata(content.path()).expect("the content is there").len();
        assert!(bytes <= sent.min(LIMIT / 2), "{bytes} bytes kept of {sent}");
    }
}

fn incoming(folder: &Path) -> usize {
    let list = std::fs::read_dir(folder.join("uploads").join("incoming")).expect("it is there");
    list.filter(Result::is_ok).count()
}
