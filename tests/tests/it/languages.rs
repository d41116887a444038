//! Policies of five languages, as `examples/policies/run` built them, in a router that serves.

use std::path::{Path, PathBuf};

use comfy_router_tests::{Client, Fleet, PolicyFile, Router, Serve, eventually, kinds, plain};
use serde_json::Value;

/// What one of its projects came to.
fn built(project: &str, component: &str) -> Vec<u8> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/policies-examples");
    let folder = std::env::var_os("TEST_POLICIES").map_or(here, PathBuf::from);
    let path = folder.join(project).join(format!("{component}.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; run `make policies-examples` (`make test` does it)", path.display())
    })
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
    let router = Serve::over(fleet.instances()).patient().policy(&file.path()).start().await;
    let client = Client::connect(&router, "c").await;
    let first = serving(&router).await;
    let id = runs(&client, 1).await;
    assert_eq!(routed(&router, &id).await, [(first.clone(), Value::Null)], "{language}");

    file.replace(&built(language, "house-rules"));
    let second = eventually("the next build serves", || async {
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
#[ignore = "its 18 MB compile for 15 s each on two idle cores, and longer beside other tests; `--ignored languages` runs it"]
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
