//! The table of routes. A path that is not in it passes through to the home instance, websocket upgrades included.
//!
//! Paths are matched decoded, as ComfyUI matches them: `/%70rompt` must not reach an instance's queue behind the
//! router's back. What is forwarded keeps the client's own encoding.

use std::borrow::Cow;

use hyper::Method;

use crate::config::{self, RouteTo};
use crate::metrics::RouteKind as Kind;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    Submit,
    Remaining,
    Queue,
    ChangeQueue,
    Interrupt,
    History,
    HistoryOf,
    ChangeHistory,
    Jobs,
    Job,
    CancelJob,
    CancelJobs,
    ObjectInfo,
    ObjectInfoOf,
    SystemStats,
    Features,
    List,
    Free,
    View,
    /// Of whichever instance has it.
    Found,
    UploadImage,
    UploadMask,
    UserData,
    Asset,
    Internal,
    LogSubscription,
    Websocket,
    Home,
    Broadcast,
    ByClient,
    Denied,
    /// A path that leads out of where it begins.
    Outside,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// `*` is any.
    method: &'static str,
    /// `{}` stands for one segment, `{*}` at the end for one or more.
    path: &'static str,
    /// The path up to its first `{}`: most routes are ruled out by it.
    literal: &'static str,
    /// Also under `/api`, as ComfyUI does with every route but those of `/internal`.
    twin: bool,
    pub(super) kind: Kind,
    pub(super) endpoint: Endpoint,
    /// Why it is placed so.
    why: &'static str,
}

const fn route(
    method: &'static str,
    path: &'static str,
    twin: bool,
    kind: Kind,
    endpoint: Endpoint,
    why: &'static str,
) -> Route {
    Route { method, path, literal: literal(path), twin, kind, endpoint, why }
}

