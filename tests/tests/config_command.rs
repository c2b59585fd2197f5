//! `prefd config`, `prefd healthcheck`, `prefd completions` and `prefd man`.

mod common;

use std::process::Command;

use common::{BINARY, status, wait_until};
use prefd_tests::closed_port::ClosedPort;
use prefd_tests::issuer::{Issuer, Signer};
use prefd_tests::server::{CommandOutput, Launch, prefd};
use prefd_tests::token;

/// Runs `prefd config` with the given environment variables and no others.
fn config(arguments: &[&str], variables: &[(&str, &str)]) -> CommandOutput {
    let mut command = Command::new(BINARY);
    command.arg("config").args(arguments).env_clear();
    command.envs(variables.iter().copied());
    let output = command.output().unwrap();
    CommandOutput {
        status: output.status,
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A temporary file with the given text.
fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

#[test]
fn config_show_prints_each_setting_and_its_source() {
    let file =
        file("max-keys = 5\nrealm = \"of the file\"\ncors-origin = [\"*\"]\nbody-timeout = \"2s\"");
    let path = file.path().to_str().unwrap();
    let arguments = ["show", "--config", path, "--realm", "of the flag"];
    let shown = config(
        &arguments,
        &[("PREFD_MAX_KEYS", "7"), ("PREFD_LOG", "warn")],
    );
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    for line in [
        "max-keys = 7 # PREFD_MAX_KEYS".to_owned(),
        "log = \"warn\" # PREFD_LOG".to_owned(),
        "realm = \"of the flag\" # --realm".to_owned(),
        format!("cors-origin = [\"*\"] # {path}"),
        format!("body-timeout = \"2000ms\" # {path}"),
        "# listen = 127.0.0.1:8080 # default".to_owned(),
        "# max-value-bytes = 10485760 # default".to_owned(),
    ] {
        assert!(
            shown.out.lines().any(|found| found == line),
            "expected the line {line} in {}",
            shown.out
        );
    }
    // The output is itself a configuration file with the same settings.
    let copy = self::file(&shown.out);
    let reread = config(&["show", "--config", copy.path().to_str().unwrap()], &[]);
    assert_eq!(reread.status.code(), Some(0), "{reread:?}");
    let value = |line: &str| line.split(" # ").next().unwrap_or_default().to_owned();
    let values = |text: &str| {
        let is_set = |line: &&str| !line.starts_with('#');
        text.lines().filter(is_set).map(value).collect::<Vec<_>>()
    };
    assert_eq!(values(&reread.out), values(&shown.out));
}

/// Returns the environment variables of all settings.
fn variables() -> Vec<String> {
    let example = config(&["example"], &[]);
    let lines = example.out.lines();
    let names = lines.filter_map(|line| line.strip_prefix('#')?.split_once(" = "));
    let names = names.filter(|(name, _)| !name.contains(' '));
    names
        .map(|(name, _)| format!("PREFD_{}", name.replace('-', "_").to_uppercase()))
        .collect()
}

#[test]
fn empty_variable_of_any_setting_counts_as_not_set() {
    let variables = variables();
    assert!(variables.len() > 30, "{variables:?}");
    let empty: Vec<_> = variables.iter().map(|name| (name.as_str(), "")).collect();
    let file = file("max-keys = 5\njwt-audience = \"of the file\"");
    let arguments = ["show", "--config", file.path().to_str().unwrap()];
    let shown = config(&arguments, &empty);
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    assert_eq!(shown.out, config(&arguments, &[]).out);
    let without_file = config(&["show"], &[&empty[..], &[("PREFD_CONFIG", "")]].concat());
    assert_eq!(without_file.out, config(&["show"], &[]).out);
    // The help still names the variable.
    let mut help = Command::new(BINARY);
    help.args(["serve", "--help"]).env("PREFD_JWT_AUDIENCE", "");
    let help = String::from_utf8(help.output().unwrap().stdout).unwrap();
    assert!(help.contains("[env: PREFD_JWT_AUDIENCE="), "{help}");
}

#[test]
fn empty_variable_of_any_command_counts_as_not_set() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str], names: &[&str]| {
        let mut command = Command::new(BINARY);
        command.args(arguments).env_clear();
        command.current_dir(&folder);
        command.envs(names.iter().map(|name| (name, "")));
        let output = command.output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), err)
    };
    // Without a data directory, the commands use the default one.
    for command in ["stats", "verify", "compact"] {
        let (code, err) = run(&[command], &["PREFD_DATA_DIR"]);
        assert_eq!(code, Some(1), "{command}: {err}");
        assert!(err.contains("prefd-data"), "{command}: {err}");
    }
    let lines = folder.path().join("lines");
    std::fs::write(&lines, "").unwrap();
    let import = ["import", "--from", "lines", "--data-dir", "data"];
    let import = run(&import, &["PREFD_CONFIG", "PREFD_ADMIN"]);
    assert_eq!(import, (Some(0), String::new()));
    let admin = ["PREFD_ADMIN", "PREFD_ADMIN_TOKEN_FILE"];
    let closed = ClosedPort::new();
    let (code, err) = run(&["export", "--admin", &closed.url()], &admin);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("cannot connect to the server"), "{err}");
    let token = ["token", "--user", "u", "--client", "c"];
    let (code, err) = run(&token, &["PREFD_DATA_DIR", "PREFD_JWT_HS256_SECRET_FILE"]);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("--data-dir"), "{err}");
}

