//! Starting, stopping and configuring the server, and the `prefd token` command.

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;

use common::{BINARY, fresh, get, put};
use prefd_tests::http::{Client, Request};
use prefd_tests::server::{Launch, prefd};
use prefd_tests::{process, token};

#[test]
fn sigterm_finishes_in_flight_requests_and_exits_0() {
    let (server, dir) = fresh(&[]);
    let token = token::of("alice", "xyz");
    let mut idle = server.connect();
    put(&mut idle, "xyz", &token, "{\"a\":1}");
    let mut writer = server.connect();
    let head = Request::of("PUT", "xyz", &token)
        .header("Expect", "100-continue")
        .header("Content-Length", "7");
    writer.send(&head.head()).unwrap();
    assert_eq!(writer.read_response(false).unwrap().status, 100);
    server.terminate();
    // The server closes idle connections when shutdown begins.
    assert!(idle.read_to_end().unwrap().is_empty());
    writer.send(b"{\"b\":2}").unwrap();
    let response = writer.read_response(false).unwrap();
    assert_eq!(response.status, 204);
    drop(writer);
    assert!(
        std::net::TcpStream::connect(server.address).is_err(),
        "expected the server to refuse new connections"
    );
    assert_eq!(server.wait().code(), Some(0));
    let server = Launch::new(BINARY, dir.path()).start();
    assert_eq!(get(&mut server.connect(), "xyz", &token), "{\"b\":2}");
    // A clean shutdown marks the catalogue as clean, so the next start does not rebuild it.
    assert_eq!(server.stop().code(), Some(0));
    assert!(dir.path().join("catalogue/clean").exists());
}

#[test]
fn request_past_the_drain_timeout_does_not_delay_shutdown() {
    let (server, _dir) = fresh(&["--drain-timeout", "300ms"]);
    let token = token::of("alice", "xyz");
    let mut writer = server.connect();
    let head = Request::of("PUT", "xyz", &token)
        .header("Expect", "100-continue")
        .header("Content-Length", "7");
    writer.send(&head.head()).unwrap();
    assert_eq!(writer.read_response(false).unwrap().status, 100);
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn second_process_on_a_data_directory_reports_the_owners_pid() {
    let (server, dir) = fresh(&[]);
    let ended = Launch::new(BINARY, dir.path()).run();
    assert_eq!(ended.status.code(), Some(1));
    assert!(
        ended.err.contains(&format!("(pid {})", server.pid())),
        "{}",
        ended.err
    );
    assert!(ended.out.is_empty());
    assert_eq!(
        get(&mut server.connect(), "xyz", &token::of("alice", "xyz")),
        "{}"
    );
}

#[test]
fn occupied_port_is_reported_at_startup() {
    let (server, _dir) = fresh(&[]);
    let dir = tempfile::tempdir().unwrap();
    let ended = Launch::new(BINARY, dir.path())
        .with(&["--listen", &server.address.to_string()])
        .run();
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.err.contains("cannot listen on"), "{}", ended.err);
}

