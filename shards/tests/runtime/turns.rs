//! Yielding on both drivers: a task that works and yields starves neither sockets, nor timers, nor
//! its siblings; tasks end with their shard; a panic ends one task.
//!
//! Progress is counted in turns, not in time.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io::{IoSlice, Read},
    net::{TcpListener, TcpStream},
    pin::pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use shards::{Socket, block_on, clock, task};

use crate::common::{both_drivers, pair_of_sockets};

/// Only a guard against hanging: nothing is asserted about speed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Works and yields until told to stop; counts its turns.
async fn hog(stop: Rc<Cell<bool>>, turns: Rc<Cell<u64>>) {
    let began = clock::now();
    while !stop.get() {
        let until = clock::now() + Duration::from_micros(20);
        while clock::now() < until {
            std::hint::spin_loop();
        }
        turns.set(turns.get() + 1);
        assert!(clock::now() - began < PATIENCE, "starved by a task that yields");
        task::yield_now().await;
    }
}

async fn echo(socket: Socket) {
    let mut buffer = [0; 64];
    loop {
        socket.readable().await.expect("readiness");
        match socket.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                let wrote = socket.try_write_vectored(&[IoSlice::new(&buffer[..count])]);
                assert_eq!(wrote.expect("room for a byte"), count);
            }
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
    }
}

