//! The relay's options, and the validated configuration that they become.
//!
//! Whatever gets past here can be used as it is: parse, don't validate.

use std::{
    net::SocketAddr,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Parser, builder::FalseyValueParser};
use shards::{DriverChoice, Placement, chunk_files::place::Choice};

use relay_program::token_file;
use relay_protocol::{
    RelayAddr,
    limits::{CHUNK_SIZE_LOG2_MAX, CHUNK_SIZE_LOG2_MIN},
    rate::Rate,
};
use relay_server::{
    Config, Congestion, Limits, MemoryPlan, Settings, SettingsError,
    config::{CACHE_CHUNKS_MIN, TokenRules},
    identity,
};
use relay_swarm::Eviction;
use relay_transport::Identity;

mod uplink;

pub use self::uplink::{UplinkArgs, Upstream};
pub use relay_program::arguments::parse_driver;
pub use relay_server::config::DATA_PORT_DEFAULT;
pub use relay_units::{parse_count, parse_duration, parse_listen, parse_rate, parse_size};

/// The largest chunk is this part of the cache.
const CACHE_CHUNKS_TYPICAL: u64 = 8;

/// With an uplink this part of the cache is for chunks on their way between the two relays: two of the largest that the
/// rest takes.
const SHELF_PART: u64 = 4;

/// The options of a relay.
#[derive(Parser, Clone, Debug)]
pub struct RelayArgs {
    /// Event loops, each pinned to a core [default: all available]
    #[arg(long, env = "RELAY_CORES", value_name = "N", value_parser = parse_count::<NonZeroUsize>)]
    pub cores: Option<NonZeroUsize>,

    /// Really start N event loops even on fewer cores
    #[arg(long, env = "RELAY_OVERSUBSCRIBE", value_parser = FalseyValueParser::new())]
    pub oversubscribe: bool,

    /// Address for peers; repeatable; port 0 picks one [default: port 7440 of all addresses]
    #[arg(long, env = "RELAY_LISTEN", value_name = "ADDR", value_delimiter = ',', value_parser = parse_listen)]
    pub listen: Vec<SocketAddr>,

    /// Address for the status page, /api/v1, /metrics, /healthz and /readyz
    #[arg(long, env = "RELAY_HTTP", value_name = "ADDR", default_value = "127.0.0.1:7441", value_parser = parse_listen)]
    pub http: SocketAddr,

    /// File whose first line HTTP requests must present as a bearer token; needed beyond loopback
    #[arg(long, env = "RELAY_HTTP_TOKEN_FILE", value_name = "FILE")]
    pub http_token_file: Option<PathBuf>,

    /// Have /healthz and /readyz want the HTTP token as well; otherwise they answer without it
    #[arg(long, env = "RELAY_HTTP_PROBES_NEED_TOKEN", value_parser = FalseyValueParser::new())]
    pub http_probes_need_token: bool,

    /// Bound on all chunk bytes in the process [default: 256M, less where memory is limited]
    #[arg(long, env = "RELAY_CACHE", value_name = "SIZE", value_parser = parse_size)]
    pub cache: Option<u64>,

