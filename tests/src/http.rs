//! A small HTTP/1.1 client that sends exactly the bytes that it is told to.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// Nothing in a test waits longer for the other side than this.
const PATIENCE: Duration = Duration::from_secs(60);

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names in lower case, in the order sent.
    pub headers: Vec<(String, String)>,
    /// The body, whole.
    pub body: Vec<u8>,
}

impl Response {
    /// The value of a header that is there at most once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} is there twice: {self:?}");
        value
    }

    /// Reads an answer. `is_head`: it has no body.
    pub fn read(reader: &mut impl BufRead, is_head: bool) -> io::Result<Self> {
        let (mut response, length) = Self::read_head(reader)?;
        if !is_head && !matches!(response.status, 100..=199 | 204 | 304) {
            let length = length.unwrap_or(0);
            response.body = vec![0; usize::try_from(length).unwrap()];
            reader.read_exact(&mut response.body)?;
        }
        Ok(response)
    }

    /// Reads an answer's head, and what it says of the body's length.
    pub fn read_head(reader: &mut impl BufRead) -> io::Result<(Self, Option<u64>)> {
        let line = read_line(reader)?;
        let status = line
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.strip_prefix(['0', '1'])?.strip_prefix(' '))
            .and_then(|rest| rest.get(..3))
            .and_then(|status| status.parse().ok())
            .unwrap_or_else(|| panic!("not a status line: {line:?}"));
        let mut headers = Vec::new();
        loop {
            let line = read_line(reader)?;
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').expect("a header");
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
        std::str::from_utf8(&self.body).expect("a body of text")
    }
}

/// A request, built up; [`Request::bytes`] is what is sent.
#[derive(Debug, Clone)]
pub struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    /// A request without headers, but for `Host`.
    pub fn new(method: &str, target: &str) -> Self {
        Self::to("prefd.test", method, target)
    }

    /// The same to this host.
    pub fn to(host: &str, method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: vec![("Host".to_owned(), host.to_owned())],
            body: Vec::new(),
        }
    }

    /// Of the client's namespace, with this token.
    pub fn of(method: &str, client: &str, token: &str) -> Self {
        Self::new(method, &format!("/user/2025-1/preferences/{client}")).bearer(token)
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Names another host.
    #[must_use]
    pub fn at_host(mut self, host: &str) -> Self {
        self.headers.retain(|(name, _)| name != "Host");
        self.header("Host", host)
    }

    /// Adds a token.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    /// Sets the body, and its length.
    #[must_use]
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        let length = self.body.len().to_string();
        self.header("Content-Length", &length)
    }

    /// The head alone.
    pub fn head(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    /// Everything that is sent.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// Whether the answer has no body whatever it says.
    fn is_head(&self) -> bool {
        self.method == "HEAD"
    }
}

impl Client {
    /// Connects.
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the server accepts");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        Self { stream, reader }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a request and reads its answer.
    pub fn request(&mut self, request: &Request) -> Response {
        self.try_request(request).expect("an answer")
    }

    /// The same where the server may be gone.
    pub fn try_request(&mut self, request: &Request) -> io::Result<Response> {
        self.send(&request.bytes())?;
        self.read_response(request.is_head())
    }

    /// Says that nothing more comes.
    pub fn end_sending(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Reads an answer. `is_head`: it has no body.
    pub fn read_response(&mut self, is_head: bool) -> io::Result<Response> {
        Response::read(&mut self.reader, is_head)
    }

    /// Whether something of an answer, or the end of the connection, is there in time.
    pub fn is_answered_within(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).unwrap();
        let is_answered = match self.reader.fill_buf() {
            Ok(_) => true,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        };
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        is_answered
    }

    /// Reads an answer's head, and what it says of the body's length.
    pub fn read_head(&mut self) -> io::Result<(Response, Option<u64>)> {
        Response::read_head(&mut self.reader)
    }

    /// Reads the next bytes of a body into `buffer`, filling it.
    pub fn read_body(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.reader.read_exact(buffer)
    }

    /// Reads to the end of the connection: what the server still sends.
    pub fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        self.reader.read_to_end(&mut rest)?;
        Ok(rest)
    }
}

/// Reads a line of a head, whole: what a server that is killed leaves may be cut
/// anywhere.
fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    if !line.ends_with('\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line)
}

/// A body in chunks of `size`, framed for `Transfer-Encoding: chunked`.
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
