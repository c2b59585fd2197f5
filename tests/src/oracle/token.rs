//! The oracle for token verification:
//!
//! - A token is rejected unless a configured key signed it with that key's algorithm, it is valid
//!   now, and it names a user and a client.
//! - A token that clearly meets these conditions is accepted, with the right user and client.
//!
//! An input is a token, a recipe for a token, or a list of choices. A recipe has three lines:
//! `sign ` and the name of the signer, the header as JSON, and the claims as JSON. In the claims,
//! `$NOW` with an offset such as `$NOW+60` stands for a time.

use std::cell::RefCell;
use std::io::Write;

use arbitrary::Unstructured;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, crypto, jwk::Jwk};
use prefd::fuzzing::{KeyFiles, Verifier};
use serde_json::{Map, Value, json};

use crate::oracle::{Choices, choices};
use crate::token::{SECRET, base64url_bytes, fixture, now, secret_file};

const ISSUER: &str = "https://issuer.test";
const AUDIENCE: &str = "prefd";
const LEEWAY_SECONDS: f64 = 30.0;
const MAX_TOKEN_BYTES: usize = 16_384;

/// A configured key: key id, algorithm, name of the algorithm, key.
type Key = (Option<String>, Algorithm, &'static str, DecodingKey);
/// A signer: name, algorithm, key. Without an algorithm, tokens get an empty signature.
type Signer = (&'static str, Option<Algorithm>, EncodingKey);

/// The verifiers under test, and the signers of the generated tokens.
struct TokenOracle {
    verifiers: Vec<ConfiguredVerifier>,
    signers: Vec<Signer>,
}

/// A verifier and the keys that it is configured with.
struct ConfiguredVerifier {
    verifier: Verifier,
    keys: Vec<Key>,
    names_issuer: bool,
}

/// Runs the oracle on an input.
pub fn run(input: &[u8]) {
    thread_local! {
        static ORACLE: RefCell<Option<TokenOracle>> = const { RefCell::new(None) };
    }
    ORACLE.with_borrow_mut(|oracle| {
        let oracle = oracle.get_or_insert_with(TokenOracle::new);
        let token = match choices(input) {
            Some((signer, mut choices)) => oracle.generate(signer, &mut choices),
            None => oracle
                .token_from_recipe(input)
                .unwrap_or_else(|| input.to_vec()),
        };
        let now = now() as f64;
        for verifier in &oracle.verifiers {
            verifier.check(&token, now);
        }
    });
}

impl TokenOracle {
    fn new() -> Self {
        let read = |name: &str| std::fs::read(fixture(&format!("keys/{name}"))).unwrap();
        let (rsa, p256) = (
            read("rsa-test-only.pub.pem"),
            read("ec256-test-only.pub.pem"),
        );
        let (p384, ed) = (
            read("ec384-test-only.pub.pem"),
            read("ed25519-test-only.pub.pem"),
        );
        let rsa_private = EncodingKey::from_rsa_pem(&read("rsa-test-only.pem")).unwrap();
        let secret = EncodingKey::from_secret(SECRET.as_bytes()).unwrap();
        let other = EncodingKey::from_secret(b"another secret, of 32 bytes and more").unwrap();
        let ec = |name| EncodingKey::from_ec_pem(&read(name)).unwrap();
        use Algorithm as A;
        let signers = vec![
            ("hs256", Some(A::HS256), secret.clone()),
            ("es256", Some(A::ES256), ec("ec256-test-only.pem")),
            (
                "eddsa",
                Some(A::EdDSA),
                EncodingKey::from_ed_pem(&read("ed25519-test-only.pem")).unwrap(),
            ),
            ("none", None, secret.clone()),
            // A public key used as an HMAC secret, the attack in RFC 8725 section 2.1.
            (
                "rsa-public",
                Some(A::HS256),
                EncodingKey::from_secret(&rsa).unwrap(),
            ),
            (
                "ec-public",
                Some(A::HS256),
                EncodingKey::from_secret(&p256).unwrap(),
            ),
            ("other", Some(A::HS256), other),
            ("hs512", Some(A::HS512), secret),
            ("es384", Some(A::ES384), ec("ec384-test-only.pem")),
            ("rs256", Some(A::RS256), rsa_private.clone()),
            ("ps256", Some(A::PS256), rsa_private),
        ];
        let of_files: Vec<Key> = vec![
            (
                None,
                A::HS256,
                "HS256",
                DecodingKey::from_secret(SECRET.as_bytes()).unwrap(),
            ),
            (
                None,
                A::RS256,
                "RS256",
                DecodingKey::from_rsa_pem(&rsa).unwrap(),
            ),
            (
                None,
                A::ES256,
                "ES256",
                DecodingKey::from_ec_pem(&p256).unwrap(),
            ),
            (
                None,
                A::ES384,
                "ES384",
                DecodingKey::from_ec_pem(&p384).unwrap(),
            ),
            (
                None,
                A::EdDSA,
                "EdDSA",
                DecodingKey::from_ed_pem(&ed).unwrap(),
            ),
        ];
        let secret = secret_file();
        let path = |name: &str| fixture(&format!("keys/{name}"));
        let files = KeyFiles {
            secret: Some(&secret),
            public_keys: ["rsa", "ec256", "ec384", "ed25519"]
                .map(|key| path(&format!("{key}-test-only.pub.pem")))
                .to_vec(),
            jwks: None,
        };
        let strict = ConfiguredVerifier::with_set(&read("jwks-test-only.json"));
        let plain = ConfiguredVerifier {
            verifier: Verifier::new(&files, None, None).unwrap(),
            keys: of_files,
            names_issuer: false,
        };
        Self {
            verifiers: vec![plain, strict],
            signers,
        }
    }

    fn sign(&self, signer: usize, header: &[u8], claims: &[u8]) -> Vec<u8> {
        let (_, algorithm, key) = &self.signers[signer];
        let message = format!("{}.{}", base64url_bytes(header), base64url_bytes(claims));
        let signature = algorithm.map(|algorithm| {
            crypto::sign(message.as_bytes(), key, algorithm).expect("the key fits the algorithm")
        });
        format!("{message}.{}", signature.unwrap_or_default()).into_bytes()
    }

    /// Creates the token of a recipe. Returns `None` if the input is not a recipe.
    fn token_from_recipe(&self, input: &[u8]) -> Option<Vec<u8>> {
        let recipe = input.strip_prefix(b"sign ")?;
        let mut lines = recipe.splitn(3, |byte| *byte == b'\n');
        let (name, header, claims) = (lines.next()?, lines.next()?, lines.next()?);
        let signer = self
            .signers
            .iter()
            .position(|(n, ..)| n.as_bytes() == name)?;
        let claims = claims.strip_suffix(b"\n").unwrap_or(claims);
        let claims = match std::str::from_utf8(claims) {
            Ok(text) => replace_times(text).into_bytes(),
            Err(_) => claims.to_vec(),
        };
        Some(self.sign(signer, header, &claims))
    }

    /// Generates a valid token, and then changes it as the choices say.
    fn generate(&self, signer: u8, choices: &mut Unstructured<'_>) -> Vec<u8> {
        let last = self.signers.len() - 1;
        let signer = usize::from(signer) + choices.upto(last - 7);
        let right = [
            "HS256", "ES256", "EdDSA", "none", "HS256", "HS256", "HS256", "HS512", "ES384",
            "RS256", "PS256",
        ];
        let mut header = Map::new();
        header.insert("alg".to_owned(), json!(right[signer]));
        for _ in 0..choices.upto(2) {
            let (name, value) = choices.one(&header_members()).clone();
            header.insert(name.to_owned(), value);
        }
        let mut claims = Map::new();
        claims.insert("sub".to_owned(), json!("u"));
        claims.insert("client_id".to_owned(), json!("c"));
        claims.insert("iss".to_owned(), json!(ISSUER));
        claims.insert("aud".to_owned(), json!(AUDIENCE));
        claims.insert("exp".to_owned(), json!(now() + 3600));
        for _ in 0..choices.upto(3) {
            let name = *choices.one(&[
                "exp",
                "nbf",
                "sub",
                "client_id",
                "azp",
                "iss",
                "aud",
                "iat",
                "scope",
            ]);
            match choices.one(&claim_values()) {
                Some(value) => drop(claims.insert(name.to_owned(), value.clone())),
                None => drop(claims.remove(name)),
            }
        }
        let text = |members| Value::Object(members).to_string();
        let mut token = self.sign(signer, text(header).as_bytes(), text(claims).as_bytes());
        if choices.rarely(2) {
            mutate(&mut token, choices);
        }
        token
    }
}

fn header_members() -> Vec<(&'static str, Value)> {
    let algorithms = [
        "HS256", "HS384", "HS512", "RS256", "ES256", "ES384", "EdDSA", "PS256", "none", "None", "",
    ];
    let mut members: Vec<_> = algorithms.map(|name| ("alg", json!(name))).to_vec();
    members.extend([
        ("typ", json!("JWT")),
        ("typ", json!(1)),
        ("kid", json!("rsa")),
        ("kid", json!("")),
        ("kid", json!(null)),
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("crit", json!(null)),
        ("crit", json!("exp")),
        ("b64", json!(false)),
        ("jku", json!("https://elsewhere.test/keys")),
        ("jwk", json!({"kty": "oct", "k": "c2VjcmV0"})),
        ("alg", json!(["HS256"])),
        ("alg", json!(null)),
    ]);
    members
}

fn claim_values() -> Vec<Option<Value>> {
    let now = now().cast_signed();
    let mut values: Vec<Option<Value>> = [-3600, -31, -30, -29, -1, 0, 1, 29, 30, 31, 3600]
        .map(|offset| Some(json!(now + offset)))
        .to_vec();
    values.extend(
        [
            json!(now as f64 - 29.5),
            json!(now as f64 + 30.5),
            json!(-1),
            json!(0),
            json!(1e300),
            json!(u64::MAX),
            json!(now.to_string()),
            json!(null),
            json!(true),
            json!([]),
            json!({}),
            json!(""),
            json!("other"),
            json!("a\u{0}b"),
            json!("x".repeat(255)),
            json!("x".repeat(256)),
            json!(ISSUER),
            json!([ISSUER]),
            json!([AUDIENCE, "x"]),
            json!(["x"]),
        ]
        .map(Some),
    );
    values.push(None);
    values
}

/// Makes one random change to the text of a token.
fn mutate(token: &mut Vec<u8>, choices: &mut Unstructured<'_>) {
    let at = choices.upto(token.len() - 1);
    match choices.upto(5) {
        0 => token[at] ^= 1 << choices.upto(7),
        1 => token.truncate(at),
        2 => drop(token.splice(at..at, choices.some_bytes(8))),
        3 => token.push(*choices.one(b"=.A \n")),
        4 => {
            // Replaces the signature.
            let parts: Vec<&[u8]> = token.split(|byte| *byte == b'.').collect();
            let third = *choices.one(&[parts[0], parts[1], b"", b"AAAA"]);
            *token = [parts[0], parts[1], third].join(&b'.');
        }
        _ => token[at] = token[at].swap_case(),
    }
}

trait SwapCase {
    fn swap_case(self) -> Self;
}

impl SwapCase for u8 {
    fn swap_case(self) -> Self {
        if self.is_ascii_alphabetic() {
            self ^ 0x20
        } else {
            self
        }
    }
}

/// Replaces `$NOW`, `$NOW+30` and similar placeholders by times.
fn replace_times(text: &str) -> String {
    let mut parts = text.split("$NOW");
    let mut timed = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let signed = part.strip_prefix(['+', '-']).unwrap_or_default();
        let digits = signed
            .bytes()
            .take(9)
            .take_while(u8::is_ascii_digit)
            .count();
        let taken = if digits == 0 { 0 } else { digits + 1 };
        let offset: i64 = part[..taken].parse().unwrap_or(0);
        timed.push_str(&(now().cast_signed() + offset).to_string());
        timed.push_str(&part[taken..]);
    }
    timed
}

/// The verdict of this oracle on a token.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// The verifier must reject the token, for the given reason.
    Bad(&'static str),
    /// The verifier may accept the token only for the user and client in `names`. If `plain` is
    /// true, the token has no unusual parts, and the verifier must accept it.
    Good {
        names: (String, String),
        plain: bool,
    },
}

impl ConfiguredVerifier {
    /// Configures a verifier with a JWKS, an issuer and an audience. `file` has the public keys by
    /// name. Two of the keys get a key id.
    fn with_set(file: &[u8]) -> Self {
        use Algorithm as A;
        let mut named: Value = serde_json::from_slice(file).unwrap();
        named["rsa"]["kid"] = json!("rsa");
        named["ec256"]["kid"] = json!("ec");
        let algorithms = [
            ("rsa", A::RS256, "RS256"),
            ("ec256", A::ES256, "ES256"),
            ("ec384", A::ES384, "ES384"),
            ("ed25519", A::EdDSA, "EdDSA"),
        ];
        let keys = algorithms.map(|(key, algorithm, name)| {
            let jwk: Jwk = serde_json::from_value(named[key].clone()).unwrap();
            let key = DecodingKey::from_jwk(&jwk).unwrap();
            (jwk.common.key_id, algorithm, name, key)
        });
        let set: Vec<&Value> = algorithms.iter().map(|(key, ..)| &named[key]).collect();
        let mut jwks = tempfile::NamedTempFile::new().unwrap();
        jwks.write_all(json!({ "keys": set }).to_string().as_bytes())
            .unwrap();
        let files = KeyFiles {
            jwks: Some(jwks.path()),
            ..KeyFiles::default()
        };
        Self {
            verifier: Verifier::new(&files, Some(ISSUER), Some(AUDIENCE)).unwrap(),
            keys: keys.into(),
            names_issuer: true,
        }
    }

    fn check(&self, token: &[u8], now: f64) {
        let verdict = self.verdict(token, now).unwrap_or_else(Verdict::Bad);
        let shown = || String::from_utf8_lossy(token).into_owned();
        match (self.verifier.verify(token, now), &verdict) {
            (Ok(found), Verdict::Good { names, .. }) => assert_eq!(found, *names, "{}", shown()),
            (Ok(found), Verdict::Bad(why)) => panic!(
                "accepted {found:?}, expected a rejection because {why}: {}",
                shown()
            ),
            (Err(why), Verdict::Good { plain: true, .. }) => {
                panic!("rejected a valid token: {why}: {}", shown())
            }
            (Err(_), _) => {}
        }
    }

    fn verdict(&self, token: &[u8], now: f64) -> Result<Verdict, &'static str> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err("it is too long");
        }
        let text = std::str::from_utf8(token).map_err(|_| "it is not UTF-8")?;
        let parts: Vec<&str> = text.split('.').collect();
        let [header_text, claims_text, signature] = parts[..] else {
            return Err("it does not have three parts");
        };
        let header = members(header_text)?;
        let claims = members(claims_text)?;
        if header.contains_key("crit") {
            return Err("it has a crit header");
        }
        let message = format!("{header_text}.{claims_text}");
        let is_signed = self.keys.iter().any(|(id, algorithm, name, key)| {
            let is_meant = match (id, header.get("kid").and_then(Value::as_str)) {
                (Some(ours), Some(theirs)) => ours == theirs,
                _ => true,
            };
            is_meant
                && header
                    .get("alg")
                    .and_then(Value::as_str)
                    .is_some_and(|alg| {
                        // RFC 9864 gives EdDSA with Ed25519 a name of its own.
                        alg == *name || (alg == "Ed25519" && *name == "EdDSA")
                    })
                && crypto::verify(signature, message.as_bytes(), key, *algorithm).is_ok_and(|is| is)
        });
        if !is_signed {
            return Err("no configured key signed it");
        }
        self.check_claims(&header, &claims, now)
            .map(|(names, plain)| Verdict::Good {
                names,
                plain: plain && is_canonical(header_text) && is_canonical(claims_text),
            })
    }

    /// Checks the claims. Returns the user, the client, and true if header and claims have no
    /// unusual parts.
    fn check_claims(
        &self,
        header: &Map<String, Value>,
        claims: &Map<String, Value>,
        now: f64,
    ) -> Result<((String, String), bool), &'static str> {
        let number = |claim: &str| match claims.get(claim) {
            None => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or("a time is not a number"),
        };
        let expires = number("exp")?.ok_or("it has no exp claim")?;
        let begins = number("nbf")?;
        if now >= expires + LEEWAY_SECONDS || begins.is_some_and(|b| now + LEEWAY_SECONDS < b) {
            return Err("it is expired or not yet valid");
        }
        if self.names_issuer {
            let audience = claims.get("aud").unwrap_or(&Value::Null);
            let is_meant = *audience == json!(AUDIENCE)
                || audience
                    .as_array()
                    .is_some_and(|all| all.contains(&json!(AUDIENCE)));
            if claims.get("iss") != Some(&json!(ISSUER)) || !is_meant {
                return Err("its issuer or audience is wrong");
            }
        }
        let name = |value: Option<&Value>| {
            let name = value.and_then(Value::as_str)?;
            let fits = !name.is_empty() && name.len() <= 255 && !name.contains(char::is_control);
            fits.then(|| name.to_owned())
        };
        let present = |claim: &str| {
            let value = claims.get(claim);
            value.filter(|value| ![json!(null), json!(""), json!([])].contains(value))
        };
        let client = present("client_id").or_else(|| present("azp"));
        let names = name(claims.get("sub"))
            .zip(name(client))
            .ok_or("it names no user or no client")?;
        let usual = |(name, value): (&String, &Value)| {
            value.is_string() && ["alg", "typ", "kid"].contains(&name.as_str())
        };
        // A token with an unusual time, such as a fraction, may be accepted or rejected.
        let is_time = |seconds: f64| (0.0..1e11).contains(&seconds) && seconds.fract() == 0.0;
        let plain = header.iter().all(usual) && is_time(expires) && begins.is_none_or(is_time);
        Ok((names, plain))
    }
}

/// Decodes a JSON object in base64url.
fn members(part: &str) -> Result<Map<String, Value>, &'static str> {
    let bytes = decoded(part).ok_or("a part is not base64url")?;
    serde_json::from_slice(&bytes).map_err(|_| "a part is not a JSON object")
}

/// Returns true if a part is base64url of JSON exactly as serde_json writes it.
fn is_canonical(part: &str) -> bool {
    let members = members(part).unwrap_or_default();
    base64url_bytes(Value::Object(members).to_string().as_bytes()) == part
}

fn decoded(part: &str) -> Option<Vec<u8>> {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (mut bits, mut held, mut bytes) = (0_u32, 0, Vec::new());
    for character in part.chars() {
        bits = bits << 6 | u32::try_from(ALPHABET.find(character)?).unwrap();
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held & 0xff) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Some(bytes)
}
