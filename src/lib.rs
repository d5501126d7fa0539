//! **thence**: devices and clusters that write while apart, meet, and converge; nothing is lost on the way.
//!
//! A replication node whose only idea of order is *what was known when this was written*: objects are CRDTs, causality
//! is version vectors, nothing is ever decided by a clock. Peers speak QUIC and prove their device keys; state lies in
//! one redb file; what was acknowledged survives any crash.
//!
//! # Use
//!
//! Two devices that write while apart, and then meet:
//!
//! ```
//! use std::time::Duration;
//! use serde_json::json;
//! use thence::model::Role;
//! use thence::node::{DataFolder, Invitation, Node, NodeConfig, Transaction};
//!
//! async fn open(folder: &std::path::Path) -> Result<Node, Box<dyn std::error::Error>> {
//!     let folder = DataFolder::new(folder);
//!     folder.init()?;
//!     let mut config = NodeConfig::new(folder.claim_for_node(Duration::from_secs(5))?);
//!     config.listen = Some("127.0.0.1:0".parse()?);
//!     Ok(Node::open(config).await?)
//! }
//!
//! # #[tokio::main(flavor = "multi_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (one, two) = (tempfile::tempdir()?, tempfile::tempdir()?);
//! # let (one, two) = (one.path(), two.path());
//! let phone = open(one).await?;
//! let laptop = open(two).await?;
//!
//! // The phone owns a space and invites the laptop.
//! let id = phone.create_space("home").await?;
//! let home = phone.space(id)?;
//! home.write(Transaction::new().put("notes", "n1", json!({"title": "Milk", "done": false}))?).await?;
//! let expires = Duration::from_secs(3600);
//! let ticket = phone.invite(id, &Invitation { role: Role::Writer, uses: 1, expires })?;
//! laptop.join(&ticket).await?;
//!
//! // Both write. A write is durable when it returns, and then on its way.
//! let on_laptop = laptop.space(id)?;
//! on_laptop.write(Transaction::new().patch("notes", "n1", json!({"title": "Oat milk"}))?).await?;
//! home.write(Transaction::new().put("notes", "n2", json!({"title": "Bread"}))?).await?;
//!
//! // Wait until both know the same, durably.
//! let report = laptop.sync(Duration::from_secs(30)).await?;
//! assert_eq!(report.synced, [phone.device()]);
//! assert_eq!(home.get("notes", "n1")?.expect("it is there").fields["title"], "Oat milk");
//! assert_eq!(home.view()?.vector()?, on_laptop.view()?.vector()?);
//! assert!(home.conflicts()?.is_empty());
//!
//! // A watcher gets every change once, by position.
//! assert_eq!(home.changes(0, 100).await?.len(), 2);
//!
//! phone.close().await;
//! laptop.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! # The map
//!
//! | module | what it is | what it may touch |
//! |---|---|---|
//! | [`causal`] | dots, version vectors, knowledge | nothing: pure |
//! | [`codec`] | the one place that turns types into bytes | bytes |
//! | [`model`] | values, objects and their join, events, segments, access | pure; keys are handed in |
//! | [`replica`] | the protocol as a state machine | pure; inputs in, outputs out |
//! | [`store`] | an ordered map of bytes, and the ledger of what is kept where | a disk |
//! | [`transport`] | QUIC with device keys, frames | a socket |
//! | [`node`] | the one loop that joins them | everything below it |
//! | [`relay`] | the sync server for thin clients | a [`node::Node`], and a socket in one file |
//! | [`cli`], [`config`] | the binary's commands and settings | a [`node::Node`] |
//!
//! Imports go one way, from the top of this table downwards.
//!
//! # Words
//!
//! **revision**: the generation of a space; wiping it raises that, and nothing of another generation counts any more.
//! **device**: an Ed25519 key pair. **replica**: one incarnation of a store on a device. **dot**: the name of one
//! event for ever, a replica and a counter. **version vector**: replica → highest counter known without a gap.
//! **knowledge**: key range → version vector. **space**: the unit of ownership, permission and replication; it holds
//! **collections** of **objects** with **fields**. **event**: immutable; what one transaction did. **segment**: a run of
//! events of one replica, hash-chained and signed once. **log**: segments in this node's arrival order, which follows
//! causality. **feed**: objects by their latest change. **witness**: an event that somebody knew, with the beginning of its
//! hash. **branch**: one of several histories that were written under one replica id, by copies of a store. **lease**: what
//! says, beside a store, that it is the one that was written last and no copy.

#[doc(hidden)]
#[macro_use]
pub mod planted;

pub mod causal;
pub mod cli;
pub mod codec;
pub mod config;
mod duration;
pub mod model;
pub mod node;
pub mod relay;
pub mod replica;
pub mod store;
pub mod transport;