async fn ping(socket: &Socket) {
    let mut buffer = [0; 1];
    socket.try_write_vectored(&[IoSlice::new(b"?")]).expect("room for a byte");
    loop {
        socket.readable().await.expect("readiness");
        match socket.try_read(&mut buffer) {
            Ok(count) => return assert_eq!(count, 1),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
    }
}

#[test]
fn sockets_make_progress_beside_a_task_that_only_yields() {
    const ROUND_TRIPS: u64 = 500;
    /// There and back are two readiness events, of a kernel that delivers them at once.
    const TURNS_PER_ROUND_TRIP_MAX: u64 = 8;
    for driver in both_drivers() {
        let (near, far) = pair_of_sockets();
        let turns = Rc::new(Cell::new(0));
        let counted = turns.clone();
        let root = async move {
            let stop = Rc::new(Cell::new(false));
            let hog = task::spawn(hog(stop.clone(), counted));
            task::spawn(echo(Socket::from_std(far).unwrap()));
            let near = Socket::from_std(near).unwrap();
            for _ in 0..ROUND_TRIPS {
                ping(&near).await;
            }
            stop.set(true);
            hog.await.unwrap();
        };
        block_on(driver, root).unwrap();
        let turns = turns.get();
        assert!(turns <= ROUND_TRIPS * TURNS_PER_ROUND_TRIP_MAX, "{driver}: {turns} turns");
    }
}

#[test]
fn timers_fire_beside_a_task_that_only_yields() {
    for driver in both_drivers() {
        let root = async {
            let stop = Rc::new(Cell::new(false));
            let hog = task::spawn(hog(stop.clone(), Rc::default()));
            for milliseconds in [0, 1, 2, 3, 10] {
                let wanted = Duration::from_millis(milliseconds);
                let began = clock::now();
                clock::sleep(wanted).await;
                assert!(clock::now() - began >= wanted);
            }
            stop.set(true);
            hog.await.unwrap();
        };
        block_on(driver, root).unwrap();
    }
}

#[test]
fn timers_fire_in_order_on_an_idle_loop_and_dropped_ones_do_not() {
    for driver in both_drivers() {
        let order = Rc::new(RefCell::new(Vec::new()));
        let fired = order.clone();
        let root = async move {
            let mut handles = Vec::new();
            for milliseconds in [30, 5, 20, 1, 10] {
                let fired = fired.clone();
                handles.push(task::spawn(async move {
                    clock::sleep(Duration::from_millis(milliseconds)).await;
                    fired.borrow_mut().push(milliseconds);
                }));
            }
            drop(clock::sleep(Duration::from_millis(2)));
            for handle in handles {
                handle.await.unwrap();
            }
        };
        block_on(driver, root).unwrap();
        assert_eq!(*order.borrow(), [1, 5, 10, 20, 30], "{driver}");
    }
}

/// Polls a future in one turn only, and drops it.
async fn given_up_after_a_turn<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let polled = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
    task::yield_now().await;
    match polled {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

#[test]
fn a_timer_outlives_earlier_ones_that_were_dropped() {
    for driver in both_drivers() {
        let root = async {
            let short = Duration::from_millis(2);
            for _ in 0..5 {
                // The loop's own alarm is set for a timer that is gone when it rings.
                let started = clock::timeout(short, std::future::pending::<()>());
                assert_eq!(given_up_after_a_turn(started).await, None);
                let blocked = clock::now();
                while clock::now() - blocked < short * 2 {
                    std::hint::spin_loop();
                }
                let began = clock::now();
                clock::sleep(short * 2).await;
                assert!(clock::now() - began >= short * 2);
                assert_eq!(clock::timeout(short, async { 7 }).await, Some(7));
            }
        };
        block_on(driver, root).unwrap();
    }
}

#[test]
fn tasks_that_yield_take_turns() {
    for driver in both_drivers() {
        let root = async {
            let counts: Rc<[Cell<u32>; 5]> = Rc::default();
            let handles: Vec<_> = (0..5)
                .map(|me| {
                    let counts = counts.clone();
                    task::spawn(async move {
                        for _ in 0..1_000 {
                            counts[me].set(counts[me].get() + 1);
                            let least = counts.iter().map(Cell::get).min().unwrap();
                            assert!(counts[me].get() - least <= 1, "one task ran ahead");
                            task::yield_now().await;
                        }
                    })
                })
                .collect();
            for handle in handles {
                handle.await.unwrap();
            }
        };
        block_on(driver, root).unwrap();
    }
}

#[test]
fn a_panic_ends_one_isolated_task_and_is_reported() {
    for driver in both_drivers() {
        let message = Rc::new(RefCell::new(String::new()));
        let report = message.clone();
        let dropped = Rc::new(());
        let held = Rc::downgrade(&dropped);
        let root = async move {
            let on_panic = move |text| *report.borrow_mut() = text;
            task::spawn_isolated(
                async move {
                    let _held = dropped;
                    task::yield_now().await;
                    panic!("connection {} went wrong", 7);
                },
                on_panic,
            );
            let sibling = task::spawn(async {
                for _ in 0..10 {
                    task::yield_now().await;
                }
                "alive"
            });
            assert_eq!(sibling.await, Some("alive"));
        };
        block_on(driver, root).unwrap();
        assert_eq!(*message.borrow(), "connection 7 went wrong");
        assert!(held.upgrade().is_none(), "the task's state was dropped");
    }
}

#[test]
fn tasks_left_behind_are_dropped_and_their_sockets_close() {
    for driver in both_drivers() {
        let (near, mut far) = pair_of_sockets();
        let root = async move {
            let socket = Socket::from_std(near).unwrap();
            task::spawn(async move {
                // Never: the other end sends nothing.
                socket.readable().await.unwrap();
                unreachable!("the task is dropped while it waits");
            });
            let never = task::spawn(std::future::pending::<()>());
            task::yield_now().await;
            assert!(!never.is_finished());
        };
        block_on(driver, root).unwrap();
        far.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(far.read(&mut [0; 1]).unwrap(), 0, "{driver}: the socket was closed");
    }
}

#[test]
fn connecting_works_fails_and_can_be_given_up() {
    for driver in both_drivers() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let root = async move {
            let socket = Socket::connect(address).await.unwrap();
            assert_eq!(socket.remote_addr().unwrap(), address);
            let (far, remote) = listener.accept().unwrap();
            assert_eq!(socket.local_addr().unwrap(), remote);
            task::spawn(echo(Socket::from_std(far).unwrap()));
            ping(&socket).await;
            drop(listener);
            let refused = Socket::connect(address).await.unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "{driver}");
            drop(Socket::connect(address));
        };
        block_on(driver, root).unwrap();
    }
}

#[test]
fn two_tasks_wait_on_one_socket_for_different_things() {
    for driver in both_drivers() {
        let (near, far) = pair_of_sockets();
        let root = async move {
            let near = Rc::new(Socket::from_std(near).unwrap());
            // Fill it, so that neither direction is ready.
            let block = [0; 65_536];
            let mut sent = 0;
            while let Ok(count) = near.try_write_vectored(&[IoSlice::new(&block)]) {
                sent += count;
            }
            let reader = near.clone();
            let reading = task::spawn(async move { reader.readable().await.unwrap() });
            let writer = near.clone();
            let writing = task::spawn(async move { writer.writable().await.unwrap() });
            task::yield_now().await;
            assert!(!reading.is_finished() && !writing.is_finished());
            let mut far: TcpStream = far;
            std::io::Write::write_all(&mut far, b"!").unwrap();
            reading.await.unwrap();
            assert!(!writing.is_finished());
            let mut received = vec![0; sent];
            far.read_exact(&mut received).unwrap();
            writing.await.unwrap();
        };
        block_on(driver, root).unwrap();
    }
}
