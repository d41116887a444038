//! Which failures leave a prompt certainly unsent.

use super::*;

async fn submit_to(url: Url, patience: Duration) -> Result<Submitted, SubmitError> {
    submit::submit(&pool(url), Bytes::from_static(b"{\"prompt\":{}}"), patience).await
}

/// The outcome when an instance answers with `answer` and then closes.
async fn answered(answer: String) -> Result<Submitted, SubmitError> {
    let url = scripted(move |_, mut stream| {
        let answer = answer.clone();
        async move {
            let request = read_request(&mut stream).await;
            assert!(request.starts_with("POST /prompt HTTP/1.1\r\n"), "{request}");
            reply(&mut stream, &answer).await;
        }
    })
    .await;
    submit_to(url, Duration::from_secs(20)).await
}

fn with_status(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn a_taken_prompt_is_told_with_its_number() {
    let taken = answered(ok(r#"{"prompt_id":"p","number":7,"node_errors":{"9":{}}}"#)).await.unwrap();
    assert_eq!(taken, Submitted { prompt_id: "p".into(), number: 7.0, node_errors: r#"{"9":{}}"#.into() });
}

#[tokio::test]
async fn where_nothing_listens_it_is_refused() {
    let outcome = submit_to(nowhere().await, Duration::from_secs(20)).await;
    assert_eq!(outcome, Err(SubmitError::Refused("connection refused".into())));
}

#[tokio::test]
async fn what_an_instance_says_before_it_queues_is_a_refusal() {
    for status in ["500 Internal Server Error", "503 Service Unavailable", "404 Not Found", "302 Found"] {
        let outcome = answered(with_status(status, "no")).await;
        assert!(matches!(&outcome, Err(SubmitError::Refused(_))), "{status}: {outcome:?}");
    }
}

#[tokio::test]
async fn an_invalid_prompt_keeps_the_instances_words() {
    let body = r#"{"error":{"type":"prompt_no_outputs"},"node_errors":{}}"#;
    let outcome = answered(with_status("400 Bad Request", body)).await;
    assert_eq!(outcome, Err(SubmitError::Invalid { status: 400, body: Bytes::from_static(body.as_bytes()) }));
}

#[tokio::test]
async fn once_it_was_written_silence_is_unknown() {
    for answer in [
        String::new(),
        "HTTP/1.1 200 OK\r\nContent-Le".into(),
        "HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{\"prompt_id\":".into(),
        ok("not json"),
        ok("{}"),
        "nonsense\r\n\r\n".into(),
        with_status("502 Bad Gateway", ""),
        with_status("504 Gateway Timeout", ""),
    ] {
        let outcome = answered(answer.clone()).await;
        assert!(matches!(&outcome, Err(SubmitError::Unknown(_))), "{answer:?}: {outcome:?}");
    }
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_unknown() {
    let url = scripted(|_, mut stream| async move {
        read_request(&mut stream).await;
        std::future::pending().await
    })
    .await;
    let outcome = submit_to(url, Duration::from_millis(50)).await;
    assert!(matches!(&outcome, Err(SubmitError::Unknown(_))), "{outcome:?}");
}

#[tokio::test]
async fn a_large_prompt_arrives_whole() {
    let url = scripted(|_, mut stream| async move {
        let request = read_request(&mut stream).await;
        let body = request.split_once("\r\n\r\n").map_or(0, |(_, body)| body.len());
        reply(&mut stream, &ok(&format!(r#"{{"prompt_id":"{body}"}}"#))).await;
    })
    .await;
    let body = Bytes::from(vec![b'x'; 3 << 20]);
    let taken = submit::submit(&pool(url), body, Duration::from_secs(20)).await.unwrap();
    assert_eq!(taken.prompt_id, (3 << 20).to_string());
}
