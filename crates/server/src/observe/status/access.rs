//! Which requests may see the HTTP service: those that know the token, if there is one.
//!
//! Programs send it as a bearer token. A browser can't, so a person types it into a form once and
//! gets a cookie that no script can read and that no other site can make the browser send; it
//! holds not the token but a keyed hash of it that is worthless after a restart. Where there is
//! no token the service is bound to loopback; then names other than this machine's are refused for
//! the page and the API, so that no web page can reach them by a name that it made point here.

use axum::http::{HeaderMap, header};
use data_encoding::HEXLOWER;

use relay_protocol::limits::TOKEN_BYTES_MAX;

/// The cookie's name.
const COOKIE: &str = "relay-session";

/// How a request's headers are looked upon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Admission {
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

    /// Whether a path answers all requests: kubelets and load balancers have no token, and what they hear is no
    /// more than a status.
    pub(super) fn is_open(&self, path: &str) -> bool {
        path == "/login" || !self.probes_need_token && ["/healthz", "/readyz"].contains(&path)
    }

    /// Whether these headers may see anything.
    pub(super) fn admission(&self, headers: &HeaderMap) -> Admission {
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

    /// Whether no token is asked for.
    pub(super) fn is_free(&self) -> bool {
        self.token.is_none()
    }

    /// The cookie for a token that was typed in; `None` if it is a wrong one.
    pub(super) fn cookie_for(&self, typed: &str) -> Option<String> {
        let token = self.token.as_ref()?;
        // Not `Secure`: the relay speaks plain HTTP, what encrypts it stands in front of it.
        same(typed.trim(), token)
            .then(|| format!("{COOKIE}={}; Path=/; HttpOnly; SameSite=Strict", self.session))
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

#[cfg(test)]
pub(super) fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
    let value = value.parse().expect("a header's value");
    HeaderMap::from_iter([(name, value)])
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
