//! `/view`: a file, from the router if it keeps it, else from the instance that has it. Whatever it is, no browser runs it.

use axum::body::Body;
use hyper::{Request, StatusCode, Uri};

use super::answer::{self, Answer, Answered};
use super::{Call, Caller, Front, body, inert, place, serve};
use crate::assets::Kept;
use crate::comfy::files;
use crate::model::id::InstanceId;
use crate::model::job::UploadRef;

/// What is asked for besides the file itself.
struct Asked {
    file: UploadRef,
    /// As another picture: smaller, or one channel. Only an instance makes these.
    remade: bool,
}

impl Front {
    pub(super) async fn view(&self, call: Call) -> Answered {
        let asked = match asked(&call.query()) {
            Ok(asked) => asked,
            Err(status) => return Ok(answer::status(status)),
        };
        let for_image = inert::is_for_image(call.request.headers());
        let answer = self.viewed(&asked, call).await;
        Ok(inert::file(answer, for_image))
    }

    /// A tagged subfolder names the instance. For any other name the router's own files come first, then the instance
    /// that wrote it last; what nobody knows is looked for on one instance after the other.
    async fn viewed(&self, asked: &Asked, call: Call) -> Answer {
        let Call { request, caller, .. } = call;
        if let (Some(instance), subfolder) = files::untag(&asked.file.subfolder) {
            let there = UploadRef { subfolder: subfolder.to_owned(), ..asked.file.clone() };
            return self.viewed_at(&caller, asked, (&instance, &there), request).await;
        }
        let own = place::own(&caller, &asked.file);
        if let Some(kept) = self.parts.assets.find(&own) {
            return self.viewed_here(asked, &kept, &own, request).await;
        }
        if asked.file.kind != "input" {
            let tenant = caller.apart.then_some(caller.tenant.as_str());
            if let Some(instance) = self.writer(&asked.file, None, tenant).await {
                return self.viewed_at(&caller, asked, (&instance, &asked.file), request).await;
            }
        }
        if caller.apart && (asked.file.kind != "input" || place::is_somebodys(&asked.file)) {
            return answer::status(StatusCode::NOT_FOUND);
        }
        self.first_found(request).await
    }

    /// A file of one instance; from its copy, if there is one, when the instance has it no more.
    async fn viewed_at(
        &self,
        caller: &Caller,
        asked: &Asked,
        (instance, there): (&InstanceId, &UploadRef),
        request: Request<Body>,
    ) -> Answer {
        if caller.apart && !self.is_own(caller, instance, there).await {
            return answer::status(StatusCode::NOT_FOUND);
        }
        let instances = self.parts.fleet.instances();
        let up = |info: &&crate::fleet::InstanceInfo| info.is_up();
        let known = instances.iter().find(|info| info.id == *instance);
        let shared = self.outputs_shared && there.kind == "output";
        let server = known.filter(up).or_else(|| instances.iter().find(up).filter(|_| shared));
        let copy = self.parts.assets.find(&place::tagged(instance, there));
        if let Some(server) = server {
            let again = same_head(&request);
            let answer = self.pass(&server.id, with_subfolder(request, &there.subfolder)).await;
            return match copy {
                Some(copy) if is_lost(&answer) => {
                    self.viewed_here(asked, &copy, &place::tagged(instance, there), again).await
                }
                _ => answer,
            };
        }
        match (copy, known) {
            (Some(copy), _) => self.viewed_here(asked, &copy, &place::tagged(instance, there), request).await,
            (None, Some(_)) => answer::instance_down(instance),
            (None, None) => answer::status(StatusCode::NOT_FOUND),
        }
    }

    /// A file that the router keeps; if it is to be made anew, an instance is lent it.
    async fn viewed_here(
        &self,
        asked: &Asked,
        kept: &Kept,
        name: &UploadRef,
        request: Request<Body>,
    ) -> Answer {
        if !asked.remade {
            return serve::file(kept, &asked.file.name, request.headers()).await;
        }
        let Some(home) = self.parts.fleet.home() else { return answer::no_instance() };
        // Results go where ComfyUI cleans up itself; uploads are there under their own name anyway.
        let tagged = files::untag(&name.subfolder).0.is_some();
        let lent = if tagged { UploadRef { kind: "temp".into(), ..name.clone() } } else { name.clone() };
        let staged = self.parts.assets.stage_as(&home, kept, &lent, &self.parts.fleet).await;
        if let Err(error) = staged {
            tracing::warn!(instance = %home, file = lent.name, %error, "a preview cannot be made");
            return answer::text(StatusCode::BAD_GATEWAY, &error.to_string());
        }
        self.pass(&home, as_file(request, &lent)).await
    }
}

