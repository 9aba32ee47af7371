//! Content that flows out in order, for example to stdout, and is not kept: chunks wait until those
//! before them are written. What is sealed is opened right before. Supplies nothing.

use std::{
    cell::Cell,
    collections::{BTreeMap, VecDeque},
    fmt,
    fs::File,
    io::{self, Write},
    rc::Rc,
    sync::Arc,
};

use bytes::Bytes;
use shards::bell::LocalBell;

use super::{
    contract::{ChunkStore, StoreEvent},
    disk::{Disk, Mailbox},
    file::{note, opened},
};
use crate::sealing::Opening;
use relay_protocol::{Digest, SwarmKey};

/// Where a stream goes. Writes happen on the disk thread.
pub trait Sink: fmt::Debug + Send + Sync {
    /// Takes the bytes of a chunk; those of the chunks before it were taken.
    ///
    /// # Errors
    /// The system's, or the bytes are not what they should be.
    fn write_chunk(&self, chunk: u32, bytes: &[u8]) -> io::Result<()>;

    /// All has come.
    ///
    /// # Errors
    /// The system's.
    fn finish(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for File {
    fn write_chunk(&self, _: u32, bytes: &[u8]) -> io::Result<()> {
        let mut file = self;
        file.write_all(bytes)
    }
}

/// Writes chunks in order. The session that uses it must be in sequential order: what it wants at
/// once bounds what waits here.
#[derive(Debug)]
pub struct StreamStore {
    sink: Arc<dyn Sink>,
    disk: Disk,
    mailbox: Mailbox,
    /// How many chunks are being written.
    writes: Rc<Cell<usize>>,
    /// The chunks that are still to be written, in order.
    ahead: VecDeque<u32>,
    /// Chunks that came before those that precede them.
    waiting: BTreeMap<u32, Bytes>,
    /// Of a sealed file.
    sealed: Option<(SwarmKey, Opening)>,
}

impl StreamStore {
    /// A stream of these chunks, in order: those that are lacking. Others that come are of no use.
    #[must_use]
    pub fn new(sink: Arc<dyn Sink>, chunks: impl Iterator<Item = u32>, disk: &Disk) -> Self {
        Self {
            sink,
            disk: disk.clone(),
            mailbox: Mailbox::default(),
            writes: Rc::default(),
            ahead: chunks.collect(),
            waiting: BTreeMap::new(),
            sealed: None,
        }
    }

    /// Opens what it writes, of the file that the key names. The last chunk is reported as not kept if the file is not the
    /// ticket's.
    #[must_use]
    pub fn with_opening(self, key: SwarmKey, opening: Opening) -> Self {
        Self { sealed: Some((key, opening)), ..self }
    }

    /// How many chunks are being written: while there are some, the reader of the stream is waited
    /// for, not the network.
    #[must_use]
    pub fn writes(&self) -> Rc<Cell<usize>> {
        Rc::clone(&self.writes)
    }

    fn write(&self, chunk: u32, bytes: Bytes) {
        let (sink, mailbox) = (Arc::clone(&self.sink), self.mailbox.clone());
        let writes = Rc::clone(&self.writes);
        let opening = self.sealed.as_ref().map(|(_, opening)| opening.clone());
        let sealed = self.sealed.as_ref().map(|(key, opening)| (*key, opening.seal().clone()));
        writes.set(writes.get() + 1);
        let write = move |bytes: Bytes| {
            let (bytes, plain) = match &sealed {
                Some((key, seal)) => opened(Some(seal), key, chunk, bytes),
                None => (bytes, None),
            };
            sink.write_chunk(chunk, &bytes).map(|()| plain)
        };
        self.disk.write(bytes, write, move |result| {
            writes.set(writes.get() - 1);
            let result = result.and_then(|plain| note(opening.as_ref(), chunk, plain));
            mailbox.push(StoreEvent::Kept { chunk, result });
        });
    }
}

impl ChunkStore for StreamStore {
    fn keeps_bytes(&self) -> bool {
        true
    }

    fn watch(&mut self, bell: &Rc<LocalBell>) -> bool {
        self.mailbox.watch(bell);
        true
    }

    fn put(&mut self, chunk: u32, bytes: Bytes) {
        if self.ahead.binary_search(&chunk).is_err() {
            // It came unasked, and is of no use here. To the connection it is as good as written.
            self.mailbox.push(StoreEvent::Kept { chunk, result: Ok(()) });
            return;
        }
        self.waiting.insert(chunk, bytes);
        while let Some(&next) = self.ahead.front()
            && let Some(bytes) = self.waiting.remove(&next)
        {
            self.write(next, bytes);
            self.ahead.pop_front();
        }
    }

    fn get(&mut self, _: u32, _: u32, _: Digest) -> io::Result<Option<Bytes>> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "it was streamed and is not kept"))
    }

    fn poll_event(&mut self) -> Option<StoreEvent> {
        self.mailbox.pop()
    }

    fn is_full(&self) -> bool {
        false
    }

    fn handle_disconnected(&mut self) {
        // Those before them may never come; a peer that connects again asks for them again.
        for (chunk, _) in std::mem::take(&mut self.waiting) {
            self.mailbox.push(StoreEvent::Dropped { chunk });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use shards::{Driver, block_on};

    use super::*;

    #[test]
    fn chunks_flow_out_in_order_whatever_order_they_come_in() {
        let (mut reader, writer) = io::pipe().unwrap();
        let sink = Arc::new(File::from(std::os::fd::OwnedFd::from(writer)));
        let run = async move {
            let mut store =
                StreamStore::new(sink, [0, 1, 2, 3, 5].into_iter(), &Disk::start().unwrap());
            let bell = Rc::new(LocalBell::new());
            assert!(store.watch(&bell));
            for chunk in [2, 0, 3, 5] {
                store.put(chunk, Bytes::from(vec![b'0' + u8::try_from(chunk).unwrap()]));
            }
            store.handle_disconnected();
            for chunk in [2, 1, 3] {
                store.put(chunk, Bytes::from(vec![b'0' + u8::try_from(chunk).unwrap()]));
            }
            let (mut kept, mut dropped) = (Vec::new(), Vec::new());
            while kept.len() < 4 {
                match store.poll_event() {
                    Some(StoreEvent::Kept { chunk, result }) => {
                        result.unwrap();
                        kept.push(chunk);
                    }
                    Some(StoreEvent::Dropped { chunk }) => dropped.push(chunk),
                    Some(event) => panic!("{event:?}"),
                    None => bell.wait().await,
                }
            }
            assert_eq!(kept, [0, 1, 2, 3]);
            assert_eq!(dropped, [2, 3, 5], "what waits when a connection ends is let go");
            assert_eq!(store.writes().get(), 0);
        };
        block_on(Driver::Epoll, run).unwrap();
        let mut out = String::new();
        reader.read_to_string(&mut out).unwrap();
        assert_eq!(out, "0123");
    }
}
