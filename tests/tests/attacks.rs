//! Tokens that somebody made to be let in: none is, nobody is asked because of what one
//! of them says, and the server goes on. docs/security.md lists them.

mod common;

use std::net::TcpListener;

use common::{BINARY, refused, status};
use jsonwebtoken::{Algorithm, EncodingKey};
use prefd_tests::issuer::{INTROSPECTION, Issuer, KEYS, METADATA, Signer};
use prefd_tests::server::Launch;
use prefd_tests::token::{self, base64url, base64url_bytes, fixture, signed};
use serde_json::{Value, json};

const AUDIENCE: &str = "prefd";

/// The table's own page.
const PAGE: &str = include_str!("../../docs/security.md");

/// What a table is made of.
struct Forge {
    /// Of the issuer, and trusted.
    key: Signer,
    claims: Value,
    /// Somebody else's.
    foreign: Signer,
    issuer: String,
    /// Where the attacker listens.
    trap: String,
}

/// A good one.
fn header() -> Value {
    json!({"alg": "ES256", "kid": "a", "typ": "at+jwt"})
}

impl Forge {
    /// Signed by the right key, with this in the header.
    fn with_header(&self, name: &str, value: Value) -> String {
        let mut header = header();
        header[name] = value;
        self.key.sign_with(&header, &self.claims)
    }

    /// Signed by the right key, with this claim.
    fn with(&self, name: &str, value: Value) -> String {
        let mut claims = self.claims.clone();
        claims[name] = value;
        self.key.sign(&claims)
    }

    fn without(&self, name: &str) -> String {
        let mut claims = self.claims.clone();
        claims.as_object_mut().unwrap().remove(name);
        self.key.sign(&claims)
    }

    fn good(&self) -> String {
        self.key.sign(&self.claims)
    }

    /// Signed by a foreign key, with this in the header.
    fn foreign(&self, name: &str, value: Value) -> String {
        let mut header = json!({"alg": "ES384", "typ": "at+jwt"});
        header[name] = value;
        self.foreign.sign_with(&header, &self.claims)
    }

    /// Signed with this secret, whatever the header says.
    fn hmac(&self, header: &Value, secret: &[u8]) -> String {
        let key = EncodingKey::from_secret(secret);
        signed(header, &self.claims, Algorithm::HS256, &key)
    }

    /// The parts of a good token, so put together.
    fn parts(&self, put: impl Fn(&str, &str, &str) -> String) -> String {
        let good = self.good();
        let parts: Vec<&str> = good.split('.').collect();
        put(parts[0], parts[1], parts[2])
    }

    fn unsigned(&self, alg: &str, signature: &str) -> String {
        let header = base64url(&json!({"alg": alg, "kid": "a", "typ": "at+jwt"}));
        format!("{header}.{}.{signature}", base64url(&self.claims))
    }
}

