//! An nginx of our own: found, configured, started on a port that is free, ended.
//!
//! Needs no rights: everything it writes is in a temporary directory. It inherits its listening
//! socket, because no directive of its own sets the congestion control there.

use std::{
    fs, io,
    net::SocketAddr,
    os::{fd::AsRawFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use shards::clock;
use socket2::{Domain, Socket, Type};

use crate::{content::Content, usage};

/// Where the content is asked for.
pub(crate) const PATH: &str = "/content";

/// Where Debian and others put it, beside the usual places for programs.
const PLACES: [&str; 4] =
    ["/usr/sbin", "/usr/local/sbin", "/usr/local/nginx/sbin", "/opt/homebrew/bin"];

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4_096;

/// For it to start its workers, and to end.
const START_TIMEOUT: Duration = Duration::from_secs(10);
const END_TIMEOUT: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(5);

/// A running nginx; ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Nginx {
    pub(crate) address: SocketAddr,
    pub(crate) version: String,
    /// Of its listening socket.
    pub(crate) congestion: String,
    master: Child,
    workers: Vec<u32>,
    _dir: tempfile::TempDir,
    /// Kept, so that the port stays ours.
    _listener: Socket,
}

/// The program, if it is there.
///
/// # Errors
/// It is not; what to do.
pub(crate) fn find(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(path) = named {
        anyhow::ensure!(path.is_file(), "--nginx {}: there is no such program", path.display());
        return Ok(path.to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    find_in(std::env::split_paths(&path).chain(PLACES.map(PathBuf::from)))
}

fn find_in(places: impl Iterator<Item = PathBuf>) -> anyhow::Result<PathBuf> {
    places.map(|place| place.join("nginx")).find(|program| program.is_file()).context(
        "nginx is not installed: install it (on Debian: apt-get install nginx-light), or name the \
         program with --nginx PATH",
    )
}

impl Nginx {
    /// Serves the content, with so many workers.
    ///
    /// # Errors
    /// It doesn't start; its own words.
    pub(crate) fn start(
        program: &Path,
        workers: usize,
        content: &Content,
        congestion: &str,
    ) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir().context("could not make a temporary directory")?;
        // Started by root, its workers run as another user.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        content.write_to(&dir.path().join(&PATH[1..]))?;
        let (listener, address) = listen(congestion).context("could not listen on loopback")?;
        let config = dir.path().join("nginx.conf");
        fs::write(&config, configuration(workers, address))?;
        let mut command = Command::new(program);
        command.arg("-p").arg(dir.path()).arg("-c").arg(&config);
        command.arg("-e").arg(dir.path().join("error.log"));
        command.env("NGINX", format!("{};", listener.as_raw_fd()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        listener.set_cloexec(false)?;
        let master = command.spawn();
        listener.set_cloexec(true)?;
        let master = master.with_context(|| format!("could not start {}", program.display()))?;
        let mut nginx = Self {
            address,
            version: version(program),
            congestion: congestion_of(&listener),
            master,
            workers: Vec::new(),
            _dir: dir,
            _listener: listener,
        };
        nginx.wait_for_workers(workers)?;
        Ok(nginx)
    }

    fn wait_for_workers(&mut self, wanted: usize) -> anyhow::Result<()> {
        let deadline = clock::now() + START_TIMEOUT;
        while clock::now() < deadline {
            if let Some(status) = self.master.try_wait()? {
                let log = fs::read_to_string(self._dir.path().join("error.log"));
                anyhow::bail!("nginx ended with {status}: {}", log.unwrap_or_default().trim());
            }
            self.workers = children(self.master.id());
            if self.workers.len() >= wanted {
                return Ok(());
            }
            thread::park_timeout(TICK);
        }
        anyhow::bail!("nginx did not start its workers within {} s", START_TIMEOUT.as_secs())
    }

    /// CPU time of all its processes so far.
    pub(crate) fn cpu_time(&self) -> Duration {
        self.workers.iter().chain([&self.master.id()]).map(|&id| usage::cpu_time_of(id)).sum()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let master = i32::try_from(self.master.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = master {
            // If it ended meanwhile, that is what was wanted.
            kill_process(pid, Signal::TERM).ok();
        }
        let deadline = clock::now() + END_TIMEOUT;
        while clock::now() < deadline {
            if !matches!(self.master.try_wait(), Ok(None)) {
                return;
            }
            thread::park_timeout(TICK);
        }
        self.master.kill().ok();
        self.master.wait().ok();
    }
}

/// A socket that the program inherits: it takes what is set here for its own connections.
fn listen(congestion: &str) -> io::Result<(Socket, SocketAddr)> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    set_congestion(&socket, congestion);
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)?;
    let address = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok((socket, address))
}

#[cfg(target_os = "linux")]
fn set_congestion(socket: &Socket, name: &str) {
    // A kernel without it has its own, and the report says which.
    drop(socket.set_tcp_congestion(name.as_bytes()));
}

#[cfg(not(target_os = "linux"))]
fn set_congestion(_: &Socket, _: &str) {}

#[cfg(target_os = "linux")]
fn congestion_of(socket: &Socket) -> String {
    let name = socket.tcp_congestion().unwrap_or_default();
    String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned()
}

#[cfg(not(target_os = "linux"))]
fn congestion_of(_: &Socket) -> String {
    "the system's congestion control".into()
}

fn configuration(workers: usize, address: SocketAddr) -> String {
    format!(
        "daemon off; master_process on; worker_processes {workers}; worker_cpu_affinity auto;\n\
         pid nginx.pid; error_log error.log;\n\
         events {{ worker_connections 16384; }}\n\
         http {{\n\
         access_log off; sendfile on; sendfile_max_chunk 1m; tcp_nopush on;\n\
         client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;\n\
         uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n\
         server {{ listen {address} backlog={BACKLOG}; root .; }}\n\
         }}\n"
    )
}

/// As it calls itself: `nginx/1.22.1`.
fn version(program: &Path) -> String {
    let output = Command::new(program).arg("-v").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stderr).into_owned());
    let text = text.unwrap_or_default();
    text.trim().rsplit(": ").next().filter(|v| !v.is_empty()).unwrap_or("nginx").to_owned()
}

/// Processes that this one started, where the system tells.
fn children(parent: u32) -> Vec<u32> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let id = |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
    processes.filter_map(id).filter(|&id| parent_of(id) == Some(parent)).collect()
}

fn parent_of(process: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let (_, after_name) = stat.rsplit_once(") ")?;
    after_name.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = find(Some("/no/such/nginx".as_ref())).unwrap_err().to_string();
        assert!(error.contains("/no/such/nginx"), "{error}");
        let error = find_in(["/no/such/place".into()].into_iter()).unwrap_err().to_string();
        assert!(error.contains("not installed") && error.contains("--nginx"), "{error}");
    }

    #[test]
    fn a_parent_is_known() {
        if cfg!(target_os = "linux") {
            assert_eq!(parent_of(std::process::id()), Some(std::os::unix::process::parent_id()));
        }
    }
}
