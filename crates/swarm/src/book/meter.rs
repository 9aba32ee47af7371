//! How fast a peer takes or gives bytes while it has something to do.
//!
//! Reads no clock; idle time doesn't count.

use relay_protocol::time::Time;

/// Part that is forgotten at each piece of evidence: about the last 32 count, so that jitter hardly shows.
const FORGOTTEN: f64 = 1.0 / 32.0;

/// Bytes per busy second over about the last 32 pieces.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Meter {
    bytes: f64,
    seconds: f64,
    busy_since: Option<Time>,
    /// Since the last fold.
    bytes_new: f64,
    seconds_new: f64,
}

impl Meter {
    /// Time runs for this peer from now on, or no longer.
    pub(super) fn set_busy(&mut self, now: Time, busy: bool) {
        if let Some(since) = self.busy_since {
            self.seconds_new += now.seconds_since(since);
        }
        self.busy_since = busy.then_some(now);
    }

    /// So many bytes were moved.
    pub(super) fn add(&mut self, bytes: u32) {
        self.bytes_new += f64::from(bytes);
    }

    /// What was moved since the last time counts from now on, in pieces of so many bytes; whether there was
    /// something. What comes in company is one fold: its time belongs to all of it. It forgets no more
    /// than it brings time for, so that much in no time is not the only thing that counts.
    pub(super) fn fold(&mut self, now: Time, piece_bytes: f64) -> bool {
        if self.bytes_new == 0.0 {
            return false;
        }
        self.set_busy(now, self.busy_since.is_some());
        let bytes = std::mem::take(&mut self.bytes_new);
        let seconds = std::mem::take(&mut self.seconds_new);
        let by_bytes = (1.0 - FORGOTTEN).powf(bytes / piece_bytes);
        let by_time = self.seconds / (self.seconds + seconds).max(f64::MIN_POSITIVE);
        let kept = by_bytes.max(by_time);
        self.bytes = self.bytes * kept + bytes;
        self.seconds = self.seconds * kept + seconds;
        true
    }

    /// Bytes and seconds up to the last fold, and busy seconds since then.
    pub(crate) fn evidence(&self, now: Time) -> (f64, f64, f64) {
        let open = self.busy_since.map_or(0.0, |since| now.seconds_since(since));
        (self.bytes, self.seconds, self.seconds_new + open)
    }

    /// Bytes per second; `None` before the first fold that took any time.
    pub(crate) fn rate(&self) -> Option<f64> {
        (self.seconds > 0.0).then(|| self.bytes / self.seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::Meter;
    use relay_protocol::time::Time;

    #[test]
    fn idle_time_does_not_lower_the_rate() {
        let mut meter = Meter::default();
        let at = |ms: u64| Time(ms * 1_000_000);
        meter.set_busy(at(0), true);
        meter.add(1000);
        assert!(meter.fold(at(100), 1000.0) && !meter.fold(at(100), 1000.0));
        meter.set_busy(at(100), false);
        meter.set_busy(at(5000), true);
        meter.add(1000);
        meter.fold(at(5100), 1000.0);
        assert!((meter.rate().unwrap() - 10_000.0).abs() < 1.0);
    }

    #[test]
    fn what_is_acknowledged_in_company_is_as_fast_as_one_by_one() {
        for company in [1, 4, 64, 1024] {
            let mut meter = Meter::default();
            meter.set_busy(Time(0), true);
            for batch in 1..10_000 / company {
                (0..company).for_each(|_| meter.add(1000));
                meter.fold(Time(batch * company * 1_000_000), 1000.0);
            }
            let rate = meter.rate().unwrap();
            assert!((rate - 1e6).abs() < 1e3, "{rate} bytes a second in companies of {company}");
        }
    }
}
