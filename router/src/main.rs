//! The binary: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    comfy_router::cli::run()
}
