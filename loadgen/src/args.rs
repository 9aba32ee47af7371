//! The command line: read, checked once, and never looked at as text again.
//!
//! Opens no file but the token's, and connects to nothing.

use std::{
    net::SocketAddr,
    num::{NonZeroU64, NonZeroUsize},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Parser, ValueEnum, builder::FalseyValueParser};
use relay::{
    client::look_up_blocking,
    config::{parse_count, parse_duration, parse_size},
    protocol::{
        Grant, Pin, PinnedRelay, Roles, Token,
        limits::{CHUNK_SIZE_LOG2_MAX, CHUNK_SIZE_LOG2_MIN},
    },
    rng::Rng,
    token_file,
    transport::Transport,
    units::parse_power_of_two,
};
use shards::DriverChoice;

/// What a program ends with whose command line makes no sense.
pub(crate) const EXIT_USAGE: u8 = 2;

/// Clients in one process, at most: each takes a descriptor, and the kernel has 64 Ki of local
/// ports towards one address.
const CLIENTS_MAX: usize = 60_000;

/// Files at once, at most: each takes memory for its content, and one more connection.
const FILES_MAX: usize = 1_024;

/// Pairings of channels that this build has.
pub(crate) const TRANSPORTS: &[&str] =
    &[Transport::ALL[0].name(), Transport::ALL[1].name(), Transport::ALL[2].name()];

/// One run.
#[derive(Parser, Debug)]
#[command(name = "loadgen")]
pub(crate) struct Args {
    /// Clients, all in this one process, on pinned event loops
    #[arg(long, env = "LOADGEN_CLIENTS", value_name = "N", default_value = "100", value_parser = parse_count::<usize>)]
    clients: usize,
    /// An existing file, or a size of generated, incompressible, seeded content
    #[arg(long, env = "LOADGEN_FILE", value_name = "SIZE or PATH", default_value = "100M")]
    file: String,
    /// Different files at once, clients spread over them
    #[arg(long, env = "LOADGEN_FILES", value_name = "N", default_value = "1", value_parser = parse_count::<usize>)]
    files: usize,
    /// The relay, HOST[:PORT][#PIN] [default: one that answers on 127.0.0.1:7440, else one of its own]
    #[arg(long, env = "LOADGEN_RELAY", value_name = "HOST[:PORT]")]
    relay: Option<String>,
    /// Passed to the relay that it starts
    #[arg(long, env = "LOADGEN_RELAY_ARGS", value_name = "ARGS", allow_hyphen_values = true)]
    relay_args: Option<String>,
    /// Event loops of the load generator [default: all available]
    #[arg(long, env = "LOADGEN_CORES", value_name = "N", value_parser = parse_count::<NonZeroUsize>)]
    cores: Option<NonZeroUsize>,
    /// What drives the load generator's event loops: auto, io-uring or epoll
    #[arg(long, env = "LOADGEN_DRIVER", value_name = "D", default_value = "auto")]
    driver: DriverChoice,
    /// How the swarm begins
    #[arg(long, env = "LOADGEN_SEEDING", value_name = "MODE", default_value = "spread")]
    seeding: SeedingMode,
    /// Who chooses the order of chunks, and how
    #[arg(long, env = "LOADGEN_ORDER", value_name = "ORDER", default_value = "relay")]
    order: OrderMode,
    /// How messages and data travel: tcp, udp-control, udp-data or quic
    #[arg(long, env = "LOADGEN_TRANSPORT", value_name = "T", default_value = "tcp")]
    transport: Transport,
    /// Chunk size, a power of two from 1K to 16M [default: the protocol's]
    #[arg(long, env = "LOADGEN_CHUNK", value_name = "SIZE", value_parser = parse_chunk)]
    chunk: Option<u8>,
    /// Bound on chunk bytes of the relay that it starts
    #[arg(long, env = "LOADGEN_CACHE", value_name = "SIZE", value_parser = parse_size)]
    cache: Option<u64>,
    /// Eviction policy of the relay that it starts: demand or lru
    #[arg(long, env = "LOADGEN_EVICTION", value_name = "P")]
    eviction: Option<EvictionMode>,
    /// File whose first line is presented as the token
    #[arg(long, env = "LOADGEN_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// verify: check every byte, keep none; dir:PATH: each client writes a real file there
    #[arg(long, env = "LOADGEN_STORE", value_name = "MODE", default_value = "verify", value_parser = parse_store)]
    store: Store,
    /// Seal what is distributed: the origin seals, and each client opens what it gets
    #[arg(long, env = "LOADGEN_SEALED", value_parser = FalseyValueParser::new())]
    sealed: bool,
    /// Limit each client's intake, in payload bytes a second
    #[arg(long, env = "LOADGEN_RATE", value_name = "SIZE", value_parser = parse_rate)]
    rate: Option<NonZeroU64>,
    /// Limit the intake of N of the clients
    #[arg(long, env = "LOADGEN_SLOW", value_name = "N@SIZE", value_parser = parse_slow)]
    slow: Option<Slow>,
    /// Of the clients, some vanish at random moments, others join late
    #[arg(long, env = "LOADGEN_CHURN", value_name = "kill=N,join=N", value_parser = parse_churn)]
    churn: Option<Churn>,
    /// Of the clients, N claim every chunk and answer every fetch with wrong bytes
    #[arg(long, env = "LOADGEN_CORRUPT", value_name = "N", default_value = "0", value_parser = parse_count::<usize>)]
    corrupt: usize,
    /// Replays content, orders, churn [default: random, printed]
    #[arg(long, env = "LOADGEN_SEED", value_name = "N", value_parser = parse_count::<u64>)]
    seed: Option<u64>,
    /// For the whole run; then it fails and says who waits for what
    #[arg(long, env = "LOADGEN_TIMEOUT", value_name = "DUR", default_value = "10m", value_parser = parse_duration)]
    timeout: Duration,
    /// Stay connected for so long after the last client is done; the report is of before
    #[arg(long, env = "LOADGEN_STAY", value_name = "DUR", default_value = "0s", value_parser = parse_duration)]
    stay: Duration,
    /// The whole report for machines (- is stdout, prose then goes to stderr)
    #[arg(long, env = "LOADGEN_JSON", value_name = "FILE")]
    json: Option<PathBuf>,
    /// A directory for plots and a page to look at, and the figures behind them
    #[arg(long, env = "LOADGEN_REPORT", value_name = "DIR")]
    report: Option<PathBuf>,
}

