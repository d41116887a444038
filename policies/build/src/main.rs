//! `make policies`: builds the shipped policies into a folder, `target/policies` unless another is named.

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use comfy_router_policy_build::{SHIPPED, build};

#[allow(clippy::print_stdout, clippy::print_stderr)]
fn main() -> ExitCode {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let out = env::args_os().nth(1).map_or_else(|| target.join("policies"), PathBuf::from);
    match build(&root, &target.join("policy-build"), &out, &SHIPPED) {
        Ok(built) => {
            for path in built {
                println!("{}", path.display());
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