const fn literal(path: &'static str) -> &'static str {
    let mut end = 0;
    while end < path.len() && path.as_bytes()[end] != b'{' {
        end += 1;
    }
    path.split_at(end).0
}

const TWIN: bool = true;
const ONCE: bool = false;

const OWN: &str = "the queue, the history and the sockets are the router's";
const UNION: &str = "a client wants what any instance has";
const FILE: &str = "the file lies on one instance, or with the router";
const KEPT: &str = "kept by the router, so that any instance can be given it";
const ONE: &str = "one set of settings and workflows, of the page's own server; the last writer wins";
const PAGE: &str = "page and server are of one version";
const CATALOGUE: &str = "its ids are those of one server's database";
const MANAGER: &str = "installs and runs code, on one instance of many; closed unless a [[route]] opens it";

/// ComfyUI's own paths. What is not here passes through to the home instance, or where a `[[route]]` says.
#[rustfmt::skip]
const ROUTES: &[Route] = &[
    route("POST",  "/prompt",                  TWIN, Kind::Here,     Endpoint::Submit, OWN),
    route("GET",   "/prompt",                  TWIN, Kind::Here,     Endpoint::Remaining, OWN),
    route("GET",   "/queue",                   TWIN, Kind::Here,     Endpoint::Queue, OWN),
    route("POST",  "/queue",                   TWIN, Kind::Here,     Endpoint::ChangeQueue, OWN),
    route("POST",  "/interrupt",               TWIN, Kind::Here,     Endpoint::Interrupt, OWN),
    route("GET",   "/history",                 TWIN, Kind::Here,     Endpoint::History, OWN),
    route("GET",   "/history/{}",              TWIN, Kind::Here,     Endpoint::HistoryOf, OWN),
    route("POST",  "/history",                 TWIN, Kind::Here,     Endpoint::ChangeHistory, OWN),
    route("GET",   "/api/jobs",                TWIN, Kind::Here,     Endpoint::Jobs, OWN),
    route("GET",   "/api/jobs/{}",             TWIN, Kind::Here,     Endpoint::Job, OWN),
    route("POST",  "/api/jobs/cancel",         TWIN, Kind::Here,     Endpoint::CancelJobs, OWN),
    route("POST",  "/api/jobs/{}/cancel",      TWIN, Kind::Here,     Endpoint::CancelJob, OWN),
    route("GET",   "/ws",                      TWIN, Kind::Here,     Endpoint::Websocket, OWN),
    route("GET",   "/object_info",             TWIN, Kind::Merged,   Endpoint::ObjectInfo, UNION),
    route("GET",   "/object_info/{}",          TWIN, Kind::Merged,   Endpoint::ObjectInfoOf, UNION),
    route("GET",   "/system_stats",            TWIN, Kind::Merged,   Endpoint::SystemStats, "the devices of all instances"),
    route("GET",   "/features",                TWIN, Kind::Merged,   Endpoint::Features, "what holds whichever instance runs a job"),
    route("GET",   "/models",                  TWIN, Kind::Merged,   Endpoint::List, UNION),
    route("GET",   "/models/{}",               TWIN, Kind::Merged,   Endpoint::List, UNION),
    route("GET",   "/embeddings",              TWIN, Kind::Merged,   Endpoint::List, UNION),
    route("GET",   "/experiment/models",       TWIN, Kind::Merged,   Endpoint::List, UNION),
    route("GET",   "/experiment/models/{}",    TWIN, Kind::Merged,   Endpoint::List, UNION),
    route("GET",   "/experiment/models/preview/{*}", TWIN, Kind::Instance, Endpoint::Found, "the model may lie on one instance only"),
    route("GET",   "/view_metadata/{}",        TWIN, Kind::Instance, Endpoint::Found, "the model may lie on one instance only"),
    route("POST",  "/free",                    TWIN, Kind::Broadcast, Endpoint::Free, "whoever asks wants the memory of all"),
    route("GET",   "/view",                    TWIN, Kind::Instance, Endpoint::View, FILE),
    route("POST",  "/upload/image",            TWIN, Kind::Here,     Endpoint::UploadImage, KEPT),
    route("POST",  "/upload/mask",             TWIN, Kind::Here,     Endpoint::UploadMask, KEPT),
    route("*",     "/userdata",                TWIN, Kind::Home,     Endpoint::UserData, ONE),
    route("*",     "/userdata/{*}",            TWIN, Kind::Home,     Endpoint::UserData, ONE),
    route("*",     "/v2/userdata",             TWIN, Kind::Home,     Endpoint::UserData, ONE),
    route("*",     "/v2/userdata/{*}",         TWIN, Kind::Home,     Endpoint::UserData, ONE),
    route("*",     "/users",                   TWIN, Kind::Home,     Endpoint::Home, ONE),
    route("*",     "/settings",                TWIN, Kind::Home,     Endpoint::Home, ONE),
    route("*",     "/settings/{}",             TWIN, Kind::Home,     Endpoint::Home, ONE),
    route("GET",   "/extensions",              TWIN, Kind::Home,     Endpoint::Home, PAGE),
    route("GET",   "/extensions/{*}",          ONCE, Kind::Home,     Endpoint::Home, PAGE),
    route("GET",   "/workflow_templates",      TWIN, Kind::Home,     Endpoint::Home, PAGE),
    route("GET",   "/i18n",                    TWIN, Kind::Home,     Endpoint::Home, PAGE),
    route("GET",   "/global_subgraphs",        TWIN, Kind::Home,     Endpoint::Home, "its ids hold the path of one install"),
    route("GET",   "/global_subgraphs/{}",     TWIN, Kind::Home,     Endpoint::Home, "its ids hold the path of one install"),
    route("*",     "/api/assets",              ONCE, Kind::Home,     Endpoint::Asset, CATALOGUE),
    route("*",     "/api/assets/{*}",          ONCE, Kind::Home,     Endpoint::Asset, CATALOGUE),
    route("*",     "/api/tags",                ONCE, Kind::Home,     Endpoint::Asset, CATALOGUE),
    route("PATCH", "/internal/logs/subscribe", ONCE, Kind::Home,     Endpoint::LogSubscription, PAGE),
    route("*",     "/internal/{*}",            ONCE, Kind::Home,     Endpoint::Internal, PAGE),
];

/// Paths that are closed unless the configuration opens them. ComfyUI-Manager's trust whoever reaches them.
#[rustfmt::skip]
const CLOSED: &[Route] = &[
    route("*", "/manager/{*}",            TWIN, Kind::Refused, Endpoint::Denied, MANAGER),
    route("*", "/v2/manager/{*}",         TWIN, Kind::Refused, Endpoint::Denied, MANAGER),
    route("*", "/customnode/{*}",         TWIN, Kind::Refused, Endpoint::Denied, MANAGER),
    route("*", "/v2/customnode/{*}",      TWIN, Kind::Refused, Endpoint::Denied, MANAGER),
    route("*", "/externalmodel/{*}",      TWIN, Kind::Refused, Endpoint::Denied, MANAGER),
    route("*", "/v2/externalmodel/{*}",   TWIN, Kind::Refused, Endpoint::Denied, MANAGER),
    route("*", "/snapshot/{*}",           TWIN, Kind::Refused, Endpoint::Denied, MANAGER),
    route("*", "/v2/snapshot/{*}",        TWIN, Kind::Refused, Endpoint::Denied, MANAGER),
    route("*", "/comfyui_manager/{*}",    TWIN, Kind::Refused, Endpoint::Denied, MANAGER),
    route("*", "/v2/comfyui_manager/{*}", TWIN, Kind::Refused, Endpoint::Denied, MANAGER),
];

const OUTSIDE: Route = route("*", "", ONCE, Kind::Refused, Endpoint::Outside, "no page has such a path");
const PASS: Route =
    route("*", "", ONCE, Kind::Home, Endpoint::Home, "unknown: a custom node's, or the page's");
const BROADCAST: Route = route("*", "", ONCE, Kind::Broadcast, Endpoint::Broadcast, "configured");
const BY_CLIENT: Route = route("*", "", ONCE, Kind::ByClient, Endpoint::ByClient, "configured");
const DENY: Route = route("*", "", ONCE, Kind::Refused, Endpoint::Denied, "configured");

/// The routes above, and those of the configuration for what is not among ComfyUI's own.
#[derive(Debug)]
pub(super) struct Routes {
    own: Index,
    closed: Index,
    /// The longest prefix first.
    configured: Vec<(String, &'static Route)>,
}

/// Routes by the first byte after the slash: most paths that pass through share theirs with none.
#[derive(Debug)]
struct Index(Vec<Vec<&'static Route>>);

impl Routes {
    pub(super) fn new(configured: &[config::Route]) -> Self {
        let route = |one: &config::Route| {
            let to = match one.to {
                RouteTo::Home => &PASS,
                RouteTo::Broadcast => &BROADCAST,
                RouteTo::ByClient => &BY_CLIENT,
                RouteTo::Deny => &DENY,
            };
            (one.prefix.clone(), to)
        };
        let mut configured: Vec<_> = configured.iter().map(route).collect();
        configured.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        Self { own: Index::of(ROUTES), closed: Index::of(CLOSED), configured }
    }

    /// The route of a request, and what stands for its `{}`.
    pub(super) fn find(&self, method: &Method, path: &str) -> (&'static Route, Vec<String>) {
        // HEAD is allowed wherever GET is; the server leaves the body out.
        let method = if *method == Method::HEAD { "GET" } else { method.as_str() };
        let path = decoded(path);
        if leads_out(&path) {
            return (&OUTSIDE, Vec::new());
        }
        if let Some(found) = self.own.find(method, &path) {
            return found;
        }
        let twin = path.strip_prefix("/api");
        let fits =
            |prefix: &str| path.starts_with(prefix) || twin.is_some_and(|twin| twin.starts_with(prefix));
        let configured = self.configured.iter().find(|(prefix, _)| fits(prefix));
        let closed = || self.closed.find(method, &path);
        configured.map(|(_, route)| (*route, Vec::new())).or_else(closed).unwrap_or((&PASS, Vec::new()))
    }
}

impl Index {
    fn of(routes: &'static [Route]) -> Self {
        let mut index = vec![Vec::new(); 256];
        for route in routes {
            index[first(route.path)].push(route);
        }
        Self(index)
    }

    fn find(&self, method: &str, path: &str) -> Option<(&'static Route, Vec<String>)> {
        let by_method = |route: &&&Route| route.method == method || route.method == "*";
        let mut here = self.0[first(path)].iter().filter(by_method);
        let found = here.find_map(|route| Some((*route, matched(route, path)?)));
        found.or_else(|| {
            let twin = path.strip_prefix("/api")?;
            let mut twins = self.0[first(twin)].iter().filter(by_method).filter(|route| route.twin);
            twins.find_map(|route| Some((*route, matched(route, twin)?)))
        })
    }
}

fn first(path: &str) -> usize {
    path.as_bytes().get(1).copied().unwrap_or_default().into()
}

fn matched(route: &Route, path: &str) -> Option<Vec<String>> {
    if !path.starts_with(route.literal) {
        return None;
    }
    let mut params = Vec::new();
    let (mut wanted, mut given) = (route.path.split('/'), path.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(params),
            (Some("{}"), Some(segment)) if !segment.is_empty() => params.push(segment.replace('\u{0}', "/")),
            (Some("{*}"), Some(segment)) => {
                let rest = given.fold(segment.to_owned(), |rest, segment| rest + "/" + segment);
                let rest = rest.replace('\u{0}', "/");
                params.push(rest);
                return Some(params);
            }
            (Some(one), Some(other)) if one == other => {}
            _ => return None,
        }
    }
}

/// `..` as a segment, however its slashes are written. An instance would resolve it behind the table's back.
fn leads_out(path: &str) -> bool {
    // Finding a text takes longer to prepare than most paths to read.
    path.as_bytes().windows(2).any(|pair| pair == b"..")
        && path.split(['/', '\\', '\u{0}']).any(|segment| segment == "..")
}

/// Percent-decoded; an encoded slash does not separate segments, so it is kept apart as NUL.
fn decoded(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    Cow::Owned(super::body::percent_decoded(&path.replace("%2F", "%00").replace("%2f", "%00"), false))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes() -> Routes {
        let configured =
            [("/etn/", RouteTo::Broadcast), ("/etn/one/", RouteTo::ByClient), ("/prompt/", RouteTo::Deny)];
        let configured = configured.map(|(prefix, to)| config::Route { prefix: prefix.into(), to });
        Routes::new(&configured)
    }

    fn endpoint(method: &str, path: &str) -> (Endpoint, Vec<String>) {
        let (route, params) = routes().find(&method.parse().unwrap(), path);
        (route.endpoint, params)
    }

    #[test]
    fn every_route_is_found_at_its_path_and_its_twin() {
        for route in ROUTES.iter().chain(CLOSED) {
            let method = route.method.replace('*', "POST");
            let path = route.path.replace("{*}", "x/y").replace("{}", "x");
            assert_eq!(endpoint(&method, &path).0, route.endpoint, "{path}");
            let twin = endpoint(&method, &format!("/api{path}")).0;
            assert_eq!(twin == route.endpoint, route.twin || route.endpoint == Endpoint::Home, "/api{path}");
            assert!(!route.why.is_empty());
        }
    }

    #[test]
    fn everything_else_goes_home() {
        for (method, path) in [
            ("GET", "/"),
            ("GET", "/api/"),
            ("GET", "/jobs"),
            ("PUT", "/prompt"),
            ("GET", "//prompt"),
            ("GET", "/history/"),
            ("GET", "/history/a/b"),
            ("POST", "/api/api/prompt"),
            ("GET", "/etnx"),
            ("GET", "/a..b/..c"),
            ("GET", "/managers/x"),
        ] {
            assert_eq!(endpoint(method, path).0, Endpoint::Home, "{method} {path}");
        }
    }

    #[test]
    fn the_longest_configured_prefix_counts_and_none_hides_comfyuis_own() {
        assert_eq!(endpoint("POST", "/etn/x").0, Endpoint::Broadcast);
        assert_eq!(endpoint("POST", "/api/etn/one/x").0, Endpoint::ByClient);
        assert_eq!(endpoint("POST", "/prompt").0, Endpoint::Submit);
        assert_eq!(endpoint("POST", "/manager/reboot").0, Endpoint::Denied);
        let open = Routes::new(&[config::Route { prefix: "/manager/".into(), to: RouteTo::Home }]);
        assert_eq!(open.find(&Method::POST, "/api/manager/reboot").0.endpoint, Endpoint::Home);
        assert_eq!(open.find(&Method::POST, "/customnode/install").0.endpoint, Endpoint::Denied);
    }

    #[test]
    fn encoding_hides_no_route() {
        assert_eq!(endpoint("POST", "/%70rompt").0, Endpoint::Submit);
        assert_eq!(endpoint("POST", "/a%70i/promp%74").0, Endpoint::Submit);
        assert_eq!(endpoint("HEAD", "/view").0, Endpoint::View);
        assert_eq!(endpoint("GET", "/history/a%2Fb%20c"), (Endpoint::HistoryOf, vec!["a/b c".to_owned()]));
        assert_eq!(endpoint("POST", "/%6danager/reboot").0, Endpoint::Denied);
        assert_eq!(
            endpoint("GET", "/userdata/a%2Fb.json"),
            (Endpoint::UserData, vec!["a/b.json".to_owned()])
        );
    }

    #[test]
    fn a_path_that_leads_out_is_nobodys() {
        for path in ["/../x", "/a/..", "/a/%2e%2e/b", "/a/..%2fb", "/a/..%5c..%5cb", "/extensions/..\\x"] {
            assert_eq!(endpoint("GET", path).0, Endpoint::Outside, "{path}");
        }
    }

    #[test]
    fn cancelling_several_is_no_job_named_cancel() {
        assert_eq!(endpoint("POST", "/api/jobs/cancel").0, Endpoint::CancelJobs);
        assert_eq!(endpoint("POST", "/api/jobs/x/cancel"), (Endpoint::CancelJob, vec!["x".to_owned()]));
        assert_eq!(endpoint("GET", "/api/api/jobs/x").0, Endpoint::Job);
    }
}
