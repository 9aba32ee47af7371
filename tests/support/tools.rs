//! Programs that are not ours: used where they are installed, and missed only where they are demanded.

/// A program that is not ours, by the first of its names that is installed; `None` if there is
/// none and none is demanded. `.ci/run` installs such programs and demands them.
///
/// # Panics
/// There is none though `TEST_TOOLS=required`.
pub(crate) fn tool(names: &[&'static str], package: &str) -> Option<&'static str> {
    let places = std::env::var_os("PATH").unwrap_or_default();
    let is_there =
        |name: &&&str| std::env::split_paths(&places).any(|dir| dir.join(name).is_file());
    let found = names.iter().find(is_there).copied();
    if found.is_none() {
        let demanded = std::env::var_os("TEST_TOOLS").is_some_and(|value| value == "required");
        assert!(
            !demanded,
            "TEST_TOOLS=required, and there is no {names:?}: apt-get install {package}"
        );
        println!("NOT CHECKED: there is no {names:?} here (apt-get install {package})");
    }
    found
}
