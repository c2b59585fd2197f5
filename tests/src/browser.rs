//! Runs scripts in a real browser.
//!
//! A [`Site`] serves a page with the script of a test. The page posts the result of the script
//! back to the site.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::process::killed_with_parent;

/// The program name of the browser.
pub const PROGRAM: &str = "chromium";
/// How long a test waits for the result of a script.
const PATIENCE: Duration = Duration::from_secs(60);
/// The path to which a page posts the result of its script.
const RESULT_PATH: &str = "/result";

/// A web site with one page and its own origin. It runs until the process exits.
#[derive(Debug)]
pub struct Site {
    origin: String,
    page: Arc<Mutex<String>>,
    results: Receiver<Value>,
}

impl Site {
    /// Starts a site on a free port.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let page = Arc::<Mutex<String>>::default();
        let current = Arc::clone(&page);
        let (sender, results) = channel();
        std::thread::spawn(move || {
            // A browser opens connections before it needs them, so each connection gets its own
            // thread.
            for stream in listener.incoming().map_while(Result::ok) {
                let page = current.lock().unwrap().clone();
                let sender = sender.clone();
                std::thread::spawn(move || serve(&stream, &page, &sender));
            }
        });
        Self {
            origin,
            page,
            results,
        }
    }

    /// The value of the Origin header in requests that the page makes.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Opens the page in a new browser, and returns the result of the script. The script is the
    /// body of an async function.
    pub fn visit(&self, script: &str) -> Value {
        *self.page.lock().unwrap() = page(script);
        let browser = Browser::open(&format!("{}/", self.origin));
        let result = self.results.recv_timeout(PATIENCE);
        drop(browser);
        result.expect("the page posts the result of its script")
    }
}

fn page(script: &str) -> String {
    format!(
        "<!doctype html><script>\n\
         const run = async () => {{ {script} }};\n\
         run().catch((error) => ({{ failed: String(error) }})).then((result) =>\n\
           fetch('{RESULT_PATH}', {{ method: 'POST', body: JSON.stringify(result) }}));\n\
         </script>"
    )
}

/// Serves one request: returns the page, or accepts the result of a script.
fn serve(mut stream: &TcpStream, page: &str, results: &Sender<Value>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut request_line = String::new();
    reader.read_line(&mut request_line)?;
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
    let (status, response) = match request_line.split(' ').nth(1) {
        Some(RESULT_PATH) => ("204 No Content", ""),
        Some("/") => ("200 OK", page),
        _ => ("404 Not Found", ""),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/html\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{response}",
        response.len()
    )?;
    // The result is sent after the response, because the receiver then closes the browser.
    if let Ok(result) = serde_json::from_slice(&body) {
        let _ = results.send(result);
    }
    Ok(())
}

/// A headless browser with a new profile. Killed when dropped.
#[derive(Debug)]
struct Browser {
    child: Child,
    _profile: TempDir,
}

impl Browser {
    fn open(url: &str) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let child = killed_with_parent(PROGRAM)
            // The sandbox does not work for root, and is not needed for a page of the test. The
            // browser must not contact other machines.
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
        // Every process of the browser can write to the profile, so the process group is killed.
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.child.wait();
    }
}
