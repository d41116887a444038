//! Writes the seeds of every target where cargo-fuzz looks for them: `corpus FOLDER` makes `FOLDER/TARGET/seed-NUMBER`.

use std::io;
use std::path::PathBuf;

use comfy_router_fuzz::{TARGETS, seeds};

fn main() -> io::Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "name the folder"))?;
    for (target, ..) in TARGETS {
        let own = folder.join(target);
        std::fs::create_dir_all(&own)?;
        for (number, seed) in seeds(target).into_iter().enumerate() {
            std::fs::write(own.join(format!("seed-{number:03}")), seed)?;
        }
    }
    Ok(())
}