/// How the swarm begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum SeedingMode {
    /// Each client gets its own part first, the origin leaves, then they exchange
    Spread,
    /// Plain fan-out, the origin stays
    Origin,
}

/// Who chooses the order of chunks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum OrderMode {
    /// The relay chooses
    Relay,
    /// From the first chunk to the last
    Sequential,
    /// A seeded random order for each client
    Random,
}

/// What the relay drops first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum EvictionMode {
    /// What no peer lacks
    Demand,
    /// What was used least recently
    Lru,
}

/// Where clients put their chunks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Store {
    /// Nowhere: every byte is checked.
    Verify,
    /// Into a file for each client below this directory.
    Dir(PathBuf),
}

/// Some of the clients are slow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Slow {
    /// Number of clients.
    pub(crate) clients: usize,
    /// Payload bytes a second.
    pub(crate) rate: NonZeroU64,
}

/// Some of the clients come and go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Churn {
    /// So many vanish.
    pub(crate) kill: usize,
    /// So many join late.
    pub(crate) join: usize,
}

/// What is distributed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum FileChoice {
    /// Generated content of so many bytes.
    Generated(u64),
    /// This file.
    Path(PathBuf),
}

/// The relay to use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum RelayChoice {
    /// This one, which must show the pin, if any.
    At(SocketAddr, Option<Pin>),
    /// One that answers at the usual address, else one of its own.
    FindOrStart,
    /// One of its own, with these arguments.
    Start(Vec<String>),
}

/// The checked command line.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) clients: usize,
    pub(crate) file: FileChoice,
    pub(crate) files: usize,
    pub(crate) relay: RelayChoice,
    pub(crate) cores: Option<NonZeroUsize>,
    pub(crate) driver: DriverChoice,
    pub(crate) seeding: SeedingMode,
    pub(crate) order: OrderMode,
    pub(crate) transport: Transport,
    pub(crate) chunk_size_log2: Option<u8>,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) token: Option<Token>,
    pub(crate) store: Store,
    pub(crate) sealed: bool,
    pub(crate) rate: Option<NonZeroU64>,
    pub(crate) slow: Option<Slow>,
    pub(crate) churn: Churn,
    pub(crate) corrupt: usize,
    pub(crate) seed: u64,
    pub(crate) timeout: Duration,
    pub(crate) stay: Duration,
    pub(crate) json: Option<PathBuf>,
    pub(crate) report: Option<PathBuf>,
}