    /// Tmpfs with large pages, for chunks that are sent without copying; `none` copies all [default: one of its own]
    #[arg(
        long,
        env = "RELAY_CHUNK_DIR",
        value_name = "DIR",
        default_value = "",
        hide_default_value = true
    )]
    pub chunk_dir: Choice,

    /// What to drop first: `demand` (what no peer lacks) or `lru` (for comparison)
    #[arg(long, env = "RELAY_EVICTION", value_name = "POLICY", default_value = "demand")]
    pub eviction: EvictionArg,

    /// What the relay is the origin of.
    #[command(flatten)]
    pub origin: OriginArgs,

    /// Which relay it gets and gives files at, too.
    #[command(flatten)]
    pub uplink: UplinkArgs,

    /// What drives the event loops: auto, io-uring or epoll
    #[arg(long, env = "RELAY_DRIVER", value_name = "D", default_value = "auto", value_parser = parse_driver)]
    pub driver: DriverChoice,

    /// TCP congestion control [default: the system's; cubic if every --listen is loopback]
    #[arg(long, env = "RELAY_CONGESTION", value_name = "NAME")]
    pub congestion: Option<String>,

    /// File of tokens, one a line; peers must know one of them: TOKEN, or publish:TOKEN or get:TOKEN for peers that
    /// may only do that
    #[arg(long, env = "RELAY_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Peers without a token may get what is published; only publishers need one (of --token-file)
    #[arg(long, env = "RELAY_OPEN_GET", value_parser = FalseyValueParser::new())]
    pub open_get: bool,

    /// What the relay is known by.
    #[command(flatten)]
    pub identity: IdentityArgs,

    /// Introduced peers, at most; lowered to what descriptors allow
    #[arg(long, env = "RELAY_MAX_PEERS", value_name = "N", default_value = "16384", value_parser = parse_count::<NonZeroUsize>)]
    pub max_peers: NonZeroUsize,

    /// On SIGINT or SIGTERM, how long chunks in flight may take to finish
    #[arg(long, env = "RELAY_DRAIN_TIMEOUT", value_name = "DUR", default_value = "10s", value_parser = parse_duration)]
    pub drain_timeout: Duration,

    /// How long peers wait for chunks that no connected peer holds
    #[arg(long, env = "RELAY_MISSING_TIMEOUT", value_name = "DUR", default_value = "60s", value_parser = parse_duration)]
    pub missing_timeout: Duration,

    /// How much it may move.
    #[command(flatten)]
    pub limits: LimitArgs,

    /// How datagrams find their event loop: by a program in the kernel where there is one, or
    /// always passed on between event loops
    #[arg(long, env = "RELAY_DATAGRAM_STEERING", value_name = "S", default_value = "auto")]
    pub datagram_steering: SteeringArg,

    /// Form of the log on stderr
    #[arg(long, env = "RELAY_LOG_FORMAT", value_name = "F", default_value = "text")]
    pub log_format: LogFormat,
}

/// What the relay itself is the origin of.
#[derive(clap::Args, Clone, Debug)]
pub struct OriginArgs {
    /// File or directory that the relay itself is the origin of; repeatable
    #[arg(long, env = "RELAY_SERVE", value_name = "PATH")]
    pub serve: Vec<PathBuf>,

    /// Serve files as they are, so that this relay and all between can read them, by tickets that open nothing
    #[arg(long, env = "RELAY_PLAIN", value_parser = FalseyValueParser::new())]
    pub plain: bool,

    /// File of the secret that seals what --serve names, made if it is not there [default:
    /// ~/.local/state/relay/secret]
    #[arg(long, env = "RELAY_SECRET_FILE", value_name = "FILE")]
    pub secret_file: Option<PathBuf>,

    /// What tickets of --serve say [default: the first listen address]
    #[arg(long, env = "RELAY_ADVERTISE", value_name = "HOST:PORT", value_parser = RelayAddr::with_port)]
    pub advertise: Option<RelayAddr>,
}

/// Limits of rates, in bytes of file content a second.
#[derive(clap::Args, Clone, Debug)]
pub struct LimitArgs {
    /// Send at most SIZE bytes of files a second, to all peers together; none or 0 is no limit
    #[arg(long, env = "RELAY_EGRESS_RATE", value_name = "SIZE", default_value = "none", value_parser = parse_rate)]
    pub egress_rate: u64,

    /// Take in at most SIZE bytes of files a second, from all peers together
    #[arg(long, env = "RELAY_INGRESS_RATE", value_name = "SIZE", default_value = "none", value_parser = parse_rate)]
    pub ingress_rate: u64,

    /// Send each connection at most SIZE bytes of files a second, and take in at most as much of each
    #[arg(long, env = "RELAY_PEER_RATE", value_name = "SIZE", default_value = "none", value_parser = parse_rate)]
    pub peer_rate: u64,

    /// File with lines such as `egress-rate = 100M`, which count instead of these options; SIGHUP reads it again
    #[arg(long, env = "RELAY_SETTINGS", value_name = "FILE")]
    pub settings: Option<PathBuf>,
}

impl LimitArgs {
    fn settings(&self) -> Settings {
        let options = Limits {
            egress: Rate::new(self.egress_rate),
            ingress: Rate::new(self.ingress_rate),
            peer: Rate::new(self.peer_rate),
        };
        Settings { options, file: self.settings.clone() }
    }
}

