//! From a core module to a component: what `wasm-tools component embed` and `component new` do, without another tool.

use std::path::Path;

use anyhow::{Context, bail};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

use crate::wit;

/// How a module becomes a component.
#[derive(Debug, Default)]
pub struct Recipe<'a> {
    /// Folder of WIT and the world in it, for modules that do not carry their world: those of Go. wit-bindgen for Rust and
    /// C has put it into the module.
    pub world: Option<(&'a Path, Option<&'a str>)>,
    /// A module that answers another module's imports, with the name it is imported by. WAT or binary.
    pub adapters: &'a [(String, &'a Path)],
}

/// Reads a core module, binary or WAT, and answers the bytes of the component.
pub fn component(module: &Path, recipe: &Recipe<'_>) -> anyhow::Result<Vec<u8>> {
    let mut bytes = parsed(module)?;
    if !bytes.starts_with(b"\0asm\x01\0\0\0") {
        bail!("{} is not a core module", module.display());
    }
    if let Some((folder, world)) = recipe.world {
        let (resolve, world) = wit::read(folder, world)?;
        embed_component_metadata(&mut bytes, &resolve, world, StringEncoding::UTF8)
            .with_context(|| format!("{} does not fit its world", module.display()))?;
    }
    let mut encoder = ComponentEncoder::default();
    encoder.validate(true).module(&bytes).context("the module has no world")?;
    for (name, path) in recipe.adapters {
        let adapter = parsed(path)?;
        encoder.adapter(name, &adapter).with_context(|| format!("{} is no adapter", path.display()))?;
    }
    encoder.encode().with_context(|| format!("{} makes no component", module.display()))
}

/// Binary, or WAT.
fn parsed(path: &Path) -> anyhow::Result<Vec<u8>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let parsed = wat::parse_bytes(&bytes)
        .with_context(|| format!("{} is neither WebAssembly nor its text", path.display()))?;
    Ok(parsed.into_owned())
}
