//! What may not serve, and the sentence its author gets.

use super::*;
use crate::policy::{LoadError, Shipped, Source};

async fn refused(bytes: impl Into<Vec<u8>>) -> LoadError {
    let (handle, _) = started(Config { shipped: Shipped::LeastLoaded, limits: PATIENT, ..Config::default() });
    let before = handle.version();
    let error = handle.load(Source::Bytes { name: "new".into(), bytes: bytes.into() }).await.unwrap_err();
    let shown = handle.status().refused.expect("the refusal is shown");
    assert_eq!((shown.name.as_str(), shown.reason), ("new", error.reason()));
    assert_eq!(handle.version(), before, "the old version stays");
    assert_eq!(route(&handle).await.1, None, "and answers");
    error
}

async fn refused_text(wat: &str) -> LoadError {
    refused(wat::parse_str(wat).expect("the test's wat is right")).await
}

#[tokio::test]
async fn what_is_not_a_component() {
    assert_eq!(refused(*b"\x8f\x02random bytes").await, LoadError::NotWasm);
    assert_eq!(refused(Vec::new()).await, LoadError::NotWasm);
    assert_eq!(refused_text("(module)").await, LoadError::CoreModule);
    let half = Shipped::LeastLoaded.bytes();
    assert!(matches!(refused(&half[..half.len() / 2]).await, LoadError::Compile(_)));
}

#[tokio::test]
async fn wasi_is_refused_with_the_way_out() {
    let plain =
        refused_text(r#"(component (import "wasi:cli/environment@0.2.0" (instance)))"#).await.to_string();
    assert!(plain.contains("wasi:cli/environment@0.2.0") && plain.contains("policy new"), "{plain}");
    let of_go = r#"(component (import "wasi:clocks/wall-clock@0.2.0" (instance)) (@custom "producers" "\01\08language\01\02Go\001.27 Go cmd/compile"))"#;
    let go = refused_text(of_go).await.to_string();
    assert!(go.contains("adapter.wat"), "{go}");
}

/// A component can name what it wants only as an import. Whatever else it imports than the router's own interfaces is refused too.
#[tokio::test]
async fn files_environment_network_and_real_time_are_refused_as_imports() {
    for interface in [
        "wasi:filesystem/types@0.2.0",
        "wasi:filesystem/preopens@0.2.3",
        "wasi:cli/environment@0.2.0",
        "wasi:cli/stdout@0.2.0",
        "wasi:sockets/tcp@0.2.0",
        "wasi:http/outgoing-handler@0.2.0",
        "wasi:clocks/monotonic-clock@0.2.0",
        "wasi:clocks/wall-clock@0.3.0",
        "wasi:random/random@0.2.0",
        "wasi:keyvalue/store@0.2.0",
    ] {
        let error = refused_text(&format!("(component (import \"{interface}\" (instance)))")).await;
        assert!(matches!(&error, LoadError::Wasi { import, .. } if import == interface), "{error}");
    }
}

/// What a guest's own library would do without imports: nothing, from inside.
#[tokio::test]
async fn a_guest_that_reaches_out_gets_nothing() {
    let (handle, _) = started(hostile("route", "reach"));
    let (decision, fallback, _) = route(&handle).await;
    assert_eq!(fallback, None, "{decision:?}");
    let refused = ["files", "writing", "environment", "network", "listening", "threads", "processes", "time"];
    assert_eq!(decision.reason, refused.map(|what| format!("{what} refused")).join(", "));
}

/// Go's garbage collector does this with the official adapter: it reads a clock while memory is allocated for arguments, when
/// leaving the component is forbidden. The first calls go well.
#[tokio::test]
async fn a_guest_that_traps_after_some_hundred_calls_does_not_pass_the_gate() {
    let error = refused(leaves_in_realloc()).await;
    let text = error.to_string();
    assert!(
        text.starts_with("observe failed with trap") && text.contains("cannot leave component instance"),
        "{text}"
    );
}

fn leaves_in_realloc() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    comfy_router_policy_kit::wit::write(folder.path()).unwrap();
    let world = "package local:policy; world policy {
        import comfy-router:policy/clock@0.1.1;
        export comfy-router:policy/feedback@0.1.1;
    }";
    std::fs::write(folder.path().join("world.wit"), world).unwrap();
    let module = folder.path().join("module.wat");
    std::fs::write(&module, include_str!("fixtures/leaves-in-realloc.wat")).unwrap();
    let recipe =
        comfy_router_policy_kit::component::Recipe { world: Some((folder.path(), None)), adapters: &[] };
    comfy_router_policy_kit::component::component(&module, &recipe).unwrap()
}

