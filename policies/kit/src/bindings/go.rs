//! wit-bindgen's Go, fitted to a small program: short package names, hooks that are variables for `main` to set, and support
//! packages of our own, so that a build needs no module proxy.

use wit_bindgen_core::Files;
use wit_parser::{Resolve, WorldId};

use super::{Generated, collected};

/// The import path that every project's go.mod is named for; a program is imported by nobody.
const MODULE: &str = "policy/gen";

/// wit-bindgen prefixes each package with the WIT package it is of. There is only one.
const PREFIX: &str = "comfy_router_policy_";

/// What the generated code imports from elsewhere, and what it gets.
const REMOTE: &str = "go.bytecodealliance.org/pkg/wit/";
const SUPPORT: [(&str, &str); 2] = [
    ("wit/types/types.go", include_str!("../../templates/go/gen/types.go")),
    ("wit/runtime/runtime.go", include_str!("../../templates/go/gen/runtime.go")),
];

pub(super) fn generate(resolve: &mut Resolve, world: WorldId) -> anyhow::Result<Generated> {
    let options = wit_bindgen_go::Opts {
        pkg_name: Some(MODULE.to_owned()),
        generate_stubs: true,
        ..wit_bindgen_go::Opts::default()
    };
    let mut files = Files::default();
    options.build().generate(resolve, world, &mut files)?;
    let mut generated: Generated = collected(&files)
        .into_iter()
        .map(|(name, text)| (name.replace(PREFIX, ""), fitted(&String::from_utf8_lossy(&text)).into_bytes()))
        .collect();
    generated.extend(SUPPORT.map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec())));
    Ok(generated)
}

fn fitted(text: &str) -> String {
    let text = text.replace(PREFIX, "").replace(REMOTE, &format!("{MODULE}/wit/"));
    let mut lines = Vec::new();
    let mut rest = text.lines().peekable();
    while let Some(line) = rest.next() {
        let stub = line.starts_with("func ")
            && rest.peek().is_some_and(|next| next.contains(r#"panic("not implemented")"#));
        if !stub {
            lines.push(line.to_owned());
            continue;
        }
        lines.push(hook(line));
        // The body and its closing brace.
        rest.nth(1);
    }
    lines.join("\n") + "\n"
}

/// `func Route(job types.Job) RouteDecision {` as a variable of that type.
fn hook(stub: &str) -> String {
    let signature = stub.trim_start_matches("func ").trim_end().trim_end_matches('{').trim_end();
    let (name, rest) = signature.split_at(signature.find('(').unwrap_or(signature.len()));
    format!("// {name} answers the hook. Set it in an init function.\nvar {name} func{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stubs_become_variables() {
        let text = "package a\n\nfunc Tick(x []types.State) []Order {\n\tpanic(\"not implemented\")\n}\n\nfunc other() {\n}\n";
        assert_eq!(
            fitted(text),
            "package a\n\n// Tick answers the hook. Set it in an init function.\nvar Tick func(x []types.State) []Order\n\nfunc other() {\n}\n"
        );
    }
}
