//! The log: stderr, never blocking a shard.

use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Environment variable with the level.
const LEVEL_VARIABLE: &str = "RELAY_LOG";

/// Lines that wait for stderr; beyond that they are dropped rather than waited for.
const LINES_MAX: usize = 8192;

/// Starts logging; what is buffered is written when the guard is dropped.
pub(crate) fn init(format: LogFormat) -> WorkerGuard {
    let (writer, guard) = tracing_appender::non_blocking::NonBlockingBuilder::default()
        .buffered_lines_limit(LINES_MAX)
        .finish(std::io::stderr());
    let filter = filter(std::env::var(LEVEL_VARIABLE).ok().as_deref());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let set = match format {
        LogFormat::Text => {
            let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
            builder.with_target(false).with_ansi(is_terminal).try_init()
        }
        LogFormat::Json => builder.json().try_init(),
    };
    if let Err(error) = set {
        eprintln!("failed to start the log: {error}");
    }
    guard
}

/// A level, or levels by module (`warn,relay::server=debug`). Any other single word would be taken for
/// a module, and silence everything else: whoever mistypes a level sees nothing and doesn't know why.
fn filter(wanted: Option<&str>) -> EnvFilter {
    let default = || EnvFilter::new("info");
    let Some(wanted) = wanted.map(str::trim).filter(|wanted| !wanted.is_empty()) else {
        return default();
    };
    let is_word = wanted.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let is_known = !is_word || wanted.parse::<tracing_subscriber::filter::LevelFilter>().is_ok();
    match EnvFilter::try_new(wanted) {
        Ok(filter) if is_known => filter,
        _ => {
            eprintln!(
                "{LEVEL_VARIABLE}={wanted} is no level: choose one of error, warn, info, debug, trace, \
                 off; it is info now"
            );
            default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_level_does_not_silence_the_log() {
        for (wanted, is) in [
            (None, "info"),
            (Some(""), "info"),
            (Some("verbose"), "info"),
            (Some("debug"), "debug"),
            (Some("WARN"), "warn"),
            (Some("warn,relay=debug"), "relay=debug,warn"),
            (Some("relay=nonsense"), "info"),
        ] {
            assert_eq!(filter(wanted).to_string(), is, "{wanted:?}");
        }
    }
}
