//! Waiting that is given up leaks no descriptor. A binary of its own, since it counts those of the
//! whole process.

mod common;

use std::{rc::Rc, time::Duration};

use common::{both_drivers, pair_of_sockets};
use shards::{Socket, block_on, clock, task};

/// Open descriptors of this process.
fn open_descriptors() -> usize {
    std::fs::read_dir("/dev/fd").expect("the system lists them").count()
}

/// Waits for both directions of a socket, and gives up.
async fn give_up_waiting() {
    let (near, far) = pair_of_sockets();
    let socket = Rc::new(Socket::from_std(near).expect("descriptors to watch"));
    let waiting = socket.clone();
    let reader = task::spawn(async move {
        let waited = clock::timeout(Duration::from_millis(1), waiting.readable()).await;
        assert!(waited.is_none(), "nothing was sent");
    });
    clock::timeout(Duration::from_millis(1), socket.writable())
        .await
        .expect("it is empty")
        .expect("readiness");
    reader.await.expect("it ended");
    drop(far);
}

#[test]
fn waits_that_are_given_up_leak_no_descriptor() {
    const ROUNDS: usize = 200;
    for driver in both_drivers() {
        let root = async {
            give_up_waiting().await;
            clock::sleep(Duration::from_millis(5)).await;
            let before = open_descriptors();
            for _ in 0..ROUNDS {
                give_up_waiting().await;
            }
            // Closing is an operation of its own on io_uring.
            for _ in 0..100 {
                if open_descriptors() <= before {
                    return;
                }
                clock::sleep(Duration::from_millis(5)).await;
            }
            panic!("{} descriptors before, {} after", before, open_descriptors());
        };
        let before = open_descriptors();
        block_on(driver, root).unwrap();
        assert_eq!(open_descriptors(), before, "{driver}: the loop closed its own");
    }
}