impl Args {
    /// Checks what only makes sense together.
    ///
    /// # Errors
    /// What is wrong and what to do, for people.
    pub(crate) fn check(self) -> Result<Config, String> {
        let relay = self.relay_choice()?;
        if self.timeout.is_zero() {
            return Err("--timeout 0 leaves no time for anything: give for example 10m".into());
        }
        let churn = self.churn.unwrap_or_default();
        check_counts(&self, churn)?;
        let file = match parse_size(&self.file) {
            _ if self.file == "-" => {
                return Err("--file - is stdin, which can't be read twice: write it to a file \
                            first, and name that"
                    .into());
            }
            _ if PathBuf::from(&self.file).is_dir() => {
                return Err(format!("--file {} is a directory: name one file of it", self.file));
            }
            _ if PathBuf::from(&self.file).exists() => FileChoice::Path(self.file.into()),
            Ok(bytes) => FileChoice::Generated(bytes),
            Err(why) => {
                return Err(format!("--file {}: there is no such file, and {why}", self.file));
            }
        };
        if self.files > 1 && matches!(file, FileChoice::Path(_)) {
            return Err("--files needs generated content: give --file a size".into());
        }
        let token = self.token_file.as_deref().map(read_token).transpose()?;
        Ok(Config {
            clients: self.clients,
            file,
            files: self.files,
            relay,
            cores: self.cores,
            driver: self.driver,
            seeding: self.seeding,
            order: self.order,
            transport: self.transport,
            chunk_size_log2: self.chunk,
            token_file: self.token_file,
            token,
            store: self.store,
            sealed: self.sealed,
            rate: self.rate,
            slow: self.slow,
            churn,
            corrupt: self.corrupt,
            seed: self.seed.unwrap_or_else(random_seed),
            timeout: self.timeout,
            stay: self.stay,
            json: self.json,
            report: self.report,
        })
    }

    fn relay_choice(&self) -> Result<RelayChoice, String> {
        let mut own = Vec::new();
        if let Some(cache) = self.cache {
            own.extend(["--cache".into(), cache.to_string()]);
        }
        if let Some(eviction) = self.eviction {
            let name = eviction.to_possible_value().expect("no value is skipped");
            own.extend(["--eviction".into(), name.get_name().into()]);
        }
        if let Some(args) = &self.relay_args {
            own.extend(split_words(args)?);
        }
        let starts = self.cache.is_some() || self.eviction.is_some() || self.relay_args.is_some();
        match &self.relay {
            Some(_) if starts => Err("--cache, --eviction and --relay-args are for a relay that \
                                      loadgen starts: leave --relay out"
                .into()),
            Some(address) => resolve(address),
            None if starts => Ok(RelayChoice::Start(own)),
            None => Ok(RelayChoice::FindOrStart),
        }
    }
}

fn check_counts(args: &Args, churn: Churn) -> Result<(), String> {
    if !(1..=CLIENTS_MAX).contains(&args.clients) {
        return Err(format!("--clients {} is not between 1 and {CLIENTS_MAX}", args.clients));
    }
    if !(1..=FILES_MAX.min(args.clients)).contains(&args.files) {
        return Err(format!(
            "--files {} is not between 1 and {FILES_MAX}, nor more than --clients {}",
            args.files, args.clients
        ));
    }
    let special = args.corrupt.saturating_add(churn.kill).saturating_add(churn.join);
    if special >= args.clients && special > 0 {
        return Err(format!(
            "--corrupt {}, kill={} and join={} leave none of the {} clients to behave",
            args.corrupt, churn.kill, churn.join, args.clients
        ));
    }
    match args.slow {
        Some(slow) if slow.clients > args.clients => {
            Err(format!("--slow {}@..: there are only {} clients", slow.clients, args.clients))
        }
        _ => Ok(()),
    }
}

/// Names are looked up here, once, before any event loop runs.
fn resolve(address: &str) -> Result<RelayChoice, String> {
    let fail = |why: &dyn std::fmt::Display| format!("--relay {address}: {why}");
    let relay: PinnedRelay = address.parse().map_err(|error| fail(&error))?;
    let found = look_up_blocking(&relay.addr).map_err(|error| fail(&error))?;
    let first = found.first().ok_or_else(|| fail(&"the name has no address"))?;
    Ok(RelayChoice::At(*first, relay.pin))
}

fn read_token(path: &Path) -> Result<Token, String> {
    let grants = token_file::read_grants(path)
        .map_err(|why| format!("failed to read --token-file {}: {why}", path.display()))?;
    let Grant { token, roles } = grants.into_iter().next().expect("a file holds tokens");
    if roles != Roles::BOTH {
        return Err(format!(
            "the first line of --token-file {} is a token that may only publish or only get, and this program does \
             both: give a token that may do both",
            path.display()
        ));
    }
    Ok(token)
}

fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // The standard library keys its hashers from the system's randomness. Short seeds are easier
    // to type again.
    let random = std::hash::RandomState::new().build_hasher().finish();
    Rng::new(random, 0).below(1_000_000_000)
}

fn parse_chunk(text: &str) -> Result<u8, String> {
    parse_power_of_two(text, CHUNK_SIZE_LOG2_MIN..=CHUNK_SIZE_LOG2_MAX)
}

fn parse_store(text: &str) -> Result<Store, String> {
    match text.split_once(':') {
        None if text == "verify" => Ok(Store::Verify),
        Some(("dir", path)) if !path.is_empty() => Ok(Store::Dir(path.into())),
        _ => Err("it is verify, or dir: and a directory".into()),
    }
}

