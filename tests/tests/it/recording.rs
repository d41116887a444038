//! What was decided is recorded, in files if the operator says so, and decided again by `policy replay`.

use std::path::{Path, PathBuf};

use comfy_router_tests::{
    Client, Exit, Fleet, PolicyFile, Router, Serve, component, eventually, failed_start, plain,
};
use comfyui_emulator::{Config, Costs, Timing};
use serde_json::{Value, json};

/// A folder with a configuration, the policy it names, and where decisions are recorded.
struct Site {
    folder: tempfile::TempDir,
    policy: PolicyFile,
}

impl Site {
    fn new(more: &str) -> Self {
        let site = Self {
            folder: tempfile::tempdir().expect("a folder"),
            policy: PolicyFile::holding(&component("fair-share")),
        };
        let (policy, dir) = (site.policy.path(), site.decisions());
        let text = format!("[policy]\nfile = {policy:?}\n[policy.record]\ndir = {dir:?}\n{more}\n");
        std::fs::write(site.config(), text).expect("written");
        site
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("router.toml")
    }

    fn decisions(&self) -> PathBuf {
        self.folder.path().join("decisions")
    }

    fn serve(&self, fleet: &Fleet) -> Serve {
        Serve::over(fleet.instances()).patient().argument("--config", text(&self.config()))
    }

