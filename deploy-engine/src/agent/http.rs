//! A small HTTP/1.1 client: one request a connection, plain text, numeric addresses, bodies by length, chunks or end.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};

/// Status line and headers together, in bytes; no server that we ask comes near.
const HEAD_LIMIT_BYTES: usize = 64 * 1024;

pub struct Request<'a> {
    pub method: &'a str,
    pub address: IpAddr,
    pub port: u16,
    pub path: &'a str,
    /// User and password for Basic authentication.
    pub login: Option<(&'a str, &'a str)>,
    /// A JSON body.
    pub body: Option<String>,
    /// From the connection to the last byte.
    pub timeout: Duration,
    /// The body is cut here.
    pub limit_bytes: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub body: Vec<u8>,
}

/// What went wrong, in words that tell a refused connection from a bad answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpError {
    /// Nothing listens there.
    Refused,
    Other(String),
}

impl std::fmt::Display for HttpError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Refused => "connection refused",
            Self::Other(why) => why,
        })
    }
}

pub fn send(request: &Request<'_>) -> Result<Response, HttpError> {
    let deadline = Instant::now() + request.timeout;
    let head = request.head()?;
    let address = SocketAddr::new(request.address, request.port);
    let mut stream = TcpStream::connect_timeout(&address, request.timeout).map_err(|error| {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => HttpError::Refused,
            _ => HttpError::Other(format!(
                "expected a connection to {address}, found: {error}"
            )),
        }
    })?;
    let mut bytes = head.into_bytes();
    bytes.extend(request.body.as_deref().unwrap_or_default().as_bytes());
    let io_error = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => HttpError::Other(format!(
            "expected an answer of {address} within {} ms, found none",
            request.timeout.as_millis()
        )),
        _ => HttpError::Other(format!("expected an answer of {address}, found: {error}")),
    };
    stream
        .set_write_timeout(Some(request.timeout))
        .map_err(io_error)?;
    stream.write_all(&bytes).map_err(io_error)?;
    let mut reader = Reader {
        stream: &mut stream,
        deadline,
        buffer: Vec::new(),
        ended: false,
    };
    reader
        .response(request.method, request.limit_bytes)
        .map_err(|error| match error {
            ReadError::Io(error) => io_error(error),
            ReadError::Bad(found) => {
                HttpError::Other(format!("expected HTTP from {address}, found {found}"))
            }
        })
}

