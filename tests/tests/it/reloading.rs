//! SIGHUP reads the settings of the policies again, and tries those again that were refused.

use std::path::PathBuf;

use comfy_router_tests::{Fleet, PolicyFile, Router, Serve, component, eventually};

const TAKEN: &str = "policy settings read again";
const REFUSED: &str = "policy settings refused, the present ones stay";
const NOTHING: &str = "no policy has other settings";

struct Configuration(tempfile::TempDir);

impl Configuration {
    fn of(text: &str) -> Self {
        let configuration = Self(tempfile::tempdir().expect("a folder"));
        configuration.write(text);
        configuration
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("router.toml")
    }

    fn write(&self, text: &str) {
        std::fs::write(self.path(), text).expect("written");
    }

    async fn served(&self, fleet: &Fleet) -> Router {
        let path = self.path();
        let serve = Serve::over(fleet.instances()).patient();
        serve.argument("--config", path.to_str().expect("UTF-8")).start().await
    }
}

/// SIGHUP, and what the router says of it.
async fn read_again(router: &Router, says: &str) {
    let count = || router.log().matches(says).count();
    let before = count();
    router.hang_up();
    eventually(says, || async { (count() > before).then_some(()) }).await;
}

async fn serving(router: &Router) -> (String, String) {
    let serving = router.admin().get_json("/api/policy").await["serving"].clone();
    let text = |key: &str| serving[key].as_str().expect("a text").to_owned();
    (text("name"), text("digest"))
}

async fn refusal(router: &Router) -> serde_json::Value {
    router.admin().get_json("/api/policy").await["refused"].clone()
}

#[tokio::test]
async fn refused_settings_are_tried_again_until_a_policy_takes_them() {
    let fleet = Fleet::of(1).await;
    let configuration = Configuration::of("");
    let router = configuration.served(&fleet).await;
    let first = serving(&router).await;
    configuration.write("[policy.settings]\ndefault_weight = 2.0\n");
    read_again(&router, REFUSED).await;
    read_again(&router, REFUSED).await;
    assert!(router.log().contains("unknown field `default_weight`"), "{}", router.log());
    assert_eq!(serving(&router).await, first);

    // The policy that knows them comes, told something else.
    let fair = PolicyFile::holding(&component("fair-share"));
    let path = fair.path();
    let swap = ["policy", "swap", path.to_str().expect("UTF-8"), "--settings", r#"{"default_weight": 4.0}"#];
    router.command(&swap).await;
    let told_otherwise = serving(&router).await;
    assert_eq!(
        refusal(&router).await["reason"],
        "settings",
        "those of the configuration are still not in force"
    );
    read_again(&router, TAKEN).await;
    let told = serving(&router).await;
    assert_ne!(told, told_otherwise);
    assert_eq!(told.1[..12], told_otherwise.1[..12], "the same component");
    assert!(refusal(&router).await.is_null(), "the settings that were refused are in force");
    read_again(&router, NOTHING).await;
    assert_eq!(serving(&router).await, told);
}

#[tokio::test]
async fn settings_of_a_component_of_its_own_are_tried_again_too_and_alone() {
    let fleet = Fleet::of(1).await;
    let hook = |settings: &str| {
        format!("[policy.hooks]\nhousekeeping = {{ file = \"guard\", settings = {{ {settings} }} }}\n")
    };
    let configuration = Configuration::of(&hook("drain_at_c = 85, resume_at_c = 70"));
    let router = configuration.served(&fleet).await;
    let guard = async || {
        let policy = router.admin().get_json("/api/policy").await;
        policy["lanes"][1]["serving"]["digest"].as_str().expect("a digest").to_owned()
    };
    let (own, before) = (serving(&router).await, guard().await);
    configuration.write(&hook("drain_at_c = \"hot\""));
    read_again(&router, REFUSED).await;
    read_again(&router, REFUSED).await;
    assert_eq!(guard().await, before);
    configuration.write(&hook("drain_at_c = 80, resume_at_c = 70"));
    read_again(&router, TAKEN).await;
    assert_ne!(guard().await, before);
    read_again(&router, NOTHING).await;
    assert_eq!(serving(&router).await, own, "the policy was not told anew");
    assert_eq!(router.log().matches(TAKEN).count(), 1);
}

#[tokio::test]
async fn a_component_that_refused_its_settings_at_the_start_serves_when_they_are_right() {
    let fleet = Fleet::of(1).await;
    let configuration = Configuration::of("[policy.settings]\nmax_wait = 1\n");
    let router = configuration.served(&fleet).await;
    assert_eq!(serving(&router).await.0, "builtin");
    read_again(&router, NOTHING).await;
    configuration.write("[policy.settings]\nmax_extra_wait_ms = 1000\n");
    read_again(&router, TAKEN).await;
    assert_eq!(serving(&router).await.0, "model-affinity");
    assert!(refusal(&router).await.is_null());
    let orders = router.admin().get_json("/api/policy").await["ordered"].clone();
    assert_eq!(orders, serde_json::json!([]), "it is what is configured");
}
