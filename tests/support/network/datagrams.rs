//! Datagrams through the proxy: each peer's flow has a socket of its own to the relay, and may get
//! another one at any time, as behind a router that forgot it.

use std::{collections::BTreeMap, net::Ipv4Addr, net::SocketAddr, sync::Arc};

use tokio::{
    net::UdpSocket,
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{Wishes, line::Line};

/// Flows of one proxy at most.
const FLOWS_MAX: usize = 1024;

/// Datagrams that wait for a flow's task; more are lost, as in any queue.
const QUEUE_MAX: usize = 4096;

/// The longest datagram.
const DATAGRAM_BYTES_MAX: usize = 64 << 10;

/// Carries datagrams as long as the proxy lives.
pub(super) async fn carry(front: UdpSocket, wishes: Wishes) {
    let front = Arc::new(front);
    let mut flows: BTreeMap<SocketAddr, mpsc::Sender<Vec<u8>>> = BTreeMap::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        // What a peer's system says about earlier datagrams is not of interest.
        let Ok((count, peer)) = front.recv_from(&mut buffer).await else { continue };
        if !flows.contains_key(&peer) && flows.len() == FLOWS_MAX {
            continue;
        }
        let number = flows.len() as u64;
        let flow = flows.entry(peer).or_insert_with(|| {
            let (to_flow, coming) = mpsc::channel(QUEUE_MAX);
            let flow = Flow {
                front: Arc::clone(&front),
                peer,
                up: Line::new(wishes.seed, 4 * number + 2),
                down: Line::new(wishes.seed, 4 * number + 3),
                wishes: wishes.clone(),
            };
            tokio::spawn(flow.run(coming));
            to_flow
        });
        // A full queue loses what comes.
        flow.try_send(buffer[..count].to_vec()).ok();
    }
}

struct Flow {
    front: Arc<UdpSocket>,
    peer: SocketAddr,
    up: Line,
    down: Line,
    wishes: Wishes,
}

impl Flow {
    async fn run(mut self, mut coming: mpsc::Receiver<Vec<u8>>) {
        let mut socket = connect(self.wishes.relay).await;
        self.wishes.rebinds.mark_unchanged();
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            let due = self.up.next_due().into_iter().chain(self.down.next_due()).min();
            tokio::select! {
                datagram = coming.recv() => {
                    let Some(datagram) = datagram else { return };
                    self.up.push(datagram, &self.wishes.now(), &self.wishes.happened);
                }
                received = socket.recv(&mut buffer) => {
                    // An error tells that the relay was not there a moment ago.
                    if let Ok(count) = received {
                        let datagram = buffer[..count].to_vec();
                        self.down.push(datagram, &self.wishes.now(), &self.wishes.happened);
                    }
                }
                changed = self.wishes.rebinds.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    socket = connect(self.wishes.relay).await;
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
            while let Some(datagram) = self.up.pop() {
                // What can't be sent is lost.
                socket.send(&datagram).await.ok();
            }
            while let Some(datagram) = self.down.pop() {
                self.front.send_to(&datagram, self.peer).await.ok();
            }
        }
    }
}

/// A new address on this side.
async fn connect(relay: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback");
    socket.connect(relay).await.expect("loopback");
    socket
}