/// What peers know the relay by.
#[derive(clap::Args, Clone, Debug)]
pub struct IdentityArgs {
    /// File of the relay's private key, made at the first start; peers know the relay by its pin [default:
    /// ~/.local/state/relay/identity]
    #[arg(long, env = "RELAY_IDENTITY_FILE", value_name = "FILE", conflicts_with = "tls_cert")]
    pub identity_file: Option<PathBuf>,

    /// Certificate of an authority with its chain, in PEM, in place of --identity-file
    #[arg(long, env = "RELAY_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// Private key of --tls-cert, in PEM
    #[arg(long, env = "RELAY_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Make a key for this run alone, in no file, unless another option names one: tickets and pins end with this relay
    #[arg(long, env = "RELAY_EPHEMERAL_IDENTITY", value_parser = FalseyValueParser::new())]
    pub ephemeral_identity: bool,
}

impl IdentityArgs {
    /// The key and the certificates; a key is made if there is none yet.
    ///
    /// # Errors
    /// A sentence for the user: what can't be read, made or used, and what to do.
    pub fn open(&self) -> Result<Identity, String> {
        match (&self.tls_cert, &self.tls_key, &self.identity_file) {
            (Some(certificates), Some(key), _) => identity::of_authority(certificates, key),
            (_, _, None) if self.ephemeral_identity => identity::ephemeral(),
            (_, _, given) => identity::open(given.as_deref()),
        }
    }

    /// What [`Self::open`] would open, without making anything: `None` if it would make a key.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn look(&self) -> Result<Option<Identity>, String> {
        match (&self.tls_cert, &self.tls_key, &self.identity_file) {
            (Some(certificates), Some(key), _) => {
                identity::of_authority(certificates, key).map(Some)
            }
            (_, _, None) if self.ephemeral_identity => Ok(None),
            (_, _, given) => identity::look(given.as_deref()),
        }
    }
}

/// `--eviction`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum EvictionArg {
    /// What no peer lacks first; what is still wanted only by rent or buy.
    Demand,
    /// Least recently used, for comparison.
    Lru,
}

impl From<EvictionArg> for Eviction {
    fn from(arg: EvictionArg) -> Self {
        match arg {
            EvictionArg::Demand => Self::Demand,
            EvictionArg::Lru => Self::Lru,
        }
    }
}

/// `--datagram-steering`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum SteeringArg {
    /// By the kernel where it can, else passed on.
    Auto,
    /// Passed on by messages: for comparison, and for systems whose kernel does it wrong.
    Forward,
}

/// `--log-format`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The cache holds too few of the smallest chunks.
    #[error(
        "--cache {0} holds fewer than {CACHE_CHUNKS_MIN} chunks of the least size, 1 KiB: give at \
         least 4K"
    )]
    CacheTooSmall(u64),
    /// A token file can't be used.
    #[error("failed to read {option} {path}: {why}")]
    TokenFile {
        /// Which option.
        option: &'static str,
        /// The file.
        path: String,
        /// Why, and what to do.
        why: String,
    },
    /// The settings file can't be used.
    #[error("{0}")]
    Settings(#[from] SettingsError),
    /// Getting is open without tokens, too.
    #[error(
        "--open-get says that only publishers need a token, and there is none: give --token-file FILE as well"
    )]
    OpenGetWithoutTokens,
    /// HTTP beyond loopback wants a token.
    #[error(
        "--http {0} can be reached from other machines: give --http-token-file FILE as well, or a \
         loopback address"
    )]
    HttpExposed(SocketAddr),
}

