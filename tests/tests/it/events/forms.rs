//! The form of what is heard: previews and results, feature flags, silence.

use comfy_router_tests::{Client, Message, colour_of, kinds, streamed};
use serde_json::{Value, json};

use super::{next, of_jobs, one, over, until_end, until_flags};

#[tokio::test]
async fn images_that_are_results_all_arrive_in_the_form_the_socket_asked_for() {
    let (_fleet, router) = over(2).await;
    for (sid, flags, kind) in
        [("plain", None, 1), ("flagged", Some(true), 4), ("both", None, 1), ("b", Some(true), 4)]
    {
        let client = Client::silent(&router, sid);
        let mut socket = client.socket().await;
        if let Some(flag) = flags {
            let said = json!({"type": "feature_flags", "data": {"supports_preview_metadata": flag}});
            socket.send(&said.to_string()).await;
            until_flags(&mut socket).await;
        }
        let id = client.post(&streamed(0x12_34_56, 40)).await;
        let heard = until_end(&mut socket, &id).await;
        let images: Vec<&Message> = heard.iter().filter(|m| matches!(m, Message::Binary(..))).collect();
        assert_eq!(images.len(), 40, "{sid}: {:?}", kinds(&heard));
        for image in images {
            let Message::Binary(form, bytes) = image else { panic!("just filtered") };
            assert_eq!(*form, kind, "{sid}");
            // Type 1: the format, 2 for PNG. Type 4: a length and so much JSON.
            let number = u32::from_be_bytes(bytes[..4].try_into().expect("four bytes"));
            let image = if kind == 1 { 4 } else { 4 + number as usize };
            assert_eq!(colour_of(&bytes[image..]), 0x12_34_56);
            let about: Value = serde_json::from_slice(&bytes[4..image]).unwrap_or_default();
            assert!(if kind == 1 { number == 2 } else { about["prompt_id"] == *id }, "{about}");
        }
        // Type 1 after the `progress` of its step, type 4 before it, wherever that was not superseded by a later one.
        let of_job = of_jobs(&heard);
        let step = |pair: &[String]| match kind {
            1 => pair[0] == "progress" && pair[1] == "binary 1",
            _ => pair[0] == "binary 4" && pair[1] == "progress",
        };
        assert!(of_job.windows(2).any(step), "{sid}: {of_job:?}");
        let last_image = heard.iter().rposition(|m| matches!(m, Message::Binary(..)));
        let success = heard.iter().position(|m| m.kind() == "execution_success");
        assert!(last_image < success, "before the end: {:?}", kinds(&heard));
    }
}

#[tokio::test]
async fn only_the_first_json_object_can_be_the_feature_flags() {
    let (_fleet, router) = one().await;
    let yes = r#"{"type": "feature_flags", "data": {"supports_preview_metadata": true}}"#;
    let no = r#"{"type": "feature_flags", "data": {"supports_preview_metadata": "true"}}"#;
    let cases: [(&str, &[&str], bool, u32); 4] = [
        ("a", &["no JSON", "7", "[]", yes], true, 4),
        ("b", &[r#"{"type": "hello"}"#, yes], false, 1),
        ("c", &[no, yes], true, 1),
        ("d", &[], false, 1),
    ];
    for (sid, says, answered, form) in cases {
        let client = Client::silent(&router, sid);
        let mut socket = client.socket().await;
        for said in says {
            socket.send(said).await;
        }
        // What is posted on another connection may overtake what was said on this one.
        let mut heard = if answered { until_flags(&mut socket).await } else { Vec::new() };
        let id = client.post(&streamed(1, 1)).await;
        heard.extend(until_end(&mut socket, &id).await);
        let replies = heard.iter().filter(|message| message.kind() == "feature_flags");
        assert_eq!(replies.count(), usize::from(answered), "{sid}: {:?}", kinds(&heard));
        assert!(heard.iter().any(|m| m.kind() == format!("binary {form}")), "{sid}: {:?}", kinds(&heard));
    }
}

#[tokio::test]
async fn silence_is_broken_by_a_status() {
    let (_fleet, router) = one().await;
    let mut socket = Client::silent(&router, "patient").socket().await;
    let heard = next(&mut socket, 3).await;
    assert_eq!(kinds(&heard), ["status", "status", "status"]);
    let sids: Vec<bool> = heard.iter().map(|status| status.data()["sid"].is_string()).collect();
    assert_eq!(sids, [true, false, false], "only the first says whose it is");
}
