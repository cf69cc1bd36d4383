//! HTTP/2 to the byte: writes whatever frames it is told to, checked by nobody.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// When nothing comes for so long, nothing will.
const SILENCE: Duration = Duration::from_secs(10);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// Name and value, or what is sent in their place.
pub type Field = (Vec<u8>, Vec<u8>);

/// How the frames of a header block are cut.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Cut {
    #[default]
    Whole,
    /// Three bytes a frame.
    Continued,
    /// Padding and priority around it.
    Padded,
    /// A first `HEADERS` frame that holds nothing.
    Late,
}

/// One request, which ends with the last of its frames.
#[derive(Clone, Debug, Default)]
pub struct Frames {
    pub fields: Vec<Field>,
    /// Each a `DATA` frame of its own.
    pub data: Vec<Vec<u8>>,
    pub trailers: Vec<Field>,
    pub cut: Cut,
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum RawEnd {
    /// A complete response of this status.
    Response(u16),
    /// `RST_STREAM`, `GOAWAY` or a closed connection.
    Refused,
    /// Nothing in time.
    Silence,
}

impl Frames {
    /// These four, in the order of every client.
    pub fn request(method: &[u8], scheme: &[u8], authority: &[u8], path: &[u8]) -> Self {
        Self::default()
            .with(b":method", method)
            .with(b":scheme", scheme)
            .with(b":authority", authority)
            .with(b":path", path)
    }

    pub fn with(mut self, name: &[u8], value: &[u8]) -> Self {
        self.fields.push((name.to_vec(), value.to_vec()));
        self
    }

    /// With another value; the field stays where it is.
    pub fn but(mut self, name: &[u8], value: &[u8]) -> Self {
        let fields = self.fields.iter_mut().filter(|(n, _)| n == name);
        fields.for_each(|(_, v)| *v = value.to_vec());
        self
    }

    pub fn without(mut self, name: &[u8]) -> Self {
        self.fields.retain(|(n, _)| n != name);
        self
    }

    pub fn with_data(mut self, data: &[u8]) -> Self {
        self.data.push(data.to_vec());
        self
    }

    pub fn with_trailer(mut self, name: &[u8], value: &[u8]) -> Self {
        self.trailers.push((name.to_vec(), value.to_vec()));
        self
    }

    pub fn cut(self, cut: Cut) -> Self {
        Self { cut, ..self }
    }

    /// A connection that consists of this request.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        push_frame(SETTINGS, 0, 0, &[], &mut bytes);
        let bodyless = self.data.is_empty() && self.trailers.is_empty();
        push_block(&self.fields, self.cut, bodyless, &mut bytes);
        for (nth, data) in self.data.iter().enumerate() {
            let last = nth + 1 == self.data.len() && self.trailers.is_empty();
            push_frame(DATA, u8::from(last), 1, data, &mut bytes);
        }
        if !self.trailers.is_empty() {
            push_block(&self.trailers, Cut::Whole, true, &mut bytes);
        }
        bytes
    }

    /// Sends it on a new connection, and waits for what comes of it.
    pub async fn send(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> RawEnd {
        let _ = stream.write_all(&self.bytes()).await;
        let _ = stream.flush().await;
        let end = tokio::time::timeout(SILENCE, read_end(&mut stream)).await;
        end.unwrap_or(RawEnd::Silence)
    }
}

/// Opens a connection and one stream with exactly these fields.
pub async fn raw_headers(address: SocketAddr, fields: &[(&[u8], &[u8])]) -> RawEnd {
    let with = |frames: Frames, (name, value): &(&[u8], &[u8])| frames.with(name, value);
    let frames = fields.iter().fold(Frames::default(), with);
    frames
        .send(TcpStream::connect(address).await.unwrap())
        .await
}

async fn read_end(stream: &mut (impl AsyncRead + Unpin)) -> RawEnd {
    let mut status = 0;
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).await.is_err() {
            return RawEnd::Refused;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        if stream.read_exact(&mut payload).await.is_err() {
            return RawEnd::Refused;
        }
        let (kind, flags, id) = (head[3], head[4], head[8]);
        match (kind, id) {
            (RST_STREAM | GOAWAY, _) => return RawEnd::Refused,
            (HEADERS, 1) if status < 200 => status = status_of(&payload),
            _ => {}
        }
        if id == 1 && matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            return RawEnd::Response(status);
        }
    }
}

/// `:status`, which comes first: from HPACK's static table, or in digits; 0 for what is neither.
fn status_of(block: &[u8]) -> u16 {
    match block {
        [0x20..=0x3f, rest @ ..] => status_of(rest), // the size of the dynamic table
        [indexed @ 0x88..=0x8e, ..] => {
            [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)]
        }
        [0x08 | 0x18 | 0x48, 0x03, digits @ ..] if digits.len() >= 3 => {
            let digits = std::str::from_utf8(&digits[..3]).unwrap_or_default();
            digits.parse().unwrap_or(0)
        }
        [0x08 | 0x18 | 0x48, 0x82..=0x83, coded @ ..] => huffman_digits(coded),
        _ => 0,
    }
}

/// Three digits in HPACK's Huffman code: five bits for 0, 1 and 2, six for the others.
fn huffman_digits(coded: &[u8]) -> u16 {
    let bits: Vec<u16> = coded
        .iter()
        .take(3)
        .flat_map(|byte| (0..8).rev().map(move |bit| u16::from(byte >> bit & 1)))
        .collect();
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let take = |from: usize, count: usize| {
            let bits = bits.iter().skip(from).take(count);
            bits.fold(0, |value, bit| value << 1 | bit)
        };
        let (digit, length) = match take(at, 5) {
            digit @ 0..=2 => (digit, 5),
            _ => (take(at, 6).saturating_sub(22), 6),
        };
        number = number * 10 + digit;
        at += length;
    }
    number
}

/// Literals without indexing, with new names and no Huffman code.
fn block_of(fields: &[Field]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            push_length(text.len(), &mut block);
            block.extend_from_slice(text);
        }
    }
    block
}

fn push_block(fields: &[Field], cut: Cut, is_last: bool, bytes: &mut Vec<u8>) {
    let block = block_of(fields);
    let end = if is_last { END_STREAM } else { 0 };
    match cut {
        Cut::Whole => push_frame(HEADERS, end | END_HEADERS, 1, &block, bytes),
        Cut::Padded => {
            let around = [&[4, 0, 0, 0, 3, 7], block.as_slice(), &[0; 4]].concat();
            let flags = end | END_HEADERS | PADDED | PRIORITY;
            push_frame(HEADERS, flags, 1, &around, bytes);
        }
        Cut::Continued | Cut::Late => {
            let first = if cut == Cut::Late { 0 } else { 3 };
            let (first, rest) = block.split_at(first.min(block.len()));
            push_frame(HEADERS, end, 1, first, bytes);
            let mut pieces = rest.chunks(3).peekable();
            while let Some(piece) = pieces.next() {
                let last = if pieces.peek().is_none() {
                    END_HEADERS
                } else {
                    0
                };
                push_frame(CONTINUATION, last, 1, piece, bytes);
            }
        }
    }
}

fn push_length(length: usize, block: &mut Vec<u8>) {
    let Some(mut rest) = length.checked_sub(127) else {
        block.push(u8::try_from(length).unwrap());
        return;
    };
    block.push(127);
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).unwrap() | 0x80);
        rest /= 128;
    }
    block.push(u8::try_from(rest).unwrap());
}

fn push_frame(kind: u8, flags: u8, stream: u32, payload: &[u8], bytes: &mut Vec<u8>) {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    bytes.extend_from_slice(&length[1..]);
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
}