#[test]
fn dev_mode_prints_working_curl_commands_and_keeps_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let launch = Launch::new(BINARY, dir.path())
        .without_key()
        .with(&["--dev"]);
    let server = launch.start();
    let commands: Vec<&String> = server
        .printed
        .iter()
        .filter(|line| line.starts_with("curl "))
        .collect();
    assert_eq!(commands.len(), 2);
    let example = r#"{"some":"value","everything":[{"is":"up","to":123123,"the":["client"]}]}"#;
    // Splits a command into words, as a shell does with quoted and unquoted words.
    let split_words = |command: &str| {
        let mut words = Vec::new();
        let mut rest = command.trim();
        while !rest.is_empty() {
            let (word, remainder) = match rest.strip_prefix('\'') {
                Some(quoted) => quoted.split_once('\'').unwrap(),
                None => rest.split_once(' ').unwrap_or((rest, "")),
            };
            words.push(word.to_owned());
            rest = remainder.trim_start();
        }
        words
    };
    let mut connection = server.connect();
    let mut responses = Vec::new();
    for command in &commands {
        let words = split_words(command);
        let option = |name: &str| {
            words
                .iter()
                .position(|w| w == name)
                .map(|at| words[at + 1].clone())
        };
        let url = words
            .iter()
            .find(|word| word.starts_with("http://"))
            .unwrap();
        let path = url
            .strip_prefix(&format!("http://{}", server.address))
            .unwrap();
        let mut request = Request::new(&option("-X").unwrap_or_else(|| "GET".to_owned()), path);
        for (index, word) in words.iter().enumerate() {
            if word == "-H" {
                let (name, value) = words[index + 1].split_once(": ").unwrap();
                request = request.header(name, value);
            }
        }
        if let Some(body) = option("-d") {
            assert_eq!(body, example);
            request = request.body(&body);
        }
        responses.push(connection.request(&request));
    }
    assert_eq!(responses[0].status, 204);
    assert_eq!((responses[1].status, responses[1].text()), (200, example));
    drop(connection);
    assert!(server.stop().success());

    // The next start uses the same signing key. Only its owner may read the key file.
    use std::os::unix::fs::PermissionsExt;
    let key = dir.path().join("dev-signing-key");
    let mode = std::fs::metadata(&key).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let before = std::fs::read(&key).unwrap();
    let server = launch.start();
    assert_eq!(std::fs::read(&key).unwrap(), before);
    let data_dir = dir.path().to_str().unwrap();
    let issued = prefd(
        BINARY,
        &[
            "token",
            "--data-dir",
            data_dir,
            "--user",
            "bob",
            "--client",
            "app",
            "--scope",
            "user:preferences:read:xyz x",
        ],
    );
    assert!(issued.status.success(), "{issued:?}");
    let token = issued.out.trim();
    put(&mut server.connect(), "app", token, "{}");
    assert_eq!(get(&mut server.connect(), "xyz", token), "{}");
    assert_eq!(
        server
            .connect()
            .request(&Request::of("PUT", "xyz", token).body("{}"))
            .status,
        403
    );
}

#[test]
fn dev_mode_refuses_addresses_other_than_loopback() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"] {
        let dir = tempfile::tempdir().unwrap();
        let ended = Launch::new(BINARY, dir.path())
            .without_key()
            .with(&["--dev", "--listen", address])
            .run();
        assert_eq!(ended.status.code(), Some(2), "{ended:?}");
        assert!(ended.err.contains("loopback"), "{}", ended.err);
        assert!(
            std::fs::read_dir(dir.path()).unwrap().next().is_none(),
            "expected the data directory to stay empty"
        );
    }
}

#[test]
fn token_command_issues_usable_tokens_and_refuses_bad_options() {
    let (server, _dir) = fresh(&[]);
    let secret = token::secret_file();
    let secret = secret.to_str().unwrap();
    let make = |more: &[&str]| {
        let all = [
            &[
                "token",
                "--jwt-hs256-secret-file",
                secret,
                "--user",
                "alice",
                "--client",
                "xyz",
            ],
            more,
        ]
        .concat();
        prefd(BINARY, &all)
    };
    let token = make(&["--ttl", "15m"]);
    assert!(token.status.success(), "{token:?}");
    put(&mut server.connect(), "xyz", token.out.trim(), "{}");
    for wrong in [&["--ttl", "soon"][..], &["--ttl", "0s"], &["--scopes", "x"]] {
        assert_eq!(make(wrong).status.code(), Some(2), "{wrong:?}");
    }
    assert_eq!(
        prefd(BINARY, &["token", "--user", "a", "--client", "b"])
            .status
            .code(),
        Some(2)
    );
    let nowhere = prefd(
        BINARY,
        &[
            "token",
            "--data-dir",
            "/nowhere",
            "--user",
            "a",
            "--client",
            "b",
        ],
    );
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(nowhere.err.contains("/nowhere"));
}

#[test]
fn usage_error_exits_2_and_names_the_setting_or_value() {
    let dir = tempfile::tempdir().unwrap();
    let file = |text: &str| {
        let path = dir.path().join("prefd.toml");
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let launch = Launch::new(BINARY, &dir.path().join("data"));
    for (arguments, word) in [
        (
            vec!["--max-keys".to_owned(), "ten".to_owned()],
            "--max-keys",
        ),
        (vec!["--nonsense".to_owned()], "--nonsense"),
        (
            vec!["--listen".to_owned(), "localhost".to_owned()],
            "--listen",
        ),
        (
            vec!["--workers".to_owned(), "0".to_owned()],
            "--workers must be at least 1",
        ),
        (
            vec!["--workers".to_owned(), "1000000".to_owned()],
            "--workers must be at most 1024",
        ),
        (
            vec!["--body-timeout".to_owned(), "30".to_owned()],
            "--body-timeout",
        ),
        (
            vec!["--segment-bytes".to_owned(), "65535".to_owned()],
            "--segment-bytes must be from 65536 to 2147483648",
        ),
        (
            vec!["--config".to_owned(), "/nowhere.toml".to_owned()],
            "/nowhere.toml",
        ),
        (
            vec!["--config".to_owned(), file("max-kyes = 3")],
            "max-kyes",
        ),
    ] {
        let borrowed: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let ended = launch.clone().with(&borrowed).run();
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}: {ended:?}");
        assert!(ended.err.contains(word), "{arguments:?}: {}", ended.err);
    }
    let ended = launch.clone().with_variable("PREFD_MAX_KEYS", "many").run();
    assert_eq!(ended.status.code(), Some(2));
    assert!(ended.err.contains("many"), "{}", ended.err);
    assert_eq!(prefd(BINARY, &[]).status.code(), Some(2));
    assert_eq!(prefd(BINARY, &["--help"]).status.code(), Some(0));
    assert_eq!(prefd(BINARY, &["serve", "--help"]).status.code(), Some(0));
}

