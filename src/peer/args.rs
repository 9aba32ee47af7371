//! The command line of `peer`: all of its commands and options, and nothing of what they do.

use std::{
    num::{NonZeroU32, NonZeroU64},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Parser, Subcommand, builder::FalseyValueParser};
use shards::DriverChoice;

use super::{proxy_source::ProxySource, ticket_source::TicketSource};
use crate::{
    arguments::parse_driver,
    pages::PageCommand,
    protocol::{
        PinnedRelay,
        bundle::Glob,
        check_label, check_name,
        limits::{CHUNK_COUNT_MAX, CHUNK_SIZE_LOG2_MAX, CHUNK_SIZE_LOG2_MIN, LABEL_BYTES_MAX},
    },
    transport::Transport,
    units::{bytes_text, parse_count, parse_duration, parse_power_of_two, parse_rate, parse_size},
};

/// What comes from stdin has fewer bytes: as many chunks of the largest size as there may be, and the digests of the last
/// of them are only merged when more comes.
const FILE_BYTES_END: u64 = (CHUNK_COUNT_MAX as u64) << CHUNK_SIZE_LOG2_MAX;

/// Several commands have this option.
const PROXY_HELP: &str = "Reach the relay through this proxy: SCHEME://[USER:PASSWORD@]HOST:PORT with socks5, socks5h (the proxy looks up \
     the relay's name) or http (CONNECT); NO_PROXY lists exceptions [default: ALL_PROXY]";

/// Shares files through a relay, and gets them.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "peer",
    version,
    after_help = "Example:\n  peer share movie.mkv --relay relay.example.org:7440\n  peer get \
                  relay2abc...\n\nExit codes: 0 done and verified, 1 the job failed, 2 wrong \
                  usage.\nEvery option can also be given by a variable: PEER_RELAY, PEER_TIMEOUT."
)]
pub struct PeerArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `peer` does.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Share a file or a directory: print its ticket, then serve it until Ctrl-C
    Share(ShareArgs),
    /// Get the file or directory that a ticket names
    Get(GetArgs),
    /// Print what is in the directory that a ticket names
    List(ListArgs),
    /// Verify a file or a directory against a ticket
    Check(CheckArgs),
    /// Print what a ticket holds
    Info(InfoArgs),
    #[command(flatten)]
    #[expect(missing_docs, reason = "its commands have their own")]
    Page(PageCommand),
}

/// Options that all commands with a connection have.
#[derive(Args, Clone, Debug)]
pub struct CommonArgs {
    /// File whose first line is the token that the relay asks for
    #[arg(long, env = "PEER_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Certificates of authorities, in PEM, that say which relay it is, beside a ticket's pin [default: the relays that
    /// were met before, and the system's authorities]
    #[arg(long, env = "PEER_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,

    /// The proxy that leads to the relay.
    #[arg(long, env = "PEER_PROXY", value_name = "URL", hide_env_values = true, help = PROXY_HELP)]
    pub proxy: Option<ProxySource>,

    /// How messages and data travel: tcp, udp-control, udp-data or quic
    #[arg(long, env = "PEER_TRANSPORT", value_name = "T", default_value = "tcp")]
    pub transport: Transport,

    /// Move at most SIZE bytes of the file a second: `share` sends so much, `get` takes in so much, and while it has
    /// chunks for others it sends them as much again; none or 0 is no limit. `get` waits for a chunk at least twice as long
    /// as it takes at that rate, whatever --timeout says
    #[arg(long, env = "PEER_LIMIT_RATE", value_name = "SIZE", default_value = "none", value_parser = parse_rate)]
    pub limit_rate: u64,

    /// What drives the event loop: auto, io-uring or epoll
    #[arg(long, env = "PEER_DRIVER", value_name = "D", default_value = "auto", value_parser = parse_driver)]
    pub driver: DriverChoice,

    /// Say nothing on stderr but errors
    #[arg(long, short, env = "PEER_QUIET", value_parser = FalseyValueParser::new())]
    pub quiet: bool,

    /// Print JSON objects on stdout, one a line
    #[arg(long, env = "PEER_JSON", value_parser = FalseyValueParser::new())]
    pub json: bool,
}

