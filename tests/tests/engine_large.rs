//! Large documents are streamed in and out rather than held in memory, and the engine removes
//! their blobs when they are replaced.

use prefd_engine::{Config, Engine, Error, Precondition, WriteOptions};

fn open(dir: &tempfile::TempDir) -> Engine {
    Engine::open(Config::new(dir.path())).unwrap()
}

fn text(engine: &Engine, user: &str, client: &str) -> Option<String> {
    let document = engine.namespace(user, client).unwrap().get().unwrap();
    document.map(|d| String::from_utf8(d.read().unwrap()).unwrap())
}

fn options(precondition: Precondition) -> WriteOptions {
    WriteOptions {
        precondition,
        ..WriteOptions::default()
    }
}

#[test]
fn large_document_streams_in_and_out_and_its_blob_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir);
    let namespace = engine.namespace("u", "c").unwrap();
    let blobs = || std::fs::read_dir(dir.path().join("blobs")).unwrap().count();
    let values = [700_000, 1, 3_000_000, 65_536, 131_072];
    let mut body = String::from("{");
    for (index, bytes) in values.iter().enumerate() {
        let value: String = (0..*bytes)
            .map(|i| char::from(b'a' + ((i + index) % 26) as u8))
            .collect();
        body.push_str(&format!(
            "{}\"k{index}\": \"{value}\"",
            if index == 0 { "" } else { " , " }
        ));
    }
    body.push('}');
    let expected = body.replace(": ", ":").replace(" , ", ",");
    for chunk in [1_000, 65_536, usize::MAX] {
        let mut writer = engine.writer();
        assert!(writer.stays_in_memory(1_000) && !writer.stays_in_memory(1_000_000));
        for piece in body.as_bytes().chunks(chunk) {
            writer.write(piece).unwrap();
        }
        let prepared = writer.finish().unwrap();
        assert_eq!(prepared.usage().bytes, expected.len() as u64);
        namespace.write(prepared, WriteOptions::default()).unwrap();
        let document = namespace.get().unwrap().unwrap();
        assert!(document.in_memory().is_none());
        assert!(
            document
                .chunks()
                .all(|chunk| chunk.unwrap().len() <= 65_536)
        );
        assert_eq!(document.read().unwrap(), expected.as_bytes());
        for bytes in [0, 65_536, 200_000, 10_000_000] {
            let mut read = Vec::new();
            // Keep some of the chunks, so that the reader cannot reuse their buffers.
            let mut held = Vec::new();
            for (index, chunk) in document.chunks_within(bytes).enumerate() {
                let chunk = chunk.unwrap();
                assert!(chunk.len() <= 65_536);
                read.extend_from_slice(&chunk);
                if index % 3 == 0 {
                    held.push((read.len() - chunk.len(), chunk));
                }
            }
            assert!(read == expected.as_bytes(), "within {bytes} bytes");
            for (at, chunk) in held {
                assert!(chunk == expected.as_bytes()[at..at + chunk.len()]);
            }
        }
        let third: Vec<u8> = document
            .value("k2")
            .unwrap()
            .flat_map(|c| c.unwrap())
            .collect();
        assert_eq!(third.len(), 3_000_002);
        assert_eq!(namespace.stat().unwrap().unwrap(), *document.stat());
    }
    // A reader that opened the old document can still read it after the replacement.
    let old = namespace.get().unwrap().unwrap();
    namespace
        .write(br#"{"now":"small"}"#, WriteOptions::default())
        .unwrap();
    assert_eq!(old.read().unwrap(), expected.as_bytes());
    // Uploads that are dropped or refused leave no blob behind.
    let mut writer = engine.writer();
    writer.write(&body.as_bytes()[..1_000_000]).unwrap();
    drop(writer);
    let mut writer = engine.writer();
    writer.write(body.as_bytes()).unwrap();
    drop(writer.finish().unwrap());
    let mut writer = engine.writer();
    writer.write(body.as_bytes()).unwrap();
    let failed = namespace.write(writer.finish().unwrap(), options(Precondition::absent()));
    assert!(matches!(
        failed,
        Err(Error::PreconditionFailed { current: Some(_) })
    ));
    engine.close().unwrap();
    assert_eq!(blobs(), 0);
    assert_eq!(
        text(&open(&dir), "u", "c").as_deref(),
        Some(r#"{"now":"small"}"#)
    );
}

#[test]
fn large_document_survives_clean_reopens() {
    let dir = tempfile::tempdir().unwrap();
    let body = format!("{{\"a\":\"{}\",\"b\":1}}", "x".repeat(400_000));
    for run in 0..3 {
        let engine = open(&dir);
        let namespace = engine.namespace("u", "c").unwrap();
        if run > 0 {
            assert_eq!(text(&engine, "u", "c").as_deref(), Some(body.as_str()));
        }
        namespace
            .write(body.as_bytes(), WriteOptions::default())
            .unwrap();
        engine.close().unwrap();
    }
    let blobs = std::fs::read_dir(dir.path().join("blobs")).unwrap().count();
    assert_eq!(blobs, 1, "the blobs of replaced documents must be removed");
}

#[test]
fn stat_and_body_agree_for_short_and_long_keys_and_bodies() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(dir.path());
    config.cache_bytes = 0;
    // Ten long keys make about 8 KiB of metadata, which is read before the body.
    let keys: Vec<String> = (0..10)
        .map(|index| format!("{index}{}", "\\u0061".repeat(127)))
        .collect();
    let with_values = |bytes: usize| {
        let members: Vec<String> = keys
            .iter()
            .map(|key| format!("\"{key}\":\"{}\"", "v".repeat(bytes)))
            .collect();
        format!("{{{}}}", members.join(","))
    };
    let bodies = [
        ("short", "{\"a\":1}".to_owned()),
        (
            "long body",
            format!("{{\"a\":\"{}\"}}", "x".repeat(200_000)),
        ),
        ("long keys", with_values(1)),
        ("long keys and body", with_values(20_000)),
        ("long keys and a blob", with_values(100_000)),
    ];
    for run in 0..2 {
        let engine = Engine::open(config.clone()).unwrap();
        for (client, body) in &bodies {
            let namespace = engine.namespace("u", client).unwrap();
            if run == 0 {
                namespace
                    .write(body.as_bytes(), WriteOptions::default())
                    .unwrap();
            }
            let document = namespace.get().unwrap().unwrap();
            assert_eq!(
                namespace.stat().unwrap().unwrap(),
                *document.stat(),
                "{client}"
            );
            assert_eq!(document.stat().usage.bytes, body.len() as u64, "{client}");
            assert!(document.read().unwrap() == body.as_bytes(), "{client}");
        }
        engine.close().unwrap();
    }
}
