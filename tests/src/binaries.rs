//! Where the binaries under test are: named by the environment, or built once beside the test binary.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// `comfy-router`; `COMFY_ROUTER_BIN` names another.
pub(crate) fn router() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    found("COMFY_ROUTER_BIN", "comfy-router", "comfy-router", &BUILT)
}

/// `comfyui-emulator`; `COMFYUI_EMULATOR_BIN` names another.
pub(crate) fn emulator() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    found("COMFYUI_EMULATOR_BIN", "comfyui-emulator", "comfyui-emulator", &BUILT)
}

fn found(variable: &str, package: &str, name: &str, built: &OnceLock<PathBuf>) -> PathBuf {
    match std::env::var_os(variable).map(PathBuf::from) {
        Some(path) if path.is_file() => path,
        Some(path) => panic!("{variable} is {}, where there is no file", path.display()),
        None => built.get_or_init(|| build(package, name)).clone(),
    }
}

fn build(package: &str, name: &str) -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .args(["build", "--quiet", "--package", package, "--bin", name])
        .status();
    assert!(
        built.as_ref().is_ok_and(std::process::ExitStatus::success),
        "{name} could not be built ({built:?}); run `make test`, which builds what the tests need"
    );
    let path = profile_dir().join(name);
    assert!(path.is_file(), "cargo built {name}, but it is not at {}", path.display());
    path
}

/// Test binaries lie in `<target>/<profile>/deps`, the others one level up.
fn profile_dir() -> PathBuf {
    let this = std::env::current_exe().expect("a test has a path");
    let dir = this.ancestors().find(|dir| dir.ends_with("debug") || dir.ends_with("release"));
    dir.expect("tests run from cargo's target directory").to_owned()
}
