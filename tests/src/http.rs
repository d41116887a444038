//! A plain HTTP client: answers as they are.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request, Response, StatusCode, body::Incoming};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;

use crate::within;

/// Requests to one server.
#[derive(Debug, Clone)]
pub struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
    base: String,
    /// Shown with every request.
    key: Option<String>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// # Panics
    /// When the body is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{} is not JSON ({error}): {}", self.status, self.text()))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// This answer, if it is a 200.
    ///
    /// # Panics
    /// When it is another one.
    pub fn ok(self) -> Self {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text());
        self
    }
}

impl Http {
    /// `base` is `http://HOST:PORT`.
    pub fn new(base: &str) -> Self {
        Self { client: Client::builder(TokioExecutor::new()).build_http(), base: base.to_owned(), key: None }
    }

    /// With `Authorization: Bearer` on every request.
    #[must_use]
    pub fn showing(self, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..self }
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    /// # Errors
    /// When the server cannot be reached or breaks off.
    pub async fn try_send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Answer> {
        let whole = async {
            let (parts, body) = self.begin(method, path, headers, body).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok(Answer { status: parts.status, headers: parts.headers, body })
        };
        within(path, whole).await
    }

    /// Sends and gives the answer as soon as its head is there.
    ///
    /// # Errors
    /// When the server cannot be reached or breaks off.
    pub async fn begin(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Response<Incoming>> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        Ok(self.client.request(request.body(Full::new(body.into()))?).await?)
    }

    pub async fn send(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Answer {
        self.try_send(method, path, &[], body).await.unwrap_or_else(|error| panic!("{path}: {error:#}"))
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, Bytes::new()).await
    }

    pub async fn get_json(&self, path: &str) -> Value {
        self.get(path).await.ok().json()
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, body.to_string()).await
    }

    /// `POST /upload/image` of one file.
    pub async fn upload(&self, name: &str, content: &[u8]) -> Answer {
        self.upload_with(name, content, &[]).await
    }

    /// The same with further fields of the form.
    pub async fn upload_with(&self, name: &str, content: &[u8], fields: &[(&str, &str)]) -> Answer {
        self.upload_to("/upload/image", name, content, fields).await
    }

    /// The same to another path.
    pub async fn upload_to(&self, path: &str, name: &str, content: &[u8], fields: &[(&str, &str)]) -> Answer {
        self.upload_as(&[], path, name, content, fields).await
    }

    /// The same with headers.
    pub async fn upload_as(
        &self,
        headers: &[(&str, &str)],
        path: &str,
        name: &str,
        content: &[u8],
        fields: &[(&str, &str)],
    ) -> Answer {
        let mut body = Vec::new();
        for (field, value) in fields {
            let part =
                format!("--xyz\r\nContent-Disposition: form-data; name=\"{field}\"\r\n\r\n{value}\r\n");
            body.extend_from_slice(part.as_bytes());
        }
        let head = format!(
            "--xyz\r\nContent-Disposition: form-data; name=\"image\"; filename=\"{name}\"\r\n\
             Content-Type: image/png\r\n\r\n"
        );
        body.extend_from_slice(&[head.as_bytes(), content, b"\r\n--xyz--\r\n"].concat());
        let form = [("content-type", "multipart/form-data; boundary=xyz")];
        let answer = self.try_send(Method::POST, path, &[&form, headers].concat(), body).await;
        answer.unwrap_or_else(|error| panic!("upload: {error:#}"))
    }
}
