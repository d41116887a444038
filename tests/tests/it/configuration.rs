//! A wrong configuration is refused whole, with every mistake named.

use comfy_router_tests::{Exit, Fleet, failed_start};

/// Exit code 2 and a text that names all of these.
fn refused(exit: &Exit, named: &[&str]) {
    assert_eq!(exit.code, Some(2), "{}{}", exit.out, exit.err);
    for name in named {
        assert!(exit.err.contains(name), "{name:?} is named in:\n{}", exit.err);
    }
}

#[tokio::test]
async fn every_mistake_is_shown_at_once_with_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("router.toml");
    let text = "\
listen = \"127.0.0.1\"
colour = \"red\"

[fleet]
pol_ms = 100

[[instance]]
name = \"a/b\"
url = \"https://127.0.0.1:8188\"
";
    std::fs::write(&file, text).expect("written");
    let config = file.to_str().expect("UTF-8");
    let exit = failed_start(&["serve", "--config", config], &[("COMFY_ROUTER_COLOR", "1")]).await;
    refused(&exit, &["listen", "colour", "fleet.pol_ms", "poll_ms", "a/b", "https", "COMFY_ROUTER_COLOR"]);
    assert!(exit.err.contains("router.toml:5"), "the line is named:\n{}", exit.err);
}

#[tokio::test]
async fn an_unknown_flag_or_setting_is_refused() {
    refused(&failed_start(&["serve", "--colour"], &[]).await, &["--colour"]);
    refused(&failed_start(&["serve", "--set", "fleet.colour=1"], &[]).await, &["fleet.colour", "--set"]);
    refused(&failed_start(&["serve", "--set", "nonsense"], &[]).await, &["nonsense"]);
}

#[tokio::test]
async fn a_public_address_without_keys_is_refused() {
    let public = ["serve", "--listen", "0.0.0.0:0", "--instance", "http://127.0.0.1:9"];
    refused(&failed_start(&public, &[]).await, &["0.0.0.0", "api_key"]);
    let admin = ["serve", "--admin", "0.0.0.0:0", "--instance", "http://127.0.0.1:9"];
    refused(&failed_start(&admin, &[]).await, &["admin", "0.0.0.0"]);
}

#[tokio::test]
async fn an_unreachable_instance_is_named() {
    let fleet = Fleet::of(1).await;
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().to_str().expect("UTF-8").to_owned();
    let up = fleet.instances().remove(0);
    let arguments = [
        "serve",
        "--check",
        "--state-dir",
        &state,
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--instance",
        &up,
        "--instance",
        "gone=http://127.0.0.1:9",
    ];
    let exit = failed_start(&arguments, &[]).await;
    let said = format!("{}{}", exit.out, exit.err);
    assert!(said.contains("gone") && said.contains("127.0.0.1:9"), "{said}");
    assert!(said.contains("i0") && said.contains("0.8.0"), "what was found is shown too: {said}");
}

#[tokio::test]
async fn two_routers_do_not_share_a_ledger() {
    let fleet = Fleet::of(1).await;
    let router = comfy_router_tests::Serve::over(fleet.instances()).start().await;
    let state = router.state_dir();
    let up = fleet.instances().remove(0);
    let arguments = [&["serve"], &comfy_router_tests::placed(&up, &state)[..]].concat();
    let exit = failed_start(&arguments, &[]).await;
    assert_eq!(exit.code, Some(1), "{}{}", exit.out, exit.err);
    assert!(exit.err.contains(state.to_str().expect("UTF-8")), "the ledger is named: {}", exit.err);
}

#[tokio::test]
async fn the_effective_configuration_hides_secrets() {
    let shown =
        failed_start(&["config", "show"], &[("COMFY_ROUTER_API_KEY", "hush-hush-hush-hush-hush")]).await;
    assert_eq!(shown.code, Some(0), "{}", shown.err);
    assert!(shown.out.contains("[hidden]") && !shown.out.contains("hush"), "{}", shown.out);
}
