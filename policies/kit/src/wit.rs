//! The interface itself, as this router has it.

use std::path::Path;

use anyhow::Context;
use wit_parser::{PackageId, Resolve, WorldId};

/// Every file of the package, by its name in `wit/`. A test compares the list with the folder.
pub const FILES: [(&str, &str); 1] = [("policy.wit", include_str!("../../../wit/policy.wit"))];

/// The folder below a project's `wit/deps` that holds the package.
pub const FOLDER: &str = "comfy-router-policy";

/// Where something is defined: `policy.wit:79`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub file: &'static str,
    /// Counted from 1.
    pub line: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "wit/{}:{}", self.file, self.line)
    }
}

/// The line that begins `item`, a record, variant, enum, interface or function, or the line of `member` within it.
/// Names are as in the WIT, `free-slots` and not `free_slots`.
pub fn place(item: &str, member: Option<&str>) -> Option<Place> {
    FILES.into_iter().find_map(|(file, text)| {
        let begins = text.lines().position(|line| defines(line, item))?;
        let line = match member {
            None => begins,
            Some(member) => {
                begins
                    + 1
                    + text
                        .lines()
                        .skip(begins + 1)
                        .take_while(|line| !ends(line))
                        .position(|l| names(l, member))?
            }
        };
        Some(Place { file, line: line + 1 })
    })
}

fn defines(line: &str, item: &str) -> bool {
    let line = line.trim_start();
    let keyword = ["record ", "variant ", "enum ", "interface "].iter().find_map(|k| line.strip_prefix(k));
    match keyword {
        Some(rest) => rest.trim_end_matches('{').trim() == item,
        None => line.strip_prefix(item).is_some_and(|rest| rest.starts_with(": func(")),
    }
}

fn names(line: &str, member: &str) -> bool {
    line.trim_start().strip_prefix(member).is_some_and(|rest| rest.starts_with([':', ',', '(']))
}

fn ends(line: &str) -> bool {
    line.trim() == "}"
}

/// Reads a folder of WIT with its `deps`, and picks the world `world` of its main package, or its only one.
pub fn read(folder: &Path, world: Option<&str>) -> anyhow::Result<(Resolve, WorldId)> {
    let mut resolve = Resolve::default();
    let (package, _) =
        resolve.push_dir(folder).with_context(|| format!("cannot read the WIT in {}", folder.display()))?;
    let world = resolve.select_world(&[package], world)?;
    Ok((resolve, world))
}

/// The package of this router alone.
pub fn package() -> anyhow::Result<(Resolve, PackageId)> {
    let mut resolve = Resolve::default();
    let mut map = wit_parser::SourceMap::default();
    for (name, text) in FILES {
        map.push_str(name, text);
    }
    let group = map.parse().map_err(|(_, error)| anyhow::anyhow!("{error:?}"))?;
    let package = resolve.push_group(group)?;
    Ok((resolve, package))
}

/// Writes the package into `folder/deps`, replacing an older one.
pub fn write(folder: &Path) -> anyhow::Result<()> {
    let deps = folder.join("deps").join(FOLDER);
    std::fs::create_dir_all(&deps).with_context(|| format!("cannot create {}", deps.display()))?;
    for (name, text) in FILES {
        let path = deps.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_files_is_that_of_the_folder() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
        let mut there: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        there.sort();
        assert_eq!(there, FILES.map(|(name, _)| name.to_owned()));
    }

    #[test]
    fn places_are_those_of_the_text() {
        let line = |place: Place| FILES[0].1.lines().nth(place.line - 1).unwrap().trim().to_owned();
        assert_eq!(line(place("candidate", None).unwrap()), "record candidate {");
        assert_eq!(line(place("candidate", Some("free-slots")).unwrap()), "free-slots: u32,");
        assert_eq!(line(place("job-class", Some("batch")).unwrap()), "batch,");
        assert_eq!(line(place("route-answer", Some("ranked")).unwrap()), "ranked(list<u32>),");
        assert!(line(place("route", None).unwrap()).starts_with("route: func(job: job"));
        assert_eq!(place("candidate", Some("settings")), None);
        assert_eq!(place("nothing", None), None);
    }

    #[test]
    fn a_written_package_is_what_a_world_can_be_made_of() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path()).unwrap();
        let world = "package local:policy; world policy { export comfy-router:policy/routing@VERSION; }";
        let (resolve, id) = package().unwrap();
        let version = resolve.packages[id].name.version.as_ref().unwrap().to_string();
        std::fs::write(folder.path().join("world.wit"), world.replace("VERSION", &version)).unwrap();
        let (resolve, id) = read(folder.path(), None).unwrap();
        assert_eq!(resolve.worlds[id].exports.len(), 1);
    }
}
