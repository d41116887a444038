//! Types for TypeScript, as the QuickJS runtime of componentize-qjs passes them: records in camel case, `null` for what is
//! not known, `{tag, val}` for variants, and an error that is thrown.

use std::fmt::Write as _;

use wit_parser::{Function, InterfaceId, Resolve, Type, TypeDef, TypeDefKind, WorldId, WorldItem, WorldKey};

use super::Generated;

/// Types and host functions in `policy.d.ts`, the modules `comfy-router:policy/...` that can be imported.
pub(super) fn generate(resolve: &Resolve, world: WorldId) -> Generated {
    let world = &resolve.worlds[world];
    let mut text = String::from("// Generated from the WIT. Do not edit.\n");
    let imports = world.imports.iter().filter_map(|item| interface(item, resolve));
    let exports: Vec<_> = world.exports.iter().filter_map(|item| interface(item, resolve)).collect();
    for (id, name) in imports {
        module(&mut text, resolve, id, &name, Side::Host);
    }
    for (id, name) in &exports {
        module(&mut text, resolve, *id, name, Side::Hook);
    }
    vec![("policy.d.ts".to_owned(), text.into_bytes())]
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    /// Functions that are called.
    Host,
    /// An interface to implement.
    Hook,
}

fn interface((key, item): (&WorldKey, &WorldItem), resolve: &Resolve) -> Option<(InterfaceId, String)> {
    match (key, item) {
        (WorldKey::Interface(_), WorldItem::Interface { id, .. }) => Some((*id, resolve.id_of(*id)?)),
        _ => None,
    }
}

fn module(text: &mut String, resolve: &Resolve, id: InterfaceId, name: &str, side: Side) {
    let interface = &resolve.interfaces[id];
    let _ = writeln!(text, "\ndeclare module \"{name}\" {{");
    for &id in interface.types.values() {
        definition(text, resolve, &resolve.types[id], interface.package);
    }
    let functions = interface.functions.values();
    if side == Side::Host {
        for function in functions {
            docs(text, function.docs.contents.as_deref(), "  ");
            host_function(text, &camel(&function.name), &signature(resolve, function));
        }
    } else {
        docs(text, interface.docs.contents.as_deref(), "  ");
        let _ =
            writeln!(text, "  export interface {} {{", pascal(interface.name.as_deref().unwrap_or_default()));
        for function in functions {
            docs(text, function.docs.contents.as_deref(), "    ");
            let _ = writeln!(text, "    {}{};", camel(&function.name), signature(resolve, function));
        }
        text.push_str("  }\n");
    }
    text.push_str("}\n");
}

fn definition(text: &mut String, resolve: &Resolve, def: &TypeDef, package: Option<wit_parser::PackageId>) {
    let Some(name) = def.name.as_deref().map(pascal) else { return };
    docs(text, def.docs.contents.as_deref(), "  ");
    match &def.kind {
        TypeDefKind::Record(record) => {
            let _ = writeln!(text, "  export interface {name} {{");
            for field in &record.fields {
                docs(text, field.docs.contents.as_deref(), "    ");
                let _ = writeln!(text, "    {}: {};", camel(&field.name), ty(resolve, &field.ty));
            }
            text.push_str("  }\n");
        }
        TypeDefKind::Enum(cases) => {
            let cases: Vec<String> = cases.cases.iter().map(|case| format!("\"{}\"", case.name)).collect();
            let _ = writeln!(text, "  export type {name} = {};", cases.join(" | "));
        }
        TypeDefKind::Variant(variant) => {
            let cases: Vec<String> = variant
                .cases
                .iter()
                .map(|case| match &case.ty {
                    Some(val) => format!("{{ tag: \"{}\"; val: {} }}", case.name, ty(resolve, val)),
                    None => format!("{{ tag: \"{}\" }}", case.name),
                })
                .collect();
            let _ = writeln!(text, "  export type {name} =\n    | {};", cases.join("\n    | "));
        }
        TypeDefKind::Type(Type::Id(id)) => used(text, resolve, *id, &name, package),
        other => {
            let _ = writeln!(text, "  export type {name} = {};", kind(resolve, other));
        }
    }
}