#[tokio::test]
async fn an_unknown_import_is_named() {
    let error = refused_text(r#"(component (import "acme:things/things@1.0.0" (instance)))"#).await;
    assert_eq!(error, LoadError::UnknownImport("acme:things/things@1.0.0".to_owned()));
}

#[tokio::test]
async fn another_world_exports_none_of_our_hooks() {
    assert_eq!(refused_text("(component)").await, LoadError::NoHooks("none".to_owned()));
}

#[tokio::test]
async fn an_export_of_another_shape_is_refused_before_it_serves() {
    let error = refused_text(
        r#"(component
            (core module $m (func (export "route") (result i32) i32.const 1))
            (core instance $i (instantiate $m))
            (func $route (result u32) (canon lift (core func $i "route")))
            (instance $routing (export "route" (func $route)))
            (export "comfy-router:policy/routing@0.1.0" (instance $routing)))"#,
    )
    .await;
    assert!(matches!(error, LoadError::Shape { .. }), "{error}");
}

#[tokio::test]
async fn a_file_over_the_limit_is_not_read() {
    let limits = GuestLimits { component_mib: 1, ..PATIENT };
    let (handle, _) = started(Config { limits, ..Config::default() });
    let bytes = vec![0; 1024 * 1024 + 1];
    let error = handle.load(Source::Bytes { name: "big".into(), bytes }).await.unwrap_err();
    assert_eq!(error, LoadError::TooLarge { max: 1024 * 1024 });
}

/// Configured to misbehave from the start, so the gate sees it.
fn at_once(hook: &str, deed: &str) -> LoadRefusal {
    let limits = GuestLimits { call_ms: 50, configure_ms: 50, ..PATIENT };
    let settings = object(json!({"on": hook, "do": deed}));
    let config = Config { file: Some(built("hostile")), settings, limits, ..Config::default() };
    let handle =
        start(config, Arc::new(ManualClock::default())).expect("a bad policy is no reason not to start");
    assert_eq!(&*handle.version().name, "builtin");
    handle.status().refused.map(|refused| (refused.reason, refused.message)).expect("it is refused")
}

type LoadRefusal = (&'static str, String);

#[test]
fn configure_may_refuse_its_settings_and_may_not_hang() {
    let (reason, message) = at_once("configure", "refuse");
    assert_eq!(
        (reason, message.as_str()),
        ("settings", "it refuses its settings: these settings are not for me")
    );
    let (reason, message) = at_once("configure", "loop");
    assert!(reason == "gate" && message.starts_with("configure failed with deadline"), "{message}");
    let (reason, _) = at_once("configure", "trap");
    assert_eq!(reason, "gate");
    let (_, message) = at_once("configure", "long_text");
    assert!(message.len() < 5_000, "{} bytes", message.len());
}

#[test]
fn the_gate_tries_every_hook() {
    for hook in ["admit", "prioritize", "limits_for", "on_timeout", "route", "on_failure", "tick", "observe"]
    {
        let (reason, message) = at_once(hook, "trap");
        assert!(reason == "gate" && message.starts_with(hook), "{hook}: {message}");
    }
}

#[test]
fn a_typo_in_the_settings_is_told_to_the_operator() {
    let settings = object(json!({"max_wait": 1}));
    let config = Config { settings, limits: PATIENT, ..Config::default() };
    let handle = start(config, Arc::new(ManualClock::default())).unwrap();
    let refused = handle.status().refused.expect("the typo is refused");
    assert!(refused.message.contains("unknown field `max_wait`"), "{}", refused.message);
}

/// As a Go guest with the usual adapter: it answers for a while, and then no more.
#[test]
fn the_gate_goes_on_long_enough_to_see_a_leak() {
    let settings = object(json!({"on": "route", "do": "trap", "after": 250}));
    let config = Config { file: Some(built("hostile")), settings, limits: PATIENT, ..Config::default() };
    let handle = start(config, Arc::new(ManualClock::default())).unwrap();
    let refused = handle.status().refused.expect("it is refused");
    assert!(
        refused.reason == "gate" && refused.message.starts_with("route failed with trap"),
        "{}",
        refused.message
    );
}
