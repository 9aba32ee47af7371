//! Sockets: bytes arrive exactly, however the kernel cuts the writes.

use std::{
    io::{ErrorKind, IoSlice, IoSliceMut, Read},
    net::{Shutdown, TcpStream},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use shards::{Socket, block_on, task};

use crate::common::{Random, both_drivers, pair_of_sockets};

const TOTAL_BYTES: usize = 8 << 20;

/// Byte `offset` of the stream; neighbours and equal offsets modulo powers of two differ.
fn byte_at(offset: usize) -> u8 {
    let mixed = (offset as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56;
    u8::try_from(mixed).expect("eight bits are left")
}

fn content() -> Vec<u8> {
    (0..TOTAL_BYTES).map(byte_at).collect()
}

/// Cuts what is left into up to a dozen slices of random length, some of them empty.
fn cut<'a>(mut left: &'a [u8], random: &mut Random) -> Vec<IoSlice<'a>> {
    let mut slices = Vec::new();
    for _ in 0..=random.below(12) {
        let (slice, rest) = left.split_at(random.below(60_000).min(left.len()));
        slices.push(IoSlice::new(slice));
        left = rest;
    }
    slices
}

/// Writes everything. Returns the number of writes that the kernel took in part. Says when the socket is full.
async fn write_all(
    socket: &Socket,
    content: &[u8],
    random: &mut Random,
    is_full: &AtomicBool,
) -> usize {
    let (mut offset, mut partial) = (0, 0);
    while offset < content.len() {
        let slices = cut(&content[offset..], random);
        let wanted: usize = slices.iter().map(|slice| slice.len()).sum();
        match socket.try_write_vectored(&slices) {
            Ok(count) => {
                partial += usize::from(count < wanted);
                offset += count;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                is_full.store(true, Ordering::Release);
                socket.writable().await.expect("readiness");
            }
        }
    }
    partial
}

/// A thread that reads nothing before the socket is full, and slowly at first.
fn slow_reader(mut far: TcpStream, is_full: &AtomicBool) -> std::io::Result<Vec<u8>> {
    while !is_full.load(Ordering::Acquire) {
        std::thread::yield_now();
    }
    let mut received = Vec::with_capacity(TOTAL_BYTES);
    let mut small = [0; 1_000];
    for _ in 0..1_000 {
        let count = far.read(&mut small)?;
        received.extend_from_slice(&small[..count]);
        std::thread::yield_now();
    }
    far.read_to_end(&mut received)?;
    Ok(received)
}

#[test]
fn gathered_writes_are_byte_exact_when_the_kernel_takes_a_part() {
    let seed = Random::seed();
    for driver in both_drivers() {
        let (near, far) = pair_of_sockets();
        let received = std::thread::scope(|scope| {
            let is_full = Arc::new(AtomicBool::new(false));
            let seen = Arc::clone(&is_full);
            let reader = scope.spawn(move || slow_reader(far, &seen));
            let root = async move {
                let socket = Socket::from_std(near).unwrap();
                let partial =
                    write_all(&socket, &content(), &mut Random::new(seed), &is_full).await;
                assert!(partial > 0, "the socket never filled");
                socket.shutdown(Shutdown::Write).unwrap();
                socket.readable().await.unwrap();
            };
            block_on(driver, root).unwrap();
            reader.join().unwrap().unwrap()
        });
        assert!(received == content(), "{driver}: bytes were lost, repeated or mixed up");
    }
}

#[test]
fn both_directions_of_one_socket_carry_bytes_at_once() {
    let seed = Random::seed();
    for driver in both_drivers() {
        let (near, far) = pair_of_sockets();
        let root = async move {
            let near = Rc::new(Socket::from_std(near).unwrap());
            let far = Rc::new(Socket::from_std(far).unwrap());
            let handles: Vec<_> = [near, far]
                .into_iter()
                .flat_map(|socket| {
                    let writer = socket.clone();
                    let writing = task::spawn(async move {
                        let is_full = AtomicBool::new(false);
                        write_all(&writer, &content(), &mut Random::new(seed), &is_full).await;
                    });
                    [writing, task::spawn(async move { check_all(&socket).await })]
                })
                .collect();
            for handle in handles {
                handle.await.unwrap();
            }
        };
        block_on(driver, root).unwrap();
    }
}

/// Reads the content and compares it, in reads that are scattered over three neighbours and in whole
/// ones.
async fn check_all(socket: &Socket) {
    let mut buffer = vec![0; 65_536];
    let (mut offset, mut is_scattered) = (0, false);
    while offset < TOTAL_BYTES {
        is_scattered = !is_scattered;
        let (first, rest) = buffer.split_at_mut(20);
        let (second, third) = rest.split_at_mut(16_384);
        let read = match is_scattered {
            true => socket.try_read_vectored(&mut [first, second, third].map(IoSliceMut::new)),
            false => socket.try_read(&mut buffer),
        };
        match read {
            Ok(0) => panic!("it ended early"),
            Ok(count) => {
                for &byte in &buffer[..count] {
                    assert_eq!(byte, byte_at(offset), "at {offset}");
                    offset += 1;
                }
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                socket.readable().await.expect("readiness");
            }
        }
    }
}

#[test]
fn writing_to_a_closed_connection_is_an_error_and_no_signal() {
    for driver in both_drivers() {
        let (near, far) = pair_of_sockets();
        let root = async move {
            let socket = Socket::from_std(near).unwrap();
            drop(far);
            let error = loop {
                match socket.try_write_vectored(&[IoSlice::new(b"anyone?")]) {
                    Ok(_) => shards::clock::sleep(Duration::from_millis(1)).await,
                    Err(error) => break error.kind(),
                }
            };
            assert!(matches!(error, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset));
            // Both waits end: an error is there.
            socket.readable().await.unwrap();
            socket.writable().await.unwrap();
        };
        block_on(driver, root).unwrap();
    }
}

#[test]
fn more_slices_than_the_kernel_takes_are_a_partial_write() {
    for driver in both_drivers() {
        let (near, _far) = pair_of_sockets();
        let root = async move {
            let socket = Socket::from_std(near).unwrap();
            let slices = vec![IoSlice::new(b"x"); shards::net::SLICES_MAX + 5];
            assert_eq!(socket.try_write_vectored(&slices).unwrap(), shards::net::SLICES_MAX);
        };
        block_on(driver, root).unwrap();
    }
}