impl CommonArgs {
    /// `--limit-rate`.
    pub fn rate(&self) -> Option<NonZeroU64> {
        NonZeroU64::new(self.limit_rate)
    }
}

/// `peer share`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  peer share movie.mkv --relay relay.example.org:7440\n  peer share photos/ notes.txt \
                        --name trip --relay relay.example.org:7440\n  pg_dump shop | peer share - --name shop.sql --relay \
                        relay.example.org:7440\n\nThe ticket is the only line on stdout. Give it \
                        to those who shall get the files, and to no one else: it opens them, and the relay can't.\n\nLinks \
                        in a directory stay links; a PATH that is one is followed. Hashes are remembered in \
                        ~/.cache/relay (XDG_CACHE_HOME), so that what is unchanged is not read again."
)]
pub struct ShareArgs {
    /// A file, a directory, or several of them, which arrive together in one directory; - alone for stdin
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,

    /// The relay; tickets name it, so others must reach it by this name or address [port: 7440]; with the pin that it
    /// prints at its start no other is believed
    #[arg(
        long,
        env = "PEER_RELAY",
        value_name = "HOST[:PORT][#PIN]",
        required_unless_present = "ticket"
    )]
    pub relay: Option<PinnedRelay>,

    /// Share it as this ticket says, so that those who have the ticket find it [relay: the ticket's]
    /// (- for stdin, @FILE for a file)
    #[arg(long, env = "PEER_TICKET", value_name = "TICKET", hide_env_values = true)]
    pub ticket: Option<TicketSource>,

    /// Share it as it is, so that the relay and all between can read it; a --ticket decides for itself
    #[arg(long, env = "PEER_PLAIN", value_parser = FalseyValueParser::new())]
    pub plain: bool,

    /// What it is called.
    #[command(flatten)]
    pub naming: NamingArgs,

    /// What is shared of directories, and how it is read.
    #[command(flatten)]
    pub reading: ReadingArgs,

    /// File of the secret that seals your shares, made if it is not there [default:
    /// ~/.local/state/relay/secret]
    #[arg(long, env = "PEER_SECRET_FILE", value_name = "FILE")]
    pub secret_file: Option<PathBuf>,

    /// Cut it into chunks of this size, a power of two from 1K to 16M [default: as the relay recommends]
    #[arg(long, env = "PEER_CHUNK", value_name = "SIZE", conflicts_with = "ticket", value_parser = parse_chunk)]
    pub chunk: Option<u8>,

    /// Leave when every chunk was handed out once and no connected peer depends on us
    #[arg(long, env = "PEER_ONCE", value_parser = FalseyValueParser::new())]
    pub once: bool,

    /// Leave when N peers have the whole file
    #[arg(long, env = "PEER_UNTIL_COPIES", value_name = "N", conflicts_with = "once", value_parser = parse_count::<NonZeroU32>)]
    pub until_copies: Option<NonZeroU32>,

    /// End with an error after so long without handing out a chunk [default: never]
    // Not PEER_TIMEOUT: a user who sets that is about to get something.
    #[arg(long, env = "PEER_SHARE_TIMEOUT", value_name = "DUR", value_parser = parse_duration)]
    pub timeout: Option<Duration>,

    /// What all commands have.
    #[command(flatten)]
    pub common: CommonArgs,
}

impl ShareArgs {
    /// Whether it is what comes from stdin, and nothing else.
    #[must_use]
    pub fn is_of_stdin(&self) -> bool {
        matches!(&*self.paths, [path] if path.as_os_str() == "-")
    }
}

/// What `peer share` calls what it shares.
#[derive(Args, Clone, Debug)]
pub struct NamingArgs {
    /// Have the ticket call it so, instead of by its own name or FIRST-and-N-more
    #[arg(long, env = "PEER_NAME", value_name = "NAME", conflicts_with = "ticket", value_parser = parse_name)]
    pub name: Option<String>,

    /// Tell the relay to call the file so on its page and in /api/v1, which is all that it learns of a name
    #[arg(long, env = "PEER_LABEL", value_name = "TEXT", value_parser = parse_label)]
    pub label: Option<String>,
}

