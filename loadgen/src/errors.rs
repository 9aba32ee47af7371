//! Everything that went wrong in a run, in words.

use std::time::Duration;

use relay::{time::Time, units::count_text};

use crate::{
    fleet::Outcome,
    member::{Job, Record},
};

/// Clients that are named when time is up; the others are counted.
const WAITING_SHOWN_MAX: usize = 10;

/// What the relay said of chunks that no peer holds counts for so long: it repeats it every second.
const UNHELD_HOLDS: Duration = Duration::from_secs(8);

/// Everything that went wrong, in words.
pub(crate) fn errors_of(outcome: &Outcome, job: &Job, now: Time) -> Vec<String> {
    let mut errors = Vec::new();
    if let Some(reason) = &outcome.cut_short {
        errors.push(reason.clone());
    }
    let failed = outcome.records.iter().filter(|record| record.has_failed);
    errors.extend(
        failed.map(|record| {
            format!("{}: {}", record.name, record.error.as_deref().unwrap_or("failed"))
        }),
    );
    if outcome.cut_short.is_some() {
        errors.extend(who_waits(outcome, job, now));
    }
    errors
}

fn who_waits(outcome: &Outcome, job: &Job, now: Time) -> Vec<String> {
    let must_succeed = |record: &&Record| {
        record.client.is_some_and(|client| job.plan.clients[client].role.must_succeed())
    };
    let waiting = |record: &&Record| record.whole_at.is_none() && !record.has_failed;
    let waiting: Vec<&Record> =
        outcome.records.iter().filter(must_succeed).filter(waiting).collect();
    let mut lines: Vec<String> =
        waiting.iter().take(WAITING_SHOWN_MAX).map(|record| wait_of(record, now)).collect();
    if let Some(more @ 1..) = waiting.len().checked_sub(WAITING_SHOWN_MAX) {
        lines.push(format!("{more} more clients wait"));
    }
    lines
}

fn wait_of(record: &Record, now: Time) -> String {
    let Record { name, chunks_have, chunk_count, .. } = record;
    let mut text = format!("{name} has {chunks_have} of {chunk_count} chunks");
    match (record.was_accepted, record.first_missing) {
        (false, _) => text.push_str(" and was never accepted by the relay"),
        (true, Some(chunk)) => text.push_str(&format!(" and waits for chunk {chunk}")),
        (true, None) => {}
    }
    if let Some((count, first, _)) = record.unheld.filter(|&(.., at)| now.since(at) < UNHELD_HOLDS)
    {
        text.push_str(&match count {
            1 => format!("; no connected peer held chunk {first}"),
            _ => {
                let chunks = count_text(count.into(), "chunk");
                format!("; no connected peer held {chunks}, the first is chunk {first}")
            }
        });
    }
    if let Some(error) = &record.error {
        text.push_str(&format!("; its last connection: {error}"));
    }
    text
}
