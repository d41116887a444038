//! An emulator in this process: binds, serves life after life, stops when dropped.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::watch};

use crate::{
    config::Config,
    control::{Control, fault::Fault, fault::Moment},
    life::{End, Life, Machine},
    port::HeldPort,
    server, tasks,
};

/// A running emulated ComfyUI. Dropping it closes everything.
#[derive(Debug)]
pub struct Emulator {
    addr: SocketAddr,
    machine: Arc<Machine>,
    wanted: watch::Sender<Wanted>,
    status: watch::Receiver<Status>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// Bring up the life of this number, at least.
    Life(u64),
    Stop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Up(u64),
    Down(u64),
    Stopped,
}

impl Emulator {
    /// Binds 127.0.0.1 and serves.
    ///
    /// # Errors
    /// When the port, the folder or the oracle file cannot be opened.
    pub async fn start(config: Config) -> io::Result<Self> {
        let port = HeldPort::new(config.port)?;
        let (addr, listener) = (port.addr(), port.listen()?);
        let machine = Arc::new(Machine::new(config)?);
        let (wanted, wanted_seen) = watch::channel(Wanted::Life(1));
        let (status_seen, status) = watch::channel(Status::Down(0));
        tasks::spawn(run(Arc::clone(&machine), port, listener, wanted_seen, status_seen));
        let mut emulator = Self { addr, machine, wanted, status };
        emulator.until(|status| status == Status::Up(1)).await;
        Ok(emulator)
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://127.0.0.1:PORT`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub fn control(&self) -> Control {
        Control::new(Arc::clone(&self.machine))
    }

    /// Kills the server: when this returns, connections are gone and the port is closed.
    pub async fn crash(&mut self) {
        self.machine.inject(Fault::Crash { at: Moment::Now });
        self.wait_down().await;
    }

    /// Resolves when the server is down, whoever killed it.
    pub async fn wait_down(&mut self) {
        self.until(|status| !matches!(status, Status::Up(_))).await;
    }

    /// Starts the server again on the same port and folders, with empty queue, history and caches.
    /// Crashes it first when it is up.
    pub async fn restart(&mut self) {
        if matches!(*self.status.borrow(), Status::Up(_)) {
            self.crash().await;
        }
        let Status::Down(last) = *self.status.borrow() else { return };
        self.wanted.send_replace(Wanted::Life(last + 1));
        self.until(|status| {
            matches!(status, Status::Up(number) if number > last) || status == Status::Stopped
        })
        .await;
    }

    /// Closes everything and waits for it.
    pub async fn stop(mut self) {
        self.wanted.send_replace(Wanted::Stop);
        self.until(|status| status == Status::Stopped).await;
    }

    async fn until(&mut self, accept: impl Fn(Status) -> bool) {
        let _ = self.status.wait_for(|status| accept(*status)).await;
    }
}

/// Serves lives one after the other until it is told to stop or the `Emulator` is dropped.
async fn run(
    machine: Arc<Machine>,
    port: HeldPort,
    mut listener: TcpListener,
    mut wanted: watch::Receiver<Wanted>,
    status: watch::Sender<Status>,
) {
    loop {
        let life = Life::begin(&machine);
        let number = life.number;
        status.send_replace(Status::Up(number));
        let end = tokio::select! {
            end = server::serve(&life, listener) => end,
            () = stopped(wanted.clone()) => { life.finish(End::Stopped); End::Stopped }
        };
        life.bury();
        drop(life);
        status.send_replace(Status::Down(number));
        match end {
            End::Stopped => break,
            End::Crashed => {
                let again = |wanted: &Wanted| {
                    *wanted == Wanted::Stop || matches!(wanted, Wanted::Life(n) if *n > number)
                };
                if wanted.wait_for(again).await.map_or(Wanted::Stop, |wanted| *wanted) == Wanted::Stop {
                    break;
                }
            }
            End::Restarting { down_ms } => tokio::time::sleep(Duration::from_millis(down_ms)).await,
        }
        listener = tokio::select! {
            listener = listen_again(&port) => listener,
            () = stopped(wanted.clone()) => break,
        };
    }
    status.send_replace(Status::Stopped);
}

/// A child of this process that is just being started has a copy of the old listener until it becomes another program.
async fn listen_again(port: &HeldPort) -> TcpListener {
    loop {
        match port.listen() {
            Ok(listener) => return listener,
            Err(error) => tracing::warn!(%error, addr = %port.addr(), "cannot listen, trying again"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn stopped(mut wanted: watch::Receiver<Wanted>) {
    let _ = wanted.wait_for(|wanted| *wanted == Wanted::Stop).await;
}
