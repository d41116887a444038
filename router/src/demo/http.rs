//! Plain HTTP for the demo's clients: whole bodies, a deadline, an error that says what was asked.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(20);
const MAX_BYTES: usize = 64 << 20;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
    address: SocketAddr,
    /// Sent as `Comfy-User`; empty: not sent.
    user: &'static str,
}

#[derive(Debug, thiserror::Error)]
#[error("{method} {path}: {problem}")]
pub(super) struct HttpError {
    method: Method,
    path: String,
    problem: String,
}

impl Http {
    pub(super) fn new(address: SocketAddr, user: &'static str) -> Self {
        Self { client: Client::builder(TokioExecutor::new()).build_http(), address, user }
    }

    pub(super) async fn get(&self, path: &str) -> Result<Bytes, HttpError> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    pub(super) async fn get_json(&self, path: &str) -> Result<Value, HttpError> {
        self.parse(Method::GET, path, &self.get(path).await?)
    }

    pub(super) async fn post_json(&self, path: &str, body: &Value) -> Result<Value, HttpError> {
        let answer = self.ask(Method::POST, path, body.to_string().into()).await?;
        self.parse(Method::POST, path, &answer)
    }

    fn parse(&self, method: Method, path: &str, body: &[u8]) -> Result<Value, HttpError> {
        serde_json::from_slice(body).map_err(|error| failed(&method, path, error))
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, HttpError> {
        let mut request = Request::builder().method(&method).uri(format!("http://{}{path}", self.address));
        if !self.user.is_empty() {
            request = request.header("comfy-user", self.user);
        }
        let request = request.body(Full::new(body)).map_err(|error| failed(&method, path, error))?;
        let asking = async {
            let answer = self.client.request(request).await.map_err(|error| failed(&method, path, error))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await;
            let body = body.map_err(|error| failed(&method, path, error))?.to_bytes();
            match status {
                StatusCode::OK => Ok(body),
                status => Err(failed(&method, path, format!("{status} {}", String::from_utf8_lossy(&body)))),
            }
        };
        let late = |_| Err(failed(&method, path, "no answer in time"));
        tokio::time::timeout(DEADLINE, asking).await.unwrap_or_else(late)
    }
}

fn failed(method: &Method, path: &str, problem: impl ToString) -> HttpError {
    let mut problem = problem.to_string();
    if let Some((end, _)) = problem.char_indices().nth(300) {
        problem.truncate(end);
    }
    HttpError { method: method.clone(), path: path.to_owned(), problem }
}
