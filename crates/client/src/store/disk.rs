//! The thread that reads and writes files for the peers of one event loop.
//!
//! Counts what waits to be written, so that connections stop receiving before memory fills up.
//! Knows no files; a chunk is only a number in its mailboxes.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    rc::Rc,
};

use bytes::Bytes;
use shards::{Offload, bell::LocalBell};

use super::contract::StoreEvent;
use relay_protocol::Digest;

/// Jobs that lie between the loop and the thread, at most: enough that the thread always finds the
/// next, whatever the loop does meanwhile.
const JOBS_QUEUED_MAX: usize = 64;

/// Bytes that wait to be written, of all peers of the loop together: beyond, those that wait for
/// the disk receive nothing more. Some tenths of a second of a disk that keeps up with a fast
/// network; a slower one gains nothing by more.
pub(super) const DISK_QUEUE_BYTES_MAX: u64 = 64 << 20;

/// What the thread has done.
#[derive(Debug)]
enum Done {
    /// Written, and with which digest, if it was opened for that.
    Written(Option<Digest>),
    Read(Bytes),
}

/// A disk thread. Clones are the same.
#[derive(Clone, Debug)]
pub struct Disk {
    offload: Offload<io::Result<Done>>,
    queued_bytes: Rc<Cell<u64>>,
}

impl Disk {
    /// Starts the thread. On an event loop only; it ends with the last clone.
    ///
    /// # Errors
    /// The system refuses a thread or a descriptor.
    pub fn start() -> io::Result<Self> {
        let offload = Offload::start("disk", JOBS_QUEUED_MAX)?;
        Ok(Self { offload, queued_bytes: Rc::default() })
    }

    /// Has the thread write; `done` is told the outcome, and a digest if the thread has made one.
    pub(super) fn write(
        &self,
        bytes: Bytes,
        write: impl FnOnce(Bytes) -> io::Result<Option<Digest>> + Send + 'static,
        done: impl FnOnce(io::Result<Option<Digest>>) + 'static,
    ) {
        let len = bytes.len() as u64;
        self.queued_bytes.set(self.queued_bytes.get() + len);
        self.run(move || write(bytes).map(Done::Written), {
            let queued_bytes = Rc::clone(&self.queued_bytes);
            move |result| {
                queued_bytes.set(queued_bytes.get() - len);
                done(result.map(|outcome| match outcome {
                    Done::Written(digest) => digest,
                    Done::Read(_) => unreachable!("a write reads nothing"),
                }));
            }
        });
    }

    /// Has the thread read; `done` is told the outcome.
    pub(super) fn read(
        &self,
        read: impl FnOnce() -> io::Result<Bytes> + Send + 'static,
        done: impl FnOnce(io::Result<Bytes>) + 'static,
    ) {
        self.run(
            move || read().map(Done::Read),
            move |result| {
                done(result.map(|outcome| match outcome {
                    Done::Read(bytes) => bytes,
                    Done::Written(_) => unreachable!("a read brings bytes"),
                }));
            },
        );
    }

    /// Bytes that wait to be written.
    pub(super) fn queued_bytes(&self) -> u64 {
        self.queued_bytes.get()
    }

    fn run(
        &self,
        job: impl FnOnce() -> io::Result<Done> + Send + 'static,
        done: impl FnOnce(io::Result<Done>) + 'static,
    ) {
        self.offload.submit(job, |result| {
            done(result.unwrap_or_else(|panicked| Err(io::Error::other(panicked))));
        });
    }
}

/// Where the disk thread's results wait for the connection. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Mailbox(Rc<RefCell<Mail>>);

#[derive(Debug, Default)]
struct Mail {
    /// At most one for each put and get under way.
    events: VecDeque<StoreEvent>,
    bell: Option<Rc<LocalBell>>,
}

impl Mailbox {
    /// From now on this bell is rung for every event.
    pub(super) fn watch(&self, bell: &Rc<LocalBell>) {
        self.0.borrow_mut().bell = Some(Rc::clone(bell));
    }

    pub(super) fn push(&self, event: StoreEvent) {
        let mut mail = self.0.borrow_mut();
        mail.events.push_back(event);
        let bell = mail.bell.clone();
        drop(mail);
        if let Some(bell) = bell {
            bell.ring();
        }
    }

    pub(super) fn pop(&self) -> Option<StoreEvent> {
        self.0.borrow_mut().events.pop_front()
    }
}
