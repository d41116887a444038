//! Builds policies of this workspace as WebAssembly components: a cargo of its own compiles them for
//! wasm32-unknown-unknown, and wit-component makes components of the modules. Called by `router/build.rs` for the
//! policies that are embedded, and by this crate's binary for `make policies`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

const TARGET: &str = "wasm32-unknown-unknown";

/// The policies that are part of the router.
pub const SHIPPED: [&str; 4] = ["model-affinity", "least-loaded", "fair-share", "guard"];

/// Fixtures of the tests; never shipped.
pub const FIXTURES: [&str; 2] = ["hostile", "matcher"];

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(
        "policies are WebAssembly, and this Rust has no {TARGET} target. Run: rustup target add {TARGET}"
    )]
    TargetMissing,
    #[error("cannot run {program}: {source}")]
    Run { program: String, source: io::Error },
    #[error("cargo did not build the policies")]
    Cargo,
    #[error("cannot {act} {path}: {source}")]
    File { act: &'static str, path: PathBuf, source: io::Error },
    #[error("{policy} is no component: {message}")]
    Component { policy: String, message: String },
}

/// Builds `policies` (package names) of the workspace at `root` and writes `<policy>.wasm` of each into `out`.
///
/// Compiles in `target_dir`, which must not be the one of a cargo that waits for this.
pub fn build(
    root: &Path,
    target_dir: &Path,
    out: &Path,
    policies: &[&str],
) -> Result<Vec<PathBuf>, BuildError> {
    target_installed(root)?;
    compile(root, target_dir, policies)?;
    fs::create_dir_all(out).map_err(file("create", out))?;
    let modules = target_dir.join(TARGET).join("policy");
    policies.iter().map(|policy| componentize(policy, &modules, out)).collect()
}

/// Asked first, because cargo's own error does not name the command that helps.
fn target_installed(root: &Path) -> Result<(), BuildError> {
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let output = Command::new(&rustc)
        .current_dir(root)
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()
        .map_err(|source| BuildError::Run { program: rustc, source })?;
    let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let installed =
        output.status.success() && fs::read_dir(folder).is_ok_and(|mut files| files.next().is_some());
    if installed { Ok(()) } else { Err(BuildError::TargetMissing) }
}

fn compile(root: &Path, target_dir: &Path, policies: &[&str]) -> Result<(), BuildError> {
    let program = env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut cargo = Command::new(&program);
    cargo.current_dir(root).args(["build", "--profile", "policy", "--target", TARGET]);
    cargo.arg("--target-dir").arg(target_dir);
    for policy in policies {
        cargo.args(["--package", policy]);
    }
    for (name, _) in env::vars_os().filter(|(name, _)| leaks(name)) {
        cargo.env_remove(name);
    }
    let status = cargo.status().map_err(|source| BuildError::Run { program, source })?;
    if status.success() { Ok(()) } else { Err(BuildError::Cargo) }
}

/// Does a variable of the outer cargo change what the inner one builds? Flags meant for the router's machine break
/// wasm, clippy's wrapper would check instead of compile, and any difference would build everything anew each time.
fn leaks(name: &OsStr) -> bool {
    let prefixes = [
        "CARGO_BUILD_",
        "CARGO_CFG_",
        "CARGO_FEATURE_",
        "CARGO_PKG_",
        "CARGO_PROFILE_",
        "CARGO_TARGET_",
        "DEP_",
    ];
    let names = [
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_MANIFEST_DIR",
        "CARGO_MANIFEST_PATH",
        "DEBUG",
        "HOST",
        "OPT_LEVEL",
        "OUT_DIR",
        "PROFILE",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTDOCFLAGS",
        "RUSTFLAGS",
        "TARGET",
    ];
    let Some(name) = name.to_str() else { return false };
    names.contains(&name) || prefixes.iter().any(|prefix| name.starts_with(prefix))
}

fn componentize(policy: &str, modules: &Path, out: &Path) -> Result<PathBuf, BuildError> {
    let from = modules.join(format!("{}.wasm", policy.replace('-', "_")));
    let module = fs::read(&from).map_err(file("read", &from))?;
    let component = wit_component::ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .and_then(|encoder| encoder.encode())
        .map_err(|error| BuildError::Component {
            policy: policy.to_owned(),
            message: format!("{error:#}"),
        })?;
    let to = out.join(format!("{policy}.wasm"));
    // An unchanged component keeps its time, so that nothing that watches it wakes.
    if fs::read(&to).is_ok_and(|present| present == component) {
        return Ok(to);
    }
    // Renamed into place: a router that watches the file never sees half of it.
    let part = out.join(format!(".{policy}.wasm.part"));
    fs::write(&part, component).map_err(file("write", &part))?;
    fs::rename(&part, &to).map_err(file("write", &to))?;
    Ok(to)
}

fn file(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BuildError {
    move |source| BuildError::File { act, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_the_outer_build_do_not_reach_the_inner_one() {
        for name in
            ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_PROFILE_DEV_DEBUG", "RUSTC_WORKSPACE_WRAPPER"]
        {
            assert!(leaks(OsStr::new(name)), "{name}");
        }
        for name in ["PATH", "HOME", "CARGO_HOME", "CARGO_NET_OFFLINE", "RUSTUP_TOOLCHAIN"] {
            assert!(!leaks(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn a_missing_target_names_the_one_command() {
        assert!(BuildError::TargetMissing.to_string().ends_with("rustup target add wasm32-unknown-unknown"));
    }
}