#[test]
fn server_with_an_empty_audience_variable_accepts_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let server = Launch::new(BINARY, folder.path())
        .with_variable("PREFD_JWT_AUDIENCE", "")
        .with_variable("PREFD_KNOWN_CLIENT", "")
        .start();
    assert_eq!(status(&server, &token::of("alice", "xyz")), 200);
}

#[test]
fn empty_flag_or_file_value_is_refused() {
    let secret = token::secret_file();
    let key = ["--jwt-hs256-secret-file", secret.to_str().unwrap()];
    let empty_audience = file("jwt-audience = \"\"");
    let empty_client = file("known-client = [\"a\", \"\"]");
    for (arguments, setting) in [
        (["--jwt-audience", ""], "--jwt-audience"),
        (["--known-client", "a,"], "--known-client"),
        (
            ["--config", empty_audience.path().to_str().unwrap()],
            "--jwt-audience",
        ),
        (
            ["--config", empty_client.path().to_str().unwrap()],
            "--known-client",
        ),
    ] {
        let refused = config(&[&["check"], &key[..], &arguments].concat(), &[]);
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}: {refused:?}");
        let words = format!("{setting} is empty");
        assert!(refused.err.contains(&words), "{arguments:?}: {refused:?}");
    }
}

#[test]
fn config_check_names_the_invalid_setting() {
    let secret = token::secret_file();
    let key = ["--jwt-hs256-secret-file", secret.to_str().unwrap()];
    let check = |arguments: &[&str]| config(&[&["check"], arguments].concat(), &[]);
    let good = check(&key);
    assert_eq!(good.status.code(), Some(0), "{good:?}");
    assert!(good.out.contains("could start"), "{}", good.out);
    // `prefd config check` sends no request to an identity provider.
    let issuer = Issuer::start(&Signer::new("ec256", "a"));
    let good = check(&["--oidc-issuer", &issuer.url(), "--jwt-audience", "a"]);
    assert_eq!((good.status.code(), issuer.requests().len()), (Some(0), 0));
    let unknown = file("max_keys = 5");
    let short_secret = file("short");
    let short_secret = short_secret.path().to_str().unwrap();
    for (arguments, code, word) in [
        (&[][..], 2, "no way to verify tokens"),
        (&[key[0], key[1], "--require-audience"], 2, "--jwt-audience"),
        (
            &[key[0], key[1], "--config", unknown.path().to_str().unwrap()],
            2,
            "max_keys",
        ),
        (
            &[key[0], key[1], "--config", "/nowhere.toml"],
            2,
            "/nowhere.toml",
        ),
        (
            &[key[0], key[1], "--tls-cert-file", "/nowhere.pem"],
            2,
            "--tls-key-file",
        ),
        (
            &[
                key[0],
                key[1],
                "--tls-cert-file",
                "/nowhere.pem",
                "--tls-key-file",
                "/x",
            ],
            1,
            "/nowhere.pem",
        ),
        (
            &[key[0], key[1], "--admin-token-file", short_secret],
            1,
            short_secret,
        ),
        (&[key[0], key[1], "--cors-origin", "x"], 2, "--cors-origin"),
        (
            &[key[0], key[1], "--workers", "1000000"],
            2,
            "--workers must be at most 1024",
        ),
        (
            &[key[0], key[1], "--segment-bytes", "1000"],
            2,
            "--segment-bytes must be from 65536",
        ),
        (
            &[key[0], key[1], "--max-keys", "0"],
            2,
            "--max-keys must be at least 1",
        ),
        (
            &[key[0], key[1], "--max-key-bytes", "0"],
            2,
            "--max-key-bytes must be at least 1",
        ),
        (
            &[key[0], key[1], "--max-value-bytes", "0"],
            2,
            "--max-value-bytes must be at least 1",
        ),
        (
            &[key[0], key[1], "--max-body-bytes", "1"],
            2,
            "--max-body-bytes must be at least 2",
        ),
        (&[key[0], key[1], "--log", "="], 2, "--log"),
        (&["--jwt-hs256-secret-file", short_secret], 1, "32"),
        (&["--max-keys", "x"], 2, "--max-keys"),
        (&["--segment-bytes", "65535"], 2, "--segment-bytes"),
        // The storage format cannot hold the keys of the largest document.
        (&["--max-keys", "28000"], 2, "--max-keys (28000)"),
        (
            &["--max-key-bytes", "300000"],
            2,
            "--max-key-bytes (300000)",
        ),
        (
            &["--max-unfinished-upload-bytes", "1000"],
            2,
            "--max-unfinished-upload-bytes 1000",
        ),
    ] {
        let bad = check(arguments);
        assert_eq!(bad.status.code(), Some(code), "{arguments:?}: {bad:?}");
        assert!(bad.err.contains(word), "{arguments:?}: {}", bad.err);
        assert!(bad.out.is_empty());
    }
    let warned = check(&key);
    assert!(
        warned.err.contains("--jwt-audience is not set"),
        "{}",
        warned.err
    );
}

