//! A real browser, and a site whose page it opens: the page does what a test has it do, and
//! tells the site what came of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::process::dying_with_us;

/// The browser's program.
pub const PROGRAM: &str = "chromium";
/// How long a test waits for what a page tells.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where a page tells it.
const TOLD: &str = "/told";

/// A site of one page, of an origin of its own. It ends with the process.
#[derive(Debug)]
pub struct Site {
    origin: String,
    page: Arc<Mutex<String>>,
    told: Receiver<Value>,
}

impl Site {
    /// A site on a free port.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let page = Arc::<Mutex<String>>::default();
        let current = Arc::clone(&page);
        let (tell, told) = channel();
        std::thread::spawn(move || {
            // A browser opens connections ahead of time: none may wait for another.
            for stream in listener.incoming().map_while(Result::ok) {
                let page = current.lock().unwrap().clone();
                let tell = tell.clone();
                std::thread::spawn(move || serve(&stream, &page, &tell));
            }
        });
        Self { origin, page, told }
    }

    /// What a browser says that its page is of.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Opens a page in a new browser that runs this script, the body of an async function;
    /// its result.
    pub fn visit(&self, script: &str) -> Value {
        *self.page.lock().unwrap() = page(script);
        let browser = Browser::open(&format!("{}/", self.origin));
        let told = self.told.recv_timeout(PATIENCE);
        drop(browser);
        told.expect("the page tells what came of it")
    }
}

fn page(script: &str) -> String {
    format!(
        "<!doctype html><script>\n\
         const run = async () => {{ {script} }};\n\
         run().catch((error) => ({{ failed: String(error) }})).then((result) =>\n\
           fetch('{TOLD}', {{ method: 'POST', body: JSON.stringify(result) }}));\n\
         </script>"
    )
}

/// Answers one request: the page, or thanks for what it tells.
fn serve(mut stream: &TcpStream, page: &str, tell: &Sender<Value>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let (status, answer) = match first.split(' ').nth(1) {
        Some(TOLD) => ("204 No Content", ""),
        Some("/") => ("200 OK", page),
        _ => ("404 Not Found", ""),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/html\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{answer}",
        answer.len()
    )?;
    // Once it is answered, since with this the browser is closed.
    if let Ok(told) = serde_json::from_slice(&body) {
        let _ = tell.send(told);
    }
    Ok(())
}

/// A browser without a window, with a profile of its own. Killed when dropped.
#[derive(Debug)]
struct Browser {
    child: Child,
    _profile: TempDir,
}

impl Browser {
    fn open(url: &str) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let child = dying_with_us(PROGRAM)
            // No sandbox, since root cannot have one and the page is ours; nothing that it
            // asks other machines for by itself.
            .args(["--headless=new", "--no-sandbox", "--disable-gpu"])
            .args(["--no-first-run", "--disable-background-networking"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(url)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the browser starts");
        Self {
            child,
            _profile: profile,
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // All of its processes, which write to the profile.
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.child.wait();
    }
}
