//! The log: stderr, never blocking a shard.

use tracing_appender::non_blocking::WorkerGuard;

use crate::{config::LogFormat, log_level};

/// Environment variable with the level.
const LEVEL_VARIABLE: &str = "RELAY_LOG";

/// Lines that wait for stderr; beyond that they are dropped rather than waited for.
const LINES_MAX: usize = 8192;

/// Starts logging; what is buffered is written when the guard is dropped.
pub(crate) fn init(format: LogFormat) -> WorkerGuard {
    let (writer, guard) = tracing_appender::non_blocking::NonBlockingBuilder::default()
        .buffered_lines_limit(LINES_MAX)
        .finish(std::io::stderr());
    let filter = log_level::of_variable(LEVEL_VARIABLE, "info");
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let set = match format {
        LogFormat::Text => {
            let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
            builder.with_target(false).with_ansi(is_terminal).try_init()
        }
        LogFormat::Json => builder.json().try_init(),
    };
    if let Err(error) = set {
        crate::stderr::say(format_args!("failed to start the log: {error}"));
    }
    guard
}
