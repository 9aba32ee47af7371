//! The client's side of CONNECT of HTTP (RFC 9110, section 9.3.6), until the proxy has connected.
//!
//! Bytes in, bytes out: touches no socket. It asks for no more bytes than the rest of the head has at least, so nothing
//! of the relay is ever among them.

use data_encoding::BASE64;
use relay_protocol::RelayAddr;

use super::{fault::ProxyFault, url::Proxy};

/// Heads of the proxy's answer have at most so many bytes: real ones have some hundred, and what does not end is no
/// answer.
const HEAD_BYTES_MAX: usize = 8 << 10;

/// What the proxy says beside its status is shown up to so many characters.
const REASON_CHARS_MAX: usize = 100;

/// How every answer begins, but for the minor version.
const BEGIN: &[u8] = b"HTTP/1.";

/// The exchange.
#[derive(Debug)]
pub(super) struct Connect {
    has_login: bool,
    /// The answer's head, as far as it is here.
    head: Vec<u8>,
    /// Bytes of heads that announced another one.
    before_bytes: usize,
    is_done: bool,
    out: Vec<u8>,
}

impl Connect {
    /// To this relay.
    pub(super) fn new(proxy: &Proxy, relay: &RelayAddr) -> Self {
        let mut request = format!("CONNECT {relay} HTTP/1.1\r\nHost: {relay}\r\n");
        if let Some(login) = proxy.login() {
            let login_bytes = [&login.user[..], b":", &login.password].concat();
            request += "Proxy-Authorization: Basic ";
            request += &BASE64.encode(&login_bytes);
            request += "\r\n";
        }
        request += "\r\n";
        Self {
            has_login: proxy.login().is_some(),
            head: Vec::new(),
            before_bytes: 0,
            is_done: false,
            out: request.into_bytes(),
        }
    }

    pub(super) fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// So many bytes are the proxy's for certain; 0 once it has connected.
    pub(super) fn wants(&self) -> usize {
        // A head ends with an empty line. Lines may end without a carriage return.
        match &self.head[..] {
            _ if self.is_done => 0,
            [.., b'\n'] | [.., b'\n', b'\r'] => 1,
            _ => 2,
        }
    }

    /// Takes bytes of the proxy; how many of them. The others are the relay's.
    pub(super) fn handle_input(&mut self, bytes: &[u8]) -> Result<usize, ProxyFault> {
        for (index, byte) in bytes.iter().enumerate() {
            if self.is_done {
                return Ok(index);
            }
            self.handle_byte(*byte)?;
        }
        Ok(bytes.len())
    }

    fn handle_byte(&mut self, byte: u8) -> Result<(), ProxyFault> {
        // What is no HTTP is not waited for.
        if BEGIN.get(self.head.len()).is_some_and(|expected| *expected != byte) {
            return Err(ProxyFault::NotHttp);
        }
        self.head.push(byte);
        if self.before_bytes + self.head.len() > HEAD_BYTES_MAX {
            return Err(ProxyFault::TooLong(HEAD_BYTES_MAX));
        }
        if self.head.ends_with(b"\n\n") || self.head.ends_with(b"\n\r\n") {
            self.handle_head()?;
        }
        Ok(())
    }

    fn handle_head(&mut self) -> Result<(), ProxyFault> {
        let head = std::mem::take(&mut self.head);
        let (status, reason) = parse_status(&head).ok_or(ProxyFault::NotHttp)?;
        match status {
            // No body follows, whatever the head says of one: the relay's bytes do.
            200..=299 => self.is_done = true,
            // The answer is still to come.
            100 | 102..=199 => self.before_bytes += head.len(),
            407 if self.has_login => return Err(ProxyFault::LoginRefused),
            407 => return Err(ProxyFault::LoginWanted),
            _ => return Err(ProxyFault::Http { status, reason }),
        }
        Ok(())
    }
}

