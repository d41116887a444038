//! What passes through, and what must not.

use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::sync::mpsc::unbounded_channel;

use super::*;

fn request(method: &str, path: &str, body: Body) -> Request<Body> {
    Request::builder().method(method).uri(path).body(body).unwrap()
}

async fn send(pool: &Arc<pool::Pool>, request: Request<Body>) -> Result<(u16, String), String> {
    let answer = forward::forward(pool, request).await.map_err(|error| error.to_string())?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.map_err(|error| error.to_string())?;
    Ok((status, String::from_utf8(body.to_bytes().to_vec()).unwrap()))
}

#[tokio::test]
async fn paths_and_headers_arrive_as_the_instance_wants_them() {
    let (seen, mut requests) = unbounded_channel();
    let url = scripted(move |_, mut stream| {
        let seen = seen.clone();
        async move {
            seen.send(read_request(&mut stream).await).unwrap();
            reply(
                &mut stream,
                "HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nX-End: 2\r\nContent-Length: 0\r\n\r\n",
            )
            .await;
        }
    })
    .await;
    let host = url.authority();
    let mut request =
        request("POST", "http://front/userdata/workflows%2Fa.json?x=%20&y=é", Body::from("body"));
    for (name, value) in [
        ("host", "front"),
        ("origin", "http://front"),
        ("sec-fetch-site", "same-origin"),
        ("connection", "close, X-Secret-Hop, Host, Content-Length"),
        ("x-secret-hop", "1"),
        ("content-length", "4"),
        ("te", "trailers"),
        ("upgrade", "h2c"),
        ("expect", "100-continue"),
        ("comfy-user", "me"),
    ] {
        request.headers_mut().append(name, value.parse().unwrap());
    }
    let answer = forward::forward(&pool(url), request).await.unwrap();
    let seen = requests.recv().await.unwrap().to_lowercase();
    let (head, body) = seen.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<_> = head.lines().collect();
    lines[1..].sort_unstable();
    let host = format!("host: {host}");
    assert_eq!(
        lines,
        [
            "post /userdata/workflows%2fa.json?x=%20&y=é http/1.1",
            "comfy-user: me",
            "content-length: 4",
            &host
        ]
    );
    assert_eq!(body, "body");
    assert!(answer.headers().get("x-hop").is_none() && answer.headers().get("x-end").is_some());
}

#[tokio::test]
async fn connections_are_kept() {
    let count = Arc::new(AtomicUsize::new(0));
    let accepted = count.clone();
    let url = scripted(move |_, mut stream| {
        accepted.fetch_add(1, Ordering::Relaxed);
        async move {
            while !read_request(&mut stream).await.is_empty() {
                reply(
                    &mut stream,
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
                )
                .await;
            }
        }
    })
    .await;
    let pool = pool(url);
    for _ in 0..5 {
        assert_eq!(send(&pool, request("GET", "/", Body::empty())).await, Ok((200, "hi".into())));
        assert_eq!(send(&pool, request("POST", "/", Body::from("x"))).await, Ok((200, "hi".into())));
    }
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

/// Answers one request on each connection, and closes when it has read another.
async fn forgetful() -> Url {
    scripted(move |count, mut stream| async move {
        read_request(&mut stream).await;
        reply(&mut stream, &ok(&count.to_string())).await;
        read_request(&mut stream).await;
    })
    .await
}

#[tokio::test]
async fn a_get_that_met_a_dying_connection_is_sent_again() {
    let pool = pool(forgetful().await);
    assert_eq!(send(&pool, request("GET", "/", Body::empty())).await, Ok((200, "0".into())));
    assert_eq!(send(&pool, request("GET", "/", Body::empty())).await, Ok((200, "1".into())));
}

/// It answers when it has read the head, and closes over what it has not read.
#[tokio::test]
async fn a_hasty_instance_has_the_last_word() {
    let url = scripted(|_, mut stream| async move {
        let mut some = [0; 16];
        stream.read_exact(&mut some).await.unwrap();
        reply(&mut stream, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nno!").await;
    })
    .await;
    let pool = pool(url);
    for _ in 0..50 {
        let body = Body::from(vec![b'x'; 8 << 20]);
        assert_eq!(send(&pool, request("PUT", "/", body)).await, Ok((413, "no!".into())));
    }
}

#[tokio::test]
async fn a_post_that_was_written_is_never_sent_again() {
    let pool = pool(forgetful().await);
    assert_eq!(send(&pool, request("GET", "/", Body::empty())).await, Ok((200, "0".into())));
    let outcome = send(&pool, request("POST", "/", Body::from("x"))).await;
    assert!(outcome.is_err(), "{outcome:?}");
}

/// The post notices before it writes a byte, and goes over a new connection.
#[tokio::test]
async fn a_post_over_a_dead_connection_is_sent_over_another() {
    let (answered, mut closing) = unbounded_channel();
    let url = scripted(move |count, mut stream| {
        let answered = answered.clone();
        async move {
            read_request(&mut stream).await;
            reply(&mut stream, &ok(&count.to_string())).await;
            drop(stream);
            answered.send(()).unwrap();
        }
    })
    .await;
    let pool = pool(url);
    for count in 0..20 {
        assert_eq!(send(&pool, request("POST", "/", Body::from("x"))).await, Ok((200, count.to_string())));
        closing.recv().await.unwrap();
    }
}

#[tokio::test]
async fn a_connection_that_the_instance_closed_is_not_used() {
    let (closed, mut closing) = unbounded_channel();
    let url = scripted(move |count, mut stream| {
        let closed = closed.clone();
        async move {
            read_request(&mut stream).await;
            reply(&mut stream, &ok(&count.to_string())).await;
            stream.shutdown().await.unwrap();
            // The other side has closed too, so it knows.
            while !read_request(&mut stream).await.is_empty() {}
            closed.send(()).unwrap();
        }
    })
    .await;
    let pool = pool(url);
    assert_eq!(send(&pool, request("GET", "/", Body::empty())).await, Ok((200, "0".into())));
    // Sweeping is what notices it; a POST over the dead connection would have failed.
    while closing.try_recv().is_err() {
        pool.sweep();
        tokio::task::yield_now().await;
    }
    assert_eq!(send(&pool, request("POST", "/", Body::from("x"))).await, Ok((200, "1".into())));
}

#[tokio::test]
async fn a_body_that_breaks_off_never_looks_whole() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbeginning",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nbeginning\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nbegin",
    ] {
        let url = scripted(move |_, mut stream| async move {
            read_request(&mut stream).await;
            reply(&mut stream, answer).await;
        })
        .await;
        let outcome = send(&pool(url), request("GET", "/", Body::empty())).await;
        assert!(outcome.is_err(), "{answer:?}: {outcome:?}");
    }
}

