//! Lists that every instance has of its own, told as one: models, their folders, embeddings.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::{BodyExt, Limited};
use hyper::{Request, StatusCode, Uri};
use serde_json::Value;

use super::answer::{self, Answered};
use super::{Call, Front};
use crate::comfy::json;
use crate::model::id::InstanceId;

/// An instance that does not answer in time is left out.
const PATIENCE: Duration = Duration::from_secs(5);
const MAX_LIST: usize = 16 << 20;

impl Front {
    /// The union of what the instances that are up answer, in the order of their first mention.
    pub(super) async fn list(&self, call: Call) -> Answered {
        let instances = self.parts.fleet.instances();
        let up: Vec<_> = instances.iter().filter(|info| info.is_up()).collect();
        if up.len() < 2 {
            return Ok(self.pass_home(call.request).await);
        }
        let asked = up.iter().map(|info| self.list_of(&info.id, call.request.uri().clone()));
        let lists: Vec<Bytes> = join_all(asked).await.into_iter().flatten().collect();
        Ok(match merged(&lists) {
            Some(list) => answer::json_text(list),
            // None knows the folder, or they answer what is no list: the home instance says what there is to say.
            None => self.pass_home(call.request).await,
        })
    }

    async fn list_of(&self, instance: &InstanceId, list: Uri) -> Option<Bytes> {
        let request = Request::get(list).body(Body::empty()).ok()?;
        let asking = async {
            let answer = self.parts.fleet.forward(instance, request).await.ok()?;
            if answer.status() != StatusCode::OK {
                return None;
            }
            Some(Limited::new(answer.into_body(), MAX_LIST).collect().await.ok()?.to_bytes())
        };
        let list = tokio::time::timeout(PATIENCE, asking).await.ok().flatten();
        if list.is_none() {
            tracing::debug!(%instance, "instance has no such list, or does not answer");
        }
        list
    }
}

/// Texts are the same if they are equal, records if they have one name. None if there is no list at all.
fn merged(lists: &[Bytes]) -> Option<Bytes> {
    let first = lists.first()?;
    if lists.iter().all(|list| list == first) {
        return Some(first.clone());
    }
    let mut known = std::collections::HashSet::new();
    let mut merged = Vec::new();
    let mut any = false;
    for list in lists {
        let Ok(items) = json::parse::<Vec<Value>>(list) else { continue };
        any = true;
        merged.extend(
            items.into_iter().filter(|item| known.insert(item.get("name").unwrap_or(item).to_string())),
        );
    }
    any.then(|| Value::Array(merged).to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lists: &[&'static str]) -> Option<String> {
        let lists: Vec<Bytes> = lists.iter().map(|list| Bytes::from_static(list.as_bytes())).collect();
        merged(&lists).map(|list| String::from_utf8(list.to_vec()).unwrap())
    }

    #[test]
    fn lists_are_united_in_order_and_equal_ones_pass_unchanged() {
        assert_eq!(of(&[r#"["a", "b"]"#, r#"["a", "b"]"#]).unwrap(), r#"["a", "b"]"#);
        assert_eq!(of(&[r#"["a","b"]"#, r#"["c","a"]"#]).unwrap(), r#"["a","b","c"]"#);
        assert_eq!(
            of(&[r#"[{"name":"x","size":1}]"#, r#"[{"name":"x","size":2},{"name":"y"}]"#]).unwrap(),
            r#"[{"name":"x","size":1},{"name":"y"}]"#
        );
    }

    #[test]
    fn what_is_no_list_is_left_out() {
        assert_eq!(of(&[]), None);
        assert_eq!(of(&["{}", "null"]), None);
        assert_eq!(of(&["{}", r#"["a"]"#]).unwrap(), r#"["a"]"#);
    }
}
