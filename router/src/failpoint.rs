//! Named points at which a test ends this process, or makes an act fail, exactly there. A file of the point's name in the
//! folder that `COMFY_FAILPOINTS` names arms it. Only in debug builds: a release has none, whatever its environment says.

/// May any point be armed at all?
#[cfg(debug_assertions)]
pub fn armed() -> bool {
    folder::of("").is_some()
}

/// Ends the process without a word, as `kill -9` would, if the point is armed. A number in the file lets so many pass first.
#[cfg(debug_assertions)]
pub fn hit(point: &str) {
    let Some(file) = folder::of(point) else { return };
    let Ok(text) = std::fs::read_to_string(&file) else { return };
    match text.trim().parse::<u32>() {
        Ok(left @ 1..) => drop(std::fs::write(&file, (left - 1).to_string())),
        _ => {
            let _ = std::fs::remove_file(&file);
            std::process::abort();
        }
    }
}

/// Must the act fail? For as long as the file is there.
#[cfg(debug_assertions)]
pub fn fails(point: &str) -> bool {
    folder::of(point).is_some_and(|file| file.exists())
}

#[cfg(debug_assertions)]
mod folder {
    use std::path::PathBuf;
    use std::sync::OnceLock;

    pub(super) fn of(point: &str) -> Option<PathBuf> {
        static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
        let folder = FOLDER.get_or_init(|| std::env::var_os("COMFY_FAILPOINTS").map(PathBuf::from));
        Some(folder.as_ref()?.join(point))
    }
}

#[cfg(not(debug_assertions))]
pub fn armed() -> bool {
    false
}

#[cfg(not(debug_assertions))]
pub fn hit(_point: &str) {}

#[cfg(not(debug_assertions))]
pub fn fails(_point: &str) -> bool {
    false
}
