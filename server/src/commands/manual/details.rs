//! The parts of the man pages that are not generated from the options: the meaning of the exit
//! status, examples, and environment variables that do not set an option.

/// The parts of one man page that are not generated from the options.
#[derive(Debug)]
pub(in crate::commands) struct Details {
    /// Name of the page, such as `prefd-backup`.
    pub(in crate::commands) page: &'static str,
    /// Meaning of exit status 0.
    pub(super) success: &'static str,
    /// Meaning of exit status 1.
    pub(super) failure: &'static str,
    /// The purpose and the shell command of each example.
    pub(in crate::commands) examples: &'static [(&'static str, &'static str)],
}

/// An environment variable that does not set an option.
#[derive(Debug)]
pub(super) struct Variable {
    pub(super) name: &'static str,
    pub(super) effect: &'static str,
    /// The variable applies to commands that have one of these options.
    pub(super) flags: &'static [&'static str],
}

pub(super) const VARIABLES: &[Variable] = &[
    Variable {
        name: "SSL_CERT_FILE",
        effect: "PEM file with the trusted certificates for outgoing https:// connections. Replaces \
                 the trusted certificates of the system.",
        flags: &["oidc-issuer", "admin"],
    },
    Variable {
        name: "LISTEN_FDS, LISTEN_PID",
        effect: "Set by systemd if systemd passes a listening socket to prefd.",
        flags: &["dev"],
    },
    Variable {
        name: "NOTIFY_SOCKET",
        effect: "Set by systemd. The server reports through this socket that it is ready, \
                 reloading or stopping.",
        flags: &["dev"],
    },
];

