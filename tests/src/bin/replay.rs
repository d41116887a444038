//! Plays the script of [`comfy_router_tests::replay`] against one address, or against two and shows what differs.
//!
//!     cargo run --bin replay -- http://127.0.0.1:8188 [http://127.0.0.1:7188]
//!
//! The servers must be fresh and nobody else's: the script interrupts, clears and deletes. With two addresses the exit
//! code is 1 if anything differs that `docs/compatibility.md` does not explain.

use std::io::Write;

use comfy_router_tests::replay::{Stage, differences, play};

#[tokio::main]
async fn main() -> anyhow::Result<std::process::ExitCode> {
    let addresses: Vec<String> = std::env::args().skip(1).collect();
    let mut out = std::io::stdout().lock();
    match &addresses[..] {
        [one] => {
            for entry in play(one, Stage::Real).await.entries {
                writeln!(out, "{} / {}\n  {}", entry.scene, entry.what, entry.heard)?;
            }
        }
        [direct, router] => {
            let (direct, router) = (play(direct, Stage::Real).await, play(router, Stage::Real).await);
            let found = differences(&direct, &router);
            for difference in &found {
                writeln!(out, "{difference}")?;
            }
            let open = found.iter().filter(|difference| difference.known.is_none()).count();
            let same = direct.entries.len().saturating_sub(found.len());
            writeln!(out, "{same} equal, {} differ, {open} of them unexplained", found.len())?;
            return Ok(if open == 0 {
                std::process::ExitCode::SUCCESS
            } else {
                std::process::ExitCode::FAILURE
            });
        }
        _ => anyhow::bail!("give one address to play against, or two to compare"),
    }
    Ok(std::process::ExitCode::SUCCESS)
}
