//! Why a component may not serve, told to its author.

use crate::model::decision::Hook;

/// The version of `comfy-router:policy` that this router has. Everything of the same 0.1 up to it is taken.
pub(crate) const WIT_VERSION: &str = "0.1.1";

/// A component was refused; the one that served before still does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    #[error("cannot read {path}: {message}")]
    Read { path: String, message: String },
    #[error("it is larger than {max} bytes, which no component may be")]
    TooLarge { max: u64 },
    #[error("the file is not WebAssembly: it does not begin with \\0asm")]
    NotWasm,
    #[error(
        "the file is a core module, not a component: turn it into one with `wasm-tools component new in.wasm -o out.wasm`"
    )]
    CoreModule,
    #[error("the component does not compile: {0}")]
    Compile(String),
    #[error("the component was not compiled within {0} s (policy.limits.compile_s)")]
    CompileTimeout(u64),
    #[error("it imports {import}, and a policy gets no WASI: {advice}")]
    Wasi { import: String, advice: &'static str },
    #[error("it imports {0}, which this router does not offer")]
    UnknownImport(String),
    #[error(
        "it was built for {interface}, and this router offers {WIT_VERSION}: update the router, or build the policy with the wit folder of this router's version"
    )]
    Newer { interface: String },
    #[error("it exports no hook of comfy-router:policy@0.1.1; its exports are {0}")]
    NoHooks(String),
    #[error("it cannot be linked: {0}")]
    Link(String),
    #[error("it cannot be instantiated: {0}")]
    Instantiate(String),
    #[error("its export {interface} is not as comfy-router:policy@0.1.1 has it: {message}")]
    Shape { interface: &'static str, message: String },
    #[error("it refuses its settings: {0}")]
    Settings(String),
    #[error("{} failed with {reason} on sample views: {message}", .hook.as_str())]
    Gate { hook: Hook, reason: &'static str, message: String },
    #[error("another component is being loaded")]
    Busy,
    #[error("the policy host has stopped")]
    Stopped,
}

impl LoadError {
    /// One word for metrics and the status.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Read { .. } => "read",
            Self::TooLarge { .. } => "too_large",
            Self::NotWasm => "not_wasm",
            Self::CoreModule => "core_module",
            Self::Compile(_) => "compile",
            Self::CompileTimeout(_) => "compile_timeout",
            Self::Wasi { .. } => "wasi",
            Self::UnknownImport(_) => "unknown_import",
            Self::Newer { .. } => "newer",
            Self::NoHooks(_) => "no_hooks",
            Self::Link(_) => "link",
            Self::Instantiate(_) => "instantiate",
            Self::Shape { .. } => "shape",
            Self::Settings(_) => "settings",
            Self::Gate { .. } => "gate",
            Self::Busy => "busy",
            Self::Stopped => "stopped",
        }
    }
}

/// The policy's threads or engine could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot start the WebAssembly engine: {0}")]
    Engine(String),
    #[error("cannot start the thread {name}: {source}")]
    Thread { name: &'static str, source: std::io::Error },
    #[error("{}", .0.join("; "))]
    Config(Vec<String>),
}
