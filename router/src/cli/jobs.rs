//! `jobs list`, `cancel`, `move` and `set`: orders to a running router's admin listener.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Map, Value, json};

use super::arguments::{Jobs, JobsCommand};
use super::print;

const DEADLINE: Duration = Duration::from_secs(30);
const MAX_ANSWER: usize = 16 << 20;

pub(super) fn run(jobs: &Jobs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(obey(&jobs.admin, &jobs.command))
}

async fn obey(admin: &str, command: &JobsCommand) -> anyhow::Result<()> {
    let admin = Admin::new(admin);
    match command {
        JobsCommand::List { limit, offset, json } => {
            let queue = admin.get(&format!("/api/queue?limit={limit}&offset={offset}")).await?;
            print(&if *json { format!("{queue:#}\n") } else { table(&queue, *offset) });
        }
        JobsCommand::Cancel { jobs } => {
            let mut left = Vec::new();
            for job in jobs {
                match admin.send(Method::POST, &format!("{}/cancel", path(job)), &Value::Null).await {
                    Ok(_) => print(&format!("cancelled {job}\n")),
                    Err(error) => left.push(format!("{job}: {error:#}")),
                }
            }
            anyhow::ensure!(left.is_empty(), "not cancelled: {}", left.join("; "));
        }
        JobsCommand::Move { job, front, back, .. } => {
            let place = if *front {
                "front"
            } else if *back {
                "back"
            } else {
                "normal"
            };
            admin.send(Method::PATCH, &path(job), &json!({ "place": place })).await?;
            print(&format!("moved {job} to {place}\n"));
        }
        JobsCommand::Set { job, number, class, priority, policy_priority } => {
            let mut order = Map::new();
            order.extend(number.map(|number| ("number".to_owned(), json!(number))));
            order.extend(class.as_ref().map(|class| ("class".to_owned(), json!(class))));
            order.extend(priority.map(|priority| ("priority".to_owned(), json!(priority))));
            order.extend(policy_priority.then(|| ("priority".to_owned(), Value::Null)));
            let standing = admin.send(Method::PATCH, &path(job), &Value::Object(order)).await?;
            print(&format!(
                "set {job}: number {}, class {}, priority {:.1}\n",
                standing["number"],
                standing["class"].as_str().unwrap_or_default(),
                standing["priority"]["score"].as_f64().unwrap_or_default()
            ));
        }
    }
    Ok(())
}

/// An id may be any text.
fn path(job: &str) -> String {
    let mut path = "/api/jobs/".to_owned();
    for byte in job.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_".contains(&byte) {
            path.push(byte as char);
        } else {
            let _ = write!(path, "%{byte:02X}");
        }
    }
    path
}

fn table(queue: &Value, offset: u32) -> String {
    let jobs = |name: &str| queue[name].as_array().cloned().unwrap_or_default();
    let text = |job: &Value, name: &str| job[name].as_str().unwrap_or("-").to_owned();
    let mut out = format!(
        "{:>7}  {:<36}  {:>9}  {:<11}  {:<16}  {}\n",
        "", "prompt", "number", "class", "tenant", "client"
    );
    let mut line = |mark: String, job: &Value| {
        let _ = writeln!(
            out,
            "{mark:>7}  {:<36}  {:>9}  {:<11}  {:<16}  {}",
            text(job, "prompt_id"),
            job["number"].to_string(),
            text(job, "class"),
            text(job, "tenant"),
            text(job, "client_id")
        );
    };
    jobs("running").iter().for_each(|job| line("runs".to_owned(), job));
    for (at, job) in (u64::from(offset) + 1..).zip(&jobs("pending")) {
        line(at.to_string(), job);
    }
    let waiting = queue["waiting"].as_u64().unwrap_or_default();
    let _ = writeln!(out, "{waiting} waiting");
    out
}

struct Admin {
    client: Client<HttpConnector, Full<Bytes>>,
    base: String,
}

impl Admin {
    fn new(address: &str) -> Self {
        let base = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        Self {
            client: Client::builder(TokioExecutor::new()).build_http(),
            base: base.trim_end_matches('/').to_owned(),
        }
    }

    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.send(Method::GET, path, &Value::Null).await
    }

    async fn send(&self, method: Method, path: &str, body: &Value) -> anyhow::Result<Value> {
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        let request = request.body(Full::new(body)).context("not an address of an admin listener")?;
        let asking = async {
            let answer = self.client.request(request).await;
            let answer = answer.with_context(|| format!("no router answers at {}", self.base))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?.to_bytes();
            anyhow::Ok((status, body))
        };
        let (status, body) = tokio::time::timeout(DEADLINE, asking).await.context("no answer in time")??;
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status != StatusCode::OK {
            match answer["error"]["message"].as_str() {
                Some(message) => bail!("{message}"),
                None => bail!("{} answered {status}", self.base),
            }
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_any_text_are_one_segment_of_a_path() {
        assert_eq!(path("a/b c?é"), "/api/jobs/a%2Fb%20c%3F%C3%A9");
        assert_eq!(path(".."), "/api/jobs/%2E%2E");
    }

    #[test]
    fn the_list_numbers_what_waits_from_the_front_of_the_queue() {
        let job = |id: &str| json!({"prompt_id": id, "number": 3, "class": "batch", "tenant": "ann", "client_id": null});
        let queue = json!({"running": [job("a")], "pending": [job("b")], "waiting": 42});
        let table = table(&queue, 10);
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[1].trim_start().starts_with("runs  a "), "{table}");
        assert!(lines[2].trim_start().starts_with("11  b "), "{table}");
        assert_eq!(lines[3], "42 waiting");
    }
}
