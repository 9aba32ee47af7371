//! The gate of the HTTP service: lets requests through that may see it, and answers the others.
//!
//! What admits a request says [`super::access`].

use std::sync::Arc;

use axum::{
    Extension, Form,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::{Html, IntoResponse as _, Redirect, Response},
};
use data_encoding::HEXLOWER;
use serde::Deserialize;
use shards::clock;

use super::{View, access::Admission, api::problem, page};
use crate::observe::http::{ANSWER_PATIENCE, Remote, Talk};

/// Lets requests through that may see the service.
pub(crate) async fn authorize(
    State(view): State<Arc<View>>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let admission = view.access.admission(request.headers());
    let is_stranger = admission != Admission::Admitted;
    if is_stranger && !view.access.is_open(path) {
        let wants_page = path == "/" && request.method() == axum::http::Method::GET;
        let with_form = wants_page && accepts_html(request.headers());
        if admission == Admission::WrongToken {
            slow_down(&view, request.extensions().get().copied()).await;
        }
        return refuse(&view, with_form, false);
    }
    let is_public = ["/metrics", "/healthz", "/readyz"].contains(&path);
    if view.access.is_free() {
        let headers = request.headers();
        let is_local = is_public || is_named_local(headers) && is_asked_for_locally(&request);
        if !is_local || is_of_another_site(headers) {
            return problem(
                StatusCode::FORBIDDEN,
                "this relay answers to localhost and loopback addresses only, and to no other site's \
                 pages: use one of these, or start it with --http-token-file",
            );
        }
    }
    answer(request, next, is_stranger).await
}

/// Counts a wrong token, and lets its answer wait. A client that waits is silent meanwhile, and makes room for others.
async fn slow_down(view: &View, remote: Option<Remote>) {
    let Some(Remote(from)) = remote else { return };
    tokio::time::sleep(view.shared.guesses.note(clock::now(), from)).await;
}

/// What the service says, in good time. A stranger's connection is not kept for its sake.
async fn answer(request: Request, next: Next, is_stranger: bool) -> Response {
    let talk = request.extensions().get::<Arc<Talk>>().cloned();
    let stays = request.uri().path() == "/api/v1/events";
    if let Some(talk) = talk.as_ref().filter(|_| !is_stranger) {
        talk.answer();
    }
    let answered = tokio::time::timeout(ANSWER_PATIENCE, next.run(request)).await;
    let response = answered.unwrap_or_else(|_| {
        problem(StatusCode::REQUEST_TIMEOUT, "the request did not end in time: send it again")
    });
    if let Some(talk) = talk.filter(|_| !stays || !response.status().is_success()) {
        talk.pause();
    }
    response
}

fn accepts_html(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

/// Whether the request names this machine, as browsers say it; programs may say nothing.
fn is_named_local(headers: &HeaderMap) -> bool {
    headers.get_all(header::HOST).iter().all(|host| host.to_str().is_ok_and(is_local))
}

/// Whether a host, perhaps with a port, is this machine.
fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether a whole address, where the request's line has one as proxies are sent it, names this machine.
fn is_asked_for_locally(request: &Request) -> bool {
    request.uri().authority().is_none_or(|authority| is_local(authority.as_str()))
}

/// Whether a browser says that it asks on behalf of another site's page. Such a page can't read the
/// answer, but it could take the place of pages that can. Following a link to here is no such thing.
fn is_of_another_site(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let is_fetched = matches!(text("sec-fetch-site"), Some("cross-site" | "same-site"))
        && text("sec-fetch-mode") != Some("navigate");
    let origin =
        text("origin").map(|origin| origin.split_once("://").map_or(origin, |(_, host)| host));
    is_fetched || origin.is_some_and(|origin| Some(origin) != text("host"))
}

fn refuse(view: &View, with_form: bool, was_wrong: bool) -> Response {
    let ask = [(header::WWW_AUTHENTICATE, "Bearer")];
    if !with_form {
        return (StatusCode::UNAUTHORIZED, ask, "a bearer token is needed\n").into_response();
    }
    let nonce = HEXLOWER.encode(&view.shared.nonces.next(([0, 0, 0, 0], 0).into()));
    let headers = page::headers(&format!("style-src 'nonce-{nonce}'; form-action 'self'"));
    (StatusCode::UNAUTHORIZED, ask, headers, Html(page::login(&nonce, was_wrong))).into_response()
}

/// What the form sends.
#[derive(Deserialize)]
pub(crate) struct Login {
    token: String,
}

/// `POST /login`: the token for a cookie.
pub(crate) async fn login(
    State(view): State<Arc<View>>,
    Extension(remote): Extension<Remote>,
    Form(login): Form<Login>,
) -> Response {
    if view.access.is_free() {
        return Redirect::to("/").into_response();
    }
    let Some(cookie) = view.access.cookie_for(&login.token) else {
        slow_down(&view, Some(remote)).await;
        return refuse(&view, true, true);
    };
    ([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response()
}

#[cfg(test)]
mod tests {
    use super::{super::access::headers, *};

    #[test]
    fn pages_of_other_sites_are_told_apart_from_ours_and_from_programs() {
        let ask = |lines: &[(&'static str, &str)]| {
            let mut all = headers(header::HOST, "localhost:7441");
            for (name, value) in lines {
                all.insert(*name, value.parse().expect("a header's value"));
            }
            is_of_another_site(&all)
        };
        assert!(!ask(&[]), "programs say nothing");
        assert!(!ask(&[("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")]));
        assert!(!ask(&[("sec-fetch-site", "same-origin"), ("origin", "http://localhost:7441")]));
        assert!(!ask(&[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]));
        assert!(ask(&[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")]));
        assert!(
            ask(&[("sec-fetch-site", "same-site"), ("sec-fetch-mode", "cors")]),
            "another port"
        );
        assert!(ask(&[("origin", "https://evil.example")]));
        assert!(ask(&[("origin", "http://localhost:8080")]));
        assert!(ask(&[("origin", "null")]));
    }

    #[test]
    fn only_names_of_this_machine_are_local() {
        for local in
            ["localhost", "LOCALHOST:80", "127.0.0.1:7441", "127.9.9.9", "[::1]:7441", "[::1]"]
        {
            assert!(is_named_local(&headers(header::HOST, local)), "{local}");
        }
        for other in ["evil.example", "localhost.evil.example:7441", "192.168.0.1", "[fe80::1]", ""]
        {
            assert!(!is_named_local(&headers(header::HOST, other)), "{other}");
        }
        assert!(is_named_local(&HeaderMap::new()));
    }
}