impl RelayArgs {
    /// Checks what the command line said, and reads the token files.
    ///
    /// # Errors
    /// [`ConfigError`], which is wrong usage.
    pub fn check(&self) -> Result<Config, ConfigError> {
        let shard_count = Placement::plan(self.cores, self.oversubscribe).shard_count();
        let memory = MemoryPlan::of_this_machine(self.cache, shard_count);
        let shelf_bytes =
            if self.uplink.upstream.is_some() { memory.cache_bytes / SHELF_PART } else { 0 };
        let cache_bytes = memory.cache_bytes - shelf_bytes;
        let chunk_max = cache_bytes / CACHE_CHUNKS_TYPICAL;
        if cache_bytes < CACHE_CHUNKS_MIN << CHUNK_SIZE_LOG2_MIN {
            return Err(ConfigError::CacheTooSmall(memory.cache_bytes));
        }
        let log2 = u8::try_from(chunk_max.ilog2()).expect("at most 63");
        let chunk_size_log2_max = log2.clamp(CHUNK_SIZE_LOG2_MIN, CHUNK_SIZE_LOG2_MAX);
        let tokens = match &self.token_file {
            Some(path) => read(token_file::read_grants, "--token-file", path)?,
            None if self.open_get => return Err(ConfigError::OpenGetWithoutTokens),
            None => Vec::new(),
        };
        let http_token = match &self.http_token_file {
            Some(path) => read(token_file::read, "--http-token-file", path)?.into_iter().next(),
            None => None,
        };
        if http_token.is_none() && !self.http.ip().is_loopback() {
            return Err(ConfigError::HttpExposed(self.http));
        }
        let all_loopback =
            !self.listen.is_empty() && self.listen.iter().all(|addr| addr.ip().is_loopback());
        let congestion = match &self.congestion {
            Some(name) => Congestion::Asked(name.clone()),
            None if all_loopback => Congestion::Preferred("cubic"),
            None => Congestion::System,
        };
        let settings = self.limits.settings();
        let limits = settings.read()?;
        Ok(Config {
            cores: self.cores,
            oversubscribe: self.oversubscribe,
            driver: self.driver,
            listen: self.listen.clone(),
            steers: self.datagram_steering == SteeringArg::Auto,
            congestion,
            max_peers: self.max_peers,
            memory,
            chunk_place: self.chunk_dir.clone(),
            chunk_size_log2_max,
            eviction: self.eviction.into(),
            admission: TokenRules { tokens, open_get: self.open_get },
            http: self.http,
            http_token,
            http_probes_need_token: self.http_probes_need_token,
            drain_timeout: self.drain_timeout,
            missing_timeout: self.missing_timeout,
            limits,
            settings,
            shelf_bytes,
            relay_id: random_number(),
        })
    }
}

/// Tells processes apart.
fn random_number() -> u64 {
    let mut bytes = [0u8; 8];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    assert_eq!(filled, Ok(bytes.len()), "8 bytes of randomness are always to be had");
    u64::from_le_bytes(bytes)
}

fn read<T>(
    read: impl Fn(&Path) -> Result<Vec<T>, String>,
    option: &'static str,
    path: &Path,
) -> Result<Vec<T>, ConfigError> {
    read(path).map_err(|why| {
        let path = path.display().to_string();
        ConfigError::TokenFile { option, path, why }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_for_fewer_than_four_chunks_is_refused() {
        let args = |cache: &str| RelayArgs::parse_from(["relay", "--cache", cache]);
        assert!(matches!(args("4095").check(), Err(ConfigError::CacheTooSmall(4095))));
        assert_eq!(args("2M").check().map(|c| c.chunk_size_log2_max).ok(), Some(18));
    }

    #[test]
    fn getting_is_open_only_where_tokens_are_wanted() {
        let args = RelayArgs::parse_from(["relay", "--open-get"]);
        assert!(matches!(args.check(), Err(ConfigError::OpenGetWithoutTokens)));
    }

    #[test]
    fn a_certificate_and_its_key_are_given_together_and_in_place_of_an_identity() {
        let parse = |args: &[&str]| RelayArgs::try_parse_from([&["relay"], args].concat()).is_ok();
        assert!(parse(&["--tls-cert", "c", "--tls-key", "k"]));
        assert!(parse(&["--identity-file", "i"]));
        assert!(!parse(&["--tls-cert", "c"]) && !parse(&["--tls-key", "k"]));
        assert!(!parse(&["--tls-cert", "c", "--tls-key", "k", "--identity-file", "i"]));
    }

    #[test]
    fn http_beyond_loopback_wants_a_token() {
        let args = RelayArgs::parse_from(["relay", "--http", "0.0.0.0:0"]);
        assert!(matches!(args.check(), Err(ConfigError::HttpExposed(_))));
    }

    #[test]
    fn every_option_has_its_variable() {
        use clap::CommandFactory as _;
        let without =
            relay_program::pages::options_without_variable(&RelayArgs::command(), "RELAY");
        assert!(without.is_empty(), "{without:?}");
    }
}
