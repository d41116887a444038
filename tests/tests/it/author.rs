//! What an author does with the binary: starts a project, tests a component, swaps it into a running router.

use std::path::Path;

use comfy_router_tests::{Exit, Fleet, Serve, component, run, run_into};
use serde_json::{Value, json};

fn policy(arguments: &[&str]) -> Exit {
    run(&[&["policy"], arguments].concat())
}

fn text(exit: &Exit) -> String {
    format!("{}{}", exit.out, exit.err)
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path of letters")
}

/// A project around a component that was built already.
fn project(folder: &Path, cases: &Value) {
    std::fs::write(folder.join("least.wasm"), component("least-loaded")).expect("the component");
    std::fs::create_dir(folder.join("cases")).expect("a folder");
    std::fs::write(folder.join("cases/routing.json"), cases.to_string()).expect("cases");
    let toml = "component = \"least.wasm\"\nbuild = \"test -e least.wasm\"\ncases = \"cases\"\n";
    std::fs::write(folder.join("policy.toml"), toml).expect("a project");
}

fn busiest_first() -> Value {
    json!({"cases": [
        {"name": "the emptiest first",
         "route": {"candidates": [{"running": 3}, {"running": 1}]}, "expect": {"ranked": [0, 1]}},
        {"name": "nobody wrote down what is right",
         "route": {"candidates": [{"free_slots": 0}]}}
    ]})
}

#[test]
fn a_project_is_written_once_in_every_language() {
    let folder = tempfile::tempdir().expect("a folder");
    for language in ["rust", "typescript", "python", "go", "c"] {
        let at = folder.path().join(language);
        let new = ["new", "night-shift", "--lang", language, "--folder", path(&at)];
        let output = policy(&new);
        assert!(output.code == Some(0), "{}", text(&output));
        for file in [
            "Makefile",
            "README.md",
            "policy.toml",
            "cases/routing.json",
            "wit/deps/comfy-router-policy/policy.wit",
        ] {
            assert!(at.join(file).is_file(), "{language} has no {file}");
        }
        let again = policy(&new);
        assert!(again.code == Some(1) && text(&again).contains("is not empty"), "{}", text(&again));
    }
    let unknown = policy(&["new", "x", "--lang", "cobol"]);
    assert!(text(&unknown).contains("rust, typescript, python, go, c"), "{}", text(&unknown));
}

#[test]
fn cases_fail_with_what_differs_and_are_updated_on_request() {
    let folder = tempfile::tempdir().expect("a folder");
    project(folder.path(), &busiest_first());
    let failed = policy(&["test", path(folder.path())]);
    let said = text(&failed);
    assert_eq!(failed.code, Some(1), "{said}");
    for part in [
        "the emptiest first, step 1",
        "differs at ranked[0]",
        r#"expected {"ranked":[0,1]}"#,
        r#"got      {"ranked":[1,0],"reason":"1 jobs there"}"#,
        "nobody wrote down what is right",
        "expects nothing yet",
        "0 cases of 1 file passed, 2 steps failed",
    ] {
        assert!(said.contains(part), "{part} in\n{said}");
    }

    let updated = policy(&["test", path(folder.path()), "--update"]);
    assert!(updated.code == Some(0) && text(&updated).contains("updated "), "{}", text(&updated));
    let passed = policy(&["test", path(folder.path()), "--json"]);
    let report: Value = serde_json::from_str(&passed.out).expect("JSON");
    assert_eq!((&report["passed"], &report["failed"]), (&json!(2), &json!([])), "{report}");
    let filtered = policy(&["test", path(folder.path()), "--filter", "nobody"]);
    assert!(text(&filtered).contains("1 cases of 1 file passed"), "{}", text(&filtered));
    let mistyped = policy(&["test", path(folder.path()), "--filter", "nobodi"]);
    assert_eq!((mistyped.code, &*mistyped.err), (Some(1), "error: no case has \"nobodi\" in its name\n"));
}

#[test]
fn cases_are_written_whole_and_through_a_link() {
    let folder = tempfile::tempdir().expect("a folder");
    project(folder.path(), &busiest_first());
    let (cases, shared) = (folder.path().join("cases/routing.json"), folder.path().join("shared.json"));
    std::fs::rename(&cases, &shared).expect("moved");
    std::os::unix::fs::symlink(&shared, &cases).expect("a link");
    assert_eq!(policy(&["test", path(folder.path()), "--update"]).code, Some(0));
    assert!(cases.is_symlink() && std::fs::read_to_string(&shared).expect("cases").contains("[1, 0]"));
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).expect("a folder").flatten().map(|e| e.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".part")), "{left:?}");
}

