//! Recorded decisions on disk: `decisions-NUMBER.jsonl`, the highest number being the newest.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub(super) struct Files {
    dir: PathBuf,
    most_bytes: u64,
    most_files: usize,
    open: Option<(BufWriter<File>, u64)>,
}

impl Files {
    pub(super) fn new(dir: PathBuf, file_mib: u32, files: u32) -> Self {
        let most_bytes = u64::from(file_mib.max(1)) * 1024 * 1024;
        Self { dir, most_bytes, most_files: files.max(1) as usize, open: None }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The next line begins a file, and has to stand on its own.
    pub(super) fn begins_new(&self) -> bool {
        self.open.as_ref().is_none_or(|(_, bytes)| *bytes >= self.most_bytes)
    }

    pub(super) fn write(&mut self, line: &str) -> std::io::Result<()> {
        if self.begins_new() {
            self.open = Some((self.next()?, 0));
        }
        if let Some((file, bytes)) = &mut self.open {
            writeln!(file, "{line}")?;
            // A line that is not flushed is lost with the process; decisions are seldom enough.
            file.flush()?;
            *bytes += line.len() as u64 + 1;
        }
        Ok(())
    }

    fn next(&self) -> std::io::Result<BufWriter<File>> {
        std::fs::create_dir_all(&self.dir)?;
        let mut there = numbers(&self.dir)?;
        there.sort_unstable();
        let number = there.last().map_or(1, |last| last + 1);
        let surplus = (there.len() + 1).saturating_sub(self.most_files);
        for old in &there[..surplus] {
            std::fs::remove_file(path(&self.dir, *old))?;
        }
        let file = File::options().create_new(true).append(true).open(path(&self.dir, number))?;
        Ok(BufWriter::new(file))
    }
}

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("decisions-{number:06}.jsonl"))
}

fn numbers(dir: &Path) -> std::io::Result<Vec<u64>> {
    let number = |name: &str| name.strip_prefix("decisions-")?.strip_suffix(".jsonl")?.parse().ok();
    let entries = std::fs::read_dir(dir)?;
    Ok(entries.filter_map(|entry| number(entry.ok()?.file_name().to_str()?)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_ended_and_the_oldest_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = Files { most_bytes: 10, most_files: 2, ..Files::new(folder.path().to_owned(), 1, 1) };
        for text in ["first line", "second line", "third line"] {
            assert!(files.begins_new());
            files.write(text).unwrap();
        }
        let mut there = numbers(folder.path()).unwrap();
        there.sort_unstable();
        assert_eq!(there, [2, 3]);
        assert_eq!(std::fs::read_to_string(path(folder.path(), 3)).unwrap(), "third line\n");
        let mut again = Files::new(folder.path().to_owned(), 1, 2);
        again.write("after a restart").unwrap();
        assert_eq!(numbers(folder.path()).unwrap().iter().max(), Some(&4));
    }
}
