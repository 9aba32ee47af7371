//! Completions for shells and manual pages, made from the same definitions as the command line, so
//! that they can't say anything else. For all programs of this tree.

use std::{ffi::OsString, process::ExitCode};

use clap::{CommandFactory, ValueEnum as _};
use clap_complete::Shell;

/// A shell's completions for a program.
#[must_use]
pub fn completions<C: CommandFactory>(shell: Shell) -> Vec<u8> {
    let mut command = C::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    script
}

/// A program's manual page, then those of its commands, one after the other.
#[must_use]
pub fn manual<C: CommandFactory>() -> Vec<u8> {
    let mut command = C::command();
    command.build();
    let mut page = Vec::new();
    let mut render = |command: clap::Command| {
        clap_mangen::Man::new(command).render(&mut page).expect("a vector takes everything");
    };
    render(command.clone());
    for subcommand in command.get_subcommands().filter(|command| command.get_name() != "help") {
        render(subcommand.clone());
    }
    page
}

/// Options without the variable that they should have: the program's name, an underscore, the option.
/// Of all subcommands.
#[must_use]
pub fn options_without_variable(command: &clap::Command, program: &str) -> Vec<String> {
    let of_own = command.get_arguments().filter_map(|option| {
        let name = option.get_long().filter(|name| !["help", "version"].contains(name))?;
        let spelled = |text: &str| text.to_uppercase().replace('-', "_");
        let wanted = format!("{program}_{}", spelled(name));
        // Where one name means two things, the command's is between.
        let of_command = format!("{program}_{}_{}", spelled(command.get_name()), spelled(name));
        let is_there = option
            .get_env()
            .is_some_and(|variable| variable == wanted.as_str() || variable == of_command.as_str());
        (!is_there).then(|| format!("--{name}"))
    });
    let of_subcommands =
        command.get_subcommands().flat_map(|command| options_without_variable(command, program));
    of_own.chain(of_subcommands).collect()
}

/// For programs that know options only: `PROGRAM completions SHELL` and `PROGRAM man` are done
/// here, before the command line is looked at. `None` if it is something else.
pub fn intercept<C: CommandFactory>(args: &[OsString]) -> Option<ExitCode> {
    let words: Vec<_> = args.iter().skip(1).map(|word| word.to_str()).collect();
    let page = match words[..] {
        [Some("man")] => manual::<C>(),
        [Some("completions"), Some(shell)] => match Shell::from_str(shell, true) {
            Ok(shell) => completions::<C>(shell),
            Err(_) => return Some(no_such_shell(shell)),
        },
        [Some("completions")] => return Some(no_such_shell("")),
        _ => return None,
    };
    match crate::stdout::print(&page) {
        Ok(()) => Some(ExitCode::SUCCESS),
        Err(error) => {
            crate::stderr::say(format_args!("error: failed to write to stdout: {error}"));
            Some(ExitCode::FAILURE)
        }
    }
}

fn no_such_shell(shell: &str) -> ExitCode {
    let known: Vec<_> = Shell::value_variants().iter().map(ToString::to_string).collect();
    crate::stderr::say(format_args!(
        "error: no completions for the shell '{shell}': name one of {}",
        known.join(", ")
    ));
    ExitCode::from(2)
}
