//! G5: two devices meet, or ask each other, and nothing has changed.

use std::time::Instant;

use crate::Outcome;
use crate::device::{self, Companion, Source};
use crate::floor::network::{self, Network};
use crate::house::proxy::Proxy;
use crate::rounds::{Pairs, median, us};
use crate::table::{Table, Wanted};

/// How often an open connection is asked in a round.
const QUESTIONS: usize = 300;
/// How many connections are made in a round.
const MEETINGS: usize = 15;

/// What is compared between spaces.
pub struct Found {
    /// Asking over an open connection, in microseconds.
    pub open_us: f64,
    /// Meeting over a new connection, in microseconds.
    pub new_us: f64,
}

/// What plain quinn takes.
struct Floor {
    round_trip_us: f64,
    meeting_us: f64,
}

async fn floor() -> Outcome<Floor> {
    let network = Network::new()?;
    let mut meetings = Vec::new();
    let mut round_trip_us = f64::NAN;
    for meeting in 0..MEETINGS {
        let endpoint = network.client()?;
        let started = Instant::now();
        let connected = network.connect(endpoint, network.address()?).await?;
        let echo = tokio::spawn(network::echo(connected.server.clone()));
        let (mut send, mut receive) = connected.client.open_bi().await?;
        network::round_trip(&mut send, &mut receive).await?;
        meetings.push(us(started.elapsed()));
        if meeting == 0 {
            let mut times = Vec::with_capacity(QUESTIONS);
            for _ in 0..QUESTIONS {
                let started = Instant::now();
                network::round_trip(&mut send, &mut receive).await?;
                times.push(us(started.elapsed()));
            }
            round_trip_us = median(&times);
        }
        send.finish()?;
        echo.await??;
    }
    Ok(Floor { round_trip_us, meeting_us: median(&meetings) })
}

async fn ours(companion: &Companion) -> Outcome<Found> {
    let mut meetings = Vec::new();
    let mut open_us = f64::NAN;
    for meeting in 0..MEETINGS {
        let (node, space) = companion.open().await?;
        let started = Instant::now();
        device::sync(&node).await?;
        meetings.push(us(started.elapsed()));
        if meeting == 0 {
            let mut times = Vec::with_capacity(QUESTIONS);
            for _ in 0..QUESTIONS {
                let started = Instant::now();
                device::sync(&node).await?;
                times.push(us(started.elapsed()));
            }
            open_us = median(&times);
        }
        device::close(node, space).await;
    }
    Ok(Found { open_us, new_us: median(&meetings) })
}

/// Measures with one space.
pub async fn of_size(table: &mut Table, rounds: u32, source: &Source, companion: &Companion) -> Outcome<Found> {
    let name = format!("nothing changed, {} rows", source.count);
    let found = timed(table, rounds, companion, &name).await?;
    // The same through a network that counts.
    let proxy = Proxy::before(source.address()?);
    companion.retarget(source, proxy.address()).await?;
    let (mut asked, mut met, mut floor_met) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let before = proxy.bytes();
        let (node, space) = companion.open().await?;
        device::sync(&node).await?;
        met.push((proxy.bytes() - before) as f64);
        let before = proxy.bytes();
        for _ in 0..QUESTIONS {
            device::sync(&node).await?;
        }
        asked.push((proxy.bytes() - before) as f64 / QUESTIONS as f64);
        device::close(node, space).await;
        floor_met.push(floor_meeting_bytes().await?);
    }
    companion.retarget(source, source.address()?).await?;
    let workload = format!("{name}, open connection: on the wire");
    table.bound("G5", &workload, "bytes", &asked, Wanted::AtMost(200.0));
    let workload = format!("{name}, new connection: besides a handshake");
    let besides = [median(&met) - median(&floor_met)];
    table.bound("G4", &workload, "bytes", &besides, Wanted::AtMost(1000.0));
    Ok(found)
}

/// Measures the two times.
pub async fn timed(table: &mut Table, rounds: u32, companion: &Companion, name: &str) -> Outcome<Found> {
    let (mut open, mut new) = (Pairs::default(), Pairs::default());
    for _ in 0..rounds {
        let (floor, ours) = (floor().await?, ours(companion).await?);
        open.push(ours.open_us, floor.round_trip_us);
        new.push(ours.new_us, floor.meeting_us);
    }
    table.ratio("G5", &format!("{name}, open connection"), "us", &open, Wanted::AtMost(5.0));
    table.ratio("G5", &format!("{name}, new connection"), "us", &new, Wanted::AtMost(1.2));
    Ok(Found { open_us: open.ours(), new_us: new.ours() })
}

/// What a handshake and one round trip of plain quinn put on the wire.
async fn floor_meeting_bytes() -> Outcome<f64> {
    let network = Network::new()?;
    let proxy = Proxy::before(network.address()?);
    let connected = network.connect(network.client()?, proxy.address()).await?;
    let echo = tokio::spawn(network::echo(connected.server.clone()));
    let (mut send, mut receive) = connected.client.open_bi().await?;
    network::round_trip(&mut send, &mut receive).await?;
    let bytes = proxy.bytes();
    send.finish()?;
    echo.await??;
    Ok(bytes as f64)
}

/// Compares a larger space with a smaller one.
pub fn compare(table: &mut Table, count: u64, found: &Found, before: &Found) {
    for (how, found, before) in [("open", found.open_us, before.open_us), ("new", found.new_us, before.new_us)] {
        let mut pair = Pairs::default();
        pair.push(found, before);
        let workload = format!("nothing changed: {count} rows against fewest, {how} connection");
        table.ratio("G5", &workload, "us", &pair, Wanted::AtMost(1.2));
    }
}