/// ComfyUI's own checks, in its order.
fn asked(query: &[(String, String)]) -> Result<Asked, StatusCode> {
    let get = |name: &str| body::value(query, name);
    let (name, annotated) = files::annotation(get("filename").ok_or(StatusCode::NOT_FOUND)?);
    if name.is_empty() || name.starts_with('/') || name.contains("..") || name.contains('\0') {
        return Err(StatusCode::BAD_REQUEST);
    }
    let kind = annotated.unwrap_or_else(|| get("type").unwrap_or("output"));
    if !matches!(kind, "input" | "output" | "temp") {
        return Err(StatusCode::BAD_REQUEST);
    }
    let subfolder = get("subfolder").unwrap_or_default();
    let outside = |part: &str| part == "..";
    if subfolder.starts_with(['/', '\\'])
        || subfolder.contains('\0')
        || subfolder.split(['/', '\\']).any(outside)
    {
        return Err(StatusCode::FORBIDDEN);
    }
    // ComfyUI looks at the last part of the name only.
    let name = name.rsplit('/').next().unwrap_or_default().to_owned();
    let file = UploadRef { kind: kind.to_owned(), subfolder: subfolder.to_owned(), name };
    let channel = get("channel").is_some_and(|channel| matches!(channel, "rgb" | "a"));
    Ok(Asked { file, remade: channel || get("preview").is_some() })
}

/// The instance has the file no more, or cannot say.
fn is_lost(answer: &Answer) -> bool {
    answer.status() == StatusCode::NOT_FOUND || answer.status().is_server_error()
}

/// `/view` has no body.
fn same_head(request: &Request<Body>) -> Request<Body> {
    let mut same = Request::new(Body::empty());
    *same.method_mut() = request.method().clone();
    *same.uri_mut() = request.uri().clone();
    *same.headers_mut() = request.headers().clone();
    same
}

/// The request with another `subfolder`, everything else as the client wrote it.
fn with_subfolder(request: Request<Body>, subfolder: &str) -> Request<Body> {
    replaced(request, &[("subfolder", subfolder)])
}

fn as_file(request: Request<Body>, file: &UploadRef) -> Request<Body> {
    replaced(request, &[("filename", &file.name), ("type", &file.kind), ("subfolder", &file.subfolder)])
}

fn replaced(mut request: Request<Body>, values: &[(&str, &str)]) -> Request<Body> {
    let query = request.uri().query().unwrap_or_default();
    let other = |pair: &&str| {
        let name = body::percent_decoded(pair.split('=').next().unwrap_or_default(), true);
        values.iter().all(|(replaced, _)| name != *replaced)
    };
    let mut pairs: Vec<String> = query.split('&').filter(other).map(str::to_owned).collect();
    pairs.extend(values.iter().map(|(name, value)| format!("{name}={}", body::percent_encoded(value))));
    if let Ok(uri) = format!("{}?{}", request.uri().path(), pairs.join("&")).parse::<Uri>() {
        *request.uri_mut() = uri;
    }
    request
}

/// Is an unknown path asked for a file? Custom nodes' own pages for files (`/viewvideo` and the like) take the parameters of
/// `/view`. It matters where a `subfolder` names an instance, and to a tenant that must not see everything.
pub(super) fn names_file(request: &Request<Body>, apart: bool) -> bool {
    let Some(query) = request.uri().query() else { return false };
    if apart {
        return body::value(&body::query(query), "filename").is_some();
    }
    query.contains("ubfolder=~") || query.contains("ubfolder=%7")
}

