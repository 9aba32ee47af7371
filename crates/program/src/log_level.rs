//! What the log tells, as a program's variable wants it. For all programs of this tree.

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

/// The filter that `variable` asks for; `default` if it asks for nothing, or for what is no level,
/// which is then said on stderr.
#[must_use]
pub fn of_variable(variable: &str, default: &str) -> EnvFilter {
    match std::env::var(variable) {
        Ok(wanted) if !wanted.trim().is_empty() => parse(wanted.trim()).unwrap_or_else(|| {
            crate::stderr::say(format_args!(
                "{variable}={wanted} is no level: choose one of error, warn, info, debug, trace, off; \
                 it is {default} now"
            ));
            EnvFilter::new(default)
        }),
        _ => EnvFilter::new(default),
    }
}

/// A level, or levels by module (`warn,relay::server=debug`). Any other single word would be taken for
/// a module, and silence everything else: a user who mistypes a level sees nothing and doesn't know why.
fn parse(wanted: &str) -> Option<EnvFilter> {
    let is_word = wanted.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let is_known = !is_word || wanted.parse::<LevelFilter>().is_ok();
    EnvFilter::try_new(wanted).ok().filter(|_| is_known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_level_is_told_from_a_level_and_from_a_module() {
        for (wanted, is) in [
            ("verbose", None),
            ("debug", Some("debug")),
            ("WARN", Some("warn")),
            ("warn,relay=debug", Some("relay=debug,warn")),
            ("relay=nonsense", None),
        ] {
            let filter = parse(wanted).map(|filter| filter.to_string());
            assert_eq!(filter.as_deref(), is, "{wanted:?}");
        }
    }

    #[test]
    fn who_asks_for_nothing_gets_the_default() {
        assert_eq!(of_variable("RELAY_TEST_NO_SUCH_LEVEL", "warn").to_string(), "warn");
    }
}
