//! Grants: when, how much, and that a limited peer gets its rate and no burst.

use super::*;

fn at(millis: u64) -> Time {
    Time::ZERO + Duration::from_millis(millis)
}

#[test]
fn nothing_is_granted_before_it_opens_and_a_window_right_after() {
    let mut intake = Intake::new(None, at(0));
    intake.handle_turn_end(at(1), true, true);
    assert_eq!(intake.poll_report(at(1)), None);
    intake.open(at(2));
    let report = intake.poll_report(at(2)).unwrap();
    assert_eq!(report, Report { received_bytes: 0, granted_bytes: WINDOW_BYTES });
    assert_eq!(intake.poll_report(at(2)), None);
}

#[test]
fn frames_in_a_flow_are_not_reported_one_by_one_but_an_idle_turn_is() {
    let mut intake = Intake::new(None, at(0));
    intake.open(at(0));
    intake.poll_report(at(0)).unwrap();
    intake.handle_received(100 << 10);
    intake.handle_turn_end(at(1), false, false);
    assert_eq!(intake.poll_report(at(1)), None);
    intake.handle_turn_end(at(1), true, false);
    let report = intake.poll_report(at(1)).unwrap();
    assert_eq!(report.received_bytes, 100 << 10);
    assert_eq!(report.granted_bytes, (100 << 10) + WINDOW_BYTES);
    intake.handle_received(REPORT_BYTES);
    intake.handle_turn_end(at(2), false, false);
    assert!(intake.poll_report(at(2)).is_some());
}

#[test]
fn less_than_a_frame_waits_unless_something_else_is_sent() {
    let mut intake = Intake::new(None, at(0));
    intake.open(at(0));
    intake.poll_report(at(0)).unwrap();
    intake.handle_received(1);
    intake.handle_turn_end(at(1), true, false);
    assert_eq!(intake.poll_report(at(1)), None);
    intake.handle_turn_end(at(1), true, true);
    assert_eq!(intake.poll_report(at(1)).unwrap().received_bytes, 1);
}

#[test]
fn a_limited_peer_grants_its_rate_whatever_the_sender_does() {
    let rate = NonZeroU64::new(1 << 20).unwrap();
    let mut intake = Intake::new(Some(rate), at(0));
    intake.open(at(0));
    let (mut granted, mut received) = (0, 0);
    for millis in 0..10_000 {
        intake.handle_turn_end(at(millis), true, false);
        if let Some(report) = intake.poll_report(at(millis)) {
            assert!(report.granted_bytes >= granted, "grants only grow");
            granted = report.granted_bytes;
        }
        intake.handle_received(granted - received);
        received = granted;
    }
    let ideal = 10 * rate.get();
    assert!(granted <= ideal + LIMITED_WINDOW_BYTES_MIN, "{granted} of {ideal}");
    assert!(granted >= ideal - REPORT_IDLE_BYTES * 2, "{granted} of {ideal}");
}

#[test]
fn nothing_of_a_low_rate_is_lost_however_often_it_is_looked_at() {
    let rate = NonZeroU64::new(10_000).unwrap();
    let mut intake = Intake::new(Some(rate), at(0));
    intake.open(at(0));
    for tenth in 0..100_000 {
        let now = Time::ZERO + Duration::from_micros(100 * tenth);
        intake.handle_turn_end(now, true, false);
        if let Some(report) = intake.poll_report(now) {
            intake.received = report.granted_bytes;
        }
    }
    let granted = intake.told;
    assert!(granted.abs_diff(100_000) <= LIMITED_WINDOW_BYTES_MIN, "{granted}");
    assert!(intake.allowed > 100_000 + LIMITED_WINDOW_BYTES_MIN - 20, "{}", intake.allowed);
}

#[test]
fn a_chunk_on_its_way_to_the_disk_costs_nothing_of_the_rate() {
    let rate = NonZeroU64::new(1 << 20).unwrap();
    let mut intake = Intake::new(Some(rate), at(0));
    intake.open(at(0));
    for millis in 0..1000 {
        intake.handle_turn_end(at(millis), true, false);
        if let Some(report) = intake.poll_report(at(millis)) {
            intake.handle_received(report.granted_bytes - intake.received);
        }
        if millis == 500 {
            intake.hold(256 << 10);
        }
    }
    assert!(intake.told > (1 << 20) - 2 * REPORT_BYTES / 16, "{}", intake.told);
}