#[tokio::test]
async fn an_instance_that_cannot_be_reached_is_told_apart() {
    let outcome = forward::forward(&pool(nowhere().await), request("GET", "/", Body::empty())).await;
    assert!(matches!(outcome, Err(ForwardError::Connect(ConnectError::Refused))));
}

/// A front that only forwards.
async fn front(pool: Arc<pool::Pool>) -> TcpStream {
    let app = axum::Router::new().fallback(move |request: Request<Body>| {
        let pool = pool.clone();
        async move { forward::forward(&pool, request).await.unwrap() }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (served, _) = listener.accept().await.unwrap();
    let connection = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(served), TowerToHyperService::new(app));
    tasks::spawn("front", OnError::Log, connection.with_upgrades());
    client
}

const UPGRADE: &str = "GET /custom/ws HTTP/1.1\r\nHost: front\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

#[tokio::test]
async fn a_websocket_is_tunnelled_with_its_first_bytes() {
    let url = scripted(|_, mut stream| async move {
        let request = read_request(&mut stream).await.to_lowercase();
        assert!(request.contains("upgrade: websocket") && request.contains("sec-websocket-key"), "{request}");
        let head =
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly";
        reply(&mut stream, head).await;
        let mut word = [0; 4];
        stream.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"ping");
        reply(&mut stream, "pong").await;
    })
    .await;
    let mut client = front(pool(url)).await;
    reply(&mut client, UPGRADE).await;
    let mut seen = Vec::new();
    while !seen.ends_with(b"early") {
        assert_ne!(client.read_buf(&mut seen).await.unwrap(), 0, "{}", String::from_utf8_lossy(&seen));
    }
    assert!(seen.starts_with(b"HTTP/1.1 101 "));
    reply(&mut client, "ping").await;
    let mut rest = String::new();
    client.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "pong");
}

#[tokio::test]
async fn without_a_101_nothing_is_tunnelled() {
    let url = scripted(|_, mut stream| async move {
        read_request(&mut stream).await;
        reply(&mut stream, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
        assert_eq!(read_request(&mut stream).await, "", "more came after the refusal");
    })
    .await;
    let mut client = front(pool(url)).await;
    reply(&mut client, UPGRADE).await;
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\nno") {
        assert_ne!(client.read_buf(&mut seen).await.unwrap(), 0);
    }
    assert!(seen.starts_with(b"HTTP/1.1 403 "));
}
