//! The `relay` program: the server, and beside it in the same process what has connections to it: with `--serve` an
//! origin, with `--upstream` the uplinks.
//!
//! Both are peers like any other: they connect to the relay's own address, and know a token of it.
//!
//! This directory is the only place that knows the server and the peer.

mod origins;
mod own;
mod uplinks;

use std::{ffi::OsString, net::SocketAddr, process::ExitCode};

use clap::Parser;

use self::{origins::Origins, uplinks::Uplinks};
use crate::{
    arguments,
    config::RelayArgs,
    doctor::{self, DoctorArgs},
    logging,
    pages::PageCommand,
    protocol::{Grant, Roles, Token},
    server::{self, Companion, uplinks::UplinkPort},
    stderr,
};

/// Distributes files from one origin to many peers that can all reach this server.
#[derive(Parser, Debug)]
#[command(
    name = "relay",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  relay --cores 8 --cache 1G --listen 0.0.0.0:7440\n  relay --egress-rate 100M --peer-rate 10M\n\nSizes: 100M is \
                  100 MiB, 100MB is 10^8 bytes. Durations: 500ms, 10s, 5m.\nThe log's level comes \
                  from RELAY_LOG (error, warn, info, debug, trace).\nExit codes: 0 ended by a \
                  signal; 1 it could not start, a second signal, or an event loop failed; 2 wrong \
                  usage.\n`relay doctor` with the same options says what this machine allows, and \
                  what mends what is amiss."
)]
struct RelayCommandLine {
    #[command(subcommand)]
    command: Option<RelayCommand>,
    #[command(flatten)]
    args: RelayArgs,
}

/// What `relay` does beside being one.
#[derive(clap::Subcommand, Debug)]
enum RelayCommand {
    Doctor(Box<DoctorArgs>),
    #[command(flatten)]
    Page(PageCommand),
}

/// The whole program: arguments to exit code.
#[must_use]
pub fn main_with_args(args: impl IntoIterator<Item = impl Into<OsString>>) -> ExitCode {
    server::renounce_huge_pages();
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    let RelayCommandLine { command, args } = match arguments::parse(args) {
        Ok(line) => line,
        Err(error) => return arguments::print(&error),
    };
    match command {
        Some(RelayCommand::Doctor(args)) => return doctor::run(&args),
        Some(RelayCommand::Page(page)) => return page.print::<RelayCommandLine>(),
        None => {}
    }
    let mut config = match args.check() {
        Ok(config) => config,
        Err(error) => {
            stderr::say(format_args!("error: {error}"));
            return ExitCode::from(2);
        }
    };
    let identity = match args.identity.open() {
        Ok(identity) => identity,
        Err(why) => {
            stderr::say(format_args!("error: {why}"));
            return ExitCode::from(2);
        }
    };
    let _log = match logging::init(args.log_format) {
        Ok(log) => log,
        Err(error) => {
            stderr::say(format_args!("error: {}", server::no_thread("relay-log", &error)));
            return ExitCode::FAILURE;
        }
    };
    let own = |roles, is_there: bool| {
        (!config.admission.tokens.is_empty() && is_there).then(|| own_grant(roles))
    };
    let of_origin = own(Roles::PUBLISH, !args.origin.serve.is_empty());
    let of_uplinks = own(Roles::BOTH, args.uplink.upstream.is_some());
    config.admission.tokens.extend(of_origin.clone());
    config.admission.tokens.extend(of_uplinks.clone());
    let seen = config.clone();
    let pin = identity.pin();
    let prepare = |driver| {
        let token = |grant: Option<Grant>| grant.map(|grant| grant.token);
        let mut all = Companions(Vec::new());
        all.0.push(Origins::prepare(&args, &seen, (pin, token(of_origin)), driver)?);
        if let Some(upstream) = args.uplink.open()? {
            let own = (pin, token(of_uplinks));
            all.0.push(Box::new(Uplinks::prepare(upstream, &seen, own, driver)));
        }
        Ok(Box::new(all) as Box<dyn Companion>)
    };
    match server::run(config, identity, prepare) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            stderr::say(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// What a companion in this process proves: users' tokens may be good for getting only, and none need be good for
/// what the relay's own command line asks for.
fn own_grant(roles: Roles) -> Grant {
    let mut secret = [0u8; 32];
    let filled = rustix::rand::getrandom(&mut secret, rustix::rand::GetRandomFlags::empty());
    assert_eq!(filled, Ok(secret.len()), "32 bytes of randomness are always to be had");
    let token = Token::from_line(&format!("{secret:x?}")).expect("it is no empty line");
    Grant { token, roles }
}

/// All that runs beside the relay.
struct Companions(Vec<Box<dyn Companion>>);

impl Companion for Companions {
    fn connections(&self) -> usize {
        self.0.iter().map(|companion| companion.connections()).sum()
    }

    fn uplinks(&self) -> Option<UplinkPort> {
        self.0.iter().find_map(|companion| companion.uplinks())
    }

    fn start(&mut self, listening: &[SocketAddr]) -> anyhow::Result<Vec<String>> {
        let mut lines = Vec::new();
        for companion in &mut self.0 {
            lines.extend(companion.start(listening)?);
        }
        Ok(lines)
    }

    fn stop(&mut self) {
        self.0.iter_mut().for_each(|companion| companion.stop());
    }
}
