//! Tokens that somebody made to be let in: none is, nobody is asked because of what one
//! of them says, and the server goes on. docs/security.md lists them.

mod common;

use std::net::TcpListener;

use common::{BINARY, refused_because, status};
use jsonwebtoken::{Algorithm, EncodingKey};
use prefd_tests::issuer::{INTROSPECTION, Issuer, KEYS, METADATA, Signer};
use prefd_tests::server::Launch;
use prefd_tests::token::{self, base64url, base64url_bytes, base64url_decoded, fixture, signed};
use serde_json::{Value, json};

const AUDIENCE: &str = "prefd";
/// A symmetric key.
const PUBLISHED: &[u8] = b"published by mistake, 32 bytes...";

/// What a client is told of a token, so that each is refused for what is wrong with it.
const NO_KEY: &str = "The token is not signed by a trusted key.";
const MALFORMED: &str = "The token is not a signed JWT.";
const EXTENSION: &str = "The token's crit header names an extension that is not supported.";
const TYPE: &str = "The token's typ is not the required one.";
const NO_EXPIRY: &str = "The token's exp is missing or is not a number of seconds.";
const NO_TIME: &str = "The token's exp or nbf is not a number of seconds.";
const EXPIRED: &str = "The token has expired.";
const EARLY: &str = "The token is not valid yet.";
const ISSUER: &str = "The token's issuer is not trusted.";
const SERVICE: &str = "The token is not meant for this service.";
const NO_USER: &str = "The token names no user.";
const NO_CLIENT: &str = "The token names no client.";
const TOO_LONG: &str = "The token is longer than 8 KiB.";

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

    /// Signed with this secret, with this in the header.
    fn hmac(&self, name: &str, value: &str, secret: &[u8]) -> String {
        let mut header = header();
        header["alg"] = json!("HS256");
        header[name] = json!(value);
        let key = EncodingKey::from_secret(secret);
        signed(&header, &self.claims, Algorithm::HS256, &key)
    }

    /// The parts of a good token, with its signature in another form.
    fn with_signature(&self, form: impl Fn(&[u8]) -> Vec<u8>) -> String {
        self.parts(|header, claims, signature| {
            let signature = form(&base64url_decoded(signature));
            format!("{header}.{claims}.{}", base64url_bytes(&signature))
        })
    }

    /// The parts of a good token, so put together.
    fn parts(&self, put: impl Fn(&str, &str, &str) -> String) -> String {
        let good = self.good();
        let parts: Vec<&str> = good.split('.').collect();
        put(parts[0], parts[1], parts[2])
    }

    fn unsigned(&self, alg: &str, signature: &str) -> String {
        let mut header = header();
        header["alg"] = json!(alg);
        let header = base64url(&header);
        format!("{header}.{}.{signature}", base64url(&self.claims))
    }
}

/// A signature of a JWS, which is two numbers of one length, in DER (RFC 3279 section
/// 2.2.3).
fn der(signature: &[u8]) -> Vec<u8> {
    let (r, s) = signature.split_at(signature.len() / 2);
    let integer = |number: &[u8]| {
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        // Positive, so without a first bit.
        let mut content = vec![0];
        content.extend_from_slice(&number[zeros..]);
        if content[1] < 0x80 {
            content.remove(0);
        }
        [&[2, content.len() as u8][..], &content].concat()
    };
    let integers = [integer(r), integer(s)].concat();
    [&[0x30, integers.len() as u8][..], &integers].concat()
}

