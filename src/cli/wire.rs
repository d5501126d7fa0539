//! How a command and its answers travel over the local socket: JSON, one value a line, of bounded length.
//!
//! The node says first who it is ([`Reply::Greeting`]); the client sends one [`Command`]; answers follow until
//! [`Reply::Done`] or [`Reply::Failed`]. A connection carries one command.
//!
//! **Invariant**: until the greeting was read nothing was asked, so it is safe to ask somewhere else instead.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::answer::Answer;
use super::failure::Failure;

/// The version of what is said on the socket. Only equal ones understand each other: a node and its commands are
/// of one release, or the node is to be restarted.
pub const WIRE_VERSION: u32 = 1;
/// The longest command, in bytes. The largest object takes a quarter of it.
pub const COMMAND_BYTES_MAX: usize = 8 << 20;
/// The longest answer, in bytes.
pub const REPLY_BYTES_MAX: usize = 128 << 20;

/// What a node says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Who speaks.
    Greeting {
        /// [`WIRE_VERSION`].
        wire: u32,
        /// The release, for people.
        release: String,
    },
    /// A piece of the answer.
    Answer(Answer),
    /// The command was done.
    Done,
    /// The command failed.
    Failed(Failure),
}

/// A line that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It is too long.
    #[error("a line of more than {0} bytes")]
    TooLong(usize),
    /// It ended in the middle of a line.
    #[error("a line without its end")]
    CutOff,
    /// It is not what belongs here.
    #[error("not understood: {0}")]
    Garbled(#[from] serde_json::Error),
}

/// Reads a value; none at the end.
pub async fn read<T: DeserializeOwned>(
    from: &mut (impl AsyncBufRead + Unpin),
    bytes_max: usize,
) -> Result<Option<T>, WireError> {
    let mut line = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    let count = from.take(limit).read_until(b'\n', &mut line).await?;
    match line.last() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(serde_json::from_slice(&line)?)),
        Some(_) if count > bytes_max => Err(WireError::TooLong(bytes_max)),
        Some(_) => Err(WireError::CutOff),
    }
}

/// The line of a value.
pub fn line(value: &impl Serialize) -> Result<Vec<u8>, WireError> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

/// Writes a value.
pub async fn write(to: &mut (impl AsyncWrite + Unpin), value: &impl Serialize) -> Result<(), WireError> {
    to.write_all(&line(value)?).await?;
    to.flush().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::answer::SyncRow;
    use crate::cli::command::Command;
    use crate::model::{CollectionName, Operation, Request};

    async fn read_text<T: DeserializeOwned>(text: &[u8], bytes_max: usize) -> Result<Option<T>, WireError> {
        let mut from = text;
        read(&mut from, bytes_max).await
    }

    #[tokio::test]
    async fn what_is_written_is_read() {
        let fields = r#"{"a":0.1,"b":[-9223372036854775808,"é\n",null],"c":{"$bytes":"AAEC"},"d":31.245270191439438}"#;
        let serde_json::Value::Object(fields) = crate::model::parse_json(fields).expect("JSON") else {
            unreachable!("an object")
        };
        let request = Request {
            collection: CollectionName::user("places").expect("a name"),
            key: "fez".parse().expect("a key"),
            operation: Operation::Update(fields),
        };
        let device = "ab".repeat(32).parse().expect("an id");
        for command in [
            Command::Write { space: "atlas".to_owned(), requests: vec![request] },
            Command::RemovePeer { device },
            Command::ListSpaces,
        ] {
            let mut line = Vec::new();
            write(&mut line, &command).await.expect("memory");
            assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            assert_eq!(read_text(&line, COMMAND_BYTES_MAX).await.expect("a command"), Some(command));
        }
        let reply = Reply::Answer(Answer::Synced(SyncRow::default()));
        let mut line = Vec::new();
        write(&mut line, &reply).await.expect("memory");
        assert_eq!(read_text(&line, REPLY_BYTES_MAX).await.expect("a reply"), Some(reply));
    }

    #[tokio::test]
    async fn what_is_no_command_is_refused() {
        let read = async |text: &[u8]| read_text::<Command>(text, 64).await;
        assert!(matches!(read(b"").await, Ok(None)));
        assert!(matches!(read(b"\"list_spaces\"").await, Err(WireError::CutOff)));
        assert!(matches!(read(&b"x".repeat(65)).await, Err(WireError::TooLong(64))));
        assert!(matches!(read(&b"x".repeat(64 << 20)).await, Err(WireError::TooLong(64))));
        let garbled: [&[u8]; 5] = [
            b"\n",
            b"GET / HTTP/1.1\r\n",
            b"\xFF\xFE\n",
            b"{\"erase_all\":{}}\n",
            b"{\"remove_peer\":{\"device\":1}}\n",
        ];
        for text in garbled {
            assert!(matches!(read(text).await, Err(WireError::Garbled(_))), "{text:?}");
        }
        let reserved = b"{\"list\":{\"space\":\"s\",\"collection\":\"a/b\"}}\n";
        assert!(matches!(read(reserved).await, Err(WireError::Garbled(_))));
    }
}
