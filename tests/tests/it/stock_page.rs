//! ComfyUI's stock page in a real Chromium, in front of the router. The story is `tests/browser/story.mjs`.

use comfy_router_tests::{Fleet, Foreign, Serve, page, screenshots};
use comfyui_emulator::Config;

async fn story(release: &str) {
    let config = Config { web_root: Some(page(release)), ..Config::default() };
    let fleet = Fleet::with([config.clone(), config]).await;
    let router = Serve::over(fleet.instances()).start().await;
    let shots = screenshots(&format!("page-{release}"));
    let told = Foreign::node("browser/story.mjs")
        .arguments(&["--url", router.url(), "--release", release])
        .arguments(&["--instance", &fleet.url(0), "--instance", &fleet.url(1)])
        .argument("--shots")
        .argument(shots)
        .succeeds()
        .await;
    assert_eq!(told.lines().filter(|line| line.starts_with("ok: ")).count(), 5, "{told}");
}

#[tokio::test]
async fn the_page_of_0_8_0_is_at_home_behind_the_router() {
    story("1.35.9").await;
}

#[tokio::test]
async fn the_page_of_0_3_64_is_at_home_behind_the_router() {
    story("1.27.10").await;
}
