//! The HTTP and websocket face of a server life: accept loop, route table, aiohttp's manners.

mod custom_routes;
mod emulator_routes;
mod files;
mod guard;
mod info;
mod internal;
mod jobs;
mod prompt;
mod queue;
mod reply;
mod request;
mod upload;
mod user;
mod view;
mod web;
mod ws;

use std::sync::Arc;

use axum::{
    Router, middleware,
    routing::{any, get, patch, post},
};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::{
    config::Flavour,
    life::{End, Life},
    worker,
};

type App = Arc<Life>;

/// Serves until the life ends; every connection and the worker end with it.
pub(crate) async fn serve(life: &App, listener: TcpListener) -> End {
    let router = router(life);
    let mut tasks = JoinSet::new();
    tasks.spawn(worker::work(Arc::clone(life)));
    let end = loop {
        tokio::select! {
            end = life.ended() => break end,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => { tasks.spawn(connection(stream, router.clone())); }
                Err(error) => tracing::warn!(%error, "accept failed"),
            },
            Some(_) = tasks.join_next() => {}
        }
    };
    drop(listener);
    tasks.shutdown().await;
    end
}

async fn connection(stream: TcpStream, router: Router) {
    let _ = stream.set_nodelay(true);
    let service = TowerToHyperService::new(router);
    let served = http1::Builder::new()
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection ended");
    }
}

fn router(life: &App) -> Router {
    let twins = twins();
    Router::new()
        .merge(twins.clone())
        .nest("/api", twins)
        .merge(singles(life.machine.config.flavour))
        .route("/api/", get(web::index))
        .fallback(web::file)
        .method_not_allowed_fallback(reply::unknown_path)
        .layer(middleware::from_fn(guard::origin))
        .layer(middleware::from_fn(guard::cache_control))
        .layer(middleware::from_fn_with_state(Arc::clone(life), guard::frozen))
        .layer(middleware::from_fn_with_state(Arc::clone(life), guard::broken))
        .merge(custom_routes::router())
        .merge(emulator_routes::router())
        .with_state(Arc::clone(life))
}

/// Routes that exist at `/x` and at `/api/x`.
fn twins() -> Router<App> {
    Router::new()
        .route("/ws", get(ws::connect))
        .route("/prompt", get(prompt::show).post(prompt::submit))
        .route("/queue", get(queue::show).post(queue::change))
        .route("/interrupt", post(queue::interrupt))
        .route("/free", post(queue::free))
        .route("/history", get(queue::history).post(queue::change_history))
        .route("/history/{prompt_id}", get(queue::history_entry))
        .route("/view", get(view::view))
        .route("/view_metadata/{folder}", get(info::view_metadata))
        .route("/upload/image", post(upload::image))
        .route("/upload/mask", post(upload::mask))
        .route("/object_info", get(info::object_info))
        .route("/object_info/{class}", get(info::object_info_class))
        .route("/system_stats", get(info::system_stats))
        .route("/features", get(info::features))
        .route("/embeddings", get(info::embeddings))
        .route("/models", get(info::models))
        .route("/models/{folder}", get(info::models_in))
        .route("/experiment/models", get(info::experiment_models))
        .route("/experiment/models/{folder}", get(info::experiment_models_in))
        .route("/experiment/models/preview/{folder}/{path_index}/{file}", get(info::model_preview))
        .route("/extensions", get(web::extensions))
        .route("/workflow_templates", get(info::empty_object))
        .route("/i18n", get(info::empty_object))
        .route("/users", get(user::users).post(user::add_user))
        .route("/settings", get(user::settings).post(user::merge_settings))
        .route("/settings/{id}", get(user::setting).post(user::set_setting))
        .route("/userdata", get(user::list))
        .route("/userdata/{file}", get(user::read).post(user::write).delete(user::delete))
        .route("/userdata/{file}/move/{dest}", post(user::rename))
}

/// Routes without a twin, or with a literal `/api`.
fn singles(flavour: Flavour) -> Router<App> {
    let routes = Router::new()
        .route("/", get(web::index))
        .route("/internal/logs", get(internal::logs))
        .route("/internal/logs/raw", get(internal::raw_logs))
        .route("/internal/logs/subscribe", patch(internal::subscribe))
        .route("/internal/folder_paths", get(internal::folder_paths))
        .route("/internal/files/{place}", get(internal::files));
    match flavour {
        Flavour::V0_3_64 => routes,
        Flavour::V0_8_0 => routes
            .route("/api/jobs", get(jobs::list))
            .route("/api/jobs/{job_id}", get(jobs::detail))
            .route("/api/api/jobs", get(jobs::list))
            .route("/api/api/jobs/{job_id}", get(jobs::detail))
            .route("/global_subgraphs", get(info::empty_object))
            .route("/api/global_subgraphs", get(info::empty_object))
            .route("/global_subgraphs/{id}", any(info::null))
            .route("/api/global_subgraphs/{id}", any(info::null)),
    }
}
