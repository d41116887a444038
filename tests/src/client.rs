//! A ComfyUI client: posts prompts, records everything its websocket says, fetches its pictures.

use futures_util::FutureExt;
use serde_json::{Value, json};
use tokio::{sync::watch, task::AbortHandle};

use crate::{Answer, Http, Message, Router, Socket, colour_of, within};

/// One client with one `client_id`. Its record goes on over reconnections.
#[derive(Debug)]
pub struct Client {
    pub http: Http,
    sid: String,
    /// `status` is not recorded.
    quiet: bool,
    record: watch::Sender<Vec<Message>>,
    listening: Option<AbortHandle>,
}

impl Client {
    /// With its websocket open.
    pub async fn connect(router: &Router, sid: &str) -> Self {
        let mut client = Self::silent(router, sid);
        client.reconnect().await;
        client
    }

    /// The same, but `status`, which comes to everybody with every change, is not recorded.
    pub async fn connect_quietly(router: &Router, sid: &str) -> Self {
        let mut client = Self::silent(router, sid);
        client.quiet = true;
        client.reconnect().await;
        client
    }

    /// Without a websocket.
    pub fn silent(router: &Router, sid: &str) -> Self {
        let record = watch::Sender::new(Vec::new());
        Self { http: Http::new(router.url()), sid: sid.to_owned(), quiet: false, record, listening: None }
    }

    /// A websocket under this client's id, of which nothing is recorded.
    pub async fn socket(&self) -> Socket {
        let path = format!("/ws?clientId={}", self.sid);
        Socket::open(self.http.base(), &path).await.expect("the router takes a websocket")
    }

    /// Opens the websocket again, under the same id, and waits for its first `status`.
    pub async fn reconnect(&mut self) {
        self.try_reconnect().await.expect("the router takes a websocket");
    }

    /// The same with a router that may end at any moment.
    ///
    /// # Errors
    /// When there is nobody, or nobody who greets.
    pub async fn try_reconnect(&mut self) -> anyhow::Result<()> {
        self.leave();
        let path = format!("/ws?clientId={}", self.sid);
        let mut socket = Socket::open(self.http.base(), &path).await?;
        let flags = r#"{"type": "feature_flags", "data": {"supports_preview_metadata": true}}"#;
        socket.try_send(flags).await?;
        let first = within("the first status", socket.next()).await;
        anyhow::ensure!(!matches!(first, Message::Closed(_)), "it closed at once");
        assert_eq!(first.data()["sid"], json!(self.sid), "the first message greets the client: {first:?}");
        self.listening = Some(listen(socket, self.record.clone(), self.quiet));
        Ok(())
    }

    /// Is its websocket open, as far as it knows?
    pub fn is_listening(&self) -> bool {
        self.listening.as_ref().is_some_and(|listening| !listening.is_finished())
    }

