//! What a command asks of a node: one side of the local socket.
//!
//! **Invariant**: names, paths, tickets and numbers were parsed before a [`Command`] exists, here and again when one
//! arrives over the socket.

use serde::{Deserialize, Serialize};

#[cfg(doc)]
use super::answer::Answer;
use crate::model::{CollectionName, DeviceId, ObjectKey, Request, Role, SignedTicket};
use crate::relay::{Policy, PolicyScope, Setting, TenantName};
use crate::transport::PeerAddress;

/// Ids and tickets are text on the wire, as people write them.
pub(super) mod as_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(crate) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// What is asked of a node. Spaces are named as the user did; the node knows what that means.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Create a space. Answer: [`Answer::Created`].
    CreateSpace {
        /// What it is called.
        name: String,
    },
    /// Answer: [`Answer::Spaces`].
    ListSpaces,
    /// Begin a space anew. Answer: [`Answer::Wiped`].
    Wipe {
        /// The space.
        space: String,
        /// Whether whoever asks knows what that means.
        yes: bool,
        /// Only if this is its revision.
        revision: Option<u64>,
    },
    /// Answer: [`Answer::Jobs`].
    ListJobs,
    /// Answer: [`Answer::Job`].
    ShowJob {
        /// Its id.
        id: String,
    },
    /// Remember a peer and dial it.
    AddPeer {
        /// The peer.
        peer: PeerAddress,
    },
    /// Forget a peer.
    RemovePeer {
        /// The peer.
        #[serde(with = "as_text")]
        device: DeviceId,
    },
    /// Answer: [`Answer::Peers`].
    ListPeers,
    /// Sign a ticket. Answer: [`Answer::Ticket`].
    Invite {
        /// To which space.
        space: String,
        /// What the redeemer may do.
        role: Role,
        /// How many may redeem it.
        uses: u32,
        /// How long it is valid, in seconds.
        expires_s: u64,
    },
    /// Make a token for clients of this relay. Answer: [`Answer::Token`].
    CreateToken {
        /// Whose databases it opens.
        customer: TenantName,
        /// The only one that it opens.
        database: Option<TenantName>,
        /// What it allows.
        role: Role,
        /// How long it is valid, in seconds.
        expires_s: Option<u64>,
    },
    /// Answer: [`Answer::Tokens`].
    ListTokens,
    /// End a token. Answer: [`Answer::Revoked`].
    RevokeToken {
        /// Its id.
        id: String,
    },
    /// What holds in a scope. Answers: [`Answer::Policies`].
    ShowPolicies {
        /// The scope.
        scope: PolicyScope,
        /// Only this one.
        policy: Option<Policy>,
    },
    /// Set a policy. Answer: [`Answer::Policy`].
    SetPolicy {
        /// For whom.
        scope: PolicyScope,
        /// Which.
        policy: Policy,
        /// To what.
        setting: Setting,
    },
    /// Answer: [`Answer::Customers`].
    ListCustomers,
    /// Answer: [`Answer::Databases`].
    ShowCustomer {
        /// The customer.
        customer: TenantName,
    },
    /// Who did what to a customer. Answers: [`Answer::Audit`].
    Audit {
        /// The customer.
        customer: TenantName,
        /// So many entries at most.
        limit: u64,
        /// After that one.
        after: Option<String>,
    },
    /// Redeem a ticket. Answer: [`Answer::Joined`].
    Join {
        /// The ticket.
        #[serde(with = "as_text")]
        ticket: SignedTicket,
        /// Whether to say meanwhile how far it is: [`Answer::Progress`].
        progress: bool,
    },
    /// Write a transaction. Answer: [`Answer::Written`].
    Write {
        /// Into which space.
        space: String,
        /// What, all of it or nothing.
        requests: Vec<Request>,
    },
    /// Answer: [`Answer::Object`].
    Get {
        /// Its space.
        space: String,
        /// Its collection.
        collection: CollectionName,
        /// Its key.
        key: ObjectKey,
    },
    /// Answers: [`Answer::Places`].
    List {
        /// The space.
        space: String,
        /// Only this collection.
        collection: Option<CollectionName>,
    },
    /// Answers: [`Answer::Lines`].
    Export {
        /// The space.
        space: String,
        /// Only this collection.
        collection: Option<CollectionName>,
    },
    /// Answers: [`Answer::Conflicts`].
    Conflicts {
        /// The space.
        space: String,
    },
    /// Answers: [`Answer::Lost`].
    Lost {
        /// The space.
        space: String,
    },
    /// Answers: [`Answer::Watching`], then [`Answer::Changes`].
    Watch {
        /// The space.
        space: String,
        /// After which position; none for what comes from now on.
        after: Option<u64>,
        /// Whether to wait for more once everything was told.
        follow: bool,
    },
    /// A backup of this instant. Answers: [`Answer::Bytes`].
    Backup,
    /// Answer: [`Answer::Status`].
    Status {
        /// Whether it is a failure that something is not as it should be.
        check: bool,
    },
    /// Dial everyone and wait. Answers: [`Answer::Progress`], then [`Answer::Synced`].
    Sync {
        /// How long, in milliseconds.
        timeout_ms: u64,
        /// Whether progress is of interest.
        progress: bool,
    },
}

impl Command {
    /// Whether it needs the network even where no node is running.
    pub fn needs_network(&self) -> bool {
        matches!(self, Self::Join { .. } | Self::Sync { .. })
    }

    /// Whether it waits for others and can be ended and asked again at any time.
    pub fn waits(&self) -> bool {
        matches!(self, Self::Watch { .. } | Self::Sync { .. })
    }
}
