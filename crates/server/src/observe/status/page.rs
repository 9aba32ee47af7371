//! The live page: three files that are part of the program, and the events that fill it.
//!
//! The page loads nothing from elsewhere, and its policy forbids it to: no script, style or
//! connection but its own.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{AppendHeaders, IntoResponse as _, Response},
};
use bytes::Bytes;
use tokio::sync::mpsc;

use super::{View, api::problem};

/// What the page may do: only what is its own.
const POLICY: &str =
    "script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; form-action 'none'";

const PAGE: &str = include_str!("assets/page.html");
const LOGIN: &str = include_str!("assets/login.html");
const STYLE: &str = include_str!("assets/page.css");
const SCRIPT: &str = include_str!("assets/page.js");
const MAP_SCRIPT: &str = include_str!("assets/map.js");

/// Headers of everything that a browser shows: `policy` on top of "nothing from anywhere".
pub(crate) fn headers(policy: &str) -> AppendHeaders<[(header::HeaderName, HeaderValue); 5]> {
    let policy = format!("default-src 'none'; base-uri 'none'; frame-ancestors 'none'; {policy}");
    let policy = HeaderValue::from_str(&policy).expect("a policy is plain text");
    AppendHeaders([
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        // Another relay may answer here tomorrow, with another page.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ])
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind)], headers(POLICY), text).into_response()
}

/// `/`.
pub(crate) async fn index() -> Response {
    asset("text/html; charset=utf-8", PAGE)
}

/// `/page.css`.
pub(crate) async fn style() -> Response {
    asset("text/css; charset=utf-8", STYLE)
}

/// `/page.js`.
pub(crate) async fn script() -> Response {
    asset("text/javascript; charset=utf-8", SCRIPT)
}

/// `/map.js`.
pub(crate) async fn map_script() -> Response {
    asset("text/javascript; charset=utf-8", MAP_SCRIPT)
}

/// The form that asks for the token.
pub(crate) fn login(nonce: &str, was_wrong: bool) -> String {
    let note = if was_wrong { "That was not this relay’s token." } else { "" };
    LOGIN.replace("{nonce}", nonce).replace("{note}", note)
}

/// `/api/v1/events`: frames, as server-sent events.
pub(crate) async fn events(State(view): State<Arc<View>>) -> Response {
    let Some(frames) = view.feed.watch().await else {
        return problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many pages are open at once: close one, or ask /api/v1/swarms",
        );
    };
    let kind = [(header::CONTENT_TYPE, "text/event-stream")];
    (kind, headers(POLICY), Body::from_stream(Frames(frames))).into_response()
}

/// A watcher's channel as a body; when the browser goes it is dropped, which the keeper sees.
struct Frames(mpsc::Receiver<Bytes>);

impl futures_core::Stream for Frames {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|frame| frame.map(Ok))
    }
}
