//! A connection to the proxy, and through it to a relay.
//!
//! Tries all addresses of the proxy, and one of the relay. Doesn't try again.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    time::Duration,
};

use relay_protocol::RelayAddr;
use shards::{clock, net::Socket};

use super::{
    fault::ProxyFault,
    handshake::{Handshake, WANTED_BYTES_MAX},
    url::Proxy,
};
use crate::{dial::dial, race::race};

/// From the first attempt at the proxy until it leads to the relay: as long as a connection without a proxy may take
/// to come about.
const TUNNEL_TIMEOUT: Duration = Duration::from_secs(30);

/// A socket that leads to the relay, and the proxy's address.
///
/// # Errors
/// The proxy is not there, refuses, or is too slow.
pub(crate) fn open(
    proxy: &Proxy,
    addresses: Vec<SocketAddr>,
    relay: &RelayAddr,
) -> impl Future<Output = Result<(Socket, SocketAddr), ProxyFault>> + use<> {
    open_within(TUNNEL_TIMEOUT, addresses, Handshake::new(proxy, relay))
}

async fn open_within(
    time: Duration,
    addresses: Vec<SocketAddr>,
    handshake: Handshake,
) -> Result<(Socket, SocketAddr), ProxyFault> {
    let opening = async {
        let dialling = |addr| async move {
            let dialled = dial(addr).await;
            dialled
                .map(|socket| (socket, addr))
                .map_err(|error| ProxyFault::Connect { addr, error })
        };
        let (socket, addr) = race(addresses, dialling, |_| false).await?;
        shake_hands(&socket, handshake).await?;
        Ok((socket, addr))
    };
    clock::timeout(time, opening).await.unwrap_or(Err(ProxyFault::Slow(time)))
}

async fn shake_hands(socket: &Socket, mut handshake: Handshake) -> Result<(), ProxyFault> {
    let mut buffer = [0; WANTED_BYTES_MAX];
    loop {
        write_all(socket, &handshake.take_output()).await.map_err(ProxyFault::Io)?;
        let wanted = handshake.wants();
        if wanted == 0 {
            return Ok(());
        }
        socket.readable().await.map_err(ProxyFault::Io)?;
        match socket.try_read(&mut buffer[..wanted]) {
            Ok(0) => return Err(ProxyFault::Closed),
            Ok(count) => {
                let taken = handshake.handle_input(&buffer[..count])?;
                debug_assert_eq!(taken, count, "no more is read than is wanted");
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(ProxyFault::Io(error)),
        }
    }
}

async fn write_all(socket: &Socket, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match socket.try_write_vectored(&[IoSlice::new(bytes)]) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
        thread,
    };

    use super::*;

    /// What comes of a proxy that says this once it has heard this much, and then no more.
    fn opened(url: &str, says: &[(usize, &'static [u8])]) -> Result<Vec<u8>, ProxyFault> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let says = says.to_vec();
        let proxy = thread::Builder::new().spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for (heard, said) in says {
                stream.read_exact(&mut vec![0; heard]).unwrap();
                stream.write_all(said).unwrap();
            }
            // Until the client has gone.
            stream.read_to_end(&mut Vec::new()).ok();
        });
        let handshake = Handshake::new(&url.parse().unwrap(), &"relay:7440".parse().unwrap());
        let (result, told) = std::sync::mpsc::channel();
        let run = async move {
            let opened = open_within(Duration::from_millis(500), vec![addr], handshake).await;
            let Ok((socket, _)) = opened else {
                return result.send(opened.map(|_| Vec::new())).unwrap();
            };
            let mut rest = vec![0; 100];
            let count = match clock::timeout(Duration::from_millis(500), socket.readable()).await {
                Some(_) => socket.try_read(&mut rest).unwrap(),
                None => 0,
            };
            rest.truncate(count);
            result.send(Ok(rest)).unwrap();
        };
        shards::block_on(shards::Driver::Epoll, run).unwrap();
        proxy.unwrap().join().unwrap();
        told.recv().unwrap()
    }

    #[test]
    fn what_the_relay_says_with_the_proxys_last_words_is_not_lost() {
        let socks = [(3, &b"\x05\0"[..]), (12, b"\x05\0\0\x01\x7f\0\0\x01\0\x50of the relay")];
        assert_eq!(opened("socks5h://proxy", &socks).unwrap(), b"of the relay");
        let http = [(40, &b"HTTP/1.1 200 OK\r\n\r\nof the relay"[..])];
        assert_eq!(opened("http://proxy:1", &http).unwrap(), b"of the relay");
    }

    #[test]
    fn a_proxy_that_says_too_little_is_left_in_time() {
        for says in [&[][..], &[(3, &b"\x05"[..])], &[(3, b"\x05\0"), (12, b"\x05\0\0\x01")]] {
            let fault = opened("socks5h://proxy", says).unwrap_err();
            assert!(matches!(fault, ProxyFault::Slow(_)), "{fault}");
        }
        let fault = opened("http://proxy:1", &[(20, b"HTTP/1.1 200 OK\r\n")]).unwrap_err();
        assert!(matches!(fault, ProxyFault::Slow(_)), "{fault}");
    }
}
