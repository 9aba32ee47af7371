//! Of several ways to one place, the first that leads there.
//!
//! They are tried in turn, each a moment after the one before, so that one that never answers costs that moment (the
//! idea of RFC 8305, without its history). Knows nothing of sockets.

use std::{cell::RefCell, future::Future, rc::Rc, time::Duration};

use shards::{bell::LocalBell, clock, task};

/// How long an attempt may be silent before the next is made beside it.
const NEXT_AFTER: Duration = Duration::from_millis(250);

/// What the attempts share.
struct Race<O, E> {
    attempts: RefCell<Attempts<O, E>>,
    /// Rung when an attempt ended, and when it is time for the next.
    bell: LocalBell,
}

/// What became of the attempts so far.
struct Attempts<O, E> {
    /// What it came to: a winner, or an error that decides for all.
    verdict: Option<Result<O, E>>,
    errors: Vec<E>,
    running: usize,
}

/// Of several candidates, of which there is at least one, the first whose attempt succeeds.
///
/// # Errors
/// That of the first that failed, once all have; or at once one that `decides` for all.
///
/// # Panics
/// There is no candidate.
pub(crate) async fn race<T, O: 'static, E: 'static, F>(
    candidates: Vec<T>,
    attempt: impl Fn(T) -> F,
    decides: fn(&E) -> bool,
) -> Result<O, E>
where
    F: Future<Output = Result<O, E>> + 'static,
{
    let attempts = Attempts { verdict: None, errors: Vec::new(), running: 0 };
    let race = Rc::new(Race { attempts: RefCell::new(attempts), bell: LocalBell::new() });
    let count = candidates.len();
    for (index, candidate) in candidates.into_iter().enumerate() {
        race.start(attempt(candidate), decides);
        let failures = race.failures();
        if index + 1 < count {
            race.ring_after(NEXT_AFTER);
            let next_at = clock::now() + NEXT_AFTER;
            // A failure makes way for the next candidate at once.
            while !race.is_over() && race.failures() == failures && clock::now() < next_at {
                race.bell.wait().await;
            }
        }
        if race.is_over() {
            break;
        }
    }
    loop {
        if let Some(result) = race.result() {
            return result;
        }
        race.bell.wait().await;
    }
}

impl<O: 'static, E: 'static> Race<O, E> {
    fn is_over(&self) -> bool {
        self.attempts.borrow().verdict.is_some()
    }

    fn failures(&self) -> usize {
        self.attempts.borrow().errors.len()
    }

    /// The verdict; or the first error, once all attempts have failed.
    fn result(&self) -> Option<Result<O, E>> {
        let mut attempts = self.attempts.borrow_mut();
        if let Some(verdict) = attempts.verdict.take() {
            return Some(verdict);
        }
        if attempts.running > 0 {
            return None;
        }
        Some(Err(attempts.errors.drain(..).next().expect("there is a candidate")))
    }

    /// An attempt runs to its end even if another one wins: what it has opened is closed then.
    fn start(
        self: &Rc<Self>,
        attempt: impl Future<Output = Result<O, E>> + 'static,
        decides: fn(&E) -> bool,
    ) {
        self.attempts.borrow_mut().running += 1;
        let race = Rc::clone(self);
        task::spawn(async move {
            let ended = attempt.await;
            let mut attempts = race.attempts.borrow_mut();
            attempts.running -= 1;
            match ended {
                Err(error) if !decides(&error) => attempts.errors.push(error),
                decided => {
                    attempts.verdict.get_or_insert(decided);
                }
            }
            drop(attempts);
            race.bell.ring();
        });
    }

    fn ring_after(self: &Rc<Self>, time: Duration) {
        let race = Rc::clone(self);
        task::spawn(async move {
            clock::sleep(time).await;
            race.bell.ring();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An attempt that ends so after so many milliseconds.
    async fn ends((after_ms, result): (u64, Result<u32, u32>)) -> Result<u32, u32> {
        clock::sleep(Duration::from_millis(after_ms)).await;
        result
    }

    #[test]
    fn the_first_that_succeeds_is_taken_and_the_first_error_is_told() {
        const LONG: u64 = 60_000;
        let run = async {
            let never = |_: &u32| false;
            assert_eq!(race(vec![(0, Err(1)), (0, Ok(2))], ends, never).await, Ok(2));
            assert_eq!(race(vec![(LONG, Ok(1)), (0, Ok(2))], ends, never).await, Ok(2));
            assert_eq!(race(vec![(0, Err(1)), (0, Err(2))], ends, never).await, Err(1));
            // One decides for all: those that run are not waited for, and no other begins.
            let decides = |error: &u32| *error == 7;
            let tried = Rc::new(RefCell::new(0));
            let counting = |candidate| {
                *tried.borrow_mut() += 1;
                ends(candidate)
            };
            let candidates = vec![(LONG, Ok(1)), (0, Err(7)), (0, Ok(3))];
            assert_eq!(race(candidates, counting, decides).await, Err(7));
            assert_eq!(*tried.borrow(), 2);
        };
        shards::block_on(shards::Driver::Epoll, run).unwrap();
    }
}
