//! Requests that go over a connection without hyper's client, and answers for which it is called in after all.

use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::BodyExt;
use hyper::Method;

use super::*;
use crate::fleet::plain::Plain;

/// An instance that writes `pieces` for each request, one segment after the other, and how many connections it got.
async fn answering(pieces: &'static [&'static str]) -> (Arc<pool::Pool>, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let accepted = count.clone();
    let url = scripted(move |_, mut stream| {
        accepted.fetch_add(1, Ordering::Relaxed);
        stream.set_nodelay(true).unwrap();
        async move {
            while !read_request(&mut stream).await.is_empty() {
                for piece in pieces {
                    reply(&mut stream, piece).await;
                    // Each is to arrive by itself.
                    for _ in 0..10 {
                        tokio::task::yield_now().await;
                    }
                }
            }
        }
    })
    .await;
    (pool(url), count)
}

async fn ask(pool: &Arc<pool::Pool>, method: Method) -> Response<Bytes> {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = method;
    let (head, body) = forward::forward(pool, request).await.unwrap().into_parts();
    Response::from_parts(head, body.collect().await.unwrap().to_bytes())
}

#[tokio::test]
async fn however_an_answer_is_framed_it_arrives_and_its_connection_serves_the_next() {
    let framings: [&[&str]; 9] = [
        &["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"],
        &["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "hel", "lo"],
        &["HTTP/1.1 200 OK\r\nContent-", "Length: 5\r\n\r\nhello"],
        &["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"],
        &[
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "3\r\nhel\r\n2\r",
            "\nlo\r\n0\r\n",
            "\r\n",
        ],
        &["HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"],
        &["HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"],
        &["HTTP/1.1 200 Fine\r\nContent-Length: 5\r\n\r\n", "hello"],
        &["HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello"],
    ];
    for framing in framings {
        let (pool, connections) = answering(framing).await;
        for _ in 0..4 {
            let answer = ask(&pool, Method::GET).await;
            assert_eq!(
                (answer.status().as_u16(), answer.body().as_ref()),
                (200, &b"hello"[..]),
                "{framing:?}"
            );
            assert!(!answer.headers().contains_key("transfer-encoding"));
        }
        assert_eq!(connections.load(Ordering::Relaxed), 1, "{framing:?}");
    }
}

#[tokio::test]
async fn answers_without_a_body_are_known_by_method_and_status() {
    let (pool, connections) = answering(&["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"]).await;
    for _ in 0..3 {
        let answer = ask(&pool, Method::HEAD).await;
        assert_eq!((answer.headers()["content-length"].as_bytes(), answer.body().len()), (&b"5"[..], 0));
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
    for head in [
        &["HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 9\r\n\r\n"],
        &["HTTP/1.1 204 No Content\r\nETag: \"x\"\r\n\r\n"],
    ] {
        let (pool, connections) = answering(head).await;
        for _ in 0..3 {
            let answer = ask(&pool, Method::GET).await;
            assert_eq!((answer.headers()["etag"].as_bytes(), answer.body().len()), (&b"\"x\""[..], 0));
        }
        assert_eq!(connections.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test]
async fn a_connection_whose_end_was_announced_is_not_used_again() {
    let (pool, connections) =
        answering(&["HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n", "hi"]).await;
    for count in 1..4 {
        assert_eq!(ask(&pool, Method::GET).await.body(), "hi");
        assert_eq!(connections.load(Ordering::Relaxed), count);
    }
}

/// Else it would be taken for the answer to somebody else's request.
#[tokio::test]
async fn what_is_sent_beyond_an_answer_is_nobodys() {
    for pieces in [
        &["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstale"]
            [..],
        &[
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
            "hiHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstale",
        ],
        &["HTTP/1.1 204 No Content\r\n\r\nstale"],
    ] {
        let (pool, connections) = answering(pieces).await;
        for count in 1..4 {
            assert_ne!(ask(&pool, Method::GET).await.body(), "stale");
            assert_eq!(connections.load(Ordering::Relaxed), count, "{pieces:?}");
        }
    }
}

/// What comes between two requests is the answer to none.
#[tokio::test]
async fn what_nobody_asked_for_is_noticed_before_a_request_is_sent() {
    let url = scripted(|_, mut stream| async move {
        reply(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstale").await;
        assert_eq!(read_request(&mut stream).await, "", "a request came after all");
    })
    .await;
    let mut line = line::Line::new(conn::connect(&url, Duration::from_secs(5)).await.unwrap());
    while line.is_quiet() {
        tokio::task::yield_now().await;
    }
    let request = Request::get("/").body(Body::empty()).unwrap();
    let plain = Plain::of(&request, &hyper::header::HeaderValue::from_static("x")).unwrap();
    assert!(line.exchange(&plain).await.is_err());
}

#[tokio::test]
async fn a_large_body_arrives_whole() {
    const BYTES: usize = 5 << 20;
    let url = scripted(|_, mut stream| async move {
        while !read_request(&mut stream).await.is_empty() {
            reply(&mut stream, &format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n")).await;
            let body: String = (0..BYTES).map(|at| char::from(b'a' + (at % 23) as u8)).collect();
            reply(&mut stream, &body).await;
        }
    })
    .await;
    let pool = pool(url);
    for _ in 0..2 {
        let answer = ask(&pool, Method::GET).await;
        assert_eq!(answer.body().len(), BYTES);
        assert!(answer.body().iter().enumerate().all(|(at, byte)| *byte == b'a' + (at % 23) as u8));
    }
}
