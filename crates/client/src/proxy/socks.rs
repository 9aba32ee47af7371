//! The client's side of SOCKS 5 (RFC 1928), with user name and password (RFC 1929), until the proxy has connected.
//!
//! Bytes in, bytes out: touches no socket. It asks for exactly the bytes that the proxy still has to send, so nothing
//! of the relay is ever among them.

use core::net::IpAddr;

use relay_protocol::RelayAddr;

use super::{
    fault::ProxyFault,
    url::{Login, Proxy},
};

const VERSION: u8 = 5;
/// Of the exchange of RFC 1929.
const LOGIN_VERSION: u8 = 1;

const METHOD_NONE: u8 = 0;
const METHOD_LOGIN: u8 = 2;
const METHOD_REFUSED: u8 = 0xff;

const COMMAND_CONNECT: u8 = 1;

const ADDRESS_IPV4: u8 = 1;
const ADDRESS_NAME: u8 = 3;
const ADDRESS_IPV6: u8 = 4;

/// Bytes of a port.
const PORT_BYTES: usize = 2;

/// The longest piece that is waited for: a name of 255 bytes and a port.
pub(super) const PIECE_BYTES_MAX: usize = u8::MAX as usize + PORT_BYTES;

/// The exchange.
#[derive(Debug)]
pub(super) struct Socks {
    relay: RelayAddr,
    login: Option<Login>,
    stage: Stage,
    /// Of the piece that is awaited, what is here.
    piece: Vec<u8>,
    /// How long that piece is; 0 once the proxy has connected.
    piece_len: usize,
    out: Vec<u8>,
}

/// What is awaited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Which way to log in the proxy wants: 2 bytes.
    Method,
    /// Whether it takes the login: 2 bytes.
    Login,
    /// Version, reply, a zero, and the kind of address: 4 bytes.
    Reply,
    /// How long a name is: 1 byte.
    NameLength,
    /// The address and port that the proxy uses, which nothing depends on.
    Address,
    Done,
}

impl Socks {
    /// To this relay.
    pub(super) fn new(proxy: &Proxy, relay: &RelayAddr) -> Self {
        let login = proxy.login().cloned();
        let out = match login {
            Some(_) => vec![VERSION, 2, METHOD_NONE, METHOD_LOGIN],
            None => vec![VERSION, 1, METHOD_NONE],
        };
        let relay = relay.clone();
        Self { relay, login, stage: Stage::Method, piece: Vec::new(), piece_len: 2, out }
    }

    pub(super) fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// So many bytes are the proxy's for certain; 0 once it has connected.
    pub(super) fn wants(&self) -> usize {
        self.piece_len - self.piece.len()
    }

    /// Takes bytes of the proxy; how many of them. The others are the relay's.
    pub(super) fn handle_input(&mut self, mut bytes: &[u8]) -> Result<usize, ProxyFault> {
        let given = bytes.len();
        while self.stage != Stage::Done && !bytes.is_empty() {
            let (taken, rest) = bytes.split_at(self.wants().min(bytes.len()));
            self.piece.extend_from_slice(taken);
            bytes = rest;
            // What the first byte tells is not waited for: the others may never come.
            self.check_version()?;
            if self.wants() == 0 {
                let piece = std::mem::take(&mut self.piece);
                self.handle_piece(&piece)?;
            }
        }
        Ok(given - bytes.len())
    }

    fn check_version(&self) -> Result<(), ProxyFault> {
        match (self.stage, self.piece.first()) {
            (Stage::Method, Some(version)) if *version != VERSION => Err(ProxyFault::NotSocks),
            (Stage::Reply, Some(version)) if *version != VERSION => {
                Err(ProxyFault::Nonsense("its reply is of another version than SOCKS 5"))
            }
            _ => Ok(()),
        }
    }

