//! Tells the tests where `router/build.rs` put the components it built, the hostile one included.

fn main() {
    let policies =
        std::env::var("DEP_COMFY_ROUTER_POLICIES").expect("comfy-router's build script names its policies");
    println!("cargo::rustc-env=POLICIES={policies}");
}
