//! Windows in virtual time: one peer, two behind one bottleneck, long paths, and peers that lie.

use super::*;

const MS: u64 = 1_000_000;

/// A peer that takes `rate` bytes a second in over a path of 1 ms, in steps of a frame, with
/// everything in between in a queue; the windows that it got, one per frame.
fn windows_of(rate: u64, seconds: u64) -> Vec<u64> {
    let mut window = Window::new(WINDOW_BYTES_INITIAL);
    window.handle_progress(Time(0), 0, u64::MAX).expect("nothing claimed");
    let (frame, mut now, mut received, mut sizes) = (16 << 10, 0, 0, Vec::new());
    while now < seconds * 1000 * MS {
        window.handle_sent(Time(now), window.room_bytes(), false);
        let under_way = window.unacknowledged_bytes().min(frame);
        // What is alone on the path takes its round trip, what queues only its own time.
        let alone = window.unacknowledged_bytes() <= frame;
        now += if alone { MS } else { 0 } + under_way * 1000 * MS / rate;
        received += under_way;
        window.handle_progress(Time(now), received, u64::MAX).expect("was sent");
        sizes.push(window.size_bytes());
    }
    sizes
}

#[test]
fn a_fast_peer_gets_the_largest_window_but_for_probes() {
    let sizes = windows_of(10_000_000_000, 4);
    let least = sizes.iter().filter(|&&size| size == WINDOW_BYTES_MIN).count();
    assert_eq!(sizes.last(), Some(&path::BYTES_NEAR));
    assert!((2..sizes.len() / 50).contains(&least), "{least} of {} were probes", sizes.len());
}

#[test]
fn a_slow_peer_ends_with_a_small_window_and_keeps_it() {
    let sizes = windows_of(100_000, 60);
    let tail = &sizes[sizes.len() / 2..];
    // One round trip is two frames' time here, and that is two frames' worth of rate.
    assert!(tail.iter().all(|&size| size <= 5 * WINDOW_BYTES_MIN / 2), "{tail:?}");
}

/// What two peers get of one link of so many MB/s whose queue is as long as it takes, and of such a round trip,
/// in a third of this time, at its end; the second comes when the first has had it for a tenth of it.
fn shares_of_two(rate: u64, round_trip_ms: u64, seconds: u64) -> [u64; 2] {
    let frame = 16 << 10;
    // A kilobyte's time.
    let ticks_per_second = rate * 1000;
    let mut windows = [(); 2].map(|()| Window::new(WINDOW_BYTES_INITIAL));
    let (mut received, mut at_two_thirds) = ([0; 2], [0; 2]);
    let mut queue = std::collections::VecDeque::new();
    let mut under_way = std::collections::VecDeque::<(Time, usize)>::new();
    let path = Duration::from_millis(round_trip_ms);
    for tick in 0..seconds * ticks_per_second {
        let now = Time(tick * 1000 * MS / ticks_per_second);
        let begins = [0, seconds * ticks_per_second / 10].map(|begin| begin == tick);
        for (who, window) in windows.iter_mut().enumerate().filter(|&(who, _)| begins[who]) {
            let waits = Duration::from_micros(queue.len() as u64 * frame / rate);
            window.handle_round_trip(path + waits);
            window.handle_progress(now, 0, u64::MAX).unwrap_or_else(|_| panic!("{who} claimed"));
        }
        if tick == 2 * seconds * ticks_per_second / 3 {
            at_two_thirds = received;
        }
        while under_way.front().is_some_and(|&(due, _)| due <= now) {
            let Some((_, who)) = under_way.pop_front() else { break };
            received[who] += frame;
            windows[who].handle_progress(now, received[who], u64::MAX).expect("was sent");
        }
        for (who, window) in windows.iter_mut().enumerate() {
            while window.room_bytes() >= frame {
                window.handle_sent(now, frame, false);
                queue.push_back(who);
            }
        }
        if tick % (frame / 1000) == 0
            && let Some(who) = queue.pop_front()
        {
            under_way.push_back((now + path, who));
        }
    }
    [0, 1].map(|who| received[who] - at_two_thirds[who])
}

