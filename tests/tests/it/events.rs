//! What each client hears: its own jobs' events, in its form, wherever and whenever it listens.

mod forms;
mod log_lines;
mod returning;
mod slow;
mod whose;

use comfy_router_tests::{Fleet, Message, Router, Serve, Socket, kinds, within};

async fn one() -> (Fleet, Router) {
    over(1).await
}

async fn over(instances: usize) -> (Fleet, Router) {
    let fleet = Fleet::of(instances).await;
    let router = Serve::over(fleet.instances()).start().await;
    (fleet, router)
}

/// Everything up to the end of this prompt.
async fn until_end(socket: &mut Socket, prompt_id: &str) -> Vec<Message> {
    let mut heard = Vec::new();
    within("the end of the prompt", async {
        loop {
            let message = socket.next().await;
            assert!(!matches!(message, Message::Closed(_)), "closed after {:?}", kinds(&heard));
            let over = message.ends(prompt_id);
            heard.push(message);
            if over {
                break;
            }
        }
    })
    .await;
    heard
}

/// The next `count` messages, whatever else is silent.
async fn next(socket: &mut Socket, count: usize) -> Vec<Message> {
    let mut heard = Vec::new();
    within("messages", async {
        while heard.len() < count {
            heard.push(socket.next().await);
        }
    })
    .await;
    heard
}

/// So many besides the queue's length, which is told at any time.
async fn next_own(socket: &mut Socket, count: usize) -> Vec<Message> {
    let mut heard = Vec::new();
    while heard.len() < count {
        heard.extend(next(socket, 1).await.into_iter().filter(|message| message.kind() != "status"));
    }
    heard
}

/// Without the queue's length, which is told at any time.
fn of_jobs(heard: &[Message]) -> Vec<String> {
    kinds(heard).into_iter().filter(|kind| kind != "status").collect()
}

/// Up to the router's answer to the flags.
async fn until_flags(socket: &mut Socket) -> Vec<Message> {
    let mut heard = Vec::new();
    within("feature flags", async {
        loop {
            heard.push(socket.next().await);
            if heard.last().is_some_and(|message| message.kind() == "feature_flags") {
                return;
            }
        }
    })
    .await;
    heard
}
