//! A small HTTP/1.1 client that sends exactly the given bytes.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// Read and write timeout of every connection.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client with one connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

/// An HTTP response.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Headers in the order of the response, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// The complete body.
    pub body: Vec<u8>,
}

impl Response {
    /// Returns the value of a header. Panics if the header appears twice.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(
            values.next().is_none(),
            "the header {name} appears twice: {self:?}"
        );
        value
    }

    /// Reads a response. `is_head` is true if the request was HEAD, so that no body follows.
    pub fn read(reader: &mut impl BufRead, is_head: bool) -> io::Result<Self> {
        let (mut response, length) = Self::read_head(reader)?;
        if !is_head && !matches!(response.status, 100..=199 | 204 | 304) {
            let length = length.unwrap_or(0);
            response.body = vec![0; usize::try_from(length).unwrap()];
            reader.read_exact(&mut response.body)?;
        }
        Ok(response)
    }

    /// Reads the head of a response. Returns it with the value of Content-Length.
    pub fn read_head(reader: &mut impl BufRead) -> io::Result<(Self, Option<u64>)> {
        let line = read_line(reader)?;
        let status = line
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.strip_prefix(['0', '1'])?.strip_prefix(' '))
            .and_then(|rest| rest.get(..3))
            .and_then(|status| status.parse().ok())
            .unwrap_or_else(|| panic!("expected an HTTP/1 status line: {line:?}"));
        let mut headers = Vec::new();
        loop {
            let line = read_line(reader)?;
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').expect("a header line has a colon");
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let response = Self {
            status,
            headers,
            body: Vec::new(),
        };
        assert_eq!(response.header("transfer-encoding"), None);
        let length = response
            .header("content-length")
            .map(|n| n.parse().unwrap());
        Ok((response, length))
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }
}

/// An HTTP request. [`Request::bytes`] returns the bytes that are sent.
#[derive(Debug, Clone)]
pub struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    /// A request with a `Host` header and no other headers.
    pub fn new(method: &str, target: &str) -> Self {
        Self::to("prefd.test", method, target)
    }

    /// A request to the given host, with a `Host` header and no other headers.
    pub fn to(host: &str, method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: vec![("Host".to_owned(), host.to_owned())],
            body: Vec::new(),
        }
    }

    /// A request for the preferences of a client, with a bearer token.
    pub fn of(method: &str, client: &str, token: &str) -> Self {
        Self::new(method, &format!("/user/2025-1/preferences/{client}")).bearer(token)
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Replaces the `Host` header.
    #[must_use]
    pub fn at_host(mut self, host: &str) -> Self {
        self.headers.retain(|(name, _)| name != "Host");
        self.header("Host", host)
    }

    /// Adds a bearer token.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    /// Sets the body and `Content-Length`.
    #[must_use]
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        let length = self.body.len().to_string();
        self.header("Content-Length", &length)
    }

    /// The request line and the headers.
    pub fn head(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    /// The complete request.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// Returns true if the response has no body, whatever its headers say.
    fn is_head(&self) -> bool {
        self.method == "HEAD"
    }
}

impl Client {
    /// Opens a connection.
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the server accepts connections");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        Self { stream, reader }
    }

    /// Sends raw bytes.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a request and reads the response.
    pub fn request(&mut self, request: &Request) -> Response {
        self.try_request(request)
            .expect("the server sends a response")
    }

    /// Sends a request and reads the response. Returns an error if the connection breaks.
    pub fn try_request(&mut self, request: &Request) -> io::Result<Response> {
        self.send(&request.bytes())?;
        self.read_response(request.is_head())
    }

    /// Shuts down the sending side of the connection.
    pub fn end_sending(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Reads a response. `is_head` is true if the request was HEAD, so that no body follows.
    pub fn read_response(&mut self, is_head: bool) -> io::Result<Response> {
        Response::read(&mut self.reader, is_head)
    }

    /// Waits for the first byte of a response or the end of the connection. Returns false after
    /// `time` without either.
    pub fn wait_for_response(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).unwrap();
        let has_response = match self.reader.fill_buf() {
            Ok(_) => true,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        };
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        has_response
    }

    /// Reads the head of a response. Returns it with the value of Content-Length.
    pub fn read_head(&mut self) -> io::Result<(Response, Option<u64>)> {
        Response::read_head(&mut self.reader)
    }

    /// Fills `buffer` with the next bytes of a body.
    pub fn read_body(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.reader.read_exact(buffer)
    }

    /// Reads all bytes until the server closes or resets the connection.
    pub fn read_until_closed(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // The bytes that were read before an error remain in the buffer.
        let _ = self.reader.read_to_end(&mut bytes);
        bytes
    }

    /// Returns true if the server has closed or reset the connection. Does not wait.
    pub fn is_closed(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        match peeked {
            Ok(bytes) => bytes == 0,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    /// Reads until the server closes the connection.
    pub fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        self.reader.read_to_end(&mut rest)?;
        Ok(rest)
    }
}

/// Reads a complete line of a head. Returns an error if the connection ends within the line, which
/// happens when the server is killed.
fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    if !line.ends_with('\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line)
}

/// Encodes a body for `Transfer-Encoding: chunked`, in chunks of `size` bytes.
pub fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut framed = Vec::new();
    for chunk in body.chunks(size) {
        framed.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        framed.extend_from_slice(chunk);
        framed.extend_from_slice(b"\r\n");
    }
    framed.extend_from_slice(b"0\r\n\r\n");
    framed
}