#[test]
fn config_example_explains_every_setting_and_is_valid() {
    let example = config(&["example"], &[]);
    assert_eq!(example.status.code(), Some(0));
    let kept = include_str!("../../docs/deploy/prefd.toml");
    assert!(
        kept == example.out,
        "docs/deploy/prefd.toml differs from the output of `prefd config example`: \
         write that output to the file"
    );
    let shown = config(&["show"], &[]);
    let names: Vec<&str> = shown
        .out
        .lines()
        .filter_map(|line| line.strip_prefix("# ")?.split(' ').next())
        .collect();
    assert!(names.len() > 40);
    for name in &names {
        assert!(
            example.out.contains(&format!("\n#{name} = ")),
            "`prefd config example` must explain the setting {name}"
        );
    }
    // With all example values uncommented, the file is still a valid configuration.
    let all: String = example
        .out
        .lines()
        .filter_map(|line| line.strip_prefix('#').filter(|line| !line.starts_with(' ')))
        .map(|line| line.to_owned() + "\n")
        .collect();
    let all = file(&all);
    let shown = config(&["show", "--config", all.path().to_str().unwrap()], &[]);
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    assert!(!shown.out.contains("# default"), "{}", shown.out);
}

#[test]
fn healthcheck_exit_code_reports_readiness_and_liveness() {
    let key = Signer::new("ec256", "a");
    let issuer = Issuer::start(&key);
    issuer.refuse_connections(true);
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::new(BINARY, dir.path())
        .with(&[
            "--admin-listen",
            "127.0.0.1:0",
            "--oidc-issuer",
            &issuer.url(),
        ])
        .with(&["--require-audience=false"])
        .start();
    let admin = format!("http://{}", server.admin_address());
    let healthcheck = |arguments: &[&str]| {
        prefd(
            BINARY,
            &[&["healthcheck", "--admin", &admin], arguments].concat(),
        )
    };
    let not_ready = healthcheck(&[]);
    assert_eq!(not_ready.status.code(), Some(1), "{not_ready:?}");
    assert!(
        not_ready.err.contains("identity-provider-never-reached"),
        "{}",
        not_ready.err
    );
    assert_eq!(healthcheck(&["--live"]).status.code(), Some(0));
    issuer.refuse_connections(false);
    wait_until("the server is ready", || {
        healthcheck(&[]).status.code() == Some(0)
    });
    drop(server);
    let stopped = healthcheck(&["--live"]);
    assert_eq!(stopped.status.code(), Some(1));
    assert!(stopped.err.contains("cannot connect"), "{}", stopped.err);
}

#[test]
fn completions_and_manual_pages_are_generated() {
    for shell in ["bash", "zsh", "fish"] {
        let script = prefd(BINARY, &["completions", shell]);
        assert_eq!(script.status.code(), Some(0), "{shell}");
        assert!(script.out.contains("oidc-issuer") && script.out.contains("healthcheck"));
    }
    assert!(prefd(BINARY, &["man"]).out.starts_with(".ie"));
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man1");
    let written = prefd(BINARY, &["man", "--to", pages.to_str().unwrap()]);
    assert_eq!(written.status.code(), Some(0), "{written:?}");
    let serve = std::fs::read_to_string(pages.join("prefd-serve.1")).unwrap();
    assert!(serve.contains("oidc\\-issuer"), "{serve}");
    assert!(pages.join("prefd-config-check.1").exists());
}