    /// The recorded files, oldest first.
    fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.decisions()).into_iter().flatten();
        let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.sort_unstable();
        files
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn lines(file: &Path) -> Vec<Value> {
    let content = std::fs::read_to_string(file).expect("it is read");
    assert!(content.is_empty() || content.ends_with('\n'), "whole lines");
    content.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Attempts whose end the policy was told of, which is told some time later and in numbers.
fn ended(lines: &[Value]) -> usize {
    lines.iter().filter_map(|line| line["ended"].as_array()).map(Vec::len).sum()
}

async fn record(router: &Router) -> Value {
    router.admin().get_json("/api/policy").await["record"].clone()
}

/// Posted by this tenant.
async fn post_of(router: &Router, tenant: &str, prompt_id: &str, colour: u32) {
    let body = json!({"prompt": plain(colour), "client_id": "c", "prompt_id": prompt_id}).to_string();
    let headers = [("comfy-user", tenant)];
    let answer = router.http().try_send(hyper::Method::POST, "/prompt", &headers, body).await;
    answer.expect("an answer").ok();
}

/// Jobs of two tenants, half of which wait for one another.
async fn a_day(fleet: &Fleet, router: &Router) {
    let client = Client::connect(router, "c").await;
    fleet.hold();
    let mut ids = Vec::new();
    for at in 0..8 {
        let tenant = ["ann", "bob"][at % 2];
        ids.push(format!("{tenant}-{at}"));
        post_of(router, tenant, ids.last().expect("just pushed"), at as u32).await;
    }
    fleet.held(0).await;
    fleet.open();
    for id in &ids {
        let said = client.end_of(id).await;
        assert!(said.iter().any(|message| message.kind() == "execution_success"), "{id}");
    }
}

async fn replay(arguments: &[&str]) -> Exit {
    failed_start(&[&["policy", "replay"], arguments].concat(), &[]).await
}

async fn report(arguments: &[&str]) -> Value {
    let exit = replay(&[arguments, &["--json"]].concat()).await;
    assert_eq!(exit.code, Some(0), "{}{}", exit.out, exit.err);
    serde_json::from_str(&exit.out).expect("JSON")
}

const WEIGHTS: &str = "[policy.settings.tenants]\nann = 3.0\n";

#[tokio::test]
async fn a_day_recorded_in_files_is_decided_alike_when_replay_is_told_what_the_router_was_told() {
    let fleet = Fleet::of(1).await;
    let site = Site::new(WEIGHTS);
    let mut router = site.serve(&fleet).start().await;
    a_day(&fleet, &router).await;
    let file = eventually("all of it is in one file", || async {
        let recorded = record(&router).await["recorded"].as_u64()?;
        let [file] = &site.files()[..] else { return None };
        let lines = lines(file);
        (ended(&lines) == 8 && lines.len() as u64 == recorded).then(|| file.clone())
    })
    .await;
    assert_eq!(record(&router).await["dropped"], 0);
    assert!(file.ends_with("decisions-000001.jsonl"), "{}", file.display());
    router.kill();

    let (log, policy, config) = (text(&file), site.policy.path(), site.config());
    let base = ["--log", log, "--policy", text(&policy)];
    let told = report(&[&base[..], &["--config", text(&config)]].concat()).await;
    assert_eq!((&told["different"], told["decisions"].as_u64() >= Some(16)), (&json!(0), true), "{told}");
    assert_eq!(told["instances"], 1);
    let weights = |report: &Value| {
        let tenants = report["days"][1]["figures"]["tenants"].as_array().expect("tenants").clone();
        let mut weights: Vec<(String, f64)> = tenants
            .iter()
            .map(|row| {
                (row["tenant"].as_str().expect("a name").to_owned(), row["weight"].as_f64().expect("one"))
            })
            .collect();
        weights.sort_by(|one, other| one.0.cmp(&other.0));
        weights
    };
    assert_eq!(weights(&told), [("ann".to_owned(), 3.0), ("bob".to_owned(), 1.0)]);

    // Without the configuration the policy is told nothing, and says otherwise; settings by hand win over a configuration.
    let untold = report(&base).await;
    assert!(untold["different"].as_u64() > Some(0), "{untold}");
    assert!(untold["days"][1]["figures"]["fairness_by_weight"].is_null(), "no weights: {untold}");
    let other = ["--config", text(&config), "--settings", r#"{"tenants": {"bob": 5.0}}"#];
    let other = report(&[&base[..], &other].concat()).await;
    assert_eq!(weights(&other), [("ann".to_owned(), 1.0), ("bob".to_owned(), 5.0)]);

    // A configuration with a mistake is no reason to guess.
    std::fs::write(&config, "[policy]\nfiel = 1\n").expect("written");
    let refused = replay(&[&base[..], &["--config", text(&config)]].concat()).await;
    assert!(refused.code == Some(1) && refused.err.contains("fiel"), "{}", refused.err);
}

#[tokio::test]
async fn limits_of_the_configuration_count_in_the_day_that_is_lived_again() {
    // Each job takes a second and a half, which the next one waits.
    let costs = Costs { save_s: 1.5, ..Costs::default() };
    let slow = Config { timing: Timing::Realistic { speed: 1.0 }, costs, ..Config::default() };
    let fleet = Fleet::with([slow]).await;
    let site = Site::new("");
    let mut router = site.serve(&fleet).start().await;
    let client = Client::connect(&router, "c").await;
    let ids: Vec<String> = (0..4).map(|at| format!("job-{at}")).collect();
    for (colour, id) in (0..).zip(&ids) {
        post_of(&router, "ann", id, colour).await;
    }
    for id in &ids {
        client.end_of(id).await;
    }
    router.stop().await;
    let [file] = &site.files()[..] else { panic!("one file: {:?}", site.files()) };
    let (policy, config) = (site.policy.path(), site.config());
    let arguments = ["--log", text(file), "--policy", text(&policy), "--config", text(&config)];
    let missed = |report: &Value| report["days"][1]["figures"]["missed_deadlines"].clone();
    assert_eq!(missed(&report(&arguments).await), 0);
    let patient = std::fs::read_to_string(&config).expect("it is read");
    std::fs::write(&config, format!("{patient}[timeouts]\nqueue_s = 1\n")).expect("written");
    assert_eq!(missed(&report(&arguments).await), 3, "who waits for more than a second is given up");
}

#[tokio::test]
async fn each_start_begins_a_file_of_its_own_and_the_oldest_goes() {
    let fleet = Fleet::of(1).await;
    let site = Site::new("files = 2");
    let mut router = site.serve(&fleet).start().await;
    for life in 1..=3_u32 {
        let client = Client::connect(&router, "c").await;
        client.end_of(&client.post(&plain(life)).await).await;
        eventually("its decisions are written", || async {
            let recorded = record(&router).await["recorded"].as_u64()?;
            let lines = lines(&site.files().pop()?);
            (ended(&lines) == 1 && lines.len() as u64 == recorded).then_some(())
        })
        .await;
        router.kill();
        if life < 3 {
            router.start_again().await;
            router.instances_up(1).await;
        }
    }
    let files = site.files();
    let names: Vec<_> = files.iter().filter_map(|file| file.file_name()?.to_str()).collect();
    assert_eq!(names, ["decisions-000002.jsonl", "decisions-000003.jsonl"]);
    // Each stands on its own, and all are one day.
    let policy = site.policy.path();
    let [one, other] = [text(&files[0]), text(&files[1])];
    for logs in [vec!["--log", one], vec!["--log", other], vec!["--log", one, "--log", other]] {
        let report = report(&[&logs[..], &["--policy", text(&policy)]].concat()).await;
        let jobs = report["days"][0]["figures"]["jobs"].as_u64();
        assert_eq!(jobs, Some(logs.len() as u64 / 2), "{logs:?}: {report}");
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_stops_the_recording_and_no_job() {
    let fleet = Fleet::of(1).await;
    let site = Site::new("");
    std::fs::write(site.decisions(), "a file where the folder should be").expect("written");
    let router = site.serve(&fleet).start().await;
    let client = Client::connect(&router, "c").await;
    client.end_of(&client.post(&plain(1)).await).await;
    let ended = eventually("it is said", || async {
        record(&router).await["files_ended"].as_str().map(str::to_owned)
    })
    .await;
    assert!(!ended.is_empty());
    assert!(router.log().contains("decisions are no longer recorded in files"), "{}", router.log());
    let before = record(&router).await["recorded"].as_u64();
    client.end_of(&client.post(&plain(2)).await).await;
    eventually("what is in memory goes on", || async {
        (record(&router).await["recorded"].as_u64() > before).then_some(())
    })
    .await;
}
