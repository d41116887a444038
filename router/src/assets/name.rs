//! Names of uploads. They never become paths here, but they do on an instance.

use crate::model::job::UploadRef;

const MAX_NAME: usize = 255;
const MAX_PATH: usize = 1_024;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is no usable name of an upload: {why}", name.escape_debug())]
pub struct BadName {
    pub name: String,
    pub why: &'static str,
}

/// The one form of a name: the path split at its last slash, whichever part of it the client put the folders in.
///
/// # Errors
/// When it leads out of its folder, or could on some system.
pub fn checked(file: &UploadRef) -> Result<UploadRef, BadName> {
    let bad = |why| Err(BadName { name: file.name.chars().take(100).collect(), why });
    if !matches!(file.kind.as_str(), "input" | "output" | "temp") {
        return bad("its folder is none of input, output and temp");
    }
    let whole = format!("{}/{}", file.subfolder, file.name).replace('\\', "/");
    if whole.len() > MAX_PATH || whole.chars().any(char::is_control) {
        return bad("it is too long or holds control characters");
    }
    if file.subfolder.starts_with(['/', '\\']) || file.name.starts_with(['/', '\\']) {
        return bad("it is an absolute path");
    }
    let parts: Vec<_> = whole.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") || parts.first().is_some_and(|first| first.ends_with(':')) {
        return bad("it leads out of its folder");
    }
    match parts.split_last() {
        Some((name, folders)) if name.len() <= MAX_NAME && !whole.ends_with('/') => {
            Ok(UploadRef { kind: file.kind.clone(), subfolder: folders.join("/"), name: (*name).to_owned() })
        }
        _ => bad("it is empty or too long"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(kind: &str, subfolder: &str, name: &str) -> UploadRef {
        UploadRef { kind: kind.into(), subfolder: subfolder.into(), name: name.into() }
    }

    #[test]
    fn one_file_has_one_name() {
        let expected = Ok(file("input", "a/b", "c.png"));
        for (subfolder, name) in
            [("a/b", "c.png"), ("a", "b/c.png"), ("", "a/b/c.png"), ("a/b/", "./c.png"), ("a\\b", "c.png")]
        {
            assert_eq!(checked(&file("input", subfolder, name)), expected);
        }
    }

    #[test]
    fn hostile_names_are_refused() {
        for (kind, subfolder, name) in [
            ("input", "", ""),
            ("input", "a", "/"),
            ("input", "", ".."),
            ("input", "", "../../etc/passwd"),
            ("input", "..\\..", "x"),
            ("input", "/etc", "passwd"),
            ("input", "", "/etc/passwd"),
            ("input", "", "C:\\windows\\x"),
            ("input", "", "a\0b"),
            ("input", "", "a\r\nb"),
            ("input", "", &"x".repeat(256)),
            ("input", &"x/".repeat(600), "x"),
            ("models", "", "x"),
            ("", "", "x"),
        ] {
            assert!(checked(&file(kind, subfolder, name)).is_err(), "{kind:?} {subfolder:?} {name:?}");
        }
    }
}
