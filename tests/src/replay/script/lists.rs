//! The lists of history and jobs, and the commands that change them.

use serde_json::json;

use super::super::player::Player;

/// Every form of the lists of history and jobs, and of the commands, while nothing runs.
pub(super) async fn forms(play: &mut Player) {
    play.scene("forms of the lists");
    for query in [
        "max_items=3",
        "max_items=3&offset=-1",
        "max_items=2&offset=1",
        "max_items=2&offset=99",
        "max_items=0&offset=0",
        "max_items=-3",
        "max_items=-3&offset=0",
        "max_items=%201_0%20",
        "max_items=99999999999999999999&offset=3",
        "offset=4",
        "max_items=x",
        "max_items=",
        "max_items=1.5",
        "offset=x",
    ] {
        play.get(&format!("/history?{query}")).await;
    }
    for query in [
        "status=completed",
        "status=COMPLETED%20,&limit=2",
        "status=completed,failed,cancelled",
        "status=,",
        "status=&limit=1",
        "status=done,pending",
        "limit=2&offset=1",
        "limit=2&offset=-5",
        "limit=99&offset=3&sort_order=ASC",
        "offset=999",
        "limit=0",
        "limit=x",
        "limit=",
        "offset=x",
        "sort_by=age",
        "sort_by=Execution_Duration&status=pending",
        "sort_order=up",
        "workflow_id=w1",
        "workflow_id=nope",
    ] {
        play.get(&format!("/api/jobs?{query}")).await;
    }

    play.scene("forms of the commands");
    for path in ["/queue", "/history"] {
        for body in [
            json!(""),
            json!("{"),
            json!("null"),
            json!("7"),
            json!("\"x\""),
            json!("\"clear\""),
            json!([]),
            json!(["delete"]),
            json!({}),
            json!({"clear": 0}),
            json!({"clear": ""}),
            json!({"clear": []}),
            json!({"delete": null}),
            json!({"delete": "nope"}),
            json!({"delete": {"nope": 1}}),
            json!({"delete": ["nope", 7, null]}),
        ] {
            play.post(path, body).await;
        }
    }
    for body in [json!("null"), json!([]), json!("7"), json!({"prompt_id": "nope"})] {
        play.post("/interrupt", body).await;
    }
    play.post("/api/jobs/nope/cancel", json!({})).await;
    for body in [json!({"job_ids": ["nope"]}), json!({"job_ids": "nope"}), json!("{")] {
        play.post("/api/jobs/cancel", body).await;
    }
}
