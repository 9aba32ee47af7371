//! What programs say to people: on stderr, and never at the price of what they do.
//!
//! `eprintln!` ends the program where stderr has no reader any more (`2>&1 | head`), or where the
//! disk of a log is full. What is said here is lost then, and nothing else.

use std::{
    fmt::Display,
    io::{Write as _, stderr},
    time::Duration,
};

/// What takes less needs no word while it goes on.
const FIRST_WORD_AFTER: Duration = Duration::from_secs(5);

/// A user who waits for hours still wants a sign of life.
const WORDS_EVERY_MAX: Duration = Duration::from_secs(300);

/// A line.
pub fn say(text: impl Display) {
    writeln!(stderr().lock(), "{text}").ok();
}

/// Without an end of the line.
pub fn write(text: impl Display) {
    write!(stderr().lock(), "{text}").ok();
}

/// When to say how far something is where there is no bar: after a while, then ever more seldom.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    next_at: Duration,
    interval: Duration,
}

impl Pace {
    /// It begins now, on whatever scale.
    #[must_use]
    pub fn new(now: Duration) -> Self {
        Self { next_at: now + FIRST_WORD_AFTER, interval: FIRST_WORD_AFTER }
    }

    /// Whether it is time for a word, which is then said.
    pub fn is_due(&mut self, now: Duration) -> bool {
        if now < self.next_at {
            return false;
        }
        self.interval = (2 * self.interval).min(WORDS_EVERY_MAX);
        self.next_at = now + self.interval;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_after_five_seconds_and_then_ever_more_seldom() {
        let mut pace = Pace::new(Duration::from_secs(1));
        let said: Vec<u64> =
            (0..1300).filter(|&second| pace.is_due(Duration::from_secs(second))).collect();
        assert_eq!(said, [6, 16, 36, 76, 156, 316, 616, 916, 1216]);
    }
}