/// A name that `use` brought from another interface.
fn used(
    text: &mut String,
    resolve: &Resolve,
    id: wit_parser::TypeId,
    name: &str,
    package: Option<wit_parser::PackageId>,
) {
    let def = &resolve.types[id];
    let original = def.name.as_deref().map(pascal).unwrap_or_default();
    if let (wit_parser::TypeOwner::Interface(owner), Some(package)) = (def.owner, package) {
        let from = resolve.id_of_name(package, resolve.interfaces[owner].name.as_deref().unwrap_or_default());
        let _ = writeln!(text, "  export type {name} = import(\"{from}\").{original};");
    }
}

/// Words that can name a member and an export, but nothing that is declared.
const RESERVED: [&str; 2] = ["class", "delete"];

fn declared(name: &str) -> String {
    let name = camel(name);
    if RESERVED.contains(&name.as_str()) { name + "_" } else { name }
}

fn host_function(text: &mut String, name: &str, signature: &str) {
    let declared = declared(name);
    if declared == name {
        let _ = writeln!(text, "  export function {name}{signature};");
    } else {
        let _ = writeln!(text, "  function {declared}{signature};\n  export {{ {declared} as {name} }};");
    }
}

fn signature(resolve: &Resolve, function: &Function) -> String {
    let params: Vec<String> = function
        .params
        .iter()
        .map(|param| format!("{}: {}", declared(&param.name), ty(resolve, &param.ty)))
        .collect();
    let result = function.result.map_or_else(|| "void".to_owned(), |result| ty(resolve, &result));
    format!("({}): {result}", params.join(", "))
}

fn ty(resolve: &Resolve, ty: &Type) -> String {
    match ty {
        Type::Bool => "boolean".to_owned(),
        Type::Char | Type::String => "string".to_owned(),
        Type::Id(id) => {
            let def = &resolve.types[*id];
            def.name.as_deref().map_or_else(|| kind(resolve, &def.kind), pascal)
        }
        _ => "number".to_owned(),
    }
}

fn kind(resolve: &Resolve, kind: &TypeDefKind) -> String {
    match kind {
        TypeDefKind::Option(some) => format!("{} | null", ty(resolve, some)),
        TypeDefKind::List(of) => format!("Array<{}>", ty(resolve, of)),
        TypeDefKind::Tuple(tuple) => {
            let types: Vec<String> = tuple.types.iter().map(|of| ty(resolve, of)).collect();
            format!("[{}]", types.join(", "))
        }
        // The error is thrown.
        TypeDefKind::Result(result) => result.ok.map_or_else(|| "void".to_owned(), |ok| ty(resolve, &ok)),
        TypeDefKind::Type(of) => ty(resolve, of),
        _ => "unknown".to_owned(),
    }
}

fn docs(text: &mut String, docs: Option<&str>, indent: &str) {
    let Some(docs) = docs else { return };
    let lines: Vec<&str> = docs.trim().lines().collect();
    match lines.as_slice() {
        [] => {}
        [one] => {
            let _ = writeln!(text, "{indent}/** {one} */");
        }
        many => {
            let _ = writeln!(text, "{indent}/**");
            for line in many {
                let _ = writeln!(text, "{indent} * {line}");
            }
            let _ = writeln!(text, "{indent} */");
        }
    }
}

fn camel(name: &str) -> String {
    let mut words = name.split('-');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |joined, word| joined + &capital(word))
}

fn pascal(name: &str) -> String {
    name.split('-').map(capital).collect()
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().collect::<String>() + letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wit;

    #[test]
    fn every_shape_of_the_interface_has_a_type() {
        let (resolve, package) = wit::package().unwrap();
        let world = resolve.packages[package].worlds["policy"];
        let (name, text) = generate(&resolve, world).swap_remove(0);
        let text = String::from_utf8(text).unwrap();
        assert_eq!(name, "policy.d.ts");
        for expected in [
            "export type JobClass = \"interactive\" | \"standard\" | \"batch\";",
            "    runMs: number | null;",
            "    | { tag: \"ranked\"; val: Array<number> }",
            "    route(job: Job, candidates: Array<Candidate>): RouteDecision;",
            "  export function nowMs(): number;",
            "/types@",
        ] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
        assert!(!text.contains(": unknown") && !text.contains("= unknown"), "a shape without a type");
    }
}
