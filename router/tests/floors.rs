//! Modules import downwards only. Reads the sources, so that the rule holds for code that is never compiled too.

use std::fs;
use std::path::{Path, PathBuf};

/// A module may import modules of lower floors, and itself. Siblings on floor 2 never import each other; on the other
/// floors they may.
const FLOORS: [&[&str]; 6] = [
    &["model", "clock", "failpoint"],
    &["comfy", "config", "metrics", "tasks", "drain", "listen"],
    &["ledger", "fleet", "policy", "telemetry", "sessions", "assets", "processes"],
    &["scheduler", "relay"],
    &["front", "admin", "simulation"],
    &["app", "cli", "demo"],
];
const ORGANS: usize = 2;

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("src is readable") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

/// Modules named after `crate::` in a line, groups included.
fn imports(line: &str) -> Vec<String> {
    let code = line.split("//").next().unwrap_or_default();
    let mut found = Vec::new();
    for rest in code.split("crate::").skip(1) {
        let names = match rest.strip_prefix('{') {
            Some(group) => group.split(',').collect(),
            None => vec![rest],
        };
        let word =
            |name: &str| name.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        found.extend(names.into_iter().map(word).filter(|name: &String| !name.is_empty()));
    }
    found
}

#[test]
fn modules_import_downwards_only() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut broken = Vec::new();
    for file in &files {
        let inside = file.strip_prefix(&src).expect("below src");
        let top = inside.iter().next().and_then(|part| part.to_str()).unwrap_or_default();
        let module = top.trim_end_matches(".rs");
        if module == "lib" || module == "main" {
            continue;
        }
        let mine = floor(module).unwrap_or_else(|| panic!("{module} stands on no floor: add it to FLOORS"));
        let text = fs::read_to_string(file).expect("a source is readable");
        for (number, line) in text.lines().enumerate() {
            for other in imports(line).into_iter().filter(|other| other != module) {
                let Some(theirs) = floor(&other) else { continue };
                if theirs > mine || (theirs == mine && mine == ORGANS) {
                    broken.push(format!("{}:{}: {module} imports {other}", file.display(), number + 1));
                }
            }
        }
    }
    assert!(files.len() > 50, "the sources were found");
    assert!(broken.is_empty(), "imports against the floors:\n{}", broken.join("\n"));
}

#[test]
fn imports_are_read_from_paths_and_groups() {
    assert_eq!(imports("use crate::model::id::JobId;"), ["model"]);
    assert_eq!(imports("use crate::{metrics, relay};"), ["metrics", "relay"]);
    assert_eq!(imports("    crate::fleet::x(crate::ledger::y) // crate::front"), ["fleet", "ledger"]);
}
