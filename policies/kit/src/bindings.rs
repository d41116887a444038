//! What a language calls the interface by: generated files, never edited. Rust generates them while it compiles, Python while
//! it makes the component.

mod go;
mod typescript;

use std::path::Path;

use anyhow::{Context, bail};
use wit_bindgen_core::Files;
use wit_parser::{Resolve, WorldId};

use crate::{Language, wit};

/// Generates the bindings for the world `world` of the folder `from`, or its only one, and writes them into `to`.
pub fn write(language: Language, from: &Path, world: Option<&str>, to: &Path) -> anyhow::Result<()> {
    let (mut resolve, world) = wit::read(from, world)?;
    for (name, text) in generate(language, &mut resolve, world)? {
        let path = to.join(name);
        let folder = path.parent().unwrap_or(to);
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

type Generated = Vec<(String, Vec<u8>)>;

fn generate(language: Language, resolve: &mut Resolve, world: WorldId) -> anyhow::Result<Generated> {
    match language {
        Language::C => c(resolve, world),
        Language::Go => go::generate(resolve, world),
        Language::TypeScript => Ok(typescript::generate(resolve, world)),
        Language::Rust => bail!("Rust needs no files: wit_bindgen::generate! makes its bindings"),
        Language::Python => bail!("componentize-py makes the bindings of Python: componentize-py bindings"),
    }
}

/// wit-bindgen prefixes each name with the package it is of. There is only one.
fn c(resolve: &mut Resolve, world: WorldId) -> anyhow::Result<Generated> {
    let mut files = Files::default();
    wit_bindgen_c::Opts::default().build().generate(resolve, world, &mut files)?;
    let short = |text: &[u8]| {
        let text = String::from_utf8_lossy(text);
        text.replace("comfy_router_policy_", "").replace("COMFY_ROUTER_POLICY_", "").into_bytes()
    };
    let mut generated = collected(&files);
    for (_, text) in generated.iter_mut().filter(|(name, _)| name.ends_with(".c") || name.ends_with(".h")) {
        *text = short(text);
    }
    Ok(generated)
}

fn collected(files: &Files) -> Generated {
    files.iter().map(|(name, bytes)| (name.to_owned(), bytes.to_vec())).collect()
}
