//! Just enough HTTP and Prometheus text to look at a relay from outside.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use super::PATIENCE;

/// An answer.
pub(crate) struct Answer {
    /// Such as 200.
    pub(crate) status: u16,
    /// Status line and headers.
    pub(crate) head: String,
    /// What follows the headers.
    pub(crate) body: String,
}

/// Asks for a page.
///
/// # Errors
/// Nothing answers, or not with HTTP.
pub(crate) fn get(addr: SocketAddr, path: &str) -> io::Result<Answer> {
    get_with(addr, path, "")
}

/// The same with further header lines, each ended by `\r\n`.
pub(crate) fn get_with(addr: SocketAddr, path: &str, headers: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n{headers}\r\n");
    answer(&mut stream, &request)
}

/// The same in HTTP/1.0, for servers that would send the answer in pieces.
///
/// # Errors
/// Nothing answers, or not with HTTP.
pub(crate) fn get_plain(addr: SocketAddr, path: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    answer(&mut stream, &format!("GET {path} HTTP/1.0\r\nHost: {addr}\r\n\r\n"))
}

/// Sends a form, as a browser does.
///
/// # Errors
/// Nothing answers, or not with HTTP.
pub(crate) fn post_form(addr: SocketAddr, path: &str, form: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = form.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\nContent-Type: \
         application/x-www-form-urlencoded\r\nContent-Length: {length}\r\n\r\n{form}"
    );
    answer(&mut stream, &request)
}

fn answer(stream: &mut TcpStream, request: &str) -> io::Result<Answer> {
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
    let status = status.ok_or_else(|| io::Error::other(format!("no HTTP: {text}")))?;
    Ok(Answer { status, head: head.to_owned(), body: body.to_owned() })
}

/// The page of metrics.
///
/// # Panics
/// There is none.
pub(crate) fn metrics(addr: SocketAddr) -> String {
    let answer = get(addr, "/metrics").expect("the relay serves /metrics");
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

/// Sum of the samples with this name and all of these labels.
pub(crate) fn metric(page: &str, name: &str, labels: &[&str]) -> f64 {
    samples(page, name)
        .filter(|(with, _)| labels.iter().all(|label| with.contains(label)))
        .map(|(_, value)| value)
        .sum()
}

/// How many samples have this name.
pub(crate) fn sample_count(page: &str, name: &str) -> usize {
    samples(page, name).count()
}

/// How many samples have this name and this label.
pub(crate) fn samples_with(page: &str, name: &str, label: &str) -> usize {
    samples(page, name).filter(|(labels, _)| labels.contains(label)).count()
}

/// Labels and values of all samples with this name.
fn samples<'a>(page: &'a str, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
    page.lines().filter_map(move |line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = rest.rsplit_once(' ')?;
        // A longer name only begins like this one.
        let is_it = labels.is_empty() || labels.starts_with('{');
        Some((labels, value.parse().ok()?)).filter(|_| is_it)
    })
}
