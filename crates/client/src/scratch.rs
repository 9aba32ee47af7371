//! The receive buffer that all connections of a shard share. Read from, by one at a time; owned by
//! none.

use std::{cell::RefCell, rc::Rc};

use relay_transport::{FRAMES_PER_READ_MAX, ReceiveBuffer};

/// The receive buffer that all connections of a shard share.
pub type Scratch = Rc<RefCell<ReceiveBuffer>>;

/// A receive buffer for one shard.
#[must_use]
pub fn new_scratch() -> Scratch {
    Rc::new(RefCell::new(ReceiveBuffer::new(FRAMES_PER_READ_MAX)))
}
