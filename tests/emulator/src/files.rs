//! The folders of an instance, and ComfyUI's rules for names in them: annotated names, sub-folders that must not
//! escape, output counters. `output`, `input` and `user` survive a restart, `temp` does not.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// Where a file lives, as the wire names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Input,
    Output,
    Temp,
}

impl Place {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "input" => Some(Self::Input),
            "output" => Some(Self::Output),
            "temp" => Some(Self::Temp),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
            Self::Temp => "temp",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Dirs {
    root: PathBuf,
    /// Names of files to load are not looked at.
    careless: bool,
    _own: Option<TempDir>,
}

impl Dirs {
    /// One that loads whatever it is told to, as releases before 0.28.0 do.
    pub(crate) fn careless(mut self, careless: bool) -> Self {
        self.careless = careless;
        self
    }

    pub(crate) fn open(dir: Option<&Path>) -> io::Result<Self> {
        let (root, own) = match dir {
            Some(dir) => (dir.to_owned(), None),
            None => {
                let own = tempfile::Builder::new().prefix("comfyui-emulator-").tempdir()?;
                (own.path().to_owned(), Some(own))
            }
        };
        for name in ["input", "output", "user"] {
            fs::create_dir_all(root.join(name))?;
        }
        Ok(Self { root, careless: false, _own: own })
    }

    /// What a starting ComfyUI does to its temporary files.
    pub(crate) fn wipe_temp(&self) {
        let temp = self.place(Place::Temp);
        let _ = fs::remove_dir_all(&temp);
        let _ = fs::create_dir_all(temp);
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn place(&self, place: Place) -> PathBuf {
        self.root.join(place.name())
    }

    pub(crate) fn user(&self) -> PathBuf {
        self.root.join("user").join("default")
    }

    /// The file behind `[subfolder/]name[ [input|output|temp]]`; no annotation means input.
    pub(crate) fn annotated(&self, name: &str) -> Option<PathBuf> {
        let (name, place) = annotation(name);
        let base = self.place(place.unwrap_or(Place::Input));
        if self.careless { Some(base.join(name)) } else { inside(&base, name) }
    }

    /// Names of the files directly in `input`, sorted, as the combo of `LoadImage` lists them.
    pub(crate) fn input_names(&self) -> Vec<String> {
        let mut names = plain_files(&self.place(Place::Input));
        names.sort();
        names
    }

    /// The folder, sub-folder, file prefix and next counter for a `filename_prefix`.
    pub(crate) fn next_output(&self, place: Place, prefix: &str) -> io::Result<NextOutput> {
        let (subfolder, stem) = prefix.rsplit_once('/').unwrap_or(("", prefix));
        let escaped = || io::Error::new(io::ErrorKind::InvalidInput, "saving outside the output folder");
        let folder = inside(&self.place(place), subfolder).ok_or_else(escaped)?;
        fs::create_dir_all(&folder)?;
        let lead = format!("{stem}_");
        let counters = plain_files(&folder).into_iter().filter_map(|name| {
            let digits = name.strip_prefix(&lead)?.split('_').next()?;
            digits.split('.').next()?.parse::<u64>().ok()
        });
        let counter = counters.max().unwrap_or(0) + 1;
        Ok(NextOutput { folder, subfolder: subfolder.into(), stem: stem.into(), counter })
    }
}

#[derive(Debug)]
pub(crate) struct NextOutput {
    pub(crate) folder: PathBuf,
    pub(crate) subfolder: String,
    pub(crate) stem: String,
    pub(crate) counter: u64,
}

impl NextOutput {
    pub(crate) fn name(&self) -> String {
        format!("{}_{:05}_.png", self.stem, self.counter)
    }
}

/// Cuts ` [output]` and the like off a name. ComfyUI cuts a fixed count of characters, so a missing space loses
/// the last letter of the name; so does this.
pub(crate) fn annotation(name: &str) -> (&str, Option<Place>) {
    for (suffix, place) in [("[output]", Place::Output), ("[input]", Place::Input), ("[temp]", Place::Temp)] {
        if let Some(rest) = name.strip_suffix(suffix) {
            let cut = rest.char_indices().next_back().map_or(0, |(at, _)| at);
            return (&rest[..cut], Some(place));
        }
    }
    (name, None)
}

/// `base/relative` unless that leaves `base`.
pub(crate) fn inside(base: &Path, relative: &str) -> Option<PathBuf> {
    let mut path = base.to_owned();
    let mut depth = 0_usize;
    for part in Path::new(relative).components() {
        match part {
            Component::Normal(name) => {
                path.push(name);
                depth += 1;
            }
            Component::CurDir => {}
            Component::ParentDir => {
                depth = depth.checked_sub(1)?;
                path.pop();
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(path)
}

pub(crate) fn plain_files(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let files = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    files.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_cut_one_character_more() {
        assert_eq!(annotation("a.png [output]"), ("a.png", Some(Place::Output)));
        assert_eq!(annotation("a.png[output]"), ("a.pn", Some(Place::Output)));
        assert_eq!(annotation("a.png"), ("a.png", None));
    }

    #[test]
    fn paths_stay_inside() {
        let base = Path::new("base");
        assert_eq!(inside(base, "a/../b"), Some(PathBuf::from("base/b")));
        assert_eq!(inside(base, "../b"), None);
        assert_eq!(inside(base, "/etc"), None);
    }

    #[test]
    fn counters_continue_after_the_files_on_disk() {
        let dirs = Dirs::open(None).expect("a temporary folder");
        fs::write(dirs.place(Place::Output).join("t_00007_.png"), b"").expect("write");
        fs::write(dirs.place(Place::Output).join("tt_00009_.png"), b"").expect("write");
        assert_eq!(dirs.next_output(Place::Output, "t").expect("next").name(), "t_00008_.png");
        assert_eq!(dirs.next_output(Place::Output, "sub/t").expect("next").name(), "t_00001_.png");
    }
}
