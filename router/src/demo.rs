//! The demo: to be replaced by the real one within the hour.

/// What to show.
#[derive(Debug, Clone)]
pub struct Options {
    pub stay: bool,
    pub prompts: u32,
    pub listen: std::net::SocketAddr,
    pub admin: std::net::SocketAddr,
}

pub fn run(_: &Options) -> anyhow::Result<()> {
    anyhow::bail!("not here yet")
}
