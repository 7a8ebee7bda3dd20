//! Just enough HTTP to read a server's metrics and health.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A response's status and body.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// Fetches `path`.
///
/// # Errors
///
/// When the connection fails, or what comes back is not HTTP.
pub fn get(address: SocketAddr, path: &str) -> io::Result<Response> {
    let limit = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| not_http(&text))?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok(Response {
        status: status.ok_or_else(|| not_http(&text))?,
        body: body.to_owned(),
    })
}

fn not_http(text: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("this is not an HTTP response: {text:?}"),
    )
}

/// The value of the first sample in Prometheus text whose name and labels contain every part.
///
/// ```
/// let text = "# HELP a_total Things.\na_total{op=\"ping\"} 3\na_total{op=\"sign\"} 4\n";
/// assert_eq!(keyserver_tests::http::sample(text, &["a_total", "op=\"sign\""]), Some(4.0));
/// ```
pub fn sample(text: &str, parts: &[&str]) -> Option<f64> {
    samples(text, parts).next()
}

/// The sum of all samples in Prometheus text whose name and labels contain every part.
///
/// ```
/// let text = "a_total{op=\"ping\"} 3\na_total{op=\"sign\"} 4\nb_total 5\n";
/// assert_eq!(keyserver_tests::http::sum(text, &["a_total"]), 7.0);
/// ```
pub fn sum(text: &str, parts: &[&str]) -> f64 {
    samples(text, parts).sum()
}

fn samples(text: &str, parts: &[&str]) -> impl Iterator<Item = f64> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter(|line| parts.iter().all(|part| line.contains(part)))
        .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
}
