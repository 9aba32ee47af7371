//! Where programs of this tree keep what they need again, by the rules of the
//! [XDG base directories](https://specifications.freedesktop.org/basedir-spec/latest/). Makes nothing.

use std::{env, ffi::OsString, path::PathBuf};

/// The directory below those of all programs.
const DIRECTORY: &str = "relay";

/// For what would be missed: `$XDG_STATE_HOME/relay`, or `$HOME/.local/state/relay`. `None` where neither variable
/// holds an absolute path, as in many containers.
#[must_use]
pub fn state_directory() -> Option<PathBuf> {
    directory_of(env::var_os("XDG_STATE_HOME"), env::var_os("HOME"), ".local/state")
}

/// For what can be made again: `$XDG_CACHE_HOME/relay`, or `$HOME/.cache/relay`. `None` as above.
#[must_use]
pub fn cache_directory() -> Option<PathBuf> {
    directory_of(env::var_os("XDG_CACHE_HOME"), env::var_os("HOME"), ".cache")
}

fn directory_of(place: Option<OsString>, home: Option<OsString>, below: &str) -> Option<PathBuf> {
    // The rules for these variables say that a relative path counts for nothing.
    let absolute =
        |path: Option<OsString>| path.map(PathBuf::from).filter(|path| path.is_absolute());
    let place = absolute(place).or_else(|| absolute(home).map(|home| home.join(below)));
    place.map(|place| place.join(DIRECTORY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_counts_before_the_home_and_a_relative_path_for_nothing() {
        let path = |text: &str| Some(OsString::from(text));
        let found = |place, home| directory_of(place, home, ".cache").map(PathBuf::into_os_string);
        assert_eq!(found(path("/s"), path("/h")), path("/s/relay"));
        for nothing in [None, path(""), path("s")] {
            assert_eq!(found(nothing.clone(), path("/h")), path("/h/.cache/relay"));
            assert_eq!(found(nothing.clone(), nothing), None);
        }
    }
}
