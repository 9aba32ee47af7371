//! Honest peers, by hand: an origin that serves, a client that downloads and verifies.
//!
//! They are as simple as the protocol allows, and share no code with the product's own peer, so
//! that a mistake there does not hide one here.

use std::{io, net::SocketAddr, sync::Arc, thread::JoinHandle};

use relay::protocol::{ChunkRange, Manifest, ManifestBuilder, Message, SwarmKey};

use super::{
    file::TestFile,
    in_background,
    wire::{Heard, Wire, hello, origin_hello},
};

/// Bytes that a test client is ready for beyond what it has taken in.
const WINDOW_BYTES: u64 = 1 << 20;

/// An origin that serves until the relay or the test ends.
pub(crate) struct Origin {
    serving: JoinHandle<()>,
}

impl Origin {
    /// Joins, and serves `file` in the background.
    ///
    /// # Panics
    /// It is not accepted.
    pub(crate) fn start(addr: SocketAddr, file: &Arc<TestFile>) -> Self {
        Self::serve(Wire::join(addr, origin_hello(file.key())).expect("the origin may join"), file)
    }

    /// Serves `file` over a connection that has joined with everything.
    pub(crate) fn serve(mut wire: Wire, file: &Arc<TestFile>) -> Self {
        let file = Arc::clone(file);
        let serving = in_background(move || while serve_one(&mut wire, &file).is_ok() {});
        Self { serving }
    }

    /// Whether it still serves.
    pub(crate) fn is_serving(&self) -> bool {
        !self.serving.is_finished()
    }
}

/// Hears one thing and answers it, if it is a question.
fn serve_one(wire: &mut Wire, file: &TestFile) -> io::Result<()> {
    match wire.hear()? {
        Heard::Control(message) => answer(wire, file, &message),
        Heard::Closed => Err(io::Error::other("closed")),
        _ => Ok(()),
    }
}

/// Answers what a holder of everything can.
fn answer(wire: &mut Wire, file: &TestFile, message: &Message) -> io::Result<()> {
    match message {
        Message::Fetch { fetch_id, chunk } => {
            wire.send_chunk(*fetch_id, *chunk, file.chunk(*chunk))
        }
        Message::ManifestRequest => {
            for part in file.manifest.parts(0) {
                wire.send(&part)?;
            }
            Ok(())
        }
        Message::Ping { token } => wire.send(&Message::Pong { token: *token }),
        Message::Failure(failure) => Err(io::Error::other(failure.to_string())),
        _ => Ok(()),
    }
}

/// A client on its way to the whole file.
pub(crate) struct Download {
    wire: Wire,
    key: SwarmKey,
    manifest: Option<Manifest>,
    builder: ManifestBuilder,
    bytes: Vec<u8>,
    have: Vec<bool>,
    /// Bytes of each chunk that have come, in order from its start.
    reached: Vec<usize>,
    received_bytes: u64,
    granted_bytes: u64,
}

impl Download {
    /// Joins with nothing.
    ///
    /// # Errors
    /// The relay is gone or refuses.
    pub(crate) fn join(addr: SocketAddr, key: SwarmKey) -> io::Result<Self> {
        Self::over(Wire::join(addr, hello(key))?, key)
    }

    /// Goes on over a connection that has joined with nothing.
    ///
    /// # Errors
    /// The relay is gone.
    pub(crate) fn over(mut wire: Wire, key: SwarmKey) -> io::Result<Self> {
        let chunks = key.chunk_count() as usize;
        if chunks > 0 {
            wire.send(&Message::ManifestRequest)?;
        }
        Ok(Self {
            wire,
            key,
            manifest: None,
            builder: ManifestBuilder::new(key),
            bytes: vec![0; usize::try_from(key.size_bytes).expect("test files are small")],
            have: vec![false; chunks],
            reached: vec![0; chunks],
            received_bytes: 0,
            granted_bytes: 0,
        })
    }

    /// Chunks that are verified.
    pub(crate) fn have_count(&self) -> usize {
        self.have.iter().filter(|have| **have).count()
    }