#[test]
fn two_peers_behind_one_bottleneck_get_about_the_same() {
    // In proportion to the rate they would end at 1.46 : 1 on the fast one.
    for (rate, round_trip_ms, seconds, most) in [
        (10, 5, 12, 1.5),
        (100, 5, 12, 1.1),
        (10, 100, 30, 1.6),
        (100, 100, 30, 1.6),
        (10, 300, 40, 1.6),
    ] {
        let [first, second] = shares_of_two(rate, round_trip_ms, seconds);
        let all = first + second;
        let whole = rate * 1_000_000 * (seconds / 3);
        let how = format!("{rate} MB/s, {round_trip_ms} ms: {first} and {second} bytes");
        assert!(all > whole * 9 / 10, "{how}: the link is used");
        let (more, less) = (first.max(second), first.min(second));
        assert!((more as f64) < most * less as f64, "{how}");
    }
}

/// One peer behind a link, over a path, in virtual time.
struct Far {
    now: Time,
    rate: u64,
    path: Duration,
    window: Window,
    free_at: Time,
    /// When the peer's report of a frame is here.
    under_way: std::collections::VecDeque<Time>,
    received: u64,
}

impl Far {
    fn new(rate: u64, round_trip_ms: u64) -> Self {
        let mut window = Window::new(WINDOW_BYTES_INITIAL);
        window.handle_progress(Time(0), 0, u64::MAX).expect("nothing claimed");
        Self {
            now: Time(0),
            rate,
            path: Duration::from_millis(round_trip_ms),
            window,
            free_at: Time(0),
            under_way: std::collections::VecDeque::new(),
            received: 0,
        }
    }

    /// Runs on; the part of what the link carries that has come meanwhile.
    fn run(&mut self, time: Duration) -> f64 {
        const FRAME: u64 = 16 << 10;
        const WRITE: u64 = 256 << 10;
        let (end, before) = (self.now + time, self.received);
        loop {
            while self.window.room_bytes() >= FRAME {
                let frames = self.window.room_bytes().min(WRITE) / FRAME;
                self.window.handle_sent(self.now, frames * FRAME, false);
                for _ in 0..frames {
                    let takes = Duration::from_secs_f64(FRAME as f64 / self.rate as f64);
                    self.free_at = self.free_at.max(self.now) + takes;
                    self.under_way.push_back(self.free_at + self.path);
                }
            }
            let Some(due) = self.under_way.front().copied().filter(|&due| due <= end) else {
                break;
            };
            self.under_way.pop_front();
            self.now = due;
            self.received += FRAME;
            self.window.handle_progress(due, self.received, u64::MAX).expect("was sent");
        }
        self.now = end;
        (self.received - before) as f64 / (self.rate as f64 * time.as_secs_f64())
    }
}

const MBIT_1000: u64 = 125_000_000;

#[test]
fn the_window_doubles_each_round_trip_until_the_path_is_full() {
    for round_trip_ms in [100, 300] {
        let mut far = Far::new(MBIT_1000, round_trip_ms);
        let path = path::bytes_held(MBIT_1000, far.path);
        let mut before = far.window.size_bytes();
        let mut steps = Vec::new();
        while before < path {
            let takes = Duration::from_secs_f64(before as f64 / MBIT_1000 as f64);
            far.run(far.path + takes + Duration::from_millis(1));
            let size = far.window.size_bytes();
            steps.push((before, size));
            before = size;
        }
        // A burst's rate counts its first write only, and the next round trip makes up for it.
        let doublings = (path as f64 / WINDOW_BYTES_INITIAL as f64).log2();
        assert!(steps.len() as f64 <= doublings + 1.0, "{round_trip_ms} ms: {steps:?}");
        far.run(4 * far.path);
        assert!(far.run(Duration::from_secs(30)) > 0.97, "{round_trip_ms} ms: probes cost little");
        let most = path + path / 10 + (2 << 20);
        assert!(far.window.size_bytes() <= most, "{round_trip_ms} ms: {}", far.window.size_bytes());
    }
}

#[test]
fn a_path_that_is_known_to_be_long_is_full_from_the_first_round_trip_on() {
    for (rate, round_trip_ms) in [(MBIT_1000, 100), (MBIT_1000, 300), (MBIT_1000 / 10, 300)] {
        let mut far = Far::new(rate, round_trip_ms);
        far.window.handle_round_trip(far.path);
        far.run(far.path);
        let used = far.run(Duration::from_secs(4));
        assert!(used > 0.93, "{rate} bytes/s, {round_trip_ms} ms: {used}");
        let path = path::bytes_held(rate, far.path);
        far.run(Duration::from_secs(10));
        let size = far.window.size_bytes();
        assert!(size < path + path / 4 + (2 << 20), "{size} of {path}: no more than it needs");
    }
}

