//! What probes are told: whether the process works, and whether it should be given work.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use hyper::StatusCode;
use serde_json::json;
use tokio::time::timeout;

use super::{Answer, Parts, answer, shown};
use crate::fleet::{InstanceInfo, State as Health};

/// How long a part may take to answer before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(3);
/// Instances named in a reason; a fleet may be large.
const NAMED: usize = 16;

/// Live: the scheduler answers. Without it nothing moves, and only a new process helps.
pub(super) async fn livez(State(parts): State<Arc<Parts>>) -> Answer {
    let stuck = match timeout(PATIENCE, parts.scheduler.fleet()).await {
        Ok(Ok(_)) => return answer(StatusCode::OK, "text/plain; charset=utf-8", "ok\n"),
        Ok(Err(stopped)) => format!("{stopped}\n"),
        Err(_) => format!("the scheduler has not answered for {} s\n", PATIENCE.as_secs()),
    };
    answer(StatusCode::SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", stuck)
}

/// Ready: a prompt that is posted now would be on disk before its answer, and an instance is there that could run it.
pub(super) async fn readyz(State(parts): State<Arc<Parts>>) -> Answer {
    let instances = parts.fleet.instances();
    let up = instances.iter().filter(|info| info.is_up()).count();
    let draining = parts.drain.is_draining();
    let ledger = match timeout(PATIENCE, parts.ledger.probe()).await {
        Ok(written) => written.err().map(|error| error.to_string()),
        Err(_) => Some(format!("the ledger has not answered for {} s", PATIENCE.as_secs())),
    };
    let reasons: Vec<String> = [
        draining.then(|| "draining: no prompts are taken until the next start".to_owned()),
        ledger.clone(),
        (up == 0).then(|| none_up(&instances)),
    ]
    .into_iter()
    .flatten()
    .collect();
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "ready": reasons.is_empty(),
        "reasons": reasons,
        "draining": draining,
        "instances_up": up,
        "instances": instances.len(),
        "ledger": ledger,
    });
    shown(status, &body)
}

fn none_up(instances: &[InstanceInfo]) -> String {
    let named = |info: &InstanceInfo| match &info.state {
        Health::Down { reason } => format!("{} is down ({reason})", info.id),
        Health::Starting | Health::Up => format!("{} is starting", info.id),
    };
    let mut named: Vec<String> = instances.iter().take(NAMED).map(named).collect();
    if instances.len() > NAMED {
        named.push(format!("and {} more", instances.len() - NAMED));
    }
    format!("no instance is up: {}", named.join(", "))
}
