//! `jobs list`, `cancel`, `move` and `set`: orders to a running router's admin listener.

use std::fmt::Write;

use hyper::Method;
use serde_json::{Map, Value, json};

use super::arguments::{Jobs, JobsCommand};
use super::operator::{ask, encoded};
use super::{plain, print};

pub(super) fn run(jobs: &Jobs) -> anyhow::Result<()> {
    let admin = jobs.admin.as_str();
    let send = |method, path: &str, body: &Value| ask(admin, method, path, body.to_string().into_bytes());
    match &jobs.command {
        JobsCommand::List { limit, offset, json } => {
            let path = format!("/api/queue?limit={limit}&offset={offset}");
            let queue = ask(admin, Method::GET, &path, Vec::new())?;
            print(&if *json { format!("{queue:#}\n") } else { table(&queue, *offset) });
        }
        JobsCommand::Cancel { jobs } => {
            let mut left = Vec::new();
            for job in jobs {
                match ask(admin, Method::POST, &format!("{}/cancel", path(job)), Vec::new()) {
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
            send(Method::PATCH, &path(job), &json!({ "place": place }))?;
            print(&format!("moved {job} to {place}\n"));
        }
        JobsCommand::Set { job, number, class, priority, policy_priority } => {
            let mut order = Map::new();
            order.extend(number.map(|number| ("number".to_owned(), json!(number))));
            order.extend(class.as_ref().map(|class| ("class".to_owned(), json!(class))));
            order.extend(priority.map(|priority| ("priority".to_owned(), json!(priority))));
            order.extend(policy_priority.then(|| ("priority".to_owned(), Value::Null)));
            let standing = send(Method::PATCH, &path(job), &Value::Object(order))?;
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
    format!("/api/jobs/{}", encoded(job))
}

fn table(queue: &Value, offset: u32) -> String {
    let jobs = |name: &str| queue[name].as_array().cloned().unwrap_or_default();
    let text = |job: &Value, name: &str| plain(job[name].as_str().unwrap_or("-"));
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

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn what_clients_call_themselves_cannot_speak_to_the_terminal() {
        let job = json!({"prompt_id": "a\u{1b}[2J", "number": 3, "class": "batch", "tenant": "ann\nbob", "client_id": "\u{9b}1m"});
        let table = table(&json!({"running": [job], "pending": [], "waiting": 0}), 0);
        assert_eq!(table.lines().count(), 3, "{table}");
        assert!(!table.contains(|c: char| c.is_control() && c != '\n'), "{table:?}");
    }
}
