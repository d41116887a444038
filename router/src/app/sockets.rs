//! Sockets that a supervisor opened before this process was (systemd's socket activation). While the router is started
//! again, connections wait in them instead of being refused.

use std::net::{SocketAddr, TcpListener};

use anyhow::Context;
use listenfd::ListenFd;

use crate::config::Config;

/// Those that were given; the others are for the listeners to open.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    pub(super) clients: Option<TcpListener>,
    pub(super) admin: Option<TcpListener>,
}

impl Sockets {
    /// The first is for clients, the second for operators, as in `examples/deployments/comfy-router.socket`.
    pub(super) fn given(config: &Config) -> anyhow::Result<Self> {
        let mut given = ListenFd::from_env();
        let mut take = |at, key, configured| {
            let socket = if at < given.len() { given.take_tcp_listener(at) } else { Ok(None) };
            let socket = socket.with_context(|| format!("the supervisor's socket for `{key}`"))?;
            socket.map(|socket| as_configured(socket, key, configured)).transpose()
        };
        Ok(Self { clients: take(0, "listen", config.listen)?, admin: take(1, "admin", config.admin)? })
    }
}

/// The rules about addresses and keys were checked on the configured address, so no other will do.
fn as_configured(socket: TcpListener, key: &str, configured: SocketAddr) -> anyhow::Result<TcpListener> {
    let address = socket.local_addr()?;
    anyhow::ensure!(
        address == configured,
        "the supervisor's socket for `{key}` listens on {address}, the configuration says {configured}; make them the same"
    );
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_must_be_the_configured_one() {
        let open = || TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = open();
        let own = socket.local_addr().unwrap();
        assert_eq!(as_configured(socket, "listen", own).unwrap().local_addr().unwrap(), own);
        let other = as_configured(open(), "listen", own).unwrap_err().to_string();
        assert!(other.contains("`listen`") && other.contains(&own.to_string()), "{other}");
    }
}