#[test]
fn a_pause_of_the_sender_does_not_end_in_a_burst() {
    let rate = NonZeroU64::new(1 << 20).unwrap();
    let mut intake = Intake::new(Some(rate), at(0));
    intake.open(at(0));
    intake.poll_report(at(0));
    intake.handle_turn_end(at(60_000), true, false);
    let report = intake.poll_report(at(60_000)).unwrap();
    assert!(report.granted_bytes <= rate.get() / 8);
    assert_eq!(intake.poll_timeout(), None, "the window is full: data must come first");
}

#[test]
fn timeouts_lead_to_grants_at_any_rate() {
    for rate in [1, 100, 10_000, 1 << 20, 1 << 30, u64::MAX] {
        let mut intake = Intake::new(NonZeroU64::new(rate), at(0));
        intake.open(at(0));
        let first = intake.poll_report(at(0)).unwrap().granted_bytes;
        intake.handle_received(first);
        intake.handle_turn_end(at(0), true, true);
        intake.poll_report(at(0));
        let due = intake.poll_timeout().unwrap();
        let report = intake.poll_report(due).expect("the grant that the timeout announced");
        assert!(report.granted_bytes > first, "rate {rate}");
    }
}

#[test]
fn credit_dates_from_the_grant_and_is_spread_over_a_limited_one() {
    let mut intake = Intake::new(None, at(5));
    intake.open(at(5));
    assert_eq!(intake.credit_time(1000), Some(at(5)));
    intake.handle_received(1 << 20);
    intake.handle_turn_end(at(9), true, false);
    assert_eq!(intake.credit_time(WINDOW_BYTES), Some(at(5)));
    assert_eq!(intake.credit_time(WINDOW_BYTES + 1), Some(at(9)));

    let mut slow = Intake::new(NonZeroU64::new(1_000_000), at(0));
    slow.open(at(0));
    slow.handle_received(50_000);
    slow.handle_turn_end(at(100), true, false);
    let half = slow.credit_time(LIMITED_WINDOW_BYTES_MIN + 50_000).unwrap();
    assert_eq!(half.since(at(0)).as_millis(), 50);
}

#[test]
fn what_is_not_kept_yet_is_not_granted_again_until_it_is() {
    let mut intake = Intake::new(None, at(0));
    intake.open(at(0));
    intake.poll_report(at(0)).unwrap();
    // A disk that takes nothing: everything granted arrives, and is held.
    for _ in 0..4 {
        intake.handle_received(WINDOW_BYTES / 4);
        intake.hold(1 << 20);
        intake.handle_turn_end(at(1), true, true);
        let report = intake.poll_report(at(1)).unwrap();
        assert_eq!(report.granted_bytes, WINDOW_BYTES, "no more than at first");
    }
    intake.handle_turn_end(at(2), true, true);
    assert_eq!(intake.poll_report(at(2)), None);
    // Nothing more arrives: that it was kept must be enough to be told.
    intake.release(1 << 20);
    intake.handle_turn_end(at(3), true, true);
    let report = intake.poll_report(at(3)).unwrap();
    assert_eq!(report.granted_bytes, WINDOW_BYTES + (1 << 20));
    assert_eq!(intake.poll_report(at(3)), None);
}

#[test]
fn a_long_path_is_granted_what_it_may_hold_and_a_short_one_as_ever() {
    let granted = |rate, round_trip| {
        let mut intake = Intake::new(rate, at(0));
        intake.handle_round_trip(Duration::from_millis(round_trip));
        intake.open(at(0));
        for turn in 1..10_000 {
            intake.handle_received(200 << 10);
            intake.handle_turn_end(at(turn), true, false);
            intake.poll_report(at(turn));
        }
        intake.invariants();
        intake.window_bytes()
    };
    assert_eq!(granted(None, 1), WINDOW_BYTES);
    assert_eq!(granted(None, 300), path::BYTES_MAX);
    let limited = granted(NonZeroU64::new(1_000_000), 300);
    assert!(limited >= 300_000, "a limited one's rate is not bound by the path: {limited}");
}

#[test]
fn credits_stay_bounded() {
    let mut intake = Intake::new(None, at(0));
    intake.open(at(0));
    for turn in 0..100_000 {
        intake.handle_received(700);
        intake.handle_turn_end(at(turn), true, false);
        intake.poll_report(at(turn));
        intake.invariants();
    }
}