    /// Whether the whole file is here, verified.
    pub(crate) fn is_complete(&self) -> bool {
        self.have.iter().all(|have| *have)
    }

    /// Hears one thing and does what follows.
    ///
    /// # Errors
    /// The connection ended, or the relay sent wrong bytes.
    pub(crate) fn step(&mut self) -> io::Result<()> {
        match self.wire.hear()? {
            Heard::Control(Message::ManifestPart { first_chunk, digests }) => {
                let whole = self.builder.push(first_chunk, &digests).map_err(io::Error::other)?;
                if whole && self.manifest.is_none() {
                    let builder =
                        std::mem::replace(&mut self.builder, ManifestBuilder::new(self.key));
                    self.manifest = Some(builder.finish().map_err(io::Error::other)?);
                    self.grant()?;
                }
                Ok(())
            }
            Heard::Data { header, bytes } => self.take(header.chunk, header.offset, &bytes),
            Heard::Control(Message::Fetch { fetch_id, chunk }) => {
                let (start, length) = self.place(chunk);
                let bytes = self.bytes[start..start + length].to_vec();
                self.wire.send_chunk(fetch_id, chunk, &bytes)
            }
            Heard::Control(Message::ManifestRequest) => match &self.manifest {
                Some(manifest) => manifest.parts(0).try_for_each(|part| self.wire.send(&part)),
                None => self.wire.send(&Message::ManifestRefused),
            },
            Heard::Control(Message::Failure(failure)) => Err(io::Error::other(failure.to_string())),
            Heard::Closed => Err(io::Error::other("the relay closed the connection")),
            Heard::Control(_) | Heard::Preamble => Ok(()),
        }
    }

    fn place(&self, chunk: u32) -> (usize, usize) {
        let start = usize::try_from(self.key.chunk_offset_bytes(chunk)).expect("small");
        (start, self.key.chunk_len_bytes(chunk) as usize)
    }

    fn take(&mut self, chunk: u32, offset: u32, payload: &[u8]) -> io::Result<()> {
        let (start, length) = self.place(chunk);
        let index = chunk as usize;
        self.received_bytes += payload.len() as u64;
        if offset == 0 {
            self.reached[index] = 0;
        }
        if !self.have[index] && self.reached[index] == offset as usize {
            let at = start + offset as usize;
            self.bytes[at..at + payload.len()].copy_from_slice(payload);
            self.reached[index] += payload.len();
            if self.reached[index] == length {
                let manifest = self.manifest.as_ref().expect("nothing was granted before");
                if !manifest.matches(chunk, &self.bytes[start..start + length]) {
                    return Err(io::Error::other(format!("chunk {chunk} is wrong")));
                }
                self.have[index] = true;
                let ranges = vec![ChunkRange { first: chunk, count: 1 }];
                self.wire.send(&Message::Have { ranges })?;
            }
        }
        // The relay may keep far less under way than was granted: it wants to hear at once.
        self.grant()
    }

    fn grant(&mut self) -> io::Result<()> {
        self.granted_bytes = self.received_bytes + WINDOW_BYTES;
        let (received_bytes, granted_bytes) = (self.received_bytes, self.granted_bytes);
        self.wire.send(&Message::Progress { received_bytes, granted_bytes })
    }

    /// Goes on until the file is whole, and compares it with what it should be.
    ///
    /// # Errors
    /// The connection ended before.
    ///
    /// # Panics
    /// The file is wrong though every chunk was right.
    pub(crate) fn finish(mut self, file: &TestFile) -> io::Result<()> {
        while !self.is_complete() {
            self.step()?;
        }
        assert!(self.bytes == file.bytes, "a verified file is the file");
        Ok(())
    }

    /// The connection, for a client that stops being honest.
    pub(crate) fn into_wire(self) -> Wire {
        self.wire
    }
}

/// Downloads the whole file; ends when it is verified.
///
/// # Panics
/// It can't.
pub(crate) fn download(addr: SocketAddr, file: &TestFile) {
    let download = Download::join(addr, file.key()).expect("an honest client may join");
    download.finish(file).expect("an honest client gets the file");
}