fn parse_rate(text: &str) -> Result<NonZeroU64, String> {
    NonZeroU64::new(parse_size(text)?).ok_or_else(|| "a rate of nothing never ends".into())
}

fn parse_slow(text: &str) -> Result<Slow, String> {
    let (clients, rate) = text.split_once('@').ok_or("write N@SIZE, for example 10@1M")?;
    let clients = clients.parse().map_err(|error| format!("{clients:?} clients: {error}"))?;
    Ok(Slow { clients, rate: parse_rate(rate)? })
}

fn parse_churn(text: &str) -> Result<Churn, String> {
    let mut churn = Churn::default();
    for part in text.split(',') {
        let (what, count) = part.split_once('=').ok_or("write kill=N,join=N")?;
        let count = count.trim().parse().map_err(|error| format!("{count:?}: {error}"))?;
        match what.trim() {
            "kill" => churn.kill = count,
            "join" => churn.join = count,
            other => return Err(format!("{other:?}: there are kill and join")),
        }
    }
    Ok(churn)
}

/// Words as a shell would cut them, with quotes but without anything else.
fn split_words(text: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in text.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => word.get_or_insert_default().push(c),
            None if c == '"' || c == '\'' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take()),
            None => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(format!("--relay-args {text:?}: a quote is not closed"));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(args: &[&str]) -> Result<Config, String> {
        let args = std::iter::once("loadgen").chain(args.iter().copied());
        Args::try_parse_from(args).map_err(|error| error.to_string())?.check()
    }

    #[test]
    fn the_main_job_is_the_default() {
        let config = check(&["--clients", "100", "--file", "100M"]).unwrap();
        assert_eq!(config.clients, 100);
        assert_eq!(config.file, FileChoice::Generated(100 << 20));
        assert_eq!(config.relay, RelayChoice::FindOrStart);
        assert_eq!(config.seeding, SeedingMode::Spread);
        assert_eq!(config.timeout, Duration::from_secs(600));
    }

    #[test]
    fn flags_for_the_own_relay_start_one() {
        let config = check(&["--cache", "4M", "--eviction", "lru", "--relay-args", "--cores 2"]);
        let args = ["--cache", "4194304", "--eviction", "lru", "--cores", "2"];
        assert_eq!(config.unwrap().relay, RelayChoice::Start(args.map(String::from).to_vec()));
        let usual = check(&["--relay", "127.0.0.1"]).map(|config| config.relay);
        assert_eq!(usual, Ok(RelayChoice::At("127.0.0.1:7440".parse().unwrap(), None)));
        let error = check(&["--cache", "4M", "--relay", "127.0.0.1:1"]).unwrap_err();
        assert!(error.contains("leave --relay out"), "{error}");
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_reason() {
        for (args, reason) in [
            (&["--clients", "0"][..], "not between 1"),
            (&["--file", "no-such-file"], "no such file"),
            (&["--file", "no-such-file"], "is not a size: write for example 100M"),
            (&["--file", "99999999T"], "is too large"),
            (&["--clients", "many"], "not a whole number"),
            (&["--cores", "0"], "at least 1"),
            (&["--files", "3", "--clients", "2"], "--files 3"),
            (&["--chunk", "100K"], "power of two"),
            (&["--transport", "pigeon"], "choose one of tcp, udp-control, udp-data, quic"),
            (&["--churn", "kill=50,join=50"], "leave none"),
            (&["--churn", "die=1"], "kill and join"),
            (&["--slow", "200@1M"], "only 100 clients"),
            (&["--rate", "0"], "never ends"),
            (&["--store", "disk"], "dir:"),
            (&["--relay", "no/relay"], "relay.example.org:7440"),
            (&["--relay", "http://127.0.0.1:7441"], "has no URL"),
            (&["--relay", "nonsense:port"], "--relay nonsense:port"),
            (&["--relay", "[fe80::1]:7440"], "[fe80::1%eth0]:7440"),
            (&["--relay-args", "'x"], "not closed"),
            (&["--timeout", "soon"], "duration"),
            (&["--timeout", "0s"], "no time"),
            (&["--file", "/"], "directory"),
            (&["--driver", "kqueue2"], "driver"),
        ] {
            let error = check(args).unwrap_err();
            assert!(error.contains(reason), "{args:?}: {error}");
        }
    }

    #[test]
    fn words_are_cut_as_a_shell_would() {
        let words = split_words(r#" --a 'b c'  "d"e '' "#).unwrap();
        assert_eq!(words, ["--a", "b c", "de", ""]);
    }

    #[test]
    fn every_option_has_its_variable() {
        use clap::CommandFactory as _;
        let without = relay::pages::options_without_variable(&Args::command(), "LOADGEN");
        assert!(without.is_empty(), "{without:?}");
    }
}
