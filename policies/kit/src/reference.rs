//! The reference page of the interface, from its own comments.

use std::fmt::Write as _;

use wit_parser::{Function, Interface, Resolve, Stability, Type, TypeDef, TypeDefKind};

use crate::wit;

/// `docs/policies/wit.md`, whole.
pub fn page() -> anyhow::Result<String> {
    let (resolve, id) = wit::package()?;
    let package = &resolve.packages[id];
    let version = package.name.version.as_ref().map(ToString::to_string).unwrap_or_default();
    let mut text = format!(
        "<!-- Generated from wit/. Do not edit: UPDATE_DOCS=1 cargo test -p comfy-router-policy-kit -->\n\n\
         # Reference: comfy-router:policy@{version}\n\n{}\n",
        package.docs.contents.as_deref().unwrap_or_default().trim()
    );
    let world = &resolve.worlds[package.worlds["policy"]];
    let ids = |items: &wit_parser::IndexMap<wit_parser::WorldKey, wit_parser::WorldItem>| -> Vec<_> {
        items
            .values()
            .filter_map(|item| match item {
                wit_parser::WorldItem::Interface { id, .. } => Some(*id),
                _ => None,
            })
            .collect()
    };
    let (hooks, host) = (ids(&world.exports), ids(&world.imports));
    let named = |id: &wit_parser::InterfaceId| resolve.interfaces[*id].name.as_deref() == Some("types");
    contents(&mut text, &resolve, "Hooks, any subset of which a component exports", &hooks);
    let functions: Vec<_> = host.iter().copied().filter(|id| !named(id)).collect();
    contents(&mut text, &resolve, "Host functions, which it may import", &functions);
    text.push_str("\n# Shared records\n");
    for id in host.iter().filter(|id| named(id)) {
        interface(&mut text, &resolve, &resolve.interfaces[*id]);
    }
    for (title, ids) in [("Hooks", hooks), ("Host functions", functions)] {
        let _ = writeln!(text, "\n# {title}");
        for id in ids {
            interface(&mut text, &resolve, &resolve.interfaces[id]);
        }
    }
    Ok(text)
}

fn contents(text: &mut String, resolve: &Resolve, title: &str, ids: &[wit_parser::InterfaceId]) {
    let links: Vec<String> = ids
        .iter()
        .filter_map(|id| resolve.interfaces[*id].name.as_deref())
        .map(|name| format!("[{name}](#{name})"))
        .collect();
    let _ = writeln!(text, "\n{title}: {}.", links.join(", "));
}

fn interface(text: &mut String, resolve: &Resolve, interface: &Interface) {
    let name = interface.name.as_deref().unwrap_or_default();
    let _ = writeln!(text, "\n## {name}\n");
    paragraph(text, interface.docs.contents.as_deref(), &interface.stability);
    for function in interface.functions.values() {
        let _ = writeln!(
            text,
            "\n### {name}.{}\n\n```wit\n{}\n```\n",
            function.name,
            signature(resolve, function)
        );
        paragraph(text, function.docs.contents.as_deref(), &function.stability);
    }
    for id in interface.types.values() {
        definition(text, resolve, &resolve.types[*id]);
    }
}

fn paragraph(text: &mut String, docs: Option<&str>, stability: &Stability) {
    let _ = writeln!(text, "{}{}", docs.unwrap_or_default().trim(), since(stability));
}

fn since(stability: &Stability) -> String {
    match stability {
        Stability::Stable { since, .. } => format!(" *Since {since}.*"),
        _ => String::new(),
    }
}

fn definition(text: &mut String, resolve: &Resolve, def: &TypeDef) {
    let name = def.name.as_deref().unwrap_or_default();
    let rows: Vec<(String, String, &str)> = match &def.kind {
        TypeDefKind::Record(record) => {
            let row = |f: &wit_parser::Field| (f.name.clone(), ty(resolve, &f.ty));
            record
                .fields
                .iter()
                .map(|f| {
                    let (name, ty) = row(f);
                    (name, ty, said(&f.docs))
                })
                .collect()
        }
        TypeDefKind::Variant(variant) => variant
            .cases
            .iter()
            .map(|c| {
                (c.name.clone(), c.ty.map_or_else(|| "".to_owned(), |of| ty(resolve, &of)), said(&c.docs))
            })
            .collect(),
        TypeDefKind::Enum(cases) => {
            cases.cases.iter().map(|c| (c.name.clone(), String::new(), said(&c.docs))).collect()
        }
        // Brought from another interface, where it is described.
        _ => return,
    };
    let kind = def.kind.as_str();
    let _ = writeln!(text, "\n### {kind} {name}\n");
    paragraph(text, def.docs.contents.as_deref(), &def.stability);
    table(text, &rows);
}

fn table(text: &mut String, rows: &[(String, String, &str)]) {
    let typed = rows.iter().any(|(_, ty, _)| !ty.is_empty());
    text.push_str(if typed {
        "\n| name | type | meaning |\n|---|---|---|\n"
    } else {
        "\n| name | meaning |\n|---|---|\n"
    });
    for (name, ty, docs) in rows {
        let docs = docs.trim().replace('\n', " ").replace('|', "\\|");
        let ty = if ty.is_empty() { String::new() } else { format!("`{ty}`") };
        let _ = if typed {
            writeln!(text, "| `{name}` | {ty} | {docs} |")
        } else {
            writeln!(text, "| `{name}` | {docs} |")
        };
    }
}

fn said(docs: &wit_parser::Docs) -> &str {
    docs.contents.as_deref().unwrap_or_default()
}

fn signature(resolve: &Resolve, function: &Function) -> String {
    let params: Vec<String> =
        function.params.iter().map(|p| format!("{}: {}", p.name, ty(resolve, &p.ty))).collect();
    let result = function.result.map_or_else(String::new, |result| format!(" -> {}", ty(resolve, &result)));
    format!("{}: func({}){result}", function.name, params.join(", "))
}

fn ty(resolve: &Resolve, ty: &Type) -> String {
    let Type::Id(id) = ty else { return format!("{ty:?}").to_lowercase() };
    let def = &resolve.types[*id];
    if let Some(name) = &def.name {
        return name.clone();
    }
    let inner = |of: &Type| self::ty(resolve, of);
    match &def.kind {
        TypeDefKind::Option(some) => format!("option<{}>", inner(some)),
        TypeDefKind::List(of) => format!("list<{}>", inner(of)),
        TypeDefKind::Result(result) => {
            let side = |of: Option<Type>| of.map_or_else(|| "_".to_owned(), |of| inner(&of));
            format!("result<{}, {}>", side(result.ok), side(result.err))
        }
        TypeDefKind::Tuple(tuple) => {
            let types: Vec<String> = tuple.types.iter().map(inner).collect();
            format!("tuple<{}>", types.join(", "))
        }
        other => other.as_str().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `UPDATE_DOCS=1` writes it anew.
    #[test]
    fn the_reference_is_that_of_the_present_interface() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/policies/wit.md");
        let page = page().unwrap();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, &page).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written == page,
            "docs/policies/wit.md is stale: UPDATE_DOCS=1 cargo test -p comfy-router-policy-kit"
        );
    }
}
