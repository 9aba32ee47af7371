//! Who may see the HTTP service: whoever knows the token, if there is one.
//!
//! Programs send it as a bearer token. A browser can't, so a person types it into a form once and
//! gets a cookie that no script can read and that no other site can make the browser send; it
//! holds not the token but a keyed hash of it that is worthless after a restart. Where there is
//! no token the service is bound to loopback; then names other than this machine's are refused for
//! the page and the API, so that no web page can reach them by a name that it made point here.

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

use super::{api::problem, page};
use crate::{
    control::Control,
    http::{ANSWER_PATIENCE, Remote, Talk},
};
use relay_protocol::limits::TOKEN_BYTES_MAX;

/// The cookie's name.
const COOKIE: &str = "relay-session";

/// How a request's headers are looked upon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Admission {
    Admitted,
    /// They hold nothing that would admit them.
    Stranger,
    /// They hold a token, and not the right one.
    WrongToken,
}

/// The token, and the value of the cookie that stands for it.
pub(crate) struct Access {
    token: Option<String>,
    session: String,
    probes_need_token: bool,
}

impl Access {
    /// For this token, if any; `secret` is of this process only.
    pub(crate) fn new(token: Option<String>, secret: [u8; 32], probes_need_token: bool) -> Self {
        let hash = blake3::keyed_hash(&secret, token.as_deref().unwrap_or_default().as_bytes());
        Self { token, session: HEXLOWER.encode(hash.as_bytes()), probes_need_token }
    }

    /// Whether a path answers whoever asks: kubelets and load balancers have no token, and what they hear is no
    /// more than a status.
    fn is_open(&self, path: &str) -> bool {
        path == "/login" || !self.probes_need_token && ["/healthz", "/readyz"].contains(&path)
    }

    /// Whether these headers may see anything.
    fn admission(&self, headers: &HeaderMap) -> Admission {
        let Some(token) = &self.token else { return Admission::Admitted };
        let text =
            |name| headers.get(name).and_then(|value: &header::HeaderValue| value.to_str().ok());
        let bearer = text(header::AUTHORIZATION).and_then(bearer);
        let cookies =
            headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut sessions = cookies
            .flat_map(|cookies| cookies.split(';'))
            .filter_map(|cookie| cookie.trim().strip_prefix(COOKIE)?.strip_prefix('='));
        if bearer.is_some_and(|given| same(given, token))
            || sessions.any(|given| same(given, &self.session))
        {
            return Admission::Admitted;
        }
        // A cookie of before a restart is no guess.
        match headers.contains_key(header::AUTHORIZATION) {
            true => Admission::WrongToken,
            false => Admission::Stranger,
        }
    }
}

/// The token of an authorization, whose scheme has no case.
fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Compared by digest: how long it takes tells nothing about what was expected. What no token is long enough
/// for is not looked at.
fn same(given: &str, expected: &str) -> bool {
    given.len() <= TOKEN_BYTES_MAX
        && blake3::hash(given.as_bytes()) == blake3::hash(expected.as_bytes())
}

/// Lets through who may see the service.
pub(crate) async fn authorize(
    State(control): State<Arc<Control>>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let admission = control.access.admission(request.headers());
    let is_stranger = admission != Admission::Admitted;
    if is_stranger && !control.access.is_open(path) {
        let wants_page = path == "/" && request.method() == axum::http::Method::GET;
        let with_form = wants_page && accepts_html(request.headers());
        if admission == Admission::WrongToken {
            slow_down(&control, request.extensions().get().copied()).await;
        }
        return refuse(&control, with_form, false);
    }
    let is_public = ["/metrics", "/healthz", "/readyz"].contains(&path);
    if control.access.token.is_none() {
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

/// Counts a wrong token, and lets its answer wait. Whoever waits is silent meanwhile, and makes room for others.
async fn slow_down(control: &Control, remote: Option<Remote>) {
    let Some(Remote(from)) = remote else { return };
    tokio::time::sleep(control.shared.guesses.note(clock::now(), from)).await;
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

fn refuse(control: &Control, with_form: bool, was_wrong: bool) -> Response {
    let ask = [(header::WWW_AUTHENTICATE, "Bearer")];
    if !with_form {
        return (StatusCode::UNAUTHORIZED, ask, "a bearer token is needed\n").into_response();
    }
    let nonce = HEXLOWER.encode(&control.shared.nonces.next(([0, 0, 0, 0], 0).into()));
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
    State(control): State<Arc<Control>>,
    Extension(remote): Extension<Remote>,
    Form(login): Form<Login>,
) -> Response {
    let Some(token) = &control.access.token else { return Redirect::to("/").into_response() };
    if !same(login.token.trim(), token) {
        slow_down(&control, Some(remote)).await;
        return refuse(&control, true, true);
    }
    // Not `Secure`: the relay speaks plain HTTP, what encrypts it stands in front of it.
    let cookie = format!("{COOKIE}={}; Path=/; HttpOnly; SameSite=Strict", control.access.session);
    ([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        let value = value.parse().expect("a header's value");
        HeaderMap::from_iter([(name, value)])
    }

    #[test]
    fn the_cookie_opens_as_the_token_does_and_is_not_it() {
        let access = Access::new(Some("secret".into()), [7; 32], false);
        assert!(!access.session.contains("secret"));
        let admits =
            |name, value: &str| access.admission(&headers(name, value)) == Admission::Admitted;
        assert!(admits(header::AUTHORIZATION, "Bearer secret"));
        assert!(!admits(header::AUTHORIZATION, "Bearer Secret"));
        let session = &access.session;
        assert!(admits(header::COOKIE, &format!("other=1; {COOKIE}={session}")));
        assert!(!admits(header::COOKIE, &format!("{COOKIE}={}", &session[1..])));
        assert!(!admits(header::COOKIE, &format!("{COOKIE}=secret")));
        assert!(!admits(header::COOKIE, &format!("x{COOKIE}={session}")));
        let restarted = Access::new(Some("secret".into()), [8; 32], false);
        let old = headers(header::COOKIE, &format!("{COOKIE}={session}"));
        assert_eq!(restarted.admission(&old), Admission::Stranger, "it guesses nothing");
        let open = Access::new(None, [7; 32], false);
        assert_eq!(open.admission(&HeaderMap::new()), Admission::Admitted);
    }

    #[test]
    fn the_scheme_has_no_case_and_the_token_a_longest_length() {
        let token = "x".repeat(TOKEN_BYTES_MAX);
        let access = Access::new(Some(token.clone()), [7; 32], false);
        let admission = |value: &str| access.admission(&headers(header::AUTHORIZATION, value));
        for scheme in ["Bearer", "bearer", "BEARER", "bEaReR"] {
            assert_eq!(admission(&format!("{scheme} {token}")), Admission::Admitted, "{scheme}");
        }
        for wrong in
            [format!("Bearer {token}x"), format!("Basic {token}"), format!("Bearer{token}")]
        {
            assert_eq!(admission(&wrong), Admission::WrongToken);
        }
        assert_eq!(access.admission(&HeaderMap::new()), Admission::Stranger);
    }

    #[test]
    fn probes_answer_anybody_unless_they_shall_not() {
        let open = |probes_need_token| {
            let access = Access::new(Some("secret".into()), [7; 32], probes_need_token);
            ["/healthz", "/readyz", "/login", "/metrics", "/", "/api/v1/shards"]
                .map(|path| access.is_open(path))
        };
        assert_eq!(open(false), [true, true, true, false, false, false]);
        assert_eq!(open(true), [false, false, true, false, false, false]);
    }

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
