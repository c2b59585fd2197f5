//! Forged tokens: each is refused, none makes the server send a request to an address in the
//! token, and the server keeps working. docs/security.md lists the tokens.

mod common;

use std::net::TcpListener;

use common::{BINARY, refused_because, status};
use jsonwebtoken::{Algorithm, EncodingKey};
use prefd_tests::issuer::{INTROSPECTION, Issuer, KEYS, METADATA, Signer};
use prefd_tests::server::Launch;
use prefd_tests::token::{self, base64url, base64url_bytes, base64url_decoded, fixture, signed};
use serde_json::{Value, json};

const AUDIENCE: &str = "prefd";
/// A symmetric key that the identity provider publishes by mistake in its key set.
const PUBLISHED_SECRET: &[u8] = b"published by mistake, 32 bytes...";

// The details of the errors. They show that each token is refused for the intended reason.
const NO_KEY: &str = "The token is not signed by a trusted key.";
const MALFORMED: &str = "The token is not a signed JWT.";
const EXTENSION: &str = "The token's crit header names an extension that is not supported.";
const TYPE: &str = "The token's typ is not the required one.";
const ALGORITHM: &str = "The token's signature algorithm is not supported.";
const NO_STRING: &str = "The token's alg, kid or typ is not a string.";
const NO_OBJECT: &str = "The token's claims cannot be read as a JSON object.";
const NO_EXPIRY: &str = "The token has no exp.";
const NO_TIME: &str = "The token's exp is not a number.";
const NO_BEGIN: &str = "The token's nbf is not a number.";
const EXPIRED: &str = "The token has expired.";
const EARLY: &str = "The token is not valid yet.";
const ISSUER: &str = "The token's issuer is not trusted.";
const SERVICE: &str = "The token is not meant for this service.";
const NO_USER: &str = "The token names no user.";
const NO_CLIENT: &str = "The token names no client.";
const TOO_LONG: &str = "The token is longer than 16384 bytes.";

/// The document that lists the same tokens in the same order.
const SECURITY_DOC: &str = include_str!("../../docs/security.md");

/// Makes valid and forged tokens.
struct Forge {
    /// The identity provider's key, which the server trusts.
    trusted: Signer,
    /// The claims of a valid token.
    claims: Value,
    /// The attacker's key.
    untrusted: Signer,
    issuer: String,
    /// The URL of the attacker's server, which must not receive a connection.
    attacker_url: String,
}

/// The header of a valid token.
fn header() -> Value {
    json!({"alg": "ES256", "kid": "a", "typ": "at+jwt"})
}

impl Forge {
    /// A token signed with the trusted key, with one changed or added header parameter.
    fn with_header(&self, name: &str, value: Value) -> String {
        let mut header = header();
        header[name] = value;
        self.trusted.sign_with(&header, &self.claims)
    }

    /// A token signed with the trusted key, with one changed or added claim.
    fn with_claim(&self, name: &str, value: Value) -> String {
        let mut claims = self.claims.clone();
        claims[name] = value;
        self.trusted.sign(&claims)
    }

    /// A token signed with the trusted key, with one claim removed.
    fn without_claim(&self, name: &str) -> String {
        let mut claims = self.claims.clone();
        claims.as_object_mut().unwrap().remove(name);
        self.trusted.sign(&claims)
    }

    /// A token that the server accepts.
    fn valid(&self) -> String {
        self.trusted.sign(&self.claims)
    }

    /// A token signed with the attacker's key, with one changed or added header parameter.
    fn untrusted(&self, name: &str, value: Value) -> String {
        let mut header = json!({"alg": "ES384", "typ": "at+jwt"});
        header[name] = value;
        self.untrusted.sign_with(&header, &self.claims)
    }

    /// A token signed with HS256 and a secret, with one changed or added header parameter.
    fn hmac(&self, name: &str, value: &str, secret: &[u8]) -> String {
        let mut header = header();
        header["alg"] = json!("HS256");
        header[name] = json!(value);
        let key = EncodingKey::from_secret(secret).unwrap();
        signed(&header, &self.claims, Algorithm::HS256, &key)
    }