/// How `peer share` reads what it shares.
#[derive(Args, Clone, Copy, Debug)]
pub struct ReadingArgs {
    /// Keep modes and times of modification of what is in a directory, not only which files are executable
    #[arg(long, env = "PEER_PRESERVE", value_parser = FalseyValueParser::new())]
    pub preserve: bool,

    /// Leave sockets, devices and pipes in a directory out, and say which
    #[arg(long, env = "PEER_SKIP_SPECIAL", value_parser = FalseyValueParser::new())]
    pub skip_special: bool,

    /// Read and hash it, though it looks unchanged since it was hashed before
    #[arg(long, env = "PEER_REHASH", value_parser = FalseyValueParser::new())]
    pub rehash: bool,

    /// The most that `-`, stdin, may bring: it is kept in a file without a name where temporary files lie (TMPDIR)
    #[arg(long, env = "PEER_SPOOL_MAX", value_name = "SIZE", default_value = "16G", value_parser = parse_spool_max)]
    pub spool_max: u64,
}

fn parse_name(text: &str) -> Result<String, String> {
    let explained = |fault| format!("it {fault}: give what one file or directory can be called");
    check_name(text).map(|()| text.to_owned()).map_err(explained)
}

fn parse_spool_max(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text)?;
    if bytes >= FILE_BYTES_END {
        return Err(format!(
            "no file may have {}, which is the end of what chunks count: give less",
            bytes_text(FILE_BYTES_END)
        ));
    }
    Ok(bytes)
}

fn parse_chunk(text: &str) -> Result<u8, String> {
    parse_power_of_two(text, CHUNK_SIZE_LOG2_MIN..=CHUNK_SIZE_LOG2_MAX)
}

fn parse_label(text: &str) -> Result<String, String> {
    let explained = |fault| format!("it {fault}: give a line of up to {LABEL_BYTES_MAX} bytes");
    check_label(text).map(|()| text.to_owned()).map_err(explained)
}

/// `peer get`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  peer get relay2abc... -o movie.mkv\n  peer get @ticket.txt\n  peer get - \
                  <ticket.txt\n  peer get relay2abc... --only 'photos/**/*.jpg'\n  peer get relay2abc... -o - \
                  | tar x -C there\n  peer get relay2abc... --limit-rate 2M --proxy socks5h://proxy.example.org:1080\n\nAn \
                  interrupted get is resumed by the same command. Modes and times come with a \
                  directory\nif its sharer kept them.\nA ticket opens what it names, \
                  and every user of this machine can read command lines: where that matters, give - or @FILE."
)]
pub struct GetArgs {
    /// The ticket that `peer share` printed; - reads it from stdin, @FILE from a file
    #[arg(value_name = "TICKET")]
    pub ticket: TicketSource,

    /// Where to put it: a directory, a name, or - for stdout, to which a directory goes as a tar [default: the
    /// ticket's name]
    #[arg(long, short, env = "PEER_OUTPUT", value_name = "PATH")]
    pub output: Option<PathBuf>,

    /// Go to this relay instead of the ticket's [port: 7440]; it must show the pin, or without one the ticket's
    #[arg(long, env = "PEER_RELAY", value_name = "HOST[:PORT][#PIN]")]
    pub relay: Option<PinnedRelay>,

    /// After completion serve others for DUR, or `auto`: until no peer depends on us
    #[arg(long, env = "PEER_SEED_FOR", value_name = "DUR", default_value = "auto", value_parser = parse_seed_for)]
    pub seed_for: SeedFor,

    /// Of a directory get only what this pattern means, and what is below it: `*.txt` at the top, `**/*.txt` anywhere
    /// (repeatable; the variable holds one)
    #[arg(long, env = "PEER_ONLY", value_name = "GLOB", value_parser = parse_glob)]
    pub only: Vec<Glob>,

    /// Replace what is there
    #[arg(long, env = "PEER_FORCE", value_parser = FalseyValueParser::new())]
    pub force: bool,

    /// Write long runs of zeros, instead of leaving holes that take up no room
    #[arg(long, env = "PEER_NO_SPARSE", value_parser = FalseyValueParser::new())]
    pub no_sparse: bool,

    /// End with an error after so long without a newly verified chunk (longer where --limit-rate makes one take longer)
    #[arg(long, env = "PEER_TIMEOUT", value_name = "DUR", default_value = "60s", value_parser = parse_duration)]
    pub timeout: Duration,