/// Finds the server's limit on the number of keys by storing ever larger documents.
fn max_keys(connection: &mut Client) -> u64 {
    let token = token::of("alice", "xyz");
    (1..10)
        .take_while(|count| {
            let members: Vec<String> = (0..*count).map(|i| format!("\"k{i}\":1")).collect();
            let body = format!("{{{}}}", members.join(","));
            connection
                .request(&Request::of("PUT", "xyz", &token).body(&body))
                .status
                == 204
        })
        .count() as u64
}

#[test]
fn flags_override_the_environment_which_overrides_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("prefd.toml");
    std::fs::write(
        &config,
        "max-keys = 2\nrealm = \"from the file\"\napi-version = [\"2025-1\", \"v9\"]\n",
    )
    .unwrap();
    let file =
        Launch::new(BINARY, &dir.path().join("data")).with(&["--config", config.to_str().unwrap()]);
    let unknown = file.clone().with_variable("PREFD_NO_SUCH_SETTING", "1");
    let environment = unknown.clone().with_variable("PREFD_MAX_KEYS", "3");
    let flag = environment.clone().with(&["--max-keys", "4"]);
    for (launch, expected) in [(unknown, 2), (environment, 3), (flag, 4)] {
        let server = launch.start();
        assert_eq!(max_keys(&mut server.connect()), expected);
        let response = server
            .connect()
            .request(&Request::new("GET", "/user/v9/preferences/xyz"));
        assert_eq!(
            response.header("www-authenticate"),
            Some("Bearer realm=\"from the file\"")
        );
        assert!(server.stop().success());
    }
    let with_variables = Launch::new(BINARY, &dir.path().join("data"))
        .with_variable("PREFD_CONFIG", config.to_str().unwrap())
        .with_variable("PREFD_LISTEN", "127.0.0.1:0");
    assert_eq!(max_keys(&mut with_variables.start().connect()), 2);
}

#[test]
fn full_disk_behind_the_output_does_not_stop_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("prefd.sock");
    let listen = format!("unix:{}", socket.display());
    let starting = Launch::new(BINARY, &folder.path().join("data"))
        .with(&["--listen", &listen, "--log", "debug"])
        // Every write to this device fails with ENOSPC (full(4)).
        .after_shell("exec >/dev/full 2>&1")
        .spawn();
    let request = Request::of("GET", "xyz", &token::of("alice", "xyz"));
    let status = || {
        let mut stream = UnixStream::connect(&socket).ok()?;
        stream.write_all(&request.bytes()).ok()?;
        let mut status = [0; 12];
        stream.read_exact(&mut status).ok()?;
        Some(status == *b"HTTP/1.1 200")
    };
    common::wait_until("the server responds", || status().is_some());
    // The requests cause log lines, which also cannot be written.
    for _ in 0..100 {
        assert_eq!(status(), Some(true));
    }
    starting.signal("TERM");
    assert_eq!(starting.wait().status.code(), Some(0));
}

#[test]
fn abstract_socket_is_refused_and_creates_no_file() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [
        &["serve", "--dev", "--listen", "unix:@prefd"][..],
        &["serve", "--dev", "--admin-listen", "unix:@prefd"],
        &["healthcheck", "--admin", "unix:@prefd"],
    ] {
        let mut command = Command::new(BINARY);
        command.args(arguments).current_dir(&folder);
        let output = process::output(&mut command);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(
            err.contains("abstract Unix sockets"),
            "{arguments:?}: {err}"
        );
    }
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
}