/// Status and reason of a head's first line, the latter cut and without control characters.
fn parse_status(head: &[u8]) -> Option<(u16, String)> {
    let line = head.split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    let (version, rest) = line.trim_end().split_once(' ')?;
    let (status, reason) = rest.split_once(' ').unwrap_or((rest, ""));
    let is_minor = |minor: &str| matches!(minor.as_bytes(), [digit] if digit.is_ascii_digit());
    let is_status = status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit());
    if !version.strip_prefix("HTTP/1.").is_some_and(is_minor) || !is_status {
        return None;
    }
    let reason = reason.chars().filter(|char| !char.is_control()).take(REASON_CHARS_MAX);
    Some((status.parse().ok()?, reason.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(url: &str, relay: &str) -> Connect {
        Connect::new(&url.parse().expect("a proxy"), &relay.parse().expect("a relay"))
    }

    fn plain() -> Connect {
        connect("http://proxy:3128", "relay:7440")
    }

    /// Gives it all that the proxy says in one; what was not the proxy's.
    fn hear<'a>(connect: &mut Connect, said: &'a str) -> Result<&'a str, ProxyFault> {
        let taken = connect.handle_input(said.as_bytes())?;
        Ok(&said[taken..])
    }

    #[test]
    fn a_relay_is_asked_for_with_a_login_if_there_is_one() {
        let text = |mut connect: Connect| String::from_utf8(connect.take_output()).unwrap();
        assert_eq!(text(plain()), "CONNECT relay:7440 HTTP/1.1\r\nHost: relay:7440\r\n\r\n");
        let asked = text(connect("http://Aladdin:open%20sesame@proxy:1", "[2001:db8::1]:80"));
        assert_eq!(
            asked,
            "CONNECT [2001:db8::1]:80 HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\
             Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n"
        );
    }

    #[test]
    fn what_follows_the_head_is_the_relays_however_it_comes() {
        for head in [
            "HTTP/1.1 200 Connection established\r\n\r\n",
            "HTTP/1.0 200 OK\r\nVia: x\r\nContent-Length: 100\r\n\r\n",
            "HTTP/1.1 204\n\n",
            "HTTP/1.1 200 \r\nA: b\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        ] {
            for rest in ["", "\r\n\r\n", "\n", "HTTP"] {
                let mut at_once = plain();
                let all = format!("{head}{rest}");
                assert_eq!(hear(&mut at_once, &all).unwrap(), rest, "{head:?}");
                assert_eq!(at_once.wants(), 0);
            }
            // As much as is wanted, which never reaches beyond the head.
            let (mut as_wanted, mut left) = (plain(), head.as_bytes());
            while as_wanted.wants() > 0 {
                let (piece, rest) = left.split_at(as_wanted.wants());
                assert_eq!(as_wanted.handle_input(piece).unwrap(), piece.len());
                left = rest;
            }
            assert!(left.is_empty(), "{head:?}");
            // A head that breaks off is still wanted.
            let mut by_byte = plain();
            for byte in head.as_bytes() {
                assert!(by_byte.wants() > 0, "{head:?}");
                assert_eq!(by_byte.handle_input(&[*byte]).unwrap(), 1);
            }
            assert_eq!(by_byte.wants(), 0);
        }
    }

    #[test]
    fn every_refusal_is_told_apart() {
        for status in (101..=101).chain(300..=599).filter(|status| *status != 407) {
            let said = format!("HTTP/1.1 {status} No\x1b[31m\r\n\r\n");
            let fault = hear(&mut plain(), &said);
            let fault = fault.expect_err("it is refused");
            assert!(
                matches!(&fault, ProxyFault::Http { status: found, reason } if *found == status && reason == "No[31m"),
                "{fault}"
            );
        }
        let unauthorized = "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n";
        let fault = hear(&mut plain(), unauthorized).unwrap_err();
        assert!(matches!(fault, ProxyFault::LoginWanted), "{fault}");
        let mut with_login = connect("http://a:b@proxy:1", "relay");
        let fault = hear(&mut with_login, unauthorized).unwrap_err();
        assert!(matches!(fault, ProxyFault::LoginRefused), "{fault}");
        let long = format!("HTTP/1.1 502 {}\r\n\r\n", "x".repeat(1000));
        let fault = hear(&mut plain(), &long).unwrap_err().to_string();
        assert!(fault.len() < 300, "{fault}");
    }

    #[test]
    fn what_is_no_http_or_does_not_end_is_an_error() {
        for said in [
            "\u{5}",
            "RELAY",
            "HTTP/2 200\r\n",
            "HTTP/1.1\r\n\r\n",
            "HTTP/1.1 2000 x\r\n\r\n",
            "HTTP/1.1 +20 x\r\n\r\n",
            "HTTP/1.10 200 x\r\n\r\n",
            "HTTP/1.1200 OK\r\n\r\n",
        ] {
            let fault = hear(&mut plain(), said).expect_err("it is refused");
            assert!(matches!(fault, ProxyFault::NotHttp), "{said:?}: {fault}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\n{}", "x".repeat(HEAD_BYTES_MAX));
        let fault = hear(&mut plain(), &endless).unwrap_err();
        assert!(matches!(fault, ProxyFault::TooLong(HEAD_BYTES_MAX)), "{fault}");
        let endless = "HTTP/1.1 100 Continue\r\n\r\n".repeat(HEAD_BYTES_MAX / 20);
        let fault = hear(&mut plain(), &endless).unwrap_err();
        assert!(matches!(fault, ProxyFault::TooLong(_)), "{fault}");
    }
}
