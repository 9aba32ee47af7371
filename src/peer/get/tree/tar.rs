//! A bundle as a tar, in the order of its index: for another program that reads it as it comes.
//!
//! Nothing in it depends on the machine: no owner, modes 644 and 755 and the time 0 unless the bundle keeps others.
//! Paths and targets that don't fit a header go before it, as GNU tar writes them and all others read them.

#![expect(
    clippy::disallowed_types,
    reason = "a disk thread writes it, another its beginning and end; no event loop touches it"
)]

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Write as _},
    os::unix::ffi::OsStrExt as _,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use tar::{EntryType, Header};

use super::bundle::Bundle;
use crate::{
    client::store::Sink,
    protocol::{
        SwarmKey,
        bundle::{Entry, Index, Kind, Piece, PieceOf},
    },
};

/// What a tar is made of.
const BLOCK_BYTES: usize = 512;

/// Zeros: what fills the last block of a file, and two blocks of them end a tar.
const ZEROS: [u8; 2 * BLOCK_BYTES] = [0; 2 * BLOCK_BYTES];

/// The name of what holds a longer name.
const LONG_NAME: &str = "././@LongLink";

/// Writes a tar while the bundle comes in order.
#[derive(Debug)]
pub(super) struct TarSink {
    key: SwarmKey,
    index: Arc<Index>,
    selected: Option<Vec<bool>>,
    /// Of one thread at a time.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    out: File,
    /// The first entry that was not written.
    next: usize,
    /// Headers and small files, until there are enough for a write.
    buffer: Vec<u8>,
}

/// Bytes that are written at once, about: a small file is no system call of its own.
const WRITE_BYTES: usize = 256 << 10;

impl TarSink {
    pub(super) fn new(out: File, key: SwarmKey, bundle: &Bundle) -> Self {
        let state = Mutex::new(State { out, next: 0, buffer: Vec::with_capacity(WRITE_BYTES) });
        Self { key, index: Arc::clone(&bundle.index), selected: bundle.selected.clone(), state }
    }

    /// Takes the first chunks of the bundle, which were got for the index.
    pub(super) fn begin(&self, chunks: &[u8]) -> io::Result<()> {
        self.write_at(0, chunks)
    }

    fn is_selected(&self, number: usize) -> bool {
        self.selected.as_ref().is_none_or(|selected| selected[number])
    }

    fn write_at(&self, offset_bytes: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rest = bytes;
        for Piece { of, bytes } in
            self.index.pieces(offset_bytes..offset_bytes + bytes.len() as u64)
        {
            let len = usize::try_from(bytes.end - bytes.start).expect("it is a part of a slice");
            let (now, behind) = rest.split_at(len);
            rest = behind;
            let PieceOf::File(number) = of else { continue };
            if !self.is_selected(number) {
                continue;
            }
            if bytes.start == 0 {
                self.write_entries(&mut state, number + 1)?;
            }
            state.write(now)?;
            if self.index.place(number).is_some_and(|place| place.end - place.start == bytes.end) {
                let over = usize::try_from(bytes.end % BLOCK_BYTES as u64).expect("a remainder");
                state.write(&ZEROS[..(BLOCK_BYTES - over) % BLOCK_BYTES])?;
            }
        }
        state.flush()
    }

    /// The headers of all entries before this one.
    fn write_entries(&self, state: &mut State, end: usize) -> io::Result<()> {
        for number in state.next..end {
            if self.is_selected(number) {
                let entry = self.index.entry(number).expect("below the count");
                state.write_header(&entry)?;
            }
        }
        state.next = end.max(state.next);
        Ok(())
    }
}

impl Sink for TarSink {
    fn write_chunk(&self, chunk: u32, bytes: &[u8]) -> io::Result<()> {
        self.write_at(self.key.chunk_offset_bytes(chunk), bytes)
    }

    fn finish(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.write_entries(&mut state, self.index.len())?;
        state.write(&ZEROS)?;
        state.flush()
    }
}

impl State {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.buffer.len() + bytes.len() > WRITE_BYTES {
            self.flush()?;
        }
        if bytes.len() >= WRITE_BYTES {
            return self.out.write_all(bytes);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    fn write_header(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        let mut header = Header::new_gnu();
        let is_executable = match entry.kind {
            Kind::Directory => {
                header.set_entry_type(EntryType::Directory);
                true
            }
            Kind::File { size_bytes, is_executable } => {
                header.set_entry_type(EntryType::Regular);
                header.set_size(size_bytes);
                is_executable
            }
            Kind::Link { target } => {
                header.set_entry_type(EntryType::Symlink);
                self.put_link(&mut header, target)?;
                true
            }
        };
        if !matches!(entry.kind, Kind::File { .. }) {
            header.set_size(0);
        }
        header.set_uid(0);
        header.set_gid(0);
        let usual = if is_executable { 0o755 } else { 0o644 };
        header.set_mode(entry.preserved.map_or(usual, |preserved| preserved.mode.into()));
        set_time(&mut header, entry.preserved.map_or(0, |preserved| preserved.modified_secs));
        let slash: &[u8] = if entry.kind == Kind::Directory { b"/" } else { b"" };
        self.put_path(&mut header, &[entry.path, slash].concat())?;
        header.set_cksum();
        self.write(header.as_bytes())
    }

    fn put_path(&mut self, header: &mut Header, path: &[u8]) -> io::Result<()> {
        let field = &mut header.as_gnu_mut().expect("it is GNU's").name;
        self.put_name(field, path, EntryType::GNULongName)
    }

    fn put_link(&mut self, header: &mut Header, target: &[u8]) -> io::Result<()> {
        let field = &mut header.as_gnu_mut().expect("it is GNU's").linkname;
        self.put_name(field, target, EntryType::GNULongLink)
    }

    fn put_name(&mut self, field: &mut [u8], name: &[u8], long: EntryType) -> io::Result<()> {
        let len = name.len().min(field.len());
        field[..len].copy_from_slice(&name[..len]);
        if len < name.len() { self.write_long(long, name) } else { Ok(()) }
    }

    /// A name that is longer than its field, ended by a zero, before the header that it belongs to.
    fn write_long(&mut self, entry_type: EntryType, name: &[u8]) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_path(Path::new(OsStr::from_bytes(LONG_NAME.as_bytes())))?;
        header.set_entry_type(entry_type);
        header.set_size(name.len() as u64 + 1);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        self.write(header.as_bytes())?;
        self.write(name)?;
        self.write(&ZEROS[..BLOCK_BYTES - name.len() % BLOCK_BYTES])
    }
}

/// Seconds before 1970 or after 2242 are in two's complement, as GNU tar has them.
fn set_time(header: &mut Header, seconds: i64) {
    match u64::try_from(seconds) {
        Ok(seconds) => header.set_mtime(seconds),
        Err(_) => {
            let field = &mut header.as_old_mut().mtime;
            field.fill(0xff);
            field[4..].copy_from_slice(&seconds.to_be_bytes());
        }
    }
}