    /// A valid token whose signature is replaced by `edit` of the signature's bytes.
    fn with_signature(&self, edit: impl Fn(&[u8]) -> Vec<u8>) -> String {
        self.rejoined(|header, claims, signature| {
            let signature = edit(&base64url_decoded(signature));
            format!("{header}.{claims}.{}", base64url_bytes(&signature))
        })
    }

    /// Passes the header, the claims and the signature of a valid token to `join`, each encoded
    /// as base64url.
    fn rejoined(&self, join: impl Fn(&str, &str, &str) -> String) -> String {
        let valid = self.valid();
        let parts: Vec<&str> = valid.split('.').collect();
        join(parts[0], parts[1], parts[2])
    }

    /// A token signed with the trusted key whose claims are `edit` of the text of valid claims.
    fn rejoined_claims(&self, edit: impl Fn(&str) -> String) -> String {
        let claims = edit(&self.claims.to_string());
        self.trusted.sign_bytes(&header(), claims.as_bytes())
    }

    /// A token with valid claims, the given `alg` and the given text as the signature.
    fn unsigned(&self, alg: &str, signature: &str) -> String {
        let mut header = header();
        header["alg"] = json!(alg);
        let header = base64url(&header);
        format!("{header}.{}.{signature}", base64url(&self.claims))
    }
}