/// Each with what it is called on the page.
fn table(forge: &Forge) -> Vec<(&'static str, String)> {
    let jwks_text = json!({ "keys": [forge.key.jwk()] }).to_string();
    let public_pem = std::fs::read(fixture("keys/ec256-test-only.pub.pem")).unwrap();
    let public_key = forge.key.jwk();
    let foreign_jwk = forge.foreign.jwk();
    let trap = |path: &str| json!(format!("{}/{path}", forge.trap));
    let hs = json!({"alg": "HS256", "kid": "a", "typ": "at+jwt"});
    let later = token::now() + 3600;
    let mut cases = vec![
        (
            "`alg` is `none`, without a signature",
            forge.unsigned("none", ""),
        ),
        ("`alg` is `None`", forge.unsigned("None", "")),
        ("`alg` is `NONE`", forge.unsigned("NONE", "")),
        (
            "`alg` is `nOnE`, with some signature",
            forge.unsigned("nOnE", "AAAA"),
        ),
        ("`alg` is empty", forge.unsigned("", "AAAA")),
        ("`alg` is unknown", forge.unsigned("XS256", "AAAA")),
        ("the signature is left out", forge.unsigned("ES256", "")),
        (
            "the signature is of zeros",
            forge.unsigned("ES256", &base64url_bytes(&[0; 64])),
        ),
        (
            "a signature in DER, which is not the form of a JWS",
            forge.unsigned("ES256", &base64url_bytes(&[0x30, 6, 2, 1, 0, 2, 1, 0])),
        ),
        (
            "HS256 with the public key's PEM as the secret",
            forge.hmac(&hs, &public_pem),
        ),
        (
            "HS256 with the key set's text as the secret",
            forge.hmac(&hs, jwks_text.as_bytes()),
        ),
        (
            "HS256 with the public key's `x` as the secret",
            forge.hmac(&hs, public_key["x"].as_str().unwrap().as_bytes()),
        ),
        ("HS256 with an empty secret", forge.hmac(&hs, b"")),
        (
            "HS256 with the `k` of a symmetric key that the provider publishes",
            forge.hmac(
                &json!({"alg": "HS256", "kid": "oct"}),
                b"published by mistake, 32 bytes...",
            ),
        ),
        (
            "an HMAC under the name ES256",
            forge.hmac(&header(), &public_pem),
        ),
        (
            "another algorithm than the key's own",
            forge
                .key
                .sign_with(&json!({"alg": "ES384", "kid": "a"}), &forge.claims),
        ),
        (
            "a foreign key, with the `kid` of a trusted one",
            forge.foreign("kid", json!("a")),
        ),
        (
            "a foreign key, without a `kid`",
            forge.foreign("typ", json!("at+jwt")),
        ),
        (
            "`jwk`: its own key in the header",
            forge.foreign("jwk", foreign_jwk.clone()),
        ),
        (
            "`jku`: a key set of the attacker's",
            forge.foreign("jku", trap("jku")),
        ),
        (
            "`x5u`: a certificate of the attacker's",
            forge.foreign("x5u", trap("x5u")),
        ),
        (
            "`x5c`: a certificate in the header",
            forge.foreign("x5c", json!(["MIIBAA=="])),
        ),
        ("`kid` is a URL", forge.foreign("kid", trap("kid"))),
        (
            "`kid` is a path",
            forge.foreign("kid", json!("../../../../dev/null")),
        ),
        ("`kid` is SQL", forge.foreign("kid", json!("a' OR '1'='1"))),
        (
            "`kid` is a shell's command",
            forge.foreign("kid", json!("a;curl 127.0.0.1|sh")),
        ),
        (
            "`kid` is not a text",
            forge.with_header("kid", json!({"a": 1})),
        ),
        (
            "`kid` of 4,000 bytes",
            forge.foreign("kid", json!("k".repeat(4000))),
        ),
        (
            "`crit` names an extension",
            forge.with_header("crit", json!(["exp"])),
        ),
        ("`crit` is empty", forge.with_header("crit", json!([]))),
        ("`crit` is null", forge.with_header("crit", json!(null))),
        (
            "`b64` is false, and `crit` says so",
            forge.with_header("crit", json!(["b64"])),
        ),
        (
            "an ID token's `typ`",
            forge.with_header("typ", json!("JWT")),
        ),
        (
            "no `typ`",
            forge
                .key
                .sign_with(&json!({"alg": "ES256", "kid": "a"}), &forge.claims),
        ),
        ("no `exp`", forge.without("exp")),
        ("`exp` is past", forge.with("exp", json!(token::now() - 60))),
        (
            "`exp` is a text",
            forge.with("exp", json!(later.to_string())),
        ),
        ("`exp` is null", forge.with("exp", json!(null))),
        ("`exp` is a list", forge.with("exp", json!([later]))),
        ("`exp` is negative", forge.with("exp", json!(-1))),
        (
            "`nbf` is to come",
            forge.with("nbf", json!(token::now() + 120)),
        ),
        ("`nbf` is a text", forge.with("nbf", json!("0"))),
        ("no `iss`", forge.without("iss")),
        (
            "another `iss`",
            forge.with("iss", json!("https://id.example")),
        ),
        (
            "`iss` with a slash more",
            forge.with("iss", json!(format!("{}/", forge.issuer))),
        ),
        ("`iss` is a list", forge.with("iss", json!([forge.issuer]))),
        (
            "`iss` is the attacker's own URL",
            forge.with("iss", json!(forge.trap)),
        ),
        ("no `aud`", forge.without("aud")),
        (
            "`aud` of another service",
            forge.with("aud", json!("other")),
        ),
        (
            "`aud` begins like ours",
            forge.with("aud", json!("prefd.example")),
        ),
        (
            "`aud` is an object",
            forge.with("aud", json!({AUDIENCE: true})),
        ),
        ("no `sub`", forge.without("sub")),
        ("`sub` is empty", forge.with("sub", json!(""))),
        ("`sub` is a number", forge.with("sub", json!(7))),
        (
            "`sub` has a line break",
            forge.with("sub", json!("alice\nadmin")),
        ),
        ("`sub` has a zero", forge.with("sub", json!("alice\u{0}"))),
        (
            "`sub` of 256 bytes",
            forge.with("sub", json!("u".repeat(256))),
        ),
        ("no client", forge.without("client_id")),
        (
            "the client is a list",
            forge.with("client_id", json!(["xyz"])),
        ),
        (
            "the claims are changed, the signature kept",
            forge.parts(|header, _, signature| {
                let mut claims = forge.claims.clone();
                claims["sub"] = json!("bob");
                format!("{header}.{}.{signature}", base64url(&claims))
            }),
        ),
        (
            "the header is changed, the signature kept",
            forge.parts(|_, claims, signature| {
                let header = base64url(&json!({"alg": "ES256", "kid": "a", "typ": "AT+JWT"}));
                format!("{header}.{claims}.{signature}")
            }),
        ),
        (
            "two parts",
            forge.parts(|header, claims, _| format!("{header}.{claims}")),
        ),
        (
            "four parts",
            forge.parts(|header, claims, signature| format!("{header}.{claims}.{signature}.x")),
        ),
        (
            "five parts, as an encrypted token has",
            forge.parts(|header, claims, signature| {
                format!("{header}.{claims}.{signature}.{claims}.{signature}")
            }),
        ),
        (
            "an empty header",
            forge.parts(|_, claims, signature| format!(".{claims}.{signature}")),
        ),
        (
            "base64 with padding",
            forge.parts(|header, claims, signature| format!("{header}==.{claims}==.{signature}==")),
        ),
        (
            "a signature with a byte behind it",
            forge.parts(|header, claims, signature| format!("{header}.{claims}.{signature}AA")),
        ),
        (
            "claims that are no JSON",
            forge.parts(|header, _, signature| {
                format!("{header}.{}.{signature}", base64url_bytes(b"{\"sub\":"))
            }),
        ),
        (
            "claims that are a list",
            forge.key.sign(&json!(["alice", "xyz"])),
        ),
        (
            "claims nested 3,000 deep",
            forge.parts(|header, _, signature| {
                let deep = "[".repeat(3000);
                format!("{header}.{}.{signature}", base64url_bytes(deep.as_bytes()))
            }),
        ),
        (
            "a token over 8 KiB",
            forge.with("pad", json!("p".repeat(9000))),
        ),
    ];
    cases.push((
        "a refresh token or a code: opaque, of somebody else",
        "SplxlOBeZQQYbYS6WxSbIA".into(),
    ));
    cases
}