    fn handle_piece(&mut self, piece: &[u8]) -> Result<(), ProxyFault> {
        match (self.stage, piece) {
            (Stage::Method, [_, method]) => self.handle_method(*method)?,
            // Some proxies write the version of SOCKS first: only the second byte counts.
            (Stage::Login, [_, 0]) => self.ask(),
            (Stage::Login, _) => return Err(ProxyFault::LoginRefused),
            (Stage::Reply, [_, 0, _, kind]) => match *kind {
                ADDRESS_IPV4 => self.wait_for(Stage::Address, 4 + PORT_BYTES),
                ADDRESS_IPV6 => self.wait_for(Stage::Address, 16 + PORT_BYTES),
                ADDRESS_NAME => self.wait_for(Stage::NameLength, 1),
                _ => return Err(ProxyFault::Nonsense("its reply has an address of no kind")),
            },
            (Stage::Reply, piece) => return Err(ProxyFault::Socks(piece[1])),
            (Stage::NameLength, piece) => {
                self.wait_for(Stage::Address, usize::from(piece[0]) + PORT_BYTES);
            }
            (Stage::Method | Stage::Address | Stage::Done, _) => self.wait_for(Stage::Done, 0),
        }
        Ok(())
    }

    fn handle_method(&mut self, method: u8) -> Result<(), ProxyFault> {
        match (method, &self.login) {
            (METHOD_NONE, _) => self.ask(),
            (METHOD_LOGIN, Some(Login { user, password })) => {
                self.out.push(LOGIN_VERSION);
                for text in [user, password] {
                    self.out.push(length_byte(text));
                    self.out.extend_from_slice(text);
                }
                self.wait_for(Stage::Login, 2);
            }
            (METHOD_LOGIN | METHOD_REFUSED, None) => return Err(ProxyFault::LoginWanted),
            (METHOD_REFUSED, Some(_)) => return Err(ProxyFault::LoginUnknown),
            _ => {
                return Err(ProxyFault::Nonsense("it chose a way to log in that was not offered"));
            }
        }
        Ok(())
    }

    /// Asks for the connection.
    fn ask(&mut self) {
        self.out.extend_from_slice(&[VERSION, COMMAND_CONNECT, 0]);
        let host = self.relay.host();
        match host.parse() {
            Ok(IpAddr::V4(addr)) => {
                self.out.push(ADDRESS_IPV4);
                self.out.extend_from_slice(&addr.octets());
            }
            Ok(IpAddr::V6(addr)) => {
                self.out.push(ADDRESS_IPV6);
                self.out.extend_from_slice(&addr.octets());
            }
            Err(_) => {
                self.out.push(ADDRESS_NAME);
                self.out.push(length_byte(host.as_bytes()));
                self.out.extend_from_slice(host.as_bytes());
            }
        }
        self.out.extend_from_slice(&self.relay.port().to_be_bytes());
        self.wait_for(Stage::Reply, 4);
    }

    fn wait_for(&mut self, stage: Stage, piece_len: usize) {
        (self.stage, self.piece_len) = (stage, piece_len);
    }
}