impl Request<'_> {
    /// Refuses what would end a header line: texts come from settings.
    fn head(&self) -> Result<String, HttpError> {
        let clean = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        if !clean(self.path) || !self.path.starts_with('/') {
            return Err(HttpError::Other(format!(
                "expected a path that starts with / and has no spaces, found {:?}",
                self.path
            )));
        }
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nAccept: */*\r\n",
            self.method,
            self.path,
            SocketAddr::new(self.address, self.port)
        );
        if let Some((user, password)) = self.login {
            let login = STANDARD.encode(format!("{user}:{password}"));
            head += &format!("Authorization: Basic {login}\r\n");
        }
        if let Some(body) = &self.body {
            head += &format!(
                "Content-Type: application/json\r\nContent-Length: {}\r\n",
                body.len()
            );
        }
        Ok(head + "\r\n")
    }
}

#[derive(Debug)]
enum ReadError {
    Io(io::Error),
    Bad(String),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A stream whose every read ends before the deadline.
trait Timed: Read {
    fn wait_at_most(&mut self, left: Duration) -> io::Result<()>;
}

impl Timed for &mut TcpStream {
    fn wait_at_most(&mut self, left: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(left))
    }
}

struct Reader<S> {
    stream: S,
    deadline: Instant,
    buffer: Vec<u8>,
    ended: bool,
}

enum Framing {
    None,
    Length(usize),
    Chunked,
    UntilEnd,
}

impl<S: Timed> Reader<S> {
    fn response(&mut self, method: &str, limit: usize) -> Result<Response, ReadError> {
        loop {
            let head = self.head()?;
            let (status, framing) = parse_head(&head, method)?;
            if (100..200).contains(&status) {
                continue;
            }
            let mut body = match framing {
                Framing::None => Vec::new(),
                Framing::Length(length) => self.take(length.min(limit))?,
                Framing::Chunked => self.chunks(limit)?,
                Framing::UntilEnd => {
                    while !self.ended && self.buffer.len() < limit {
                        self.fill()?;
                    }
                    std::mem::take(&mut self.buffer)
                }
            };
            body.truncate(limit);
            return Ok(Response { status, body });
        }
    }

    fn fill(&mut self) -> Result<(), ReadError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::from(io::ErrorKind::TimedOut).into());
        }
        self.stream.wait_at_most(left)?;
        let mut chunk = [0; 8192];
        match self.stream.read(&mut chunk) {
            Ok(0) => self.ended = true,
            Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn head(&mut self) -> Result<String, ReadError> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
                return Ok(String::from_utf8_lossy(&head).into_owned());
            }
            if self.buffer.len() > HEAD_LIMIT_BYTES {
                return Err(ReadError::Bad(format!(
                    "more than {HEAD_LIMIT_BYTES} bytes of headers"
                )));
            }
            self.more("the end of the headers")?;
        }
    }

    fn more(&mut self, expected: &str) -> Result<(), ReadError> {
        self.fill()?;
        if self.ended {
            Err(ReadError::Bad(format!(
                "the end of the stream before {expected}"
            )))
        } else {
            Ok(())
        }
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>, ReadError> {
        while self.buffer.len() < length {
            self.more("the end of the body")?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    fn line(&mut self) -> Result<String, ReadError> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if self.buffer.len() > HEAD_LIMIT_BYTES {
                return Err(ReadError::Bad("a chunk size without an end".to_owned()));
            }
            self.more("the end of a chunk size")?;
        }
    }

    /// Reads no further than the limit: the connection is not used again.
    fn chunks(&mut self, limit: usize) -> Result<Vec<u8>, ReadError> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(digits, 16)
                .map_err(|_| ReadError::Bad(format!("the chunk size {digits:?}")))?;
            if size == 0 {
                return Ok(body);
            }
            let wanted = size.min(limit - body.len());
            body.extend(self.take(wanted)?);
            if body.len() >= limit {
                return Ok(body);
            }
            if self.take(2)? != b"\r\n" {
                return Err(ReadError::Bad("a chunk longer than its size".to_owned()));
            }
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|w| w == wanted)
}

fn parse_head(head: &str, method: &str) -> Result<(u16, Framing), ReadError> {
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split_whitespace().nth(1))
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| ReadError::Bad(format!("the status line {first:?}")))?;
    let mut framing = Framing::UntilEnd;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("transfer-encoding") && value.eq_ignore_ascii_case("chunked") {
            framing = Framing::Chunked;
        } else if name.eq_ignore_ascii_case("content-length")
            && !matches!(framing, Framing::Chunked)
        {
            let length = value
                .parse()
                .map_err(|_| ReadError::Bad(format!("the content length {value:?}")))?;
            framing = Framing::Length(length);
        }
    }
    if method == "HEAD" || status == 204 || status == 304 {
        framing = Framing::None;
    }
    Ok((status, framing))
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Timed for &[u8] {
        fn wait_at_most(&mut self, _: Duration) -> io::Result<()> {
            Ok(())
        }
    }

    fn read(text: &str, limit: usize) -> Result<(u16, String), String> {
        Reader {
            stream: text.as_bytes(),
            deadline: Instant::now() + Duration::from_secs(5),
            buffer: Vec::new(),
            ended: false,
        }
        .response("GET", limit)
        .map(|r| (r.status, String::from_utf8_lossy(&r.body).into_owned()))
        .map_err(|error| match error {
            ReadError::Io(error) => error.to_string(),
            ReadError::Bad(found) => found,
        })
    }

    #[test]
    fn reads_bodies_of_every_framing() {
        for (text, limit, status, body) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
                99,
                200,
                "hello",
            ),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
                3,
                200,
                "hel",
            ),
            ("HTTP/1.0 503 Down\r\n\r\nto the end", 99, 503, "to the end"),
            ("HTTP/1.1 204 No Content\r\n\r\n", 99, 204, ""),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Made\r\nContent-Length: 0\r\n\r\n",
                99,
                201,
                "",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nWiki\r\n6;x=y\r\npedia \r\n0\r\n\r\n",
                99,
                200,
                "Wikipedia ",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n",
                4,
                200,
                "0123",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
                99,
                200,
                "x",
            ),
        ] {
            assert_eq!(read(text, limit), Ok((status, body.to_owned())), "{text:?}");
        }
    }

    #[test]
    fn says_what_is_not_http() {
        for (text, found) in [
            ("", "the end of the stream before the end of the headers"),
            ("SSH-2.0-x\r\n\r\n", "the status line \"SSH-2.0-x\""),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
                "the content length \"x\"",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
                "the end of the stream before the end of the body",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                "the chunk size \"zz\"",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n",
                "a chunk longer than its size",
            ),
        ] {
            assert_eq!(read(text, 99), Err(found.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn a_path_cannot_smuggle_a_header() {
        let request = Request {
            method: "GET",
            address: IpAddr::from([127, 0, 0, 1]),
            port: 1,
            path: "/x\r\nHost: y",
            login: None,
            body: None,
            timeout: Duration::from_millis(1),
            limit_bytes: 1,
        };
        assert!(matches!(send(&request), Err(HttpError::Other(why)) if why.contains("path")));
    }

    #[test]
    fn a_silent_server_ends_in_time_and_a_closed_port_is_refused() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let ask = || {
            send(&Request {
                method: "GET",
                address: IpAddr::from([127, 0, 0, 1]),
                port,
                path: "/",
                login: None,
                body: None,
                timeout: Duration::from_millis(100),
                limit_bytes: 10,
            })
        };
        let silent = ask().unwrap_err().to_string();
        assert!(silent.contains("within 100 ms"), "{silent}");
        drop(listener);
        assert_eq!(ask(), Err(HttpError::Refused));
    }
}