#[test]
fn no_forged_token_is_let_in_and_nobody_is_asked_because_of_one() {
    let (key, foreign) = (Signer::new("ec256", "a"), Signer::new("ec384", "f"));
    let issuer = Issuer::start(&key);
    let octets = json!({"kty": "oct", "kid": "oct", "alg": "HS256",
        "k": base64url_bytes(b"published by mistake, 32 bytes...")});
    issuer.answer(
        KEYS,
        prefd_tests::issuer::Answer::json(&json!({ "keys": [key.jwk(), octets] })),
    );
    let trap = TcpListener::bind("127.0.0.1:0").unwrap();
    trap.set_nonblocking(true).unwrap();
    let mut claims = token::claims("alice", "xyz");
    claims["iss"] = json!(issuer.url());
    claims["aud"] = json!(AUDIENCE);
    let forge = Forge {
        key,
        claims,
        foreign,
        issuer: issuer.url(),
        trap: format!("http://{}", trap.local_addr().unwrap()),
    };
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::new(BINARY, dir.path())
        .without_key()
        .with(&["--oidc-issuer", &forge.issuer, "--jwt-audience", AUDIENCE])
        .with(&["--jwt-typ", "at+jwt"])
        .start();
    assert_eq!(
        status(&server, &forge.good()),
        200,
        "the one that all of them resemble"
    );
    let cases = table(&forge);
    for (name, token) in &cases {
        refused(&server, token, name);
    }
    assert_eq!(status(&server, &forge.good()), 200, "it goes on");
    assert!(
        trap.accept().is_err(),
        "somebody was asked because a token said so"
    );
    // Once at the start, and once for all the keys that the provider does not have.
    assert_eq!((issuer.count(METADATA), issuer.count(KEYS)), (2, 2));
    assert_eq!(issuer.count(INTROSPECTION), 0);
    assert!(!server.has_logged("panic"));
    let names: Vec<&str> = cases.iter().map(|(name, _)| *name).collect();
    assert!(names.len() >= 40);
    let listed: Vec<&str> = PAGE
        .lines()
        .filter_map(|line| line.strip_prefix("- Token: "))
        .map(|line| line.trim_end_matches('.'))
        .collect();
    assert_eq!(listed, names, "docs/security.md lists the table");
}
