//! What to tell the author of a component that imports WASI: the flag that removes it, for the compiler it came from.

use memchr::memmem;

/// The words that a compiler leaves in what it writes, and what its author should do. The first that matches counts, because
/// the interpreters of JavaScript and Python are partly compiled from Rust.
const ADVICE: [(&[&str], &str); 7] = [
    (
        &["componentize-py", "libpython3"],
        "it is Python: add -s to `componentize-py componentize`, which replaces the interpreter's WASI by traps",
    ),
    (
        &["StarlingMonkey", "SpiderMonkey"],
        "it is JavaScript on StarlingMonkey: build it with `componentize-qjs --stub-wasi --sync` instead, or add `-d stdio -d random \
         -d clocks -d http -d fetch-event` to componentize-js",
    ),
    (
        &["quickjs", "QuickJS"],
        "it is JavaScript on QuickJS: add --stub-wasi to `componentize-qjs` (with jco: --backend-qjs-stub-wasi)",
    ),
    (&["TinyGo"], "it is TinyGo: build it with Go and the adapter of `comfy-router policy new --lang go`"),
    (
        &["Go cmd/compile"],
        "it is Go: give `comfy-router policy component` the adapter of `comfy-router policy new --lang go` \
         (--adapter wasi_snapshot_preview1=adapter.wat); under the official one a Go guest traps after some hundred calls",
    ),
    (
        &["/rustc/", "wit-bindgen-rust"],
        "it is Rust: build it with --target wasm32-unknown-unknown instead of wasm32-wasip2 or wasm32-wasip1",
    ),
    (
        &["wit-bindgen-c", "clang", "wasi-libc"],
        "it is C: leave out what opens files, prints, or asks for the time, the environment or randomness, and build it as a reactor \
         (-mexec-model=reactor) without an adapter",
    ),
];

/// When no word is found.
const ANY: &str =
    "`comfy-router policy new` shows for rust, typescript, python, go and c how to build without it";

pub(super) fn advice(component: &[u8]) -> &'static str {
    let says = |word: &&str| memmem::find(component, word.as_bytes()).is_some();
    ADVICE.iter().find(|(words, _)| words.iter().any(&says)).map_or(ANY, |(_, advice)| advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_compiler_has_advice_of_its_own() {
        for (words, expected) in [
            ("libpython3.14 /rustc/", "componentize-py componentize"),
            ("quickjs-ng /rustc/", "--stub-wasi"),
            ("StarlingMonkey clang", "-d fetch-event"),
            ("Go cmd/compile go1.27", "adapter.wat"),
            ("TinyGo 0.40", "Go and the adapter"),
            ("/rustc/59807616e/library", "wasm32-unknown-unknown"),
            ("wit-bindgen-c 0.61", "-mexec-model=reactor"),
            ("nothing known", "policy new"),
        ] {
            let advice = advice(words.as_bytes());
            assert!(advice.contains(expected), "{words}: {advice}");
        }
    }
}
