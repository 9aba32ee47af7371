//! The end of a connection that this side closes with a word: the relay hears it.
//!
//! A socket that is closed while bytes of the other side lie unread is reset, and a reset destroys
//! what was written just before. So the peer writes its last words, closes its writing direction,
//! and discards what still comes until the relay closes, too, for a bounded time and amount.

use std::{io, net::Shutdown, rc::Rc, time::Duration};

use shards::{clock, task};

use super::{
    core::{End, now},
    link::{Link, Scratch},
};
use crate::error::ConnectionError;
use relay_protocol::{Failure, FailureCode, Message};

/// How long the relay has to take the last words and to close; it does so at once.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes that are discarded meanwhile: more than a relay has under way to one peer.
const LINGER_BYTES_MAX: usize = 32 << 20;

/// How often words are looked at that the kernel does not take.
const WORDS_TICK: Duration = Duration::from_millis(10);

impl Link {
    /// What the relay is told before this side closes, if anything.
    pub(super) fn last_word(&self, result: &Result<End, ConnectionError>) -> Option<Failure> {
        match result {
            Err(ConnectionError::Session { error, .. }) => error.to_failure(),
            _ if self.core.borrow().end == Some(End::GaveUp) => {
                let text = "the file is no longer what it was";
                Some(Failure::new(FailureCode::Internal, text))
            }
            _ => None,
        }
    }

    /// Tells the relay why this side closes.
    pub(super) async fn say_last(self: &Rc<Self>, failure: Failure, scratch: &Scratch) {
        // The writer must not say anything after it.
        self.end_writing();
        self.queue_last(failure);
        let weak = Rc::downgrade(self);
        task::spawn(async move {
            clock::sleep(LINGER_TIMEOUT).await;
            if let Some(link) = weak.upgrade() {
                link.shutdown();
            }
        });
        // The connection ends whether the relay hears it or not.
        drop(self.linger(scratch).await);
    }

    fn queue_last(&self, failure: Failure) {
        let queue = &mut self.core.borrow_mut().queue;
        queue.drop_data();
        queue.push_control(&Message::Failure(failure));
    }

    /// Whether all is written.
    fn write_last(&self) -> io::Result<bool> {
        let queue = &mut self.core.borrow_mut().queue;
        queue.write(&self.socket, 0)?;
        Ok(queue.is_stream_empty())
    }

    async fn linger(&self, scratch: &Scratch) -> io::Result<()> {
        let deadline = now() + LINGER_TIMEOUT;
        let mut bytes_left = LINGER_BYTES_MAX;
        let mut is_said = false;
        while bytes_left > 0 && now() < deadline {
            if !is_said {
                is_said = self.write_last()?;
                if is_said {
                    self.socket.shutdown(Shutdown::Write)?;
                }
            }
            let taken = self.socket.try_read(scratch.borrow_mut().bytes_mut());
            match taken {
                Ok(0) if is_said => return Ok(()),
                // Nothing more is read, and the socket has no room for the last word yet.
                Ok(0) => clock::sleep(WORDS_TICK).await,
                Ok(count) => {
                    bytes_left = bytes_left.saturating_sub(count);
                    task::yield_now().await;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if is_said {
                        self.socket.readable().await?;
                    } else {
                        clock::sleep(WORDS_TICK).await;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
