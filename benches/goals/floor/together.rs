//! Disk and network together: rows that go from one plain redb through plain quinn into another.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::{RecvStream, SendStream};
use tokio::sync::mpsc;

use super::disk::{Disk, Row};
use super::network::{self, Connected, Network};
use crate::Outcome;

/// How much is put into one message.
const MESSAGE_BYTES: usize = 128 << 10;
/// How many rows go into one commit of the receiver.
const ROWS_PER_COMMIT: usize = 10_000;

fn pack(message: &mut Vec<u8>, key: &[u8], value: &[u8]) -> Outcome<()> {
    message.push(u8::try_from(key.len())?);
    message.extend_from_slice(key);
    message.push(u8::try_from(value.len())?);
    message.extend_from_slice(value);
    Ok(())
}

fn unpack(mut message: &[u8], rows: &mut Vec<Row>) -> Outcome<()> {
    while let Some((&length, rest)) = message.split_first() {
        let (key, rest) = rest.split_at_checked(length.into()).ok_or("cut short")?;
        let (&length, rest) = rest.split_first().ok_or("cut short")?;
        let (value, rest) = rest.split_at_checked(length.into()).ok_or("cut short")?;
        rows.push((key.to_vec(), value.to_vec()));
        message = rest;
    }
    Ok(())
}

/// The ideal of catching up: scan `from`, one stream, and `into` has it durably. From the handshake on.
pub async fn catch_up(from: Arc<Disk>, into: Arc<Disk>, count: u64) -> Outcome<Duration> {
    let network = Network::new()?;
    let client = network.client()?;
    let started = Instant::now();
    let connected = network.connect(client, network.address()?).await?;
    let (mut send, mut receive) = connected.stream().await?;
    let (messages, mut scanned) = mpsc::channel::<Vec<u8>>(4);
    let scan = tokio::task::spawn_blocking(move || {
        let mut message = Vec::with_capacity(MESSAGE_BYTES);
        from.scan(|key, value| {
            pack(&mut message, key, value)?;
            if message.len() >= MESSAGE_BYTES {
                messages.blocking_send(std::mem::take(&mut message))?;
            }
            Ok(())
        })?;
        Outcome::Ok(messages.blocking_send(message)?)
    });
    let sending = tokio::spawn(async move {
        while let Some(message) = scanned.recv().await {
            network::write(&mut send, &message).await?;
        }
        send.finish()?;
        Outcome::Ok(send)
    });
    let (arrived, mut arriving) = mpsc::channel::<Vec<u8>>(4);
    let commit = tokio::task::spawn_blocking(move || {
        let (mut rows, mut total) = (Vec::new(), 0);
        while let Some(message) = arriving.blocking_recv() {
            unpack(&message, &mut rows)?;
            if rows.len() >= ROWS_PER_COMMIT {
                into.commit(&rows)?;
                total += rows.len() as u64;
                rows.clear();
            }
        }
        into.commit(&rows)?;
        Outcome::Ok(total + rows.len() as u64)
    });
    while let Some(message) = network::read(&mut receive).await? {
        arrived.send(message).await?;
    }
    drop(arrived);
    let total = commit.await??;
    let taken = started.elapsed();
    scan.await??;
    drop(sending.await??);
    drop(connected);
    if total == count { Ok(taken) } else { Err(format!("{total} rows arrived of {count}").into()) }
}

/// The ideal of bringing a few rows over a new connection: handshake, one message, one durable commit, one byte back.
pub async fn bring(rows: &[Row], into: &Arc<Disk>) -> Outcome<Duration> {
    let network = Network::new()?;
    let endpoint = network.client()?;
    let mut message = Vec::new();
    for (key, value) in rows {
        pack(&mut message, key, value)?;
    }
    let into = Arc::clone(into);
    let started = Instant::now();
    let connected = network.connect(endpoint, network.address()?).await?;
    let (mut send, mut receive) = connected.server.open_bi().await?;
    let client = connected.client.clone();
    let receiver = tokio::spawn(async move {
        let (mut send, mut receive) = client.accept_bi().await?;
        let message = network::read(&mut receive).await?.ok_or("nothing came")?;
        let mut arrived = Vec::new();
        unpack(&message, &mut arrived)?;
        tokio::task::block_in_place(|| into.commit(&arrived))?;
        send.write_all(&[1]).await?;
        Outcome::Ok(send)
    });
    network::write(&mut send, &message).await?;
    receive.read_exact(&mut [0]).await?;
    let taken = started.elapsed();
    drop(receiver.await??);
    Ok(taken)
}

/// A row that is committed at one end and then appears at the other.
pub struct Live {
    here: Disk,
    there: Arc<Disk>,
    send: SendStream,
    receive: Option<RecvStream>,
    _connected: Connected,
}

impl Live {
    /// Two ends, each with a disk.
    pub async fn between(here: Disk, there: Disk) -> Outcome<Self> {
        let network = Network::new()?;
        let connected = network.connect(network.client()?, network.address()?).await?;
        let (send, receive) = connected.stream().await?;
        Ok(Self { here, there: Arc::new(there), send, receive: Some(receive), _connected: connected })
    }

    /// How long each of these rows takes, one after the other, until it is seen at the other end; with `durably`, once
    /// it is durable there as well.
    pub async fn push(&mut self, rows: &[Row], durably: bool) -> Outcome<Vec<Duration>> {
        let mut receive = self.receive.take().ok_or("the receiving end is gone")?;
        let (seen, mut seeing) = mpsc::channel::<Instant>(1);
        let (there, count) = (Arc::clone(&self.there), rows.len());
        let receiver = tokio::spawn(async move {
            for _ in 0..count {
                let message = network::read(&mut receive).await?.ok_or("nothing came")?;
                let mut arrived = Vec::new();
                unpack(&message, &mut arrived)?;
                if durably {
                    tokio::task::block_in_place(|| there.commit(&arrived))?;
                }
                seen.send(Instant::now()).await?;
            }
            Outcome::Ok(receive)
        });
        let mut times = Vec::with_capacity(count);
        for row in rows {
            let started = Instant::now();
            tokio::task::block_in_place(|| self.here.commit(std::slice::from_ref(row)))?;
            let mut message = Vec::new();
            pack(&mut message, &row.0, &row.1)?;
            network::write(&mut self.send, &message).await?;
            let seen = seeing.recv().await.ok_or("the receiver failed")?;
            times.push(seen.duration_since(started));
        }
        self.receive = Some(receiver.await??);
        Ok(times)
    }
}
