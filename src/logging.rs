//! The log: stderr, never blocking a shard.
//!
//! Lines go through a bounded queue to a thread that writes them. What finds it full is lost, and so is what
//! stderr does not take.

use std::{
    io::{self, Write},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::Duration,
};

use relay_program::{log_level, stderr};

use crate::config::LogFormat;

/// Environment variable with the level.
const LEVEL_VARIABLE: &str = "RELAY_LOG";

/// Lines that wait for stderr; beyond that they are dropped rather than waited for.
const LINES_MAX: usize = 8192;

/// For what is queued at the end of the program to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

enum Line {
    Text(Vec<u8>),
    /// Everything before it is written; the waiting thread is told.
    End(SyncSender<()>),
}

/// The log's thread. When this is dropped, what waits is written.
pub(crate) struct Log(SyncSender<Line>);

/// Where the log's lines go. Never blocks.
#[derive(Clone)]
struct Writer(SyncSender<Line>);

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full queue loses it.
        self.0.try_send(Line::Text(bytes.to_vec())).ok();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let (tell, written) = sync_channel(1);
        if self.0.try_send(Line::End(tell)).is_ok() {
            // If it takes longer, stderr has no reader.
            written.recv_timeout(LAST_LINES).ok();
        }
    }
}

fn write_lines(lines: &Receiver<Line>) {
    for line in lines {
        match line {
            Line::Text(text) => io::stderr().write_all(&text).unwrap_or_default(),
            Line::End(tell) => tell.try_send(()).unwrap_or_default(),
        }
    }
}

/// Starts logging; what is queued is written when the log is dropped.
///
/// # Errors
/// The system refuses a thread.
pub(crate) fn init(format: LogFormat) -> io::Result<Log> {
    let (sender, lines) = sync_channel(LINES_MAX);
    thread::Builder::new().name("relay-log".into()).spawn(move || write_lines(&lines))?;
    let writer = Writer(sender.clone());
    let filter = log_level::of_variable(LEVEL_VARIABLE, "info");
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(move || writer.clone());
    let set = match format {
        LogFormat::Text => {
            let is_terminal = io::IsTerminal::is_terminal(&io::stderr());
            builder.with_target(false).with_ansi(is_terminal).try_init()
        }
        LogFormat::Json => builder.json().try_init(),
    };
    if let Err(error) = set {
        stderr::say(format_args!("failed to start the log: {error}"));
    }
    Ok(Log(sender))
}
