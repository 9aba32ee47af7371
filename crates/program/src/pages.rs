//! Completions for shells and manual pages, made from the same definitions as the command line, so
//! that they can't say anything else. For all programs of this tree.

use std::process::ExitCode;

use clap::CommandFactory;
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

/// Commands of every program that print a page about it.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum PageCommand {
    /// Print a shell's completions for this program
    #[command(after_help = "Example, where the program is `peer`:\n  peer completions bash > \
                      ~/.local/share/bash-completion/completions/peer")]
    Completions {
        /// The shell
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
    /// Print this program's manual page, in roff
    Man,
}

impl PageCommand {
    /// What is to be printed, for this program.
    #[must_use]
    pub fn page<C: CommandFactory>(&self) -> Vec<u8> {
        match self {
            Self::Completions { shell } => completions::<C>(*shell),
            Self::Man => manual::<C>(),
        }
    }

    /// Prints it; what the program ends with.
    #[must_use]
    pub fn print<C: CommandFactory>(&self) -> ExitCode {
        match crate::stdout::print(&self.page::<C>()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                crate::stderr::say(format_args!("error: failed to write to stdout: {error}"));
                ExitCode::FAILURE
            }
        }
    }
}
