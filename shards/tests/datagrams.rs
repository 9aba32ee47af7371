//! UDP sockets: datagrams arrive whole, and each at the shard that its connection id names.

mod common;

use std::{
    io::{ErrorKind, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    rc::Rc,
    time::Duration,
};

use common::both_drivers;
use shards::{
    block_on,
    datagrams::{DatagramSocket, RECEIVE_BUFFER_BYTES, RecvMeta, Transmit},
    steering::bind_group,
    task,
};

const LOOPBACK: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// A port that is free just now.
fn free_addr() -> SocketAddr {
    UdpSocket::bind(LOOPBACK).and_then(|socket| socket.local_addr()).expect("loopback")
}

async fn receive(socket: &DatagramSocket) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut bytes = vec![0; RECEIVE_BUFFER_BYTES];
    loop {
        let mut metas = [RecvMeta::default()];
        match socket.try_receive(&mut [IoSliceMut::new(&mut bytes)], &mut metas) {
            Ok(1) => {
                let [meta] = metas;
                let datagrams = bytes[..meta.len].chunks(meta.stride);
                return datagrams.map(|datagram| (meta.addr, datagram.to_vec())).collect();
            }
            Ok(count) => panic!("{count} buffers of one"),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                socket.readable().await.expect("it can be watched");
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn transmit(destination: SocketAddr, contents: &[u8], segment_size: Option<usize>) -> Transmit<'_> {
    Transmit { destination, ecn: None, contents, segment_size, src_ip: None }
}

#[test]
fn datagrams_arrive_whole_one_by_one_and_in_segments() {
    for driver in both_drivers() {
        block_on(driver, async {
            let [a, b] = [(); 2].map(|()| {
                Rc::new(DatagramSocket::from_std(UdpSocket::bind(LOOPBACK).unwrap()).unwrap())
            });
            let to = b.local_addr().unwrap();
            let from = a.local_addr().unwrap();
            let receiver = Rc::clone(&b);
            let receiving = task::spawn(async move {
                let mut all = Vec::new();
                while all.len() < 4 {
                    all.extend(receive(&receiver).await);
                }
                all
            });
            // The receiver waits before anything comes.
            shards::clock::sleep(Duration::from_millis(5)).await;
            a.try_send(&transmit(to, b"one", None)).unwrap();
            let segments = [[1; 1000], [2; 1000], [3; 1000]].concat();
            if a.segments_max() > 1 {
                a.try_send(&transmit(to, &segments[..2500], Some(1000))).unwrap();
            } else {
                for segment in segments[..2500].chunks(1000) {
                    a.try_send(&transmit(to, segment, None)).unwrap();
                }
            }
            let all = receiving.await.unwrap();
            assert!(all.iter().all(|(addr, _)| *addr == from));
            let datagrams: Vec<_> = all.into_iter().map(|(_, bytes)| bytes).collect();
            assert_eq!(datagrams, [&b"one"[..], &[1; 1000], &[2; 1000], &[3; 500]]);
        })
        .unwrap();
    }
}

#[test]
fn a_datagram_comes_to_the_socket_that_its_connection_id_names() {
    let addr = free_addr();
    let group = bind_group(addr, 3, true).unwrap();
    let sender = UdpSocket::bind(LOOPBACK).unwrap();
    // QUIC's headers: a short one has the id behind its first byte, a long one behind version and length.
    let datagram = |first: u8| match first % 2 {
        0 => vec![0x40, first, 1, 2],
        _ => vec![0xc0, 0, 0, 0, 1, 8, first, 1],
    };
    for first in 0..30_u8 {
        sender.send_to(&datagram(first), addr).unwrap();
    }
    if !group.is_steered {
        // Only Linux steers; elsewhere the shard that gets a datagram passes it on.
        let is_linux = cfg!(target_os = "linux");
        assert_eq!(is_linux, group.is_steered);
        return;
    }
    for (index, socket) in group.sockets.iter().enumerate() {
        socket.set_nonblocking(false).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        for _ in 0..10 {
            let mut bytes = [0; 9];
            let len = socket.recv(&mut bytes).unwrap();
            let first = if bytes[0] & 0x80 == 0 { bytes[1] } else { bytes[6] };
            assert_eq!(bytes[..len], datagram(first));
            assert_eq!(usize::from(first) % 3, index);
        }
    }
}

#[test]
fn a_port_that_another_group_has_is_refused() {
    let addr = free_addr();
    let group = bind_group(addr, 2, true).unwrap();
    let error = bind_group(addr, 2, true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    drop(group);
    bind_group(addr, 2, false).unwrap();
}