/// Each with what it is called on the page, and why it is refused.
fn table(forge: &Forge) -> Vec<(&'static str, &'static str, String)> {
    let jwks_text = json!({ "keys": [forge.key.jwk()] }).to_string();
    let public_pem = std::fs::read(fixture("keys/ec256-test-only.pub.pem")).unwrap();
    let public_key = forge.key.jwk();
    let foreign_jwk = forge.foreign.jwk();
    let trap = |path: &str| json!(format!("{}/{path}", forge.trap));
    let later = token::now() + 3600;
    let claims = forge.claims.to_string();
    let (open, close) = ("[".repeat(1000), "]".repeat(1000));
    let deep = format!("{},\"deep\":{open}{close}}}", claims.trim_end_matches('}'));
    let mut unencoded = header();
    unencoded["b64"] = json!(false);
    unencoded["crit"] = json!(["b64"]);
    let mut untyped = header();
    untyped.as_object_mut().unwrap().remove("typ");
    let mut cases = vec![
        (
            "`alg` is `none`, without a signature",
            MALFORMED,
            forge.unsigned("none", ""),
        ),
        ("`alg` is `None`", MALFORMED, forge.unsigned("None", "")),
        ("`alg` is `NONE`", MALFORMED, forge.unsigned("NONE", "")),
        (
            "`alg` is `nOnE`, with some signature",
            MALFORMED,
            forge.unsigned("nOnE", "AAAA"),
        ),
        ("`alg` is empty", MALFORMED, forge.unsigned("", "AAAA")),
        (
            "`alg` is unknown",
            MALFORMED,
            forge.unsigned("XS256", "AAAA"),
        ),
        (
            "the signature is left out",
            NO_KEY,
            forge.unsigned("ES256", ""),
        ),
        (
            "the signature is of zeros",
            NO_KEY,
            forge.unsigned("ES256", &base64url_bytes(&[0; 64])),
        ),
        (
            "a signature in DER, which is not the form of a JWS",
            NO_KEY,
            forge.with_signature(der),
        ),
        (
            "HS256 with the public key's PEM as the secret",
            NO_KEY,
            forge.hmac("kid", "a", &public_pem),
        ),
        (
            "HS256 with the key set's text as the secret",
            NO_KEY,
            forge.hmac("kid", "a", jwks_text.as_bytes()),
        ),
        (
            "HS256 with the public key's `x` as the secret",
            NO_KEY,
            forge.hmac("kid", "a", public_key["x"].as_str().unwrap().as_bytes()),
        ),
        (
            "HS256 with an empty secret",
            NO_KEY,
            forge.hmac("kid", "a", b""),
        ),
        (
            "HS256 with the `k` of a symmetric key that the provider publishes",
            NO_KEY,
            forge.hmac("kid", "oct", PUBLISHED),
        ),
        (
            "an HMAC under the name ES256",
            NO_KEY,
            forge.hmac("alg", "ES256", &public_pem),
        ),
        (
            "another algorithm than the key's own",
            NO_KEY,
            forge.with_header("alg", json!("ES384")),
        ),
        (
            "a foreign key, with the `kid` of a trusted one",
            NO_KEY,
            forge.foreign("kid", json!("a")),
        ),
        (
            "a foreign key, without a `kid`",
            NO_KEY,
            forge.foreign("typ", json!("at+jwt")),
        ),
        (
            "`jwk`: its own key in the header",
            NO_KEY,
            forge.foreign("jwk", foreign_jwk.clone()),
        ),
        (
            "`jku`: a key set of the attacker's",
            NO_KEY,
            forge.foreign("jku", trap("jku")),
        ),
        (
            "`x5u`: a certificate of the attacker's",
            NO_KEY,
            forge.foreign("x5u", trap("x5u")),
        ),
        (
            "`x5c`: a certificate in the header",
            NO_KEY,
            forge.foreign("x5c", json!(["MIIBAA=="])),
        ),
        ("`kid` is a URL", NO_KEY, forge.foreign("kid", trap("kid"))),
        (
            "`kid` is a path",
            NO_KEY,
            forge.foreign("kid", json!("../../../../dev/null")),
        ),
        (
            "`kid` is SQL",
            NO_KEY,
            forge.foreign("kid", json!("a' OR '1'='1")),
        ),
        (
            "`kid` is a shell's command",
            NO_KEY,
            forge.foreign("kid", json!("a;curl 127.0.0.1|sh")),
        ),
        (
            "`kid` is not a text",
            MALFORMED,
            forge.with_header("kid", json!({"a": 1})),
        ),
        (
            "`kid` of 4,000 bytes",
            NO_KEY,
            forge.foreign("kid", json!("k".repeat(4000))),
        ),
        (
            "`crit` names an extension",
            EXTENSION,
            forge.with_header("crit", json!(["exp"])),
        ),
        (
            "`crit` is empty",
            EXTENSION,
            forge.with_header("crit", json!([])),
        ),
        (
            "`crit` is null",
            EXTENSION,
            forge.with_header("crit", json!(null)),
        ),
        (
            "`b64` is false, and `crit` says so",
            EXTENSION,
            forge.key.sign_with(&unencoded, &forge.claims),
        ),
        (
            "an ID token's `typ`",
            TYPE,
            forge.with_header("typ", json!("JWT")),
        ),
        (
            "no `typ`",
            TYPE,
            forge.key.sign_with(&untyped, &forge.claims),
        ),
        ("no `exp`", NO_EXPIRY, forge.without("exp")),
        (
            "`exp` is past",
            EXPIRED,
            forge.with("exp", json!(token::now() - 60)),
        ),
        (
            "`exp` is a text",
            NO_EXPIRY,
            forge.with("exp", json!(later.to_string())),
        ),
        ("`exp` is null", NO_EXPIRY, forge.with("exp", json!(null))),
        (
            "`exp` is a list",
            MALFORMED,
            forge.with("exp", json!([later])),
        ),
        ("`exp` is negative", NO_EXPIRY, forge.with("exp", json!(-1))),
        (
            "`nbf` is to come",
            EARLY,
            forge.with("nbf", json!(token::now() + 120)),
        ),
        ("`nbf` is a text", NO_TIME, forge.with("nbf", json!("0"))),
        ("no `iss`", ISSUER, forge.without("iss")),
        (
            "another `iss`",
            ISSUER,
            forge.with("iss", json!("https://id.example")),
        ),
        (
            "`iss` with a slash more",
            ISSUER,
            forge.with("iss", json!(format!("{}/", forge.issuer))),
        ),
        (
            "`iss` is a list",
            ISSUER,
            forge.with("iss", json!([forge.issuer])),
        ),
        (
            "`iss` is the attacker's own URL",
            ISSUER,
            forge.with("iss", json!(forge.trap)),
        ),
        ("no `aud`", SERVICE, forge.without("aud")),
        (
            "`aud` of another service",
            SERVICE,
            forge.with("aud", json!("other")),
        ),
        (
            "`aud` begins like ours",
            SERVICE,
            forge.with("aud", json!("prefd.example")),
        ),
        (
            "`aud` is an object",
            SERVICE,
            forge.with("aud", json!({AUDIENCE: true})),
        ),
        ("no `sub`", NO_USER, forge.without("sub")),
        ("`sub` is empty", NO_USER, forge.with("sub", json!(""))),
        ("`sub` is a number", NO_USER, forge.with("sub", json!(7))),
        (
            "`sub` has a line break",
            NO_USER,
            forge.with("sub", json!("alice\nadmin")),
        ),
        (
            "`sub` has a zero",
            NO_USER,
            forge.with("sub", json!("alice\u{0}")),
        ),
        (
            "`sub` of 256 bytes",
            NO_USER,
            forge.with("sub", json!("u".repeat(256))),
        ),
        ("no client", NO_CLIENT, forge.without("client_id")),
        (
            "the client is a list",
            NO_CLIENT,
            forge.with("client_id", json!(["xyz"])),
        ),
        (
            "the claims are changed, the signature kept",
            NO_KEY,
            forge.parts(|header, _, signature| {
                let mut claims = forge.claims.clone();
                claims["sub"] = json!("bob");
                format!("{header}.{}.{signature}", base64url(&claims))
            }),
        ),
        (
            "the header is changed, the signature kept",
            NO_KEY,
            forge.parts(|_, claims, signature| {
                let mut changed = header();
                changed["typ"] = json!("AT+JWT");
                format!("{}.{claims}.{signature}", base64url(&changed))
            }),
        ),
        (
            "two parts",
            MALFORMED,
            forge.parts(|header, claims, _| format!("{header}.{claims}")),
        ),
        (
            "four parts",
            MALFORMED,
            forge.parts(|header, claims, signature| format!("{header}.{claims}.{signature}.x")),
        ),
        (
            "five parts, as an encrypted token has",
            MALFORMED,
            forge.parts(|header, claims, signature| {
                format!("{header}.{claims}.{signature}.{claims}.{signature}")
            }),
        ),
        (
            "an empty header",
            MALFORMED,
            forge.parts(|_, claims, signature| format!(".{claims}.{signature}")),
        ),
        (
            "base64 with padding",
            MALFORMED,
            // Only where it is no part of what is signed.
            forge.parts(|header, claims, signature| format!("{header}.{claims}.{signature}==")),
        ),
        (
            "a signature with a byte behind it",
            NO_KEY,
            forge.with_signature(|signature| [signature, &[0]].concat()),
        ),
        (
            "claims that are no JSON",
            MALFORMED,
            forge.key.sign_bytes(&header(), b"{\"sub\":"),
        ),
        (
            "claims that are a list",
            MALFORMED,
            forge.key.sign(&json!(["alice", "xyz"])),
        ),
        (
            "claims nested 1,000 deep",
            MALFORMED,
            forge.key.sign_bytes(&header(), deep.as_bytes()),
        ),
        (
            "a token over 8 KiB",
            TOO_LONG,
            forge.with("pad", json!("p".repeat(9000))),
        ),
    ];
    cases.push((
        "a refresh token or a code: opaque, of somebody else",
        MALFORMED,
        "SplxlOBeZQQYbYS6WxSbIA".into(),
    ));
    cases
}

#[test]
fn no_forged_token_is_let_in_and_nobody_is_asked_because_of_one() {
    let (key, foreign) = (Signer::new("ec256", "a"), Signer::new("ec384", "f"));
    let issuer = Issuer::start(&key);
    let octets = json!({"kty": "oct", "kid": "oct", "alg": "HS256",
        "k": base64url_bytes(PUBLISHED)});
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
    for (name, reason, token) in &cases {
        refused_because(&server, token, reason, name);
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
    let names: Vec<&str> = cases.iter().map(|(name, ..)| *name).collect();
    assert!(names.len() >= 40);
    let listed: Vec<&str> = PAGE
        .lines()
        .filter_map(|line| line.strip_prefix("- Token: "))
        .map(|line| line.trim_end_matches('.'))
        .collect();
    assert_eq!(listed, names, "docs/security.md lists the table");
}