impl Front {
    /// A page for files that the table does not know.
    pub(super) async fn elsewhere(&self, call: Call) -> Answer {
        let Call { request, caller, .. } = call;
        let asked = match asked(&body::query(request.uri().query().unwrap_or_default())) {
            Ok(asked) => asked,
            // Whatever the page makes of it, it names no file of anybody.
            Err(_) if !caller.apart => return self.pass_home(request).await,
            Err(status) => return answer::status(status),
        };
        if let (Some(instance), subfolder) = files::untag(&asked.file.subfolder) {
            let there = UploadRef { subfolder: subfolder.to_owned(), ..asked.file.clone() };
            return self.page_at(&caller, &instance, &there, request).await;
        }
        if !caller.apart {
            return self.pass_home(request).await;
        }
        let own = place::own(&caller, &asked.file);
        if self.parts.assets.find(&own).is_some() {
            let Some(home) = self.parts.fleet.home() else { return answer::no_instance() };
            let given = self.parts.assets.stage(&home, std::slice::from_ref(&own), &self.parts.fleet).await;
            return match given {
                Ok(()) => self.pass(&home, as_file(request, &own)).await,
                Err(error) => answer::text(StatusCode::BAD_GATEWAY, &error.to_string()),
            };
        }
        if asked.file.kind == "input" && !place::is_somebodys(&asked.file) {
            return self.pass_home(request).await;
        }
        match self.writer(&asked.file, None, Some(&caller.tenant)).await {
            Some(instance) => self.pass(&instance, request).await,
            None => answer::status(StatusCode::NOT_FOUND),
        }
    }

    async fn page_at(
        &self,
        caller: &Caller,
        instance: &InstanceId,
        there: &UploadRef,
        request: Request<Body>,
    ) -> Answer {
        let hidden = caller.apart && !self.is_own(caller, instance, there).await;
        if hidden || self.parts.fleet.instance(instance).is_none() {
            return answer::status(StatusCode::NOT_FOUND);
        }
        self.pass(instance, with_subfolder(request, &there.subfolder)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subfolder_is_replaced_and_nothing_else() {
        let request = |query: &str| Request::get(format!("/api/view?{query}")).body(Body::empty()).unwrap();
        let uri = |query: &str, subfolder: &str| with_subfolder(request(query), subfolder).uri().to_string();
        assert_eq!(
            uri("filename=a%20b.png&subfolder=~gpu0%2Fx%20y&type=output&rand=0.1", "x y"),
            "/api/view?filename=a%20b.png&type=output&rand=0.1&subfolder=x%20y"
        );
        assert_eq!(
            uri("%73ubfolder=~gpu0&filename=a&subfolder=~gpu1", ""),
            "/api/view?filename=a&subfolder="
        );
    }

    #[test]
    fn a_file_is_asked_for_as_in_comfyui() {
        let read = |query: &str| {
            asked(&body::query(query)).map(|asked| (files::reference(&asked.file), asked.remade))
        };
        assert_eq!(read("filename=a.png"), Ok(("a.png [output]".into(), false)));
        assert_eq!(read("filename=x/a.png&subfolder=s&type=input"), Ok(("s/a.png".into(), false)));
        assert_eq!(read("filename=a.png%20[temp]&type=input"), Ok(("a.png [temp]".into(), false)));
        assert_eq!(read("filename=a.png&preview=webp;80").map(|read| read.1), Ok(true));
        assert_eq!(read("filename=a.png&channel=a").map(|read| read.1), Ok(true));
        assert_eq!(read("filename=a.png&channel=rgba").map(|read| read.1), Ok(false));
        for (query, status) in [
            ("", 404),
            ("filename=", 400),
            ("filename=../a", 400),
            ("filename=/etc/passwd", 400),
            ("filename=a&type=models", 400),
            ("filename=a&subfolder=../x", 403),
            ("filename=a&subfolder=%2Fetc", 403),
            ("filename=a&subfolder=~gpu0/..", 403),
            ("filename=a&subfolder=s\\..\\..", 403),
        ] {
            assert_eq!(read(query).map_err(|status| status.as_u16()), Err(status), "{query}");
        }
    }

    #[test]
    fn a_page_that_is_asked_for_a_file_is_seen() {
        let names =
            |apart: bool, uri: &str| names_file(&Request::get(uri).body(Body::empty()).unwrap(), apart);
        assert!(names(false, "/viewvideo?subfolder=~gpu0&filename=a"));
        assert!(names(false, "/viewvideo?filename=a&subfolder=%7Egpu0"));
        assert!(!names(false, "/viewvideo?filename=a&subfolder=x"));
        assert!(!names(false, "/extensions/a.js"));
        assert!(names(true, "/viewvideo?%66ilename=a&subfolder=x"));
        assert!(!names(true, "/extensions/a.js?v=1"));
    }
}