#[test]
fn a_path_that_carries_more_later_is_filled_within_a_few_round_trips() {
    let mut far = Far::new(MBIT_1000 / 100, 100);
    far.run(Duration::from_secs(10));
    far.rate = MBIT_1000;
    far.run(Duration::from_secs(2));
    assert!(far.run(Duration::from_secs(2)) > 0.9, "{}", far.window.size_bytes());
}

#[test]
fn near_by_a_first_answer_changes_nothing() {
    let mut window = Window::new(WINDOW_BYTES_INITIAL);
    window.handle_round_trip(Duration::from_millis(5));
    assert_eq!(window.wished_bytes(), WINDOW_BYTES_INITIAL);
}

#[test]
fn whoever_acknowledges_late_or_early_or_never_has_what_such_a_path_would_have() {
    // Late: on a link near by, each report is held back.
    let mut late = Far::new(1_000_000_000, 300);
    late.window.set_ceiling(1 << 20);
    late.run(Duration::from_secs(20));
    assert!(late.window.size_bytes() <= 1 << 20, "no more than its part of the sum");
    assert!(late.window.unacknowledged_bytes() <= 1 << 20);
    // Early: all that was sent is claimed at once.
    let mut early = Window::new(WINDOW_BYTES_INITIAL);
    early.handle_progress(Time(0), 0, u64::MAX).expect("nothing claimed");
    let mut sent = 0;
    for step in 1..10_000 {
        let room = early.room_bytes();
        early.handle_sent(Time(step * MS), room, false);
        sent += room;
        early.handle_progress(Time(step * MS + 1), sent, u64::MAX).expect("was sent");
        assert!(early.size_bytes() <= path::BYTES_NEAR);
    }
    // Never: it grants all the world, and takes nothing.
    let mut never = Window::new(WINDOW_BYTES_INITIAL);
    for step in 1..10_000 {
        never.handle_progress(Time(step * MS), 0, u64::MAX).expect("nothing claimed");
        never.handle_sent(Time(step * MS), never.room_bytes(), false);
        assert!(never.unacknowledged_bytes() <= WINDOW_BYTES_INITIAL);
    }
}

#[test]
fn a_grant_bounds_what_is_sent_whatever_the_window() {
    let mut window = Window::new(WINDOW_BYTES_INITIAL);
    window.handle_progress(Time(0), 0, 1000).expect("nothing claimed");
    assert_eq!(window.room_bytes(), 1000);
    window.handle_sent(Time(1), 1000, false);
    assert_eq!(window.room_bytes(), 0);
}

#[test]
fn a_rate_that_only_seemed_high_is_forgotten_though_the_window_never_limits() {
    let mut window = Window::new(WINDOW_BYTES_INITIAL);
    window.handle_progress(Time(0), 0, u64::MAX).expect("nothing claimed");
    window.handle_sent(Time(0), 20_000, true);
    let mut now = 0;
    for step in 1..100 {
        window.handle_sent(Time(now), 20_000, true);
        // The first acknowledgement comes much too soon; then 1 MB/s.
        now += if step == 1 { MS / 1000 } else { 20 * MS };
        window.handle_progress(Time(now), step * 20_000, u64::MAX).expect("was sent");
        assert!(step > 1 || window.size_bytes() == path::BYTES_NEAR);
    }
    assert!(window.size_bytes() < 3 * WINDOW_BYTES_MIN, "{}", window.size_bytes());
}

#[test]
fn acknowledging_what_was_never_sent_is_an_error() {
    let mut window = Window::new(WINDOW_BYTES_INITIAL);
    assert!(window.handle_progress(Time(0), 1, u64::MAX).is_err());
}

#[test]
fn an_older_report_changes_nothing() {
    let mut window = Window::new(WINDOW_BYTES_INITIAL);
    window.handle_progress(Time(0), 0, 5000).expect("nothing claimed");
    window.handle_sent(Time(1), 4000, false);
    window.handle_progress(Time(2), 3000, 9000).expect("was sent");
    window.handle_progress(Time(3), 1000, 5000).expect("was sent");
    assert_eq!(window.unacknowledged_bytes(), 1000);
    assert_eq!(window.room_bytes(), 5000);
}