/// Encodes an ECDSA signature in DER (RFC 3279 section 2.2.3). A JWS has the two integers of
/// the signature one after the other, with the same length (RFC 7518 section 3.4).
fn der(signature: &[u8]) -> Vec<u8> {
    let (r, s) = signature.split_at(signature.len() / 2);
    let integer = |number: &[u8]| {
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        // A DER integer is signed. A leading zero byte keeps the number positive, and is
        // allowed only if the next bit is 1.
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

/// Each forged token: its description in docs/security.md, the expected error detail, and the
/// token.
fn forged_tokens(forge: &Forge) -> Vec<(&'static str, &'static str, String)> {
    let jwks_text = json!({ "keys": [forge.trusted.jwk()] }).to_string();
    let public_pem = std::fs::read(fixture("keys/ec256-test-only.pub.pem")).unwrap();
    let public_key = forge.trusted.jwk();
    let untrusted_jwk = forge.untrusted.jwk();
    let attacker_url = |path: &str| json!(format!("{}/{path}", forge.attacker_url));
    let later = token::now() + 3600;
    let claims = forge.claims.to_string();
    let (open, close) = ("[".repeat(1000), "]".repeat(1000));
    let deep = format!("{},\"deep\":{open}{close}}}", claims.trim_end_matches('}'));
    let mut unencoded_payload_header = header();
    unencoded_payload_header["b64"] = json!(false);
    unencoded_payload_header["crit"] = json!(["b64"]);
    let mut untyped_header = header();
    untyped_header.as_object_mut().unwrap().remove("typ");
    let mut cases = vec![
        (
            "`alg` is `none`, and the signature is empty",
            MALFORMED,
            forge.unsigned("none", ""),
        ),
        ("`alg` is `None`", MALFORMED, forge.unsigned("None", "")),
        ("`alg` is `NONE`", MALFORMED, forge.unsigned("NONE", "")),
        (
            "`alg` is `nOnE`, and the signature is not empty",
            MALFORMED,
            forge.unsigned("nOnE", "AAAA"),
        ),
        ("`alg` is empty", ALGORITHM, forge.unsigned("", "AAAA")),
        (
            "`alg` is unknown",
            ALGORITHM,
            forge.unsigned("XS256", "AAAA"),
        ),
        (
            "the signature is missing",
            NO_KEY,
            forge.unsigned("ES256", ""),
        ),
        (
            "every byte of the signature is zero",
            NO_KEY,
            forge.unsigned("ES256", &base64url_bytes(&[0; 64])),
        ),
        (
            "the signature is encoded in DER, which a JWS does not use",
            NO_KEY,
            forge.with_signature(der),
        ),
        (
            "signed with HS256, with the trusted public key as the secret (PEM)",
            NO_KEY,
            forge.hmac("kid", "a", &public_pem),
        ),
        (
            "signed with HS256, with the text of the provider's key set as the secret",
            NO_KEY,
            forge.hmac("kid", "a", jwks_text.as_bytes()),
        ),
        (
            "signed with HS256, with the `x` of the trusted public key as the secret",
            NO_KEY,
            forge.hmac("kid", "a", public_key["x"].as_str().unwrap().as_bytes()),
        ),
        (
            "signed with HS256, with an empty secret",
            NO_KEY,
            // The signature library refuses an empty secret. HMAC pads its key with zero bytes (RFC
            // 2104), so this secret makes the same signature.
            forge.hmac("kid", "a", &[0]),
        ),
        (
            "signed with HS256, with a symmetric key that the provider publishes",
            NO_KEY,
            forge.hmac("kid", "oct", PUBLISHED_SECRET),
        ),
        (
            "`alg` is ES256, but the signature is an HMAC",
            NO_KEY,
            forge.hmac("alg", "ES256", &public_pem),
        ),
        (
            "`alg` is ES384, but the trusted key is for ES256",
            NO_KEY,
            forge.with_header("alg", json!("ES384")),
        ),
        (
            "signed with an untrusted key, but `kid` names the trusted key",
            NO_KEY,
            forge.untrusted("kid", json!("a")),
        ),
        (
            "signed with an untrusted key, and `kid` is missing",
            NO_KEY,
            forge.untrusted("typ", json!("at+jwt")),
        ),
        (
            "`jwk` contains the attacker's key",
            NO_KEY,
            forge.untrusted("jwk", untrusted_jwk.clone()),
        ),
        (
            "`jku` is the URL of the attacker's key set",
            NO_KEY,
            forge.untrusted("jku", attacker_url("jku")),
        ),
        (
            "`x5u` is the URL of the attacker's certificate",
            NO_KEY,
            forge.untrusted("x5u", attacker_url("x5u")),
        ),
        (
            "`x5c` contains a certificate",
            NO_KEY,
            forge.untrusted("x5c", json!(["MIIBAA=="])),
        ),
        (
            "`kid` is a URL",
            NO_KEY,
            forge.untrusted("kid", attacker_url("kid")),
        ),
        (
            "`kid` is a file path",
            NO_KEY,
            forge.untrusted("kid", json!("../../../../dev/null")),
        ),
        (
            "`kid` contains SQL",
            NO_KEY,
            forge.untrusted("kid", json!("a' OR '1'='1")),
        ),
        (
            "`kid` contains a shell command",
            NO_KEY,
            forge.untrusted("kid", json!("a;curl 127.0.0.1|sh")),
        ),
        (
            "`kid` is not a string",
            NO_STRING,
            forge.with_header("kid", json!({"a": 1})),
        ),
        (
            "`kid` has 4,000 bytes",
            NO_KEY,
            forge.untrusted("kid", json!("k".repeat(4000))),
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
            "`b64` is false, and `crit` names `b64`",
            EXTENSION,
            forge
                .trusted
                .sign_with(&unencoded_payload_header, &forge.claims),
        ),
        (
            "`typ` is `JWT`, as in ID tokens",
            TYPE,
            forge.with_header("typ", json!("JWT")),
        ),
        (
            "`typ` is missing",
            TYPE,
            forge.trusted.sign_with(&untyped_header, &forge.claims),
        ),
        ("`exp` is missing", NO_EXPIRY, forge.without_claim("exp")),
        (
            "`exp` is in the past",
            EXPIRED,
            forge.with_claim("exp", json!(token::now() - 60)),
        ),
        (
            "`exp` is a string",
            NO_TIME,
            forge.with_claim("exp", json!(later.to_string())),
        ),
        (
            "`exp` is null",
            NO_TIME,
            forge.with_claim("exp", json!(null)),
        ),
        (
            "`exp` is an array",
            NO_TIME,
            forge.with_claim("exp", json!([later])),
        ),
        (
            "`exp` is negative",
            EXPIRED,
            forge.with_claim("exp", json!(-1)),
        ),
        (
            "`nbf` is in the future",
            EARLY,
            forge.with_claim("nbf", json!(token::now() + 120)),
        ),
        (
            "`nbf` is a string",
            NO_BEGIN,
            forge.with_claim("nbf", json!("0")),
        ),
        ("`iss` is missing", ISSUER, forge.without_claim("iss")),
        (
            "`iss` names another issuer",
            ISSUER,
            forge.with_claim("iss", json!("https://id.example")),
        ),
        (
            "`iss` has an additional slash at the end",
            ISSUER,
            forge.with_claim("iss", json!(format!("{}/", forge.issuer))),
        ),
        (
            "`iss` is an array",
            ISSUER,
            forge.with_claim("iss", json!([forge.issuer])),
        ),
        (
            "`iss` is the attacker's own URL",
            ISSUER,
            forge.with_claim("iss", json!(forge.attacker_url)),
        ),
        ("`aud` is missing", SERVICE, forge.without_claim("aud")),
        (
            "`aud` names another service",
            SERVICE,
            forge.with_claim("aud", json!("other")),
        ),
        (
            "`aud` begins with the required audience",
            SERVICE,
            forge.with_claim("aud", json!("prefd.example")),
        ),
        (
            "`aud` is an object",
            SERVICE,
            forge.with_claim("aud", json!({AUDIENCE: true})),
        ),
        ("`sub` is missing", NO_USER, forge.without_claim("sub")),
        (
            "`sub` is empty",
            NO_USER,
            forge.with_claim("sub", json!("")),
        ),
        (
            "`sub` is a number",
            NO_USER,
            forge.with_claim("sub", json!(7)),
        ),
        (
            "`sub` contains a line break",
            NO_USER,
            forge.with_claim("sub", json!("alice\nadmin")),
        ),
        (
            "`sub` contains a NUL character",
            NO_USER,
            forge.with_claim("sub", json!("alice\u{0}")),
        ),
        (
            "`sub` has 256 bytes",
            NO_USER,
            forge.with_claim("sub", json!("u".repeat(256))),
        ),
        (
            "`client_id` is missing",
            NO_CLIENT,
            forge.without_claim("client_id"),
        ),
        (
            "`client_id` is an array",
            NO_CLIENT,
            forge.with_claim("client_id", json!(["xyz"])),
        ),
        (
            "the claims were changed after signing",
            NO_KEY,
            forge.rejoined(|header, _, signature| {
                let mut claims = forge.claims.clone();
                claims["sub"] = json!("bob");
                format!("{header}.{}.{signature}", base64url(&claims))
            }),
        ),
        (
            "the header was changed after signing",
            NO_KEY,
            forge.rejoined(|_, claims, signature| {
                let mut changed = header();
                changed["typ"] = json!("AT+JWT");
                format!("{}.{claims}.{signature}", base64url(&changed))
            }),
        ),
        (
            "the token has two parts",
            MALFORMED,
            forge.rejoined(|header, claims, _| format!("{header}.{claims}")),
        ),
        (
            "the token has four parts",
            MALFORMED,
            forge.rejoined(|header, claims, signature| format!("{header}.{claims}.{signature}.x")),
        ),
        (
            "the token has five parts, like an encrypted token",
            MALFORMED,
            forge.rejoined(|header, claims, signature| {
                format!("{header}.{claims}.{signature}.{claims}.{signature}")
            }),
        ),
        (
            "the header is empty",
            MALFORMED,
            forge.rejoined(|_, claims, signature| format!(".{claims}.{signature}")),
        ),
        (
            "the signature has base64 padding",
            MALFORMED,
            // The header and the claims are signed, so padding there would change the signature.
            forge.rejoined(|header, claims, signature| format!("{header}.{claims}.{signature}==")),
        ),
        (
            "the signature has an additional byte at the end",
            NO_KEY,
            forge.with_signature(|signature| [signature, &[0]].concat()),
        ),
        (
            "the claims are not valid JSON",
            NO_OBJECT,
            forge.trusted.sign_bytes(&header(), b"{\"sub\":"),
        ),
        (
            "the claims are an array",
            NO_OBJECT,
            forge.trusted.sign(&json!(["alice", "xyz"])),
        ),
        (
            "the claims are nested 1,000 levels deep",
            NO_OBJECT,
            forge.trusted.sign_bytes(&header(), deep.as_bytes()),
        ),
        (
            "the claims contain `sub` twice",
            "The token's claims contain a name twice.",
            forge.rejoined_claims(|claims| {
                format!("{},\"sub\":\"mallory\"}}", &claims[..claims.len() - 1])
            }),
        ),
        (
            "the header contains `kid` twice",
            "The token's header contains a name twice.",
            forge.rejoined(|header, claims, signature| {
                let header = String::from_utf8(base64url_decoded(header)).unwrap();
                let twice = format!("{},\"kid\":\"a\"}}", &header[..header.len() - 1]);
                format!("{}.{claims}.{signature}", base64url_bytes(twice.as_bytes()))
            }),
        ),
        (
            "the token is longer than 16 KiB",
            TOO_LONG,
            forge.with_claim("pad", json!("p".repeat(13_000))),
        ),
    ];
    cases.push((
        "the token is an opaque string, like a refresh token",
        MALFORMED,
        "SplxlOBeZQQYbYS6WxSbIA".into(),
    ));
    cases
}

#[test]
fn forged_token_is_refused_and_triggers_no_outgoing_request() {
    let (trusted, untrusted) = (Signer::new("ec256", "a"), Signer::new("ec384", "f"));
    let issuer = Issuer::start(&trusted);
    let symmetric_key = json!({"kty": "oct", "kid": "oct", "alg": "HS256",
        "k": base64url_bytes(PUBLISHED_SECRET)});
    issuer.respond(
        KEYS,
        prefd_tests::issuer::CannedResponse::json(
            &json!({ "keys": [trusted.jwk(), symmetric_key] }),
        ),
    );
    let attacker = TcpListener::bind("127.0.0.1:0").unwrap();
    attacker.set_nonblocking(true).unwrap();
    let mut claims = token::claims("alice", "xyz");
    claims["iss"] = json!(issuer.url());
    claims["aud"] = json!(AUDIENCE);
    // The server fetches its keys after this token was issued, so a wrong signature of a known key
    // triggers no fetch.
    claims["iat"] = json!(token::now() - 3_600);
    let forge = Forge {
        trusted,
        claims,
        untrusted,
        issuer: issuer.url(),
        attacker_url: format!("http://{}", attacker.local_addr().unwrap()),
    };
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::new(BINARY, dir.path())
        .without_key()
        .with(&["--oidc-issuer", &forge.issuer, "--jwt-audience", AUDIENCE])
        .with(&["--jwt-typ", "at+jwt"])
        .start();
    assert_eq!(
        status(&server, &forge.valid()),
        200,
        "the unchanged token must be accepted"
    );
    let cases = forged_tokens(&forge);
    for (name, reason, token) in &cases {
        refused_because(&server, token, reason, name);
    }
    assert_eq!(
        status(&server, &forge.valid()),
        200,
        "the server must still accept the unchanged token"
    );
    assert!(
        attacker.accept().is_err(),
        "a token made the server connect to the attacker's address"
    );
    // The server fetches metadata and keys once at the start, and once for each of the 10 tokens
    // with an unknown key or without `kid`.
    assert_eq!((issuer.count(METADATA), issuer.count(KEYS)), (11, 11));
    assert_eq!(issuer.count(INTROSPECTION), 0);
    assert!(!server.has_logged("panic"));
    let names: Vec<&str> = cases.iter().map(|(name, ..)| *name).collect();
    assert!(names.len() >= 40);
    let listed: Vec<&str> = SECURITY_DOC
        .lines()
        .filter_map(|line| line.strip_prefix("- Token: "))
        .map(|line| line.trim_end_matches('.'))
        .collect();
    assert_eq!(
        listed, names,
        "docs/security.md must list the tokens of this test in the same order"
    );
}
