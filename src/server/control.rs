//! The control thread: HTTP and signals. It sees snapshots only, never a shard's data.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::get,
};
use metrics_exporter_prometheus::PrometheusRecorder;
use shards::{Heartbeats, clock};

use tokio::runtime::Runtime;

use super::{metrics::Metrics, shared::Shared};

/// A shard that has not turned for so long is stuck.
const HEARTBEAT_AGE_MAX: Duration = Duration::from_secs(2);

/// How often histogram samples are sorted into buckets.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// What the HTTP handlers see.
pub(crate) struct Control {
    pub shared: Arc<Shared>,
    pub recorder: PrometheusRecorder,
    pub metrics: Metrics,
    pub heartbeats: Heartbeats,
    pub token: Option<String>,
}

/// Binds the HTTP address.
///
/// # Errors
/// The system's, with what to do.
pub(crate) fn bind(addr: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(addr).with_context(|| {
        format!("failed to listen on {addr} for HTTP; choose another address with --http")
    })?;
    listener.set_nonblocking(true).context("failed to set up the HTTP socket")?;
    Ok(listener)
}

/// The control thread's event loop: made before anybody is accepted, as it needs descriptors.
///
/// # Errors
/// The system's.
pub(crate) fn runtime() -> anyhow::Result<Runtime> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.context("failed to make the event loop of the HTTP service")
}

/// Serves until `ended` is done.
///
/// # Errors
/// The listener can't be set up.
pub(crate) fn serve(
    runtime: &Runtime,
    control: Arc<Control>,
    listener: TcpListener,
    ended: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let upkept = Arc::clone(&control);
        let upkeep = async move {
            loop {
                tokio::time::sleep(UPKEEP_INTERVAL).await;
                upkept.metrics.upkeep();
            }
        };
        let router = router(control);
        tokio::select! {
            served = async { axum::serve(listener, router).await } => served?,
            () = upkeep => {}
            () = ended => {}
        }
        Ok(())
    })
}

fn router(control: Arc<Control>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .layer(middleware::from_fn_with_state(Arc::clone(&control), authorize))
        .with_state(control)
}

/// Lets through who presents the token, if one is asked for.
async fn authorize(State(control): State<Arc<Control>>, request: Request, next: Next) -> Response {
    if let Some(token) = &control.token {
        let given = request.headers().get(header::AUTHORIZATION);
        let given = given.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        // Compared by digest: how long it takes tells nothing about the token.
        let matches = given
            .is_some_and(|given| blake3::hash(given.as_bytes()) == blake3::hash(token.as_bytes()));
        if !matches {
            let ask = [(header::WWW_AUTHENTICATE, "Bearer")];
            return (StatusCode::UNAUTHORIZED, ask, "a bearer token is needed\n").into_response();
        }
    }
    next.run(request).await
}

async fn metrics(State(control): State<Arc<Control>>) -> Response {
    let ages = control.heartbeats.ages(clock::now());
    let text = control.metrics.render(&control.recorder, &ages);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn healthz(State(control): State<Arc<Control>>) -> Response {
    let ages = control.heartbeats.ages(clock::now());
    let stuck: Vec<String> = ages
        .iter()
        .enumerate()
        .filter(|(_, age)| **age > HEARTBEAT_AGE_MAX)
        .map(|(shard, age)| format!("shard {shard} has not turned for {:.1} s", age.as_secs_f64()))
        .collect();
    if stuck.is_empty() {
        return "ok\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, stuck.join("\n") + "\n").into_response()
}

async fn readyz(State(control): State<Arc<Control>>) -> Response {
    if control.shared.is_draining() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response();
    }
    if !control.shared.is_ready() {
        return (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response();
    }
    "ok\n".into_response()
}
