//! Looks at a running wall from outside: asks its admin listener for metrics, and reads them.
//!
//! Only integers come out of this: counters are integers, and seconds become microseconds.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::config::settings::AdminAddress;

/// How long the wall may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The largest answer that is read.
const BYTES_MAX: u64 = 64 << 20;

/// The metrics of the wall whose admin listener this is.
///
/// # Errors
///
/// When nobody answers there, or not with metrics.
pub(super) fn ask(address: &AdminAddress) -> io::Result<Metrics> {
    let text = match address {
        AdminAddress::Tcp(address) => {
            let stream = TcpStream::connect_timeout(address, TIMEOUT)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            exchange(stream)
        }
        AdminAddress::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            exchange(stream)
        }
    }?;
    Ok(Metrics::parse(&text))
}

/// HTTP/1.0, so that the answer is all that comes until the end.
fn exchange(mut stream: impl Read + Write) -> io::Result<String> {
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: admin\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(BYTES_MAX).read_to_end(&mut answer)?;
    let answer = String::from_utf8(answer).map_err(io::Error::other)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or(io::ErrorKind::InvalidData)?;
    let status = head.split(' ').nth(1);
    if status != Some("200") {
        return Err(io::Error::other(format!(
            "it answered {}",
            status.unwrap_or("nothing")
        )));
    }
    Ok(body.to_owned())
}

/// One sample: its labels, and the value as it is written.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Sample {
    labels: BTreeMap<String, String>,
    value: String,
}

/// What a wall counted.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Metrics(BTreeMap<String, Vec<Sample>>);

impl Metrics {
    /// Reads the Prometheus text format; what it does not understand it leaves out.
    pub(super) fn parse(text: &str) -> Self {
        let mut all = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some((name, sample)) = sample(line) {
                all.0.entry(name).or_default().push(sample);
            }
        }
        all
    }

    fn of<'m>(&'m self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = &'m Sample> {
        let wanted: Vec<_> = labels
            .iter()
            .map(|(label, value)| ((*label).to_owned(), (*value).to_owned()))
            .collect();
        let samples = self.0.get(name).map(Vec::as_slice).unwrap_or_default();
        samples.iter().filter(move |sample| {
            let mut wanted = wanted.iter();
            wanted.all(|(label, value)| sample.labels.get(label) == Some(value))
        })
    }

    /// The sum of all samples with these labels.
    pub(super) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u128 {
        let values = self.of(name, labels).filter_map(|s| integer(&s.value));
        values.fold(0, u128::saturating_add)
    }

    /// The same for seconds, in microseconds.
    pub(super) fn micros(&self, name: &str, labels: &[(&str, &str)]) -> u128 {
        let values = self.of(name, labels).filter_map(|s| micros(&s.value));
        values.fold(0, u128::saturating_add)
    }

    /// Sums by one label.
    pub(super) fn by(&self, name: &str, label: &str) -> BTreeMap<String, u128> {
        let mut sums = BTreeMap::new();
        for sample in self.of(name, &[]) {
            if let (Some(value), Some(count)) = (sample.labels.get(label), integer(&sample.value)) {
                let sum: &mut u128 = sums.entry(value.clone()).or_default();
                *sum = sum.saturating_add(count);
            }
        }
        sums
    }

    /// The labels of every sample, with its value.
    pub(super) fn each(&self, name: &str) -> Vec<(&BTreeMap<String, String>, u128)> {
        let samples = self.of(name, &[]);
        samples
            .filter_map(|sample| Some((&sample.labels, integer(&sample.value)?)))
            .collect()
    }
}

fn sample(line: &str) -> Option<(String, Sample)> {
    let name_end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(name_end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.insert(label.to_owned(), value);
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = rest.strip_prefix('}')?;
    }
    let value = rest.split_whitespace().next()?.to_owned();
    Some((name.to_owned(), Sample { labels, value }))
}

/// A label's value up to its closing quote, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, text.get(at.saturating_add(1)..)?)),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

/// A whole number; a fraction is cut off.
fn integer(text: &str) -> Option<u128> {
    text.split('.').next()?.parse().ok()
}

/// Seconds in decimal digits as microseconds; what is finer is cut off.
fn micros(text: &str) -> Option<u128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fraction: String = fraction.chars().take(6).collect();
    format!("{whole}{fraction:0<6}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_with_their_labels() {
        let metrics = Metrics::parse(
            "# HELP a b\n# TYPE a counter\na{x=\"1\",y=\"q\\\"},{=\\n\"} 5\na{x=\"2\",y=\"z\"} 7\n\
             b 3\nb_sum 0.0015\nc_total 340282366920938463463374607431768211455\nnonsense\n",
        );
        assert_eq!(metrics.sum("a", &[]), 12);
        assert_eq!(metrics.sum("a", &[("y", "q\"},{=\n")]), 5);
        assert_eq!(metrics.sum("a", &[("x", "3")]), 0);
        assert_eq!(metrics.sum("b", &[]), 3);
        assert_eq!(metrics.micros("b_sum", &[]), 1500);
        assert_eq!(metrics.sum("c_total", &[]), u128::MAX);
        assert_eq!(metrics.by("a", "x").len(), 2);
    }

    #[test]
    fn seconds_become_microseconds_without_a_float() {
        assert_eq!(micros("0.000000999"), Some(0));
        assert_eq!(micros("12"), Some(12_000_000));
        assert_eq!(micros("1.5"), Some(1_500_000));
        assert_eq!(micros("NaN"), None);
    }
}
