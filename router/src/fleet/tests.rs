//! The fleet against scripted sockets and against emulated instances.

mod forwarding;
mod plain;
mod submitting;
mod watching;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::*;

impl Audience for mpsc::Sender<FleetEvent> {
    async fn tell(&self, event: FleetEvent) -> Result<(), Gone> {
        self.send(event).await.map_err(|_| Gone)
    }
}

/// A fleet that is watched, and what is told of it.
fn start(config: &config::Fleet, instances: &[config::Instance]) -> (Handle, mpsc::Receiver<FleetEvent>) {
    let (service, handle) = Service::new(config, instances, "router");
    let (events, told) = mpsc::channel(4_096);
    service.start(&events);
    (handle, told)
}

/// A server that handles its connections, counted from 0, as `script` says.
async fn scripted<F, Done>(script: F) -> Url
where
    F: Fn(usize, TcpStream) -> Done + Send + 'static,
    Done: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::new("127.0.0.1", listener.local_addr().unwrap().port());
    tasks::spawn("script", OnError::Log, async move {
        for count in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            tasks::spawn("scripted connection", OnError::Log, script(count, stream));
        }
    });
    url
}

/// An address where nothing listens.
async fn nowhere() -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Url::new("127.0.0.1", listener.local_addr().unwrap().port())
}

/// Reads one request, head and body; empty when the connection ended.
async fn read_request(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    loop {
        let shown = String::from_utf8_lossy(&text);
        if let Some((head, body)) = shown.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return shown.into_owned();
            }
        }
        if stream.read_buf(&mut text).await.unwrap_or(0) == 0 {
            return String::new();
        }
    }
}

async fn reply(stream: &mut TcpStream, text: &str) {
    let _ = stream.write_all(text.as_bytes()).await;
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn pool(url: Url) -> Arc<pool::Pool> {
    Arc::new(pool::Pool::new(url, Duration::from_secs(5), 8))
}
