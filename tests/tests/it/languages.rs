//! Policies of five languages, as `examples/policies/run` built them, in a router that serves.

use std::path::{Path, PathBuf};

use comfy_router_tests::{
    COMPILING, Client, Fleet, PolicyFile, Router, Serve, eventually_by, kinds, plain, run,
};
use serde_json::Value;

/// What one of its projects came to.
fn component_of(project: &str, component: &str) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/policies-examples");
    let folder = std::env::var_os("TEST_POLICIES").map_or(here, PathBuf::from);
    let path = folder.join(project).join(format!("{component}.wasm"));
    assert!(
        path.is_file(),
        "{} is missing; run `make policies-examples` (`make test` does it)",
        path.display()
    );
    path
}

fn built(project: &str, component: &str) -> Vec<u8> {
    std::fs::read(component_of(project, component)).expect("a component")
}

async fn serving(router: &Router) -> Value {
    router.admin().get_json("/api/policy").await["serving"].clone()
}

async fn runs(client: &Client, colour: u32) -> String {
    let id = client.post(&plain(colour)).await;
    let said = client.end_of(&id).await;
    assert!(kinds(&said).contains(&"execution_success".to_owned()), "{:?}", kinds(&said));
    id
}

/// Version and fallback of each decision where this job should run.
async fn routed(router: &Router, id: &str) -> Vec<(Value, Value)> {
    let job = router.job(id).await;
    let decisions = job["decisions"].as_array().expect("decisions").iter();
    let routed = decisions.filter(|decision| decision["hook"] == "route");
    routed.map(|decision| (decision["version"].clone(), decision["fallback"].clone())).collect()
}

/// A new project serves traffic; its next build takes over.
async fn from_nothing_to_traffic(language: &str) {
    let new = format!("new-{language}");
    let fleet = Fleet::of(2).await;
    let file = PolicyFile::holding(&built(&new, &new));
    let router = Serve::over(fleet.instances()).patient().compiles().policy(&file.path()).start().await;
    let client = Client::connect(&router, "c").await;
    let first = serving(&router).await;
    let id = runs(&client, 1).await;
    assert_eq!(routed(&router, &id).await, [(first.clone(), Value::Null)], "{language}");

    file.replace(&built(language, "house-rules"));
    let second = eventually_by(COMPILING, "the next build serves", || async {
        let now = serving(&router).await;
        (now != first).then_some(now)
    })
    .await;
    let id = runs(&client, 2).await;
    assert_eq!(routed(&router, &id).await, [(second, Value::Null)], "{language}");
}

#[tokio::test]
async fn a_new_project_in_rust_serves_and_so_does_its_next_build() {
    from_nothing_to_traffic("rust").await;
}

#[tokio::test]
async fn a_new_project_in_c_serves_and_so_does_its_next_build() {
    from_nothing_to_traffic("c").await;
}

#[tokio::test]
async fn a_new_project_in_go_serves_and_so_does_its_next_build() {
    from_nothing_to_traffic("go").await;
}

#[tokio::test]
async fn a_new_project_in_typescript_serves_and_so_does_its_next_build() {
    from_nothing_to_traffic("typescript").await;
}

#[tokio::test]
async fn a_new_project_in_python_serves_and_so_does_its_next_build() {
    from_nothing_to_traffic("python").await;
}

#[tokio::test]
async fn a_hostile_policy_in_c_leaves_the_router_unharmed() {
    let deeds =
        ["null-call", "wild-write", "overflow", "loop", "memory", "no-such-row", "endless-list", "no-utf8"];
    for deed in deeds {
        let fleet = Fleet::of(2).await;
        let file = PolicyFile::holding(&built("hostile-c", "hostile-c"));
        let serve = Serve::over(fleet.instances()).policy(&file.path());
        let router = serve.set(&format!("policy.settings.do=\"{deed}\"")).start().await;
        let client = Client::connect(&router, "c").await;
        let id = runs(&client, 1).await;
        let routed = routed(&router, &id).await;
        assert!(routed.iter().any(|(_, fallback)| fallback.is_string()), "{deed}: {routed:?}");
    }
}

#[test]
fn a_hostile_policy_in_c_does_not_conform_and_is_told_how() {
    let component = component_of("hostile-c", "hostile-c");
    let conform = |deed: &str, json: bool| {
        let settings = format!("{{\"do\": \"{deed}\", \"when\": \"always\"}}");
        let (file, flag) = (component.to_str().expect("UTF-8"), json.then_some("--json"));
        let arguments = ["policy", "conform", file, "--settings", &settings].into_iter().chain(flag);
        run(&arguments.collect::<Vec<_>>())
    };
    let well = conform("nothing", false);
    assert!(well.code == Some(0) && well.out.contains("it conforms"), "{}{}", well.out, well.err);
    // What is met first, a trap, a limit or the deadline, is the machine's affair.
    for (deed, rule, reasons) in [
        ("null-call", "totality", ["trap", "deadline"]),
        ("wild-write", "totality", ["trap", "deadline"]),
        ("overflow", "totality", ["trap", "deadline"]),
        ("loop", "totality", ["deadline", "deadline"]),
        ("host-calls", "totality", ["limit", "deadline"]),
        ("memory", "totality", ["limit", "deadline"]),
        ("no-such-row", "bounds", ["bad_answer", "bad_answer"]),
        ("far-list", "bounds", ["bad_answer", "bad_answer"]),
        ("endless-list", "bounds", ["bad_answer", "bad_answer"]),
        ("crooked-list", "bounds", ["bad_answer", "bad_answer"]),
        ("no-such-tag", "bounds", ["bad_answer", "bad_answer"]),
        ("no-utf8", "bounds", ["bad_answer", "bad_answer"]),
        ("far-text", "bounds", ["bad_answer", "bad_answer"]),
    ] {
        let exit = conform(deed, true);
        // Ended by itself, with a word of its own.
        assert_eq!(exit.code, Some(1), "{deed}: {}{}", exit.out, exit.err);
        assert!(exit.err.contains("does not conform"), "{deed}: {}", exit.err);
        let report: Value = serde_json::from_str(&exit.out).expect("a report");
        let broken = report["broken"].as_array().expect("a list");
        let named = broken.iter().any(|broken| {
            let what = broken["what"].as_str().unwrap_or_default();
            let known = reasons.iter().any(|reason| what.starts_with(&format!("{reason}: ")));
            broken["rule"] == rule && broken["hook"] == "route" && known
        });
        assert!(named, "{deed}: {report}");
        assert!(broken.iter().all(|broken| broken["hook"] == "route"), "{deed}: {report}");
    }
}
