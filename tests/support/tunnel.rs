//! Proxies made by hand: SOCKS 5 and CONNECT of HTTP, as a client meets them, with what it asked of them.
//!
//! Blocking threads. They lead to one place, whatever they are asked for: so a test may use names that only a proxy
//! knows.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::mpsc::{Receiver, Sender, channel},
};

use super::in_background;

/// What it answers to a request for a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    /// A tunnel to here.
    Leads(SocketAddr),
    /// The reply of SOCKS, or the status of HTTP.
    Refuses(u16),
    /// Nothing, and the connection is closed.
    Closes,
}

/// A proxy, for as long as the test runs.
pub(crate) struct Tunnel {
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    asked: Receiver<String>,
}

/// What a proxy speaks, and as whom it must be spoken to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Speaks {
    /// SOCKS 5, with a user name and a password if there is one.
    Socks(Option<(&'static str, &'static str)>),
    /// HTTP, with this value of Proxy-Authorization if there is one.
    Http(Option<&'static str>),
}

impl Tunnel {
    /// Starts it.
    ///
    /// # Panics
    /// There is no free port.
    pub(crate) fn start(speaks: Speaks, answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("it has an address");
        let (tell, asked) = channel();
        in_background(move || {
            for client in listener.incoming().flatten() {
                let tell = tell.clone();
                // A client that goes is no fault of the proxy.
                in_background(move || serve(client, speaks, answer, &tell).ok());
            }
        });
        Self { addr, asked }
    }

    /// What it was asked for since it was asked this: `HOST:PORT`, with names as they came.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.try_iter().collect()
    }
}

fn serve(
    mut client: TcpStream,
    speaks: Speaks,
    answer: Answer,
    tell: &Sender<String>,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    let asked = match speaks {
        Speaks::Socks(login) => hear_socks(&mut client, login)?,
        Speaks::Http(login) => hear_http(&mut client, login)?,
    };
    let Some(asked) = asked else { return Ok(()) };
    // The test may have ended.
    tell.send(asked).ok();
    let (code, leads_to) = match (answer, speaks) {
        (Answer::Closes, _) => return Ok(()),
        (Answer::Refuses(code), _) => (code, None),
        (Answer::Leads(addr), Speaks::Socks(_)) => (0, Some(addr)),
        (Answer::Leads(addr), Speaks::Http(_)) => (200, Some(addr)),
    };
    match speaks {
        Speaks::Socks(_) => {
            let code = u8::try_from(code).expect("a reply of SOCKS");
            client.write_all(&[5, code, 0, 1, 127, 0, 0, 1, 0, 80])?;
        }
        Speaks::Http(_) => client.write_all(format!("HTTP/1.1 {code} So\r\n\r\n").as_bytes())?,
    }
    let Some(relay) = leads_to else { return Ok(()) };
    let relay = TcpStream::connect(relay)?;
    relay.set_nodelay(true)?;
    let (from_client, to_relay) = (client.try_clone()?, relay.try_clone()?);
    in_background(move || pass(from_client, to_relay));
    pass(relay, client);
    Ok(())
}

/// Passes one direction on until it ends.
fn pass(mut from: TcpStream, mut to: TcpStream) {
    io::copy(&mut from, &mut to).ok();
    to.shutdown(Shutdown::Write).ok();
}

fn hear<const N: usize>(client: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    client.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn hear_text(client: &mut TcpStream) -> io::Result<String> {
    let [length] = hear(client)?;
    let mut bytes = vec![0; length.into()];
    client.read_exact(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What the client asks for, if it may.
fn hear_socks(client: &mut TcpStream, login: Option<(&str, &str)>) -> io::Result<Option<String>> {
    let [version, count] = hear(client)?;
    assert_eq!(version, 5, "of SOCKS");
    let mut methods = vec![0; count.into()];
    client.read_exact(&mut methods)?;
    let wanted = if login.is_some() { 2 } else { 0 };
    if !methods.contains(&wanted) {
        client.write_all(&[5, 0xff])?;
        return Ok(None);
    }
    client.write_all(&[5, wanted])?;
    if let Some((user, password)) = login {
        assert_eq!(hear(client)?, [1], "the version of the login");
        let given = (hear_text(client)?, hear_text(client)?);
        let is_right = given == (user.to_owned(), password.to_owned());
        client.write_all(&[1, u8::from(!is_right)])?;
        if !is_right {
            return Ok(None);
        }
    }
    let [version, command, zero, kind] = hear(client)?;
    assert_eq!((version, command, zero), (5, 1, 0), "a request to connect");
    let host = match kind {
        1 => IpAddr::from(Ipv4Addr::from(hear::<4>(client)?)).to_string(),
        4 => format!("[{}]", Ipv6Addr::from(hear::<16>(client)?)),
        3 => hear_text(client)?,
        _ => panic!("there is no such address: {kind}"),
    };
    let port = u16::from_be_bytes(hear(client)?);
    Ok(Some(format!("{host}:{port}")))
}

/// What the client asks for, if it may.
fn hear_http(client: &mut TcpStream, login: Option<&str>) -> io::Result<Option<String>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(hear::<1>(client)?);
    }
    let head = String::from_utf8(head).expect("text");
    let mut lines = head.lines();
    let request = lines.next().expect("a line");
    let target = request.strip_prefix("CONNECT ").and_then(|rest| rest.strip_suffix(" HTTP/1.1"));
    let target = target.unwrap_or_else(|| panic!("no CONNECT: {request}")).to_owned();
    let headers: Vec<&str> = lines.collect();
    assert!(headers.contains(&&*format!("Host: {target}")), "{head}");
    let is_right =
        login.is_none_or(|login| headers.contains(&&*format!("Proxy-Authorization: {login}")));
    if !is_right {
        client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")?;
        return Ok(None);
    }
    Ok(Some(target))
}