    /// Closes the websocket.
    pub fn leave(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.abort();
        }
    }

    /// Posts a prompt that must be accepted; gives its id.
    pub async fn post(&self, graph: &Value) -> String {
        accepted(&self.try_post(json!({ "prompt": graph })).await)
    }

    /// The same under an id of the client's own.
    pub async fn post_as(&self, prompt_id: &str, graph: &Value) -> String {
        accepted(&self.try_post(json!({ "prompt": graph, "prompt_id": prompt_id })).await)
    }

    /// Posts a body, with this client's id added.
    pub async fn try_post(&self, mut body: Value) -> Answer {
        body["client_id"] = json!(self.sid);
        self.http.post("/prompt", &body).await
    }

    /// Everything the websocket has said so far.
    pub fn record(&self) -> Vec<Message> {
        self.record.borrow().clone()
    }

    /// The same; what was said so far is forgotten.
    pub fn take_record(&self) -> Vec<Message> {
        self.record.send_replace(Vec::new())
    }

    /// What it has said of this prompt.
    pub fn said_of(&self, prompt_id: &str) -> Vec<Message> {
        self.record.borrow().iter().filter(|message| message.is_of(prompt_id)).cloned().collect()
    }

    /// Waits until the record holds a message that is `wanted`.
    pub async fn hears(&self, what: &str, wanted: impl Fn(&Message) -> bool) -> Message {
        let mut changes = self.record.subscribe();
        let heard = within(what, changes.wait_for(|record| record.iter().any(&wanted))).await;
        heard.expect("the client lives").iter().find(|message| wanted(message)).cloned().expect("just seen")
    }

    /// Waits for `executing {node: null}` of this prompt; gives what was said of it, in order.
    pub async fn end_of(&self, prompt_id: &str) -> Vec<Message> {
        self.end_while(prompt_id, || false).await
    }

    /// The same behind many others: at the deadline it is waited for anew if they `go_on`.
    pub async fn end_while(&self, prompt_id: &str, mut go_on: impl FnMut() -> bool) -> Vec<Message> {
        while tokio::time::timeout(crate::DEADLINE, self.hears_end(prompt_id)).await.is_err() {
            let heard = self.said_of(prompt_id);
            let heard = crate::kinds(&heard);
            assert!(go_on(), "the end of {prompt_id}, of which {} has heard {heard:?}", self.sid);
        }
        self.said_of(prompt_id)
    }

    async fn hears_end(&self, prompt_id: &str) {
        let mut changes = self.record.subscribe();
        let ended = |record: &Vec<Message>| record.iter().any(|message| message.ends(prompt_id));
        let _ = changes.wait_for(ended).await;
    }

    /// The entry of `/history/{id}`; null if there is none.
    pub async fn history(&self, prompt_id: &str) -> Value {
        self.http.get_json(&format!("/history/{}", in_path(prompt_id))).await[prompt_id].take()
    }

    /// Waits for a history entry, for clients without a websocket.
    pub async fn history_when_ended(&self, prompt_id: &str) -> Value {
        crate::eventually(&format!("a history entry of {prompt_id}"), || {
            self.history(prompt_id).map(|entry| (!entry.is_null()).then_some(entry))
        })
        .await
    }

    /// The colour of the one picture that this prompt made.
    pub async fn colour_made_by(&self, prompt_id: &str) -> u32 {
        colour_of(&self.picture_made_by(prompt_id).await.ok().body)
    }

    /// The answer for the one picture that this prompt made, fetched as its history names it.
    pub async fn picture_made_by(&self, prompt_id: &str) -> Answer {
        let history = self.history(prompt_id).await;
        let outputs = history["outputs"].as_object().expect("outputs").values();
        let images: Vec<&Value> = outputs.flat_map(|node| node["images"].as_array()).flatten().collect();
        let [image] = images[..] else { panic!("{prompt_id} made one picture: {history}") };
        self.view(image).await
    }

    /// `/view` of a file as `executed` and the history name it.
    pub async fn view(&self, file: &Value) -> Answer {
        let part = |name: &str| file[name].as_str().unwrap_or_default().replace(' ', "%20");
        let (name, folder, kind) = (part("filename"), part("subfolder"), part("type"));
        self.http.get(&format!("/view?filename={name}&subfolder={folder}&type={kind}")).await
    }

    /// The ids of `/queue`: those that run, and those that wait, in order.
    pub async fn queue(&self) -> (Vec<String>, Vec<String>) {
        let queue = self.http.get_json("/queue").await;
        let ids = |key: &str| -> Vec<String> {
            let items = queue[key].as_array().expect("a list");
            items.iter().map(|item| item[1].as_str().expect("an id").to_owned()).collect()
        };
        (ids("queue_running"), ids("queue_pending"))
    }

    pub async fn remaining(&self) -> u64 {
        self.http.get_json("/prompt").await["exec_info"]["queue_remaining"].as_u64().expect("a number")
    }

    /// Waits until nothing runs or waits.
    pub async fn all_done(&self) {
        crate::eventually("an empty queue", || self.remaining().map(|left| (left == 0).then_some(()))).await;
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Percent-encoded.
fn in_path(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

fn accepted(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "the prompt is accepted: {}", answer.text());
    answer.json()["prompt_id"].as_str().expect("an id").to_owned()
}

#[expect(clippy::disallowed_methods, reason = "the harness's only task; it ends with its client")]
fn listen(mut socket: Socket, record: watch::Sender<Vec<Message>>, quiet: bool) -> AbortHandle {
    let listening = async move {
        loop {
            let message = socket.next().await;
            let over = matches!(message, Message::Closed(_));
            if quiet && message.kind() == "status" {
                continue;
            }
            record.send_modify(|record| record.push(message));
            if over {
                break;
            }
        }
    };
    tokio::spawn(listening).abort_handle()
}
