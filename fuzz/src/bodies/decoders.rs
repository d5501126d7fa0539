//! Everything that makes something of bytes or text that come from outside.

use thence::config::{Flags, Settings};
use thence::model::{CollectionName, ObjectKey, Path, Segment, SignedTicket, Value, parse_json};
use thence::replica::Message;
use thence::store::BackupReader;
use thence::transport::PeerAddress;
use thence::transport::framing::{Frame, FrameDecoder};

use super::world::{PEER, REVISION, key, space};

/// Frames come out the same however the bytes are cut, and encode to the bytes that they were.
pub fn frame(data: &[u8]) {
    const BYTES_MAX: usize = 1 << 16;
    let Some((&step, bytes)) = data.split_first() else { return };
    let whole = frames(bytes, usize::MAX, BYTES_MAX);
    assert_eq!(whole, frames(bytes, usize::from(step.max(1)), BYTES_MAX));
    let mut encoded = Vec::new();
    for frame in &whole.0 {
        frame.encode(BYTES_MAX, &mut encoded).expect("it was received within the limit");
    }
    assert!(bytes.starts_with(&encoded));
    if whole.1 {
        assert_eq!(bytes, encoded, "a stream that may end has nothing but frames");
    }
}

/// The frames, and whether the stream may end there.
fn frames(mut bytes: &[u8], step: usize, bytes_max: usize) -> (Vec<Frame>, bool) {
    let mut decoder = FrameDecoder::new(bytes_max);
    let mut frames = Vec::new();
    loop {
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(_) => return (frames, false),
            }
        }
        if bytes.is_empty() {
            return (frames, decoder.finish().is_ok());
        }
        let space = decoder.space();
        let read = space.len().min(step).min(bytes.len());
        space[..read].copy_from_slice(&bytes[..read]);
        decoder.filled(read);
        bytes = &bytes[read..];
    }
}

/// A message that was understood is sent as the very bytes that it was read from.
pub fn message(data: &[u8]) {
    let [kind, critical, body @ ..] = data else { return };
    if let Ok(Some(message)) = Message::decode(*kind, critical & 1 == 1, body) {
        assert_eq!((message.kind(), message.body().as_slice()), (*kind, body));
    }
}

/// A segment is refused, or is what it says; also if it is signed well, whatever it holds.
pub fn segment(data: &[u8]) {
    let _ = Segment::verify(space(), REVISION, data.into());
    let Some(signed) = Segment::resign(space(), REVISION, key(PEER), data) else { return };
    let Ok(segment) = Segment::verify(space(), REVISION, signed.clone().into()) else { return };
    assert_eq!(segment.author().device, key(PEER).device());
    assert_eq!(**segment.bytes(), *signed);
    let mut next = segment.first();
    for event in segment.events() {
        assert_eq!(event.dot, next);
        assert!(event.claims().all(|claim| claim.replica != event.dot.replica || claim.counter < event.dot.counter));
        next.counter += 1;
    }
    assert_eq!(segment.last().counter + 1, next.counter);
}

/// A value that is stored comes back as it was.
pub fn value(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(json) = parse_json(text) else { return };
    assert_eq!(parse_json(&json.to_string()).as_ref(), Ok(&json));
    if let Ok(value) = Value::from_json(&json) {
        assert_eq!(Value::from_json(&value.to_json()).as_ref(), Ok(&value));
        let bytes = thence::codec::encode(&value);
        assert_eq!(thence::codec::decode::<Value>("value", &bytes).as_ref(), Ok(&value));
    }
    if let Ok(value) = thence::codec::decode::<Value>("value", data) {
        assert_eq!(Value::from_json(&value.to_json()), Ok(value));
    }
}

/// A name that is taken is written as it was.
pub fn name(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(name) = CollectionName::user(text) {
        assert_eq!(name.as_str(), text);
    }
    if let Ok(key) = text.parse::<ObjectKey>() {
        assert_eq!(key.as_str(), text);
    }
    if let Ok(path) = text.parse::<Path>() {
        assert_eq!(path.to_string().parse::<Path>().as_ref(), Ok(&path), "{path}");
    }
}

/// A ticket that is taken is genuine, and written as it was.
pub fn ticket(data: &[u8]) {
    if let Ok(ticket) = SignedTicket::from_bytes(data) {
        assert_eq!(ticket.to_bytes(), data);
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(ticket) = text.parse::<SignedTicket>()
    {
        assert_eq!(ticket.to_string().parse::<SignedTicket>().as_ref(), Ok(&ticket));
    }
}

/// An address that is taken means the same when it is written and read again.
pub fn address(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(address) = text.parse::<PeerAddress>() {
        assert_eq!(address.to_string().parse::<PeerAddress>().as_ref(), Ok(&address));
    }
}

/// A backup is read to its end or refused, and its rows are no more than its bytes.
pub fn backup(data: &[u8]) {
    let Ok(mut backup) = BackupReader::begin(data) else { return };
    let mut bytes = 0;
    while let Ok(Some((key, value))) = backup.next_row() {
        bytes += key.len() + value.len();
    }
    assert!(bytes <= data.len());
    assert!(backup.bytes() <= data.len() as u64);
}

/// A settings file, and the same bytes as every variable.
pub fn config(data: &[u8]) {
    let path = std::env::temp_dir().join(format!("thence-fuzz-{}.toml", std::process::id()));
    std::fs::write(&path, data).expect("a file can be written");
    let flags = |config| Flags { config, ..Flags::default() };
    let _ = Settings::gather(flags(Some(path.clone())), &|_| None);
    std::fs::remove_file(&path).expect("it was written");
    if let Ok(text) = std::str::from_utf8(data) {
        let (name, value) = text.split_once('=').unwrap_or(("THENCE_PEERS", text));
        let variable = |wanted: &str| (wanted == name).then(|| value.into());
        let _ = Settings::gather(flags(None), &variable);
    }
}