    /// What all commands have.
    #[command(flatten)]
    pub common: CommonArgs,
}

fn parse_glob(text: &str) -> Result<Glob, String> {
    Glob::parse(text.as_bytes()).map_err(|error| error.to_string())
}

/// `peer list`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  peer list relay2abc...\n  peer list @ticket.txt --only '**/*.jpg'\n\nEach line has the \
                  kind (d, a directory; -, a file; x, one that may be executed; l, a link), the size in bytes, \
                  and the path. Only the chunks that hold the list are got."
)]
pub struct ListArgs {
    /// The ticket; - reads it from stdin, @FILE from a file
    #[arg(value_name = "TICKET")]
    pub ticket: TicketSource,

    /// Go to this relay instead of the ticket's [port: 7440]; it must show the pin, or without one the ticket's
    #[arg(long, env = "PEER_RELAY", value_name = "HOST[:PORT][#PIN]")]
    pub relay: Option<PinnedRelay>,

    /// List only what this pattern means, and what is below it, as `peer get --only` does (repeatable)
    #[arg(long, env = "PEER_ONLY", value_name = "GLOB", value_parser = parse_glob)]
    pub only: Vec<Glob>,

    /// End with an error after so long without a newly verified chunk
    #[arg(long, env = "PEER_TIMEOUT", value_name = "DUR", default_value = "60s", value_parser = parse_duration)]
    pub timeout: Duration,

    /// What all commands have.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// `--seed-for`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SeedFor {
    /// Until the relay says that no peer depends on this one, at most 60 s.
    Auto,
    /// For so long.
    For(Duration),
}

fn parse_seed_for(text: &str) -> Result<SeedFor, String> {
    if text == "auto" {
        return Ok(SeedFor::Auto);
    }
    parse_duration(text).map(SeedFor::For).map_err(|error| format!("{error}, or auto"))
}

/// `peer check`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  peer check movie.mkv relay2abc...\n\nExits 0 if the file or directory \
                  is the ticket's, 1 if not. Only where it differs is asked of the relay."
)]
pub struct CheckArgs {
    /// The file, or the directory
    #[arg(value_name = "PATH")]
    pub path: PathBuf,

    /// The ticket; - reads it from stdin, @FILE from a file
    #[arg(value_name = "TICKET")]
    pub ticket: TicketSource,

    /// Go to this relay instead of the ticket's [port: 7440]; it must show the pin, or without one the ticket's
    #[arg(long, env = "PEER_RELAY", value_name = "HOST[:PORT][#PIN]")]
    pub relay: Option<PinnedRelay>,

    /// File whose first line is the token that the relay asks for
    #[arg(long, env = "PEER_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Certificates of authorities, in PEM, that say which relay it is, beside the ticket's pin [default: the relays that
    /// were met before, and the system's authorities]
    #[arg(long, env = "PEER_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,

    /// The proxy that leads to the relay.
    #[arg(long, env = "PEER_PROXY", value_name = "URL", hide_env_values = true, help = PROXY_HELP)]
    pub proxy: Option<ProxySource>,

    /// What drives the event loop: auto, io-uring or epoll
    #[arg(long, env = "PEER_DRIVER", value_name = "D", default_value = "auto", value_parser = parse_driver)]
    pub driver: DriverChoice,

    /// Say nothing on stderr but errors
    #[arg(long, short, env = "PEER_QUIET", value_parser = FalseyValueParser::new())]
    pub quiet: bool,

    /// Print a JSON object on stdout
    #[arg(long, env = "PEER_JSON", value_parser = FalseyValueParser::new())]
    pub json: bool,
}

/// `peer info`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  peer info relay2abc...\n  peer info @ticket.txt")]
pub struct InfoArgs {
    /// The ticket; - reads it from stdin, @FILE from a file
    #[arg(value_name = "TICKET")]
    pub ticket: TicketSource,

    /// Print a JSON object
    #[arg(long, env = "PEER_JSON", value_parser = FalseyValueParser::new())]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_has_its_variable() {
        use clap::CommandFactory as _;
        let without = crate::pages::options_without_variable(&PeerArgs::command(), "PEER");
        assert!(without.is_empty(), "{without:?}");
    }
}
