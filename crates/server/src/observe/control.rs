//! The control thread: HTTP and signals. It sees snapshots only, never a shard's data.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use axum::{
    Router,
    extract::{DefaultBodyLimit, State},
    http::{StatusCode, header},
    middleware,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use shards::{Ringer, SPIN_PATIENCE, SpinWatch, clock};

use tokio::{runtime::Runtime, sync::mpsc};

use super::{
    http,
    snapshot::ShardSnapshot,
    status::{Keeper, View, api, feed::Asks, gate, page},
};

/// A shard that has not turned for so long is stuck.
const HEARTBEAT_AGE_MAX: Duration = Duration::from_secs(2);

/// How often this thread looks at the clock: time goes on, though all event loops are stuck.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Looks after which histogram samples are sorted into buckets.
const LOOKS_PER_UPKEEP: usize = 10;

/// Bytes of a request's body, at most: the only one there is holds a token.
const BODY_BYTES_MAX: usize = 4096;

/// What the task that watches the shards takes.
pub(crate) struct Watching {
    pub snapshots: mpsc::Receiver<Arc<ShardSnapshot>>,
    pub asks: Asks,
    pub ringers: Vec<Ringer>,
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

/// The control thread's event loop: made before any connection is accepted, as it needs descriptors.
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
    view: Arc<View>,
    watching: Watching,
    listener: TcpListener,
    ended: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let upkept = Arc::clone(&view);
        let mut spins = SpinWatch::new(view.heartbeats.clone(), SPIN_PATIENCE);
        let upkeep = async move {
            loop {
                for _ in 0..LOOKS_PER_UPKEEP {
                    tokio::time::sleep(LOOK_INTERVAL).await;
                    let _looked_at = clock::now();
                }
                upkept.metrics.upkeep();
                upkept.shared.guesses.tell(clock::now());
                if let Some(why) = spins.look(clock::now()) {
                    // Nothing on its thread would ever end it, and half a relay serves half of its files.
                    relay_program::stderr::say(format_args!("error: {why}"));
                    std::process::exit(1);
                }
            }
        };
        let keeper = Keeper::new(&view.shared, view.heartbeats.clone(), watching.ringers);
        let keeping = keeper.run(watching.snapshots, watching.asks);
        let connections_max = view.shared.places.http;
        let router = router(view);
        tokio::select! {
            () = http::serve(listener, router, connections_max) => {}
            () = upkeep => {}
            () = keeping => {}
            () = ended => {}
        }
        Ok(())
    })
}

fn router(view: Arc<View>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/", get(page::index))
        .route("/page.css", get(page::style))
        .route("/page.js", get(page::script))
        .route("/map.js", get(page::map_script))
        .route("/login", post(gate::login))
        .route("/api/v1", get(api::about))
        .route("/api/v1/events", get(page::events))
        .route("/api/v1/shards", get(api::shards))
        .route("/api/v1/swarms", get(api::swarms))
        .route("/api/v1/swarms/{id}", get(api::swarm))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(Arc::clone(&view), gate::authorize))
        .with_state(view)
}

async fn metrics(State(view): State<Arc<View>>) -> Response {
    let ages = view.heartbeats.ages(clock::now());
    let text = view.metrics.render(&view.recorder, &ages);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn healthz(State(view): State<Arc<View>>) -> Response {
    let ages = view.heartbeats.ages(clock::now());
    match stuck(&ages) {
        None => "ok\n".into_response(),
        Some(which) => (StatusCode::SERVICE_UNAVAILABLE, which).into_response(),
    }
}

/// The shards that have not turned for too long, a line each.
fn stuck(ages: &[Duration]) -> Option<String> {
    let stuck = ages.iter().enumerate().filter(|(_, age)| **age > HEARTBEAT_AGE_MAX);
    let line = |(shard, age): (usize, &Duration)| {
        format!("shard {shard} has not turned for {:.1} s\n", age.as_secs_f64())
    };
    Some(stuck.map(line).collect::<String>()).filter(|lines| !lines.is_empty())
}

async fn readyz(State(view): State<Arc<View>>) -> Response {
    if view.shared.is_draining() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response();
    }
    if !view.shared.is_ready() {
        return (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response();
    }
    "ok\n".into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_that_are_stuck_are_named_and_no_others() {
        let [fresh, old] = [Duration::from_millis(600), HEARTBEAT_AGE_MAX * 2];
        assert_eq!(stuck(&[fresh, HEARTBEAT_AGE_MAX]), None);
        let told = stuck(&[fresh, old, fresh, old]).expect("two are stuck");
        assert_eq!(told, "shard 1 has not turned for 4.0 s\nshard 3 has not turned for 4.0 s\n");
    }
}
