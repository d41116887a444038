//! A component that answers every question with bytes it was given: whatever the canonical ABI finds at that address.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::OnceLock;

use comfy_router_policy_kit::component::{Recipe, component};

const WORLD: &str = "package fuzz:guest;
world guest {
    export comfy-router:policy/admission@0.1.1;
    export comfy-router:policy/priority@0.1.1;
    export comfy-router:policy/routing@0.1.1;
    export comfy-router:policy/recovery@0.1.1;
    export comfy-router:policy/housekeeping@0.1.1;
}
";

/// Where the answer lies; texts and lists of it may lie anywhere.
const AT: u32 = 1024;

fn world() -> &'static PathBuf {
    static FOLDER: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, wit) = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let wit = folder.path().join("wit");
        comfy_router_policy_kit::wit::write(&wit).expect("the interface is written");
        std::fs::write(wit.join("world.wit"), WORLD).expect("written");
        (folder, wit)
    });
    wit
}

pub(crate) fn answering(data: &[u8]) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let module = folder.path().join("guest.wat");
    std::fs::write(&module, text(data)).expect("written");
    let recipe = Recipe { world: Some((world(), None)), adapters: &[] };
    component(&module, &recipe).expect("the guest fits its world")
}

fn text(data: &[u8]) -> String {
    let mut bytes = String::new();
    // The whole of a page: what an answer points to is likely to be there.
    for byte in data.iter().take(60_000) {
        let _ = write!(bytes, "\\{byte:02x}");
    }
    let policy = |name: &str| format!("comfy-router:policy/{name}");
    let (admit, prioritize) = (policy("admission@0.1.1#admit"), policy("priority@0.1.1#prioritize"));
    let (route, recover) = (policy("routing@0.1.1#route"), policy("recovery@0.1.1#on-failure"));
    let tick = policy("housekeeping@0.1.1#tick");
    format!(
        r#"(module
  (memory (export "memory") 64)
  (global $heap (mut i32) (i32.const 65536))
  (data (i32.const {AT}) "{bytes}")
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    ;; Nothing is ever freed; after 3 MiB the arguments go where others went before.
    (if (i32.gt_u (i32.add (global.get $heap) (local.get 3)) (i32.const 4000000))
      (then (global.set $heap (i32.const 65536))))
    (global.set $heap (i32.and (i32.add (global.get $heap) (i32.const 15)) (i32.const -16)))
    (global.get $heap)
    (global.set $heap (i32.add (global.get $heap) (local.get 3))))
  (func (export "{admit}") (param i32) (result i32) (i32.const {AT}))
  (func (export "{prioritize}") (param i32) (result i32) (i32.const {AT}))
  (func (export "{route}") (param i32) (result i32) (i32.const {AT}))
  (func (export "{recover}") (param i32) (result i32) (i32.const {AT}))
  (func (export "{tick}") (param i32 i32) (result i32) (i32.const {AT})))"#
    )
}
