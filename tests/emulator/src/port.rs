//! A port of 127.0.0.1 that stays its owner's while nothing listens there.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket};

/// Bound and not listening: connections are refused, the kernel gives the port to nobody who asks for any port, and who
/// asks for it by number, with `SO_REUSEADDR` as servers do, may listen there.
#[derive(Debug)]
pub struct HeldPort {
    _socket: TcpSocket,
    addr: SocketAddr,
}

impl HeldPort {
    /// 0 holds any that is free.
    ///
    /// # Errors
    /// When somebody listens there.
    pub fn new(port: u16) -> io::Result<Self> {
        let socket = bind((Ipv4Addr::LOCALHOST, port).into())?;
        let addr = socket.local_addr()?;
        Ok(Self { _socket: socket, addr })
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// # Errors
    /// When somebody listens there already.
    pub fn listen(&self) -> io::Result<TcpListener> {
        bind(self.addr)?.listen(1024)
    }
}

fn bind(addr: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpStream;

    #[tokio::test]
    async fn a_held_port_refuses_connections_and_listens_again_and_again() {
        let port = HeldPort::new(0).expect("a port");
        for _ in 0..3 {
            TcpStream::connect(port.addr()).await.expect_err("nothing listens");
            let listener = port.listen().expect("is ours");
            port.listen().expect_err("one listens already");
            let (client, served) = tokio::join!(TcpStream::connect(port.addr()), listener.accept());
            // Closed here first: what remains of the connection must not keep the port.
            drop((served.expect("a connection"), client.expect("a connection")));
        }
    }

    #[tokio::test]
    async fn a_port_where_another_listens_cannot_be_held() {
        let other = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = other.local_addr().expect("an address").port();
        let error = HeldPort::new(port).expect_err("is taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