/// A relay's name, a user name and a password were checked to be short when they were read.
fn length_byte(text: &[u8]) -> u8 {
    u8::try_from(text.len()).expect("its length was checked")
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELAY: &str = "relay.example.org:7440";
    const GRANTED: [u8; 10] = [5, 0, 0, 1, 10, 0, 0, 1, 0x1d, 0x10];

    fn socks(url: &str, relay: &str) -> Socks {
        Socks::new(&url.parse().expect("a proxy"), &relay.parse().expect("a relay"))
    }

    /// Gives it all that the proxy says in one; what it said to that, and what was not the proxy's.
    fn hear<'a>(socks: &mut Socks, bytes: &'a [u8]) -> Result<(Vec<u8>, &'a [u8]), ProxyFault> {
        let taken = socks.handle_input(bytes)?;
        Ok((socks.take_output(), &bytes[taken..]))
    }

    #[test]
    fn a_relay_is_asked_for_by_its_name_or_its_address() {
        let name = [&[5, 1, 0, 3, 17][..], b"relay.example.org", &[0x1d, 0x10]].concat();
        let mut address = vec![5, 1, 0, 4];
        address.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 80]);
        for (relay, request) in [
            (RELAY, name),
            ("192.0.2.1:7440", vec![5, 1, 0, 1, 192, 0, 2, 1, 0x1d, 0x10]),
            ("[2001:db8::7]:80", address),
        ] {
            let mut socks = socks("socks5h://proxy", relay);
            assert_eq!(socks.take_output(), [5, 1, 0]);
            assert_eq!(hear(&mut socks, &[5, 0]).unwrap(), (request, &[][..]));
            assert_eq!(hear(&mut socks, &GRANTED).unwrap(), (Vec::new(), &[][..]));
            assert_eq!(socks.wants(), 0);
        }
    }

    #[test]
    fn a_login_is_given_where_the_proxy_wants_it() {
        let mut asked = socks("socks5h://me:pass@proxy", RELAY);
        assert_eq!(asked.take_output(), [5, 2, 0, 2]);
        let login = [&[1, 2][..], b"me", &[4], b"pass"].concat();
        assert_eq!(hear(&mut asked, &[5, 2]).unwrap().0, login);
        assert_eq!(hear(&mut asked, &[1, 0]).unwrap().0[..4], [5, 1, 0, 3]);
        hear(&mut asked, &GRANTED).unwrap();
        assert_eq!(asked.wants(), 0);
        // It need not want it.
        let mut unasked = socks("socks5h://me:pass@proxy", RELAY);
        unasked.take_output();
        assert_eq!(hear(&mut unasked, &[5, 0]).unwrap().0[..4], [5, 1, 0, 3]);
    }

    #[test]
    fn what_follows_the_reply_is_the_relays_however_it_comes() {
        let name = [&[5, 0, 0, 3, 3][..], b"abc", &[0, 80]].concat();
        let ipv6 = [&[5, 0, 0, 4][..], &[9; 18]].concat();
        for reply in [&GRANTED[..], &name, &ipv6, &[5, 0, 0, 3, 0, 0, 80]] {
            let all = [&[5, 0][..], reply, b"of the relay"].concat();
            let mut at_once = socks("socks5://proxy", RELAY);
            assert_eq!(hear(&mut at_once, &all).unwrap().1, b"of the relay");
            let mut by_byte = socks("socks5://proxy", RELAY);
            for byte in &all[..2 + reply.len()] {
                // What is wanted never reaches beyond the reply.
                assert!(by_byte.wants() > 0 && by_byte.wants() <= PIECE_BYTES_MAX);
                assert_eq!(by_byte.handle_input(&[*byte]).unwrap(), 1);
            }
            assert_eq!((by_byte.wants(), by_byte.handle_input(b"more").unwrap()), (0, 0));
        }
    }

    #[test]
    fn every_refusal_is_told_apart() {
        let fault = |url: &str, said: &[&[u8]]| {
            let mut socks = socks(url, RELAY);
            said.iter().find_map(|bytes| hear(&mut socks, bytes).err()).expect("it is refused")
        };
        for reply in 1..=u8::MAX {
            // The bytes after the reply need not come.
            let found = fault("socks5://proxy", &[&[5, 0], &[5, reply, 0, 1]]);
            assert!(matches!(found, ProxyFault::Socks(code) if code == reply), "{found}");
        }
        let with_login = "socks5://me:pass@proxy";
        for method in [METHOD_LOGIN, METHOD_REFUSED] {
            let found = fault("socks5://proxy", &[&[5, method]]);
            assert!(matches!(found, ProxyFault::LoginWanted), "{found}");
        }
        let found = fault(with_login, &[&[5, METHOD_REFUSED]]);
        assert!(matches!(found, ProxyFault::LoginUnknown), "{found}");
        for said in [&[1, 1][..], &[1, 255], &[5, 1]] {
            let found = fault(with_login, &[&[5, 2], said]);
            assert!(matches!(found, ProxyFault::LoginRefused), "{found}");
        }
        // GSSAPI was not offered.
        let found = fault(with_login, &[&[5, 1]]);
        assert!(matches!(found, ProxyFault::Nonsense(_)), "{found}");
        for (first, text) in [(b'H', "write http://"), (4, "does not speak SOCKS 5")] {
            let found = fault("socks5://proxy", &[&[first]]).to_string();
            assert!(found.contains(text), "{found}");
        }
        for reply in [&[4][..], &[5, 0, 0, 0], &[5, 0, 0, 2]] {
            let found = fault("socks5://proxy", &[&[5, 0], reply]);
            assert!(matches!(found, ProxyFault::Nonsense(_)), "{found}");
        }
    }
}
