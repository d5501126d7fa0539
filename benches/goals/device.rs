//! Devices of thence, as an application would run them: nodes in this process, with folders and sockets of their own.

use std::path::Path;
use std::time::Duration;

use thence::model::{Role, SpaceId};
use thence::node::{DataFolder, Invitation, Node, NodeConfig, Space};
use thence::transport::PeerAddress;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::rows::{self, ROWS_PER_IMPORT};

/// How long anything may take before the run is given up. Nothing is judged by it.
pub const PATIENCE: Duration = Duration::from_secs(1800);

/// Opens the node of a folder, made if need be. It dials only when it is asked to sync or to join.
pub async fn open(folder: &Path, network: bool) -> Outcome<Node> {
    let folder = DataFolder::new(folder);
    folder.init()?;
    let mut config = NodeConfig::new(folder.claim_for_node(Duration::from_secs(5))?);
    config.listen = if network { Some("127.0.0.1:0".parse()?) } else { None };
    config.keep_connected = false;
    Ok(Node::open(config).await?)
}

/// How the rows of a [`Source`] were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Many to an event, as by `thence import`.
    Imported,
    /// Each by itself, as an application does: one to an event.
    Singly,
}

/// A device that has a space full of rows.
pub struct Source {
    /// Its node.
    pub node: Node,
    /// Its space.
    pub space: Space,
    /// How many rows the space has.
    pub count: u64,
    folder: tempfile::TempDir,
}

impl Source {
    /// A new device with rows `0..count` of revision 0.
    pub async fn with_rows(count: u64, written: Written) -> Outcome<Self> {
        let folder = tempfile::tempdir()?;
        let node = open(folder.path(), true).await?;
        let space = node.space(node.create_space("notes").await?)?;
        match written {
            Written::Imported => {
                for first in (0..count).step_by(usize::try_from(ROWS_PER_IMPORT)?) {
                    space.write(rows::put(first..(first + ROWS_PER_IMPORT).min(count), 0)?).await?;
                }
            }
            Written::Singly => write_singly(&space, (0..count).collect(), 0, 512).await?,
        }
        Ok(Self { node, space, count, folder })
    }

    /// The device of a folder that has the space already.
    pub async fn of(folder: tempfile::TempDir, count: u64) -> Outcome<Self> {
        let node = open(folder.path(), true).await?;
        let space = node.space(node.find_space("notes")?)?;
        Ok(Self { node, space, count, folder })
    }

    /// Where it listens.
    pub fn address(&self) -> Outcome<std::net::SocketAddr> {
        self.node.local_address().ok_or_else(|| "the source listens".into())
    }

    /// A ticket for one more device.
    pub fn ticket(&self) -> Outcome<thence::model::SignedTicket> {
        let invitation = Invitation { role: Role::Writer, uses: 1, expires: Duration::from_secs(3600) };
        Ok(self.node.invite(self.space.id(), &invitation)?)
    }

    /// Stops the node, and keeps its folder for as long as what is returned.
    pub async fn close(self) -> tempfile::TempDir {
        let Self { node, space, folder, .. } = self;
        drop(space);
        node.close().await;
        folder
    }
}

/// Writes each row as a transaction of its own, so many of them at a time.
pub async fn write_singly(space: &Space, rows: Vec<u64>, revision: u64, at_a_time: usize) -> Outcome<()> {
    let rows = std::sync::Arc::new(std::sync::Mutex::new(rows.into_iter()));
    let mut writers = JoinSet::new();
    for _ in 0..at_a_time {
        let (space, rows) = (space.clone(), std::sync::Arc::clone(&rows));
        writers.spawn(async move {
            loop {
                let next = rows.lock().map_err(|_| "a writer panicked")?.next();
                let Some(at) = next else { return Outcome::Ok(()) };
                space.write(crate::rows::put([at], revision)?).await?;
            }
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer??;
    }
    Ok(())
}

/// Brings a joined device in step: exactly the one peer that it knows.
pub async fn sync(node: &Node) -> Outcome<()> {
    let report = node.sync(PATIENCE).await?;
    match (report.synced.len(), report.unfinished.len(), report.unreached.as_slice()) {
        (1, 0, []) => Ok(()),
        _ => Err(format!("a sync did not end well: {report:?}").into()),
    }
}

/// A second device of the space, which goes and comes.
pub struct Companion {
    folder: tempfile::TempDir,
    space: SpaceId,
}

impl Companion {
    /// Joins the space of `source`, takes all of it, and closes.
    pub async fn of(source: &Source) -> Outcome<Self> {
        let folder = tempfile::tempdir()?;
        let node = open(folder.path(), true).await?;
        let space = node.join(&source.ticket()?).await?;
        sync(&node).await?;
        node.close().await;
        Ok(Self { folder, space })
    }

    /// From now on it finds its source at `address`, and nowhere else.
    pub async fn retarget(&self, source: &Source, address: std::net::SocketAddr) -> Outcome<()> {
        let node = open(self.folder.path(), false).await?;
        node.remove_peer(source.node.device()).await?;
        node.add_peer(PeerAddress::new(source.node.device(), address)).await?;
        node.close().await;
        Ok(())
    }

    /// Starts its node. It is not connected until it is asked to sync.
    pub async fn open(&self) -> Outcome<(Node, Space)> {
        let node = open(self.folder.path(), true).await?;
        let space = node.space(self.space)?;
        Ok((node, space))
    }
}

/// Stops a node whose space handle is not needed any more.
pub async fn close(node: Node, space: Space) {
    drop(space);
    node.close().await;
}