pub(in crate::commands) const DETAILS: &[Details] = &[
    Details {
        page: "prefd-serve",
        success: "The server was stopped by a signal.",
        failure: "The server could not start, or the store could not be closed cleanly.",
        examples: &[
            (
                "Try prefd out. The output contains requests to paste into a shell:",
                "prefd serve --dev",
            ),
            (
                "Serve the users of an identity provider:",
                "prefd serve --data-dir /var/lib/prefd --oidc-issuer https://id.example --jwt-audience prefd",
            ),
            (
                "Use a configuration file:",
                "prefd serve --config /etc/prefd/prefd.toml",
            ),
        ],
    },
    Details {
        page: "prefd-token",
        success: "The token was printed.",
        failure: "The secret could not be read, or the token could not be signed.",
        examples: &[
            (
                "Sign a token with the secret of the server:",
                "prefd token --jwt-hs256-secret-file /etc/prefd/jwt-secret --user alice --client my-app --audience prefd",
            ),
            (
                "Sign a token for a server that runs with --dev:",
                "prefd token --data-dir prefd-data --user alice --client my-app",
            ),
        ],
    },
    Details {
        page: "prefd-verify",
        success: "No problem was found. Data that a crash left behind is not a problem.",
        failure: "A problem was found, or the data directory could not be checked.",
        examples: &[(
            "Check a data directory:",
            "prefd verify --data-dir /var/lib/prefd",
        )],
    },
    Details {
        page: "prefd-stats",
        success: "The statistics were printed.",
        failure: "The data directory could not be read, or some data in it is damaged. In the second \
                  case, the statistics of all other data were printed.",
        examples: &[(
            "Print statistics as JSON:",
            "prefd stats --data-dir /var/lib/prefd --json",
        )],
    },
    Details {
        page: "prefd-compact",
        success: "Every segment with dead data was rewritten.",
        failure: "The data directory could not be opened, or some segments could not be compacted. In \
                  the second case, all other segments were compacted.",
        examples: &[(
            "Compact a data directory:",
            "prefd compact --data-dir /var/lib/prefd",
        )],
    },
    Details {
        page: "prefd-backup",
        success: "The backup is complete.",
        failure: "The backup failed, or lacks data that could not be read from the disk. The error \
                  message says which of the two happened.",
        examples: &[
            (
                "Back up the running server to a new file in a directory:",
                "prefd backup --admin-token-file /etc/prefd/admin-token --to /backups/",
            ),
            (
                "Compress a backup:",
                "prefd backup --to - | zstd > prefd.tar.zst",
            ),
            (
                "Back up a data directory that no server has open:",
                "prefd backup --data-dir /var/lib/prefd --to prefd.tar",
            ),
        ],
    },
    Details {
        page: "prefd-restore",
        success: "The data directory was created.",
        failure: "The backup was refused, or the data directory could not be created.",
        examples: &[
            (
                "Restore the newest backup in a directory:",
                "prefd restore --from /backups/ --data-dir /var/lib/prefd-new",
            ),
            (
                "Restore a compressed backup:",
                "zstd -dc prefd.tar.zst | prefd restore --from - --data-dir /var/lib/prefd-new",
            ),
        ],
    },
    Details {
        page: "prefd-export",
        success: "All documents were exported.",
        failure: "The export failed, or it lacks documents that could not be read. The error message \
                  says which of the two happened.",
        examples: &[
            (
                "Export the documents of one user:",
                "prefd export --user alice --to alice.jsonl",
            ),
            ("Export all documents:", "prefd export > all.jsonl"),
        ],
    },
    Details {
        page: "prefd-import",
        success: "All lines were imported.",
        failure: "The import failed. If a line was refused, the documents of all earlier lines were \
                  imported.",
        examples: &[
            (
                "Import documents, and replace those that already exist:",
                "prefd import --from all.jsonl",
            ),
            (
                "Import only documents that do not exist yet:",
                "prefd import --from all.jsonl --keep-existing",
            ),
        ],
    },
    Details {
        page: "prefd-erase",
        success: "No file of the data directory contains data of the user.",
        failure: "Some data of the user could not be erased. The error message says why.",
        examples: &[
            (
                "Erase a user from a running server:",
                "prefd erase --admin-token-file /etc/prefd/admin-token --user alice",
            ),
            (
                "Erase a user from a data directory that no server has open:",
                "prefd erase --data-dir /var/lib/prefd --user alice",
            ),
        ],
    },
    Details {
        page: "prefd-config-check",
        success: "The server could start with these settings.",
        failure: "A file that the settings name cannot be used.",
        examples: &[(
            "Check a configuration file:",
            "prefd config check --config /etc/prefd/prefd.toml",
        )],
    },
    Details {
        page: "prefd-config-show",
        success: "The settings were printed.",
        failure: "The settings could not be printed.",
        examples: &[(
            "Print where each setting comes from:",
            "prefd config show --config /etc/prefd/prefd.toml",
        )],
    },
    Details {
        page: "prefd-config-example",
        success: "The configuration file was printed.",
        failure: "The configuration file could not be printed.",
        examples: &[(
            "Start a configuration file from the example:",
            "prefd config example > prefd.toml",
        )],
    },
    Details {
        page: "prefd-healthcheck",
        success: "The server is ready. With --live: the server responds.",
        failure: "The server is not ready, or did not respond within 5 seconds.",
        examples: &[
            (
                "Wait until the server is ready:",
                "until prefd healthcheck; do sleep 1; done",
            ),
            (
                "Check only that the server responds:",
                "prefd healthcheck --live",
            ),
        ],
    },
    Details {
        page: "prefd-completions",
        success: "The completions were printed.",
        failure: "The completions could not be printed.",
        examples: &[(
            "Install completions for bash:",
            "prefd completions bash > /usr/share/bash-completion/completions/prefd",
        )],
    },
    Details {
        page: "prefd-man",
        success: "The page was printed, or the pages were written.",
        failure: "A page could not be written.",
        examples: &[
            ("Read the page of prefd:", "prefd man | man -l -"),
            (
                "Install the pages of all commands:",
                "prefd man --to /usr/local/share/man/man1",
            ),
        ],
    },
    Details {
        page: "prefd-bench",
        success: "The measurements were printed.",
        failure: "A measurement failed, or the temporary directory could not be removed.",
        examples: &[(
            "Measure the disk of a data directory, with 5 seconds for each row:",
            "prefd bench --dir /var/lib --seconds 5",
        )],
    },
    Details {
        page: "prefd",
        success: "The command succeeded.",
        failure: "The command failed. The message on standard error says why.",
        examples: &[
            ("Try prefd out:", "prefd serve --dev"),
            ("Back up a running server:", "prefd backup --to /backups/"),
        ],
    },
];
