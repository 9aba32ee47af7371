//! Looks now and then whether what is shared has changed, on a thread of its own: a file system may take its time, and
//! neither an event loop nor the thread that reads chunks waits for that.

use std::{cell::Cell, io, rc::Rc, sync::Arc};

use shards::Offload;

use super::origin::{Blame, Change, Origin};

/// Looks that wait for the thread, at most: one a second and file is asked for, and none while one is under way.
const LOOKS_QUEUED_MAX: usize = 4;

/// What came of a job.
enum Seen {
    Look(Option<Change>),
    Blame(Blame),
}

/// A thread that looks. On an event loop only; it ends with this value.
#[derive(Debug)]
pub struct Lookout {
    offload: Offload<Seen>,
    under_way: Rc<Cell<usize>>,
}

impl Lookout {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system refuses a thread or a descriptor.
    pub fn start() -> io::Result<Self> {
        let offload = Offload::start("lookout", LOOKS_QUEUED_MAX)?;
        Ok(Self { offload, under_way: Rc::default() })
    }

    /// Whether the last looks are over, so that it makes sense to ask for others.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.under_way.get() == 0
    }

    /// Looks once; `found` is told if something has changed.
    pub fn look(&self, origin: &Arc<Origin>, found: impl FnOnce(Change) + 'static) {
        let (origin, under_way) = (Arc::clone(origin), Rc::clone(&self.under_way));
        under_way.set(under_way.get() + 1);
        self.offload.submit(
            move || Seen::Look(origin.change()),
            move |looked| {
                under_way.set(under_way.get() - 1);
                // A look that panicked has found nothing.
                if let Ok(Seen::Look(Some(change))) = looked {
                    found(change);
                }
            },
        );
    }

    /// Finds out why a chunk could not be read, of which a read said this; `told` is told.
    pub fn explain(
        &self,
        origin: &Arc<Origin>,
        (chunk, kind): (u32, io::ErrorKind),
        told: impl FnOnce(Blame) + 'static,
    ) {
        let origin = Arc::clone(origin);
        self.offload.submit(
            move || Seen::Blame(origin.explain(chunk, kind)),
            move |seen| {
                let nothing = Blame { change: None, of: String::new(), is_forgotten: false };
                // A look that panicked has found nothing.
                told(match seen {
                    Ok(Seen::Blame(blame)) => blame,
                    _ => nothing,
                });
            },
        );
    }
}
