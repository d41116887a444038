//! Builds the shipped policies, which are embedded, and the fixtures of the tests.

use std::path::{Path, PathBuf};
use std::{env, process};

use comfy_router_policy_build::{FIXTURES, SHIPPED, build};

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    // Of the policies' own build only its sources matter; cargo looks after the rest of its inputs.
    for path in ["policies", "wit", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let policies: Vec<&str> = SHIPPED.into_iter().chain(FIXTURES).collect();
    if let Err(error) = build(&root, &out.join("policy-build"), &out.join("policies"), &policies) {
        println!("cargo::error={error}");
        process::exit(1);
    }
    println!("cargo::metadata=policies={}", out.join("policies").display());
}