#[test]
fn output_that_cannot_be_kept_is_a_failure_and_a_reader_that_has_gone_is_none() {
    for arguments in [&["completions", "bash"][..], &["config", "show"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").expect("Linux has it");
        let lost = run_into(arguments, full);
        assert!(lost.code == Some(1) && lost.err.contains("cannot write to standard output"), "{}", lost.err);
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let unread = run_into(arguments, writer);
        assert_eq!((unread.code, &*unread.err), (Some(0), ""));
    }
}

#[test]
fn of_two_policies_the_one_that_is_wrong_is_named_before_anything_is_decided() {
    let folder = tempfile::tempdir().expect("a folder");
    project(folder.path(), &busiest_first());
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("guard.wasm"), component("guard")).expect("the component");
    std::fs::write(at("text.wasm"), "no component").expect("written");
    std::fs::write(at("log.jsonl"), "").expect("an empty recording");
    let replay = |other: &str, settings: &str| {
        let (log, one, other) = (at("log.jsonl"), at("least.wasm"), at(other));
        let policies = ["--policy", path(&one), "--policy", path(&other)];
        policy(&[&["replay", "--log", path(&log), "--settings", settings][..], &policies].concat())
    };
    let wrong = replay("text.wasm", "{}");
    assert!(
        wrong.code == Some(1) && wrong.err.contains("text.wasm: the file is not WebAssembly"),
        "{}",
        wrong.err
    );
    let refused = replay("guard.wasm", r#"{"drain_at_c": "hot"}"#);
    assert!(
        refused.code == Some(1) && refused.err.contains("guard.wasm: it refuses its settings"),
        "{}",
        refused.err
    );
    assert_eq!(replay("guard.wasm", "{}").code, Some(0));
    let (log, least, nowhere) = (at("log.jsonl"), at("least.wasm"), at("no/page.html"));
    let written =
        policy(&["replay", "--log", path(&log), "--policy", path(&least), "--html", path(&nowhere)]);
    assert!(written.code == Some(1) && written.err.contains("page.html"), "{}", written.err);
    assert!(written.out.contains("0 of 0 decisions differ"), "a page that cannot be written costs no report");
}

#[test]
fn a_mistake_in_a_case_names_the_field_and_the_line_of_the_interface() {
    let folder = tempfile::tempdir().expect("a folder");
    let typo = json!({"cases": [{"name": "typo", "route": {"candidates": [{"temprature_c": 80}]}}]});
    project(folder.path(), &typo);
    let said = text(&policy(&["test", path(folder.path())]));
    assert!(said.contains("candidates[0]: unknown field `temprature_c`"), "{said}");
    assert!(said.contains("temperature_c") && said.contains("(wit/policy.wit:"), "{said}");
}

#[tokio::test]
async fn what_passed_is_swapped_into_a_running_router_and_what_did_not_is_kept_out() {
    let fleet = Fleet::of(1).await;
    let router = Serve::over(fleet.instances()).start().await;
    let folder = tempfile::tempdir().expect("a folder");
    project(folder.path(), &busiest_first());
    let url = router.admin_url().to_owned();
    let dev = ["dev", path(folder.path()), "--once", "--router", &url];
    let (code, kept_out) = develop(&dev).await;
    assert!(code == Some(1) && kept_out.contains("not handed over, because cases failed"), "{kept_out}");
    let before = router.admin().get_json("/api/policy").await["serving"].clone();

    assert_eq!(policy(&["test", path(folder.path()), "--update"]).code, Some(0));
    let (code, swapped) = develop(&dev).await;
    assert_eq!(code, Some(0), "{swapped}");
    assert!(swapped.contains("swapped into http") && swapped.contains(": least "), "{swapped}");
    let after = router.admin().get_json("/api/policy").await["serving"].clone();
    assert_ne!(before["digest"], after["digest"], "{swapped}");
    assert_eq!(after["name"], "least", "it is called as its file is");
}

async fn develop(arguments: &[&str]) -> (Option<i32>, String) {
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let run = move || {
        let exit = policy(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        (exit.code, text(&exit))
    };
    tokio::task::spawn_blocking(run).await.expect("it ends")
}
