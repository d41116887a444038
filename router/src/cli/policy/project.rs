//! `policy.toml`: what the tools need to know of a policy's project.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Deserialize;

/// Paths are relative to the folder of the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Project {
    #[serde(skip)]
    pub folder: PathBuf,
    /// What the build writes.
    component: PathBuf,
    /// The command line that builds it, for a shell.
    #[serde(default = "make")]
    pub build: String,
    /// A file or a folder of cases.
    pub cases: Option<PathBuf>,
    /// Handed to the policy by the tools; a case may change them.
    #[serde(default)]
    pub settings: super::Settings,
}

fn make() -> String {
    "make".to_owned()
}

impl Project {
    pub(super) const FILE: &str = "policy.toml";

    pub(super) fn read(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(Self::FILE);
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!("cannot read {}: name a component, or a folder with a project", path.display())
        })?;
        let project: Self = toml::from_str(&text).with_context(|| format!("{} is wrong", path.display()))?;
        Ok(Self { folder: folder.to_owned(), ..project })
    }

    pub(super) fn component(&self) -> PathBuf {
        self.folder.join(&self.component)
    }

    pub(super) fn cases(&self) -> PathBuf {
        self.folder.join(self.cases.as_deref().unwrap_or(Path::new("cases")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_is_read_and_a_typo_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let write = |text: &str| std::fs::write(folder.path().join(Project::FILE), text).unwrap();
        write("component = \"a.wasm\"\ncases = \"../cases\"\n[settings]\nhot_c = 80\n");
        let project = Project::read(folder.path()).unwrap();
        assert_eq!(project.component(), folder.path().join("a.wasm"));
        assert_eq!((project.build.as_str(), project.cases()), ("make", folder.path().join("../cases")));
        assert_eq!(project.settings["hot_c"], 80);
        write("componnent = \"a.wasm\"\n");
        let error = format!("{:#}", Project::read(folder.path()).unwrap_err());
        assert!(error.contains("policy.toml is wrong") && error.contains("componnent"), "{error}");
    }
}
