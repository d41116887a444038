//! What a policy's author needs beside a compiler: the WIT, a project to start from, bindings, and a component made of what
//! the compiler wrote. Everything works without a network; compilers and libraries come from the languages' registries.
//!
//! Called by the router's command line (`comfy-router policy new`, `bindings`, `component`), and by the test that keeps
//! `docs/policies/wit.md` fresh.

pub mod bindings;
pub mod component;
pub mod project;

pub mod reference;
pub mod wit;

use std::fmt;
use std::str::FromStr;

/// A language that policies can be written in with one command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Language {
    Rust,
    TypeScript,
    Python,
    Go,
    C,
}

impl Language {
    pub const ALL: [Self; 5] = [Self::Rust, Self::TypeScript, Self::Python, Self::Go, Self::C];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::TypeScript => "typescript",
            Self::Python => "python",
            Self::Go => "go",
            Self::C => "c",
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Language {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|language| language.as_str() == name)
            .ok_or_else(|| format!("{name} is none of rust, typescript, python, go, c"))
    }
}
