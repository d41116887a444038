//! `policy new`: a project that builds with one command and passes `policy check`.
//!
//! What the languages' tools need (build files, the Go adapter) is that of `examples/policies`, which the tests build; the
//! policy itself is a smaller one of `templates`.

use std::path::Path;

use anyhow::{Context, bail};

use crate::{Language, bindings, wit};

/// The name that stands in every template.
const PLACEHOLDER: &str = "house-rules";

const LONGEST_NAME: usize = 64;

macro_rules! example {
    ($language:literal, $file:literal) => {
        ($file, include_str!(concat!("../../../examples/policies/", $language, "/", $file)))
    };
}

macro_rules! template {
    ($language:literal, $file:literal) => {
        ($file, include_str!(concat!("../templates/", $language, "/", $file)))
    };
}

type File = (&'static str, &'static str);

const COMMON: [File; 4] = [
    template!("common", "cases/priority.json"),
    template!("common", "cases/routing.json"),
    template!("common", "cases/settings.json"),
    template!("common", "wit/world.wit"),
];

fn files(language: Language) -> &'static [File] {
    match language {
        Language::Rust => &[
            example!("rust", "Cargo.toml"),
            example!("rust", "Makefile"),
            example!("rust", ".gitignore"),
            example!("rust", "policy.toml"),
            template!("rust", "src/lib.rs"),
        ],
        Language::TypeScript => &[
            example!("typescript", "package.json"),
            example!("typescript", ".npmrc"),
            example!("typescript", "tsconfig.json"),
            example!("typescript", "Makefile"),
            example!("typescript", ".gitignore"),
            example!("typescript", "policy.toml"),
            template!("typescript", "src/policy.ts"),
        ],
        Language::Python => &[
            example!("python", "requirements.txt"),
            example!("python", "Makefile"),
            example!("python", ".gitignore"),
            example!("python", "policy.toml"),
            template!("python", "policy.py"),
        ],
        Language::Go => &[
            example!("go", "go.mod"),
            example!("go", "requirements.txt"),
            example!("go", "adapter.wat"),
            example!("go", "Makefile"),
            example!("go", ".gitignore"),
            example!("go", "policy.toml"),
            template!("go", "main.go"),
        ],
        Language::C => &[
            example!("c", "requirements.txt"),
            example!("c", "Makefile"),
            example!("c", ".gitignore"),
            example!("c", "policy.toml"),
            template!("c", "src/policy.c"),
        ],
    }
}

/// Writes the project `name` into `folder`, which must not be there yet or be empty.
pub fn create(name: &str, language: Language, folder: &Path) -> anyhow::Result<()> {
    judge(name)?;
    if std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!("{} is not empty", folder.display());
    }
    for (file, text) in COMMON.iter().chain(files(language)) {
        put(&folder.join(file), &named(file, text, name))?;
    }
    put(&folder.join("README.md"), &readme(name, language))?;
    wit::write(&folder.join("wit"))?;
    // So that an editor knows the names before the first build.
    if matches!(language, Language::TypeScript | Language::Go | Language::C) {
        bindings::write(language, &folder.join("wit"), None, &folder.join("gen"))?;
    }
    Ok(())
}

fn judge(name: &str) -> anyhow::Result<()> {
    let letter = |c: char| c.is_ascii_lowercase();
    let right = name.starts_with(letter)
        && name.len() <= LONGEST_NAME
        && name.chars().all(|c| letter(c) || c.is_ascii_digit() || c == '-');
    if !right {
        bail!(
            "{name:?} is no name for a policy: lower-case letters, digits and hyphens, beginning with a letter"
        );
    }
    Ok(())
}

fn named(file: &str, text: &str, name: &str) -> String {
    let text = text.replace(PLACEHOLDER, name);
    // The examples share their cases.
    if file == "policy.toml" { text.replace("\"../cases\"", "\"cases\"") } else { text }
}

fn put(path: &Path, text: &str) -> anyhow::Result<()> {
    let folder = path.parent().context("a file is in a folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn readme(name: &str, language: Language) -> String {
    let needs = match language {
        Language::Rust => "Rust, by rustup",
        Language::TypeScript => "Node.js 18 or newer with npm",
        Language::Python => "Python 3.10 or newer with venv",
        Language::Go => "Go 1.25 or newer, or else Python 3 with venv, which installs one",
        Language::C => "Python 3 with venv, which installs a C compiler",
    };
    let source = match language {
        Language::Rust => "src/lib.rs",
        Language::TypeScript => "src/policy.ts",
        Language::Python => "policy.py",
        Language::Go => "main.go",
        Language::C => "src/policy.c",
    };
    format!(
        "# {name}\n\n\
         A policy for comfy-router, written in {language}. Building it needs {needs}, and `comfy-router` on the PATH.\n\n\
         ```sh\n\
         make          # builds {name}.wasm\n\
         make test     # its tests, and the cases in cases/\n\
         make check    # would it serve?\n\
         comfy-router policy bench    # how long does a decision take?\n\
         comfy-router policy dev      # builds and tests again whenever a file changes\n\
         comfy-router serve --policy {name}.wasm\n\
         ```\n\n\
         The policy is `{source}`. `wit/world.wit` lists the hooks it answers; `wit/deps` is the router's interface, with a\n\
         comment on every field. A case is a view and the decision it should lead to.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_carries_its_name_and_nothing_of_the_example() {
        for language in Language::ALL {
            let folder = tempfile::tempdir().unwrap();
            create("night-shift", language, folder.path()).unwrap();
            let read = |file: &str| std::fs::read_to_string(folder.path().join(file)).unwrap();
            for (file, _) in COMMON.iter().chain(files(language)) {
                assert!(!read(file).contains(PLACEHOLDER), "{language}: {file}");
            }
            assert!(read("Makefile").contains("NAME := night-shift"), "{language}");
            let settings = read("policy.toml");
            assert!(
                settings.contains("night-shift.wasm") && settings.contains("\"cases\""),
                "{language}: {settings}"
            );
            wit::read(&folder.path().join("wit"), Some("policy")).unwrap();
        }
    }

    #[test]
    fn a_name_is_one_that_every_language_takes() {
        for name in ["", "Night", "9lives", "a b", "../up", "-a", &"a".repeat(65)] {
            let folder = tempfile::tempdir().unwrap();
            let error = create(name, Language::C, folder.path()).unwrap_err().to_string();
            assert!(error.contains("no name for a policy"), "{error}");
        }
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("thesis.txt"), "years of work").unwrap();
        let error = create("a", Language::Rust, folder.path()).unwrap_err().to_string();
        assert!(error.ends_with("is not empty"), "{error}");
    }
}
