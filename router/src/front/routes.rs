//! The table of routes. A path that is not in it passes through to the home instance, websocket upgrades included.
//!
//! Paths are matched decoded, as ComfyUI matches them: `/%70rompt` must not reach an instance's queue behind the
//! router's back. What is forwarded keeps the client's own encoding.

use std::borrow::Cow;

use hyper::Method;

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
    Free,
    View,
    Upload,
    LogSubscription,
    Websocket,
    Home,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Route {
    method: &'static str,
    path: &'static str,
    /// The path up to its first `{}`: most routes are ruled out by it.
    literal: &'static str,
    /// Also under `/api`, as ComfyUI does with every route but those of `/internal`.
    twin: bool,
    pub(super) kind: Kind,
    pub(super) endpoint: Endpoint,
}

const fn route(
    method: &'static str,
    path: &'static str,
    twin: bool,
    kind: Kind,
    endpoint: Endpoint,
) -> Route {
    Route { method, path, literal: literal(path), twin, kind, endpoint }
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

#[rustfmt::skip]
const ROUTES: &[Route] = &[
    route("POST",  "/prompt",                  TWIN, Kind::Here,     Endpoint::Submit),
    route("GET",   "/prompt",                  TWIN, Kind::Here,     Endpoint::Remaining),
    route("GET",   "/queue",                   TWIN, Kind::Here,     Endpoint::Queue),
    route("POST",  "/queue",                   TWIN, Kind::Here,     Endpoint::ChangeQueue),
    route("POST",  "/interrupt",               TWIN, Kind::Here,     Endpoint::Interrupt),
    route("GET",   "/history",                 TWIN, Kind::Here,     Endpoint::History),
    route("GET",   "/history/{}",              TWIN, Kind::Here,     Endpoint::HistoryOf),
    route("POST",  "/history",                 TWIN, Kind::Here,     Endpoint::ChangeHistory),
    route("GET",   "/api/jobs",                TWIN, Kind::Here,     Endpoint::Jobs),
    route("GET",   "/api/jobs/{}",             TWIN, Kind::Here,     Endpoint::Job),
    route("POST",  "/api/jobs/cancel",         TWIN, Kind::Here,     Endpoint::CancelJobs),
    route("POST",  "/api/jobs/{}/cancel",      TWIN, Kind::Here,     Endpoint::CancelJob),
    route("GET",   "/ws",                      TWIN, Kind::Here,     Endpoint::Websocket),
    route("GET",   "/object_info",             TWIN, Kind::Merged,   Endpoint::ObjectInfo),
    route("GET",   "/object_info/{}",          TWIN, Kind::Merged,   Endpoint::ObjectInfoOf),
    route("GET",   "/system_stats",            TWIN, Kind::Merged,   Endpoint::SystemStats),
    route("GET",   "/features",                TWIN, Kind::Merged,   Endpoint::Features),
    route("POST",  "/free",                    TWIN, Kind::Merged,   Endpoint::Free),
    route("GET",   "/view",                    TWIN, Kind::Instance, Endpoint::View),
    route("POST",  "/upload/image",            TWIN, Kind::Home,     Endpoint::Upload),
    route("POST",  "/upload/mask",             TWIN, Kind::Home,     Endpoint::Upload),
    route("PATCH", "/internal/logs/subscribe", ONCE, Kind::Home,     Endpoint::LogSubscription),
];

const PASS: Route = route("", "", ONCE, Kind::Home, Endpoint::Home);

/// The route of a request, and what stands for its `{}`.
pub(super) fn find(method: &Method, path: &str) -> (&'static Route, Vec<String>) {
    // HEAD is allowed wherever GET is; the server leaves the body out.
    let method = if *method == Method::HEAD { "GET" } else { method.as_str() };
    let path = decoded(path);
    let found = ROUTES.iter().filter(|route| route.method == method).find_map(|route| {
        let twin = route.twin.then(|| path.strip_prefix("/api")).flatten();
        let params = matched(route, &path).or_else(|| matched(route, twin?))?;
        Some((route, params))
    });
    found.unwrap_or((&PASS, Vec::new()))
}

fn matched(route: &Route, path: &str) -> Option<Vec<String>> {
    // One byte tells most paths apart, at a tenth of what a comparison of strings costs.
    if path.as_bytes().get(1) != route.literal.as_bytes().get(1) || !path.starts_with(route.literal) {
        return None;
    }
    let mut params = Vec::new();
    let (mut wanted, mut given) = (route.path.split('/'), path.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(params),
            (Some("{}"), Some(segment)) if !segment.is_empty() => params.push(segment.replace('\u{0}', "/")),
            (Some(one), Some(other)) if one == other => {}
            _ => return None,
        }
    }
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

    fn endpoint(method: &str, path: &str) -> (Endpoint, Vec<String>) {
        let (route, params) = find(&method.parse().unwrap(), path);
        (route.endpoint, params)
    }

    #[test]
    fn every_route_is_found_at_its_path_and_its_twin() {
        for route in ROUTES {
            let path = route.path.replace("{}", "x");
            assert_eq!(endpoint(route.method, &path).0, route.endpoint, "{path}");
            let twin = endpoint(route.method, &format!("/api{path}")).0;
            assert_eq!(twin == route.endpoint, route.twin, "/api{path}");
        }
    }

    #[test]
    fn everything_else_goes_home() {
        for (method, path) in [
            ("GET", "/"),
            ("GET", "/api/"),
            ("GET", "/jobs"),
            ("PUT", "/prompt"),
            ("GET", "/prompt/"),
            ("GET", "//prompt"),
            ("GET", "/history/"),
            ("GET", "/history/a/b"),
            ("POST", "/api/api/prompt"),
            ("GET", "/userdata/workflows%2Fx.json"),
        ] {
            assert_eq!(endpoint(method, path).0, Endpoint::Home, "{method} {path}");
        }
    }

    #[test]
    fn encoding_hides_no_route() {
        assert_eq!(endpoint("POST", "/%70rompt").0, Endpoint::Submit);
        assert_eq!(endpoint("POST", "/a%70i/promp%74").0, Endpoint::Submit);
        assert_eq!(endpoint("HEAD", "/view").0, Endpoint::View);
        assert_eq!(endpoint("GET", "/history/a%2Fb%20c"), (Endpoint::HistoryOf, vec!["a/b c".to_owned()]));
    }

    #[test]
    fn cancelling_several_is_no_job_named_cancel() {
        assert_eq!(endpoint("POST", "/api/jobs/cancel").0, Endpoint::CancelJobs);
        assert_eq!(endpoint("POST", "/api/jobs/x/cancel"), (Endpoint::CancelJob, vec!["x".to_owned()]));
        assert_eq!(endpoint("GET", "/api/api/jobs/x").0, Endpoint::Job);
    }
}
