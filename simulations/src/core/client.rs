//! A thin client: an outbox, a token, and a table of its own.
//!
//! It speaks to one node at a time, asks one thing at a time, and asks again when no answer comes: an answer to what it
//! asked before counts for nothing. It does what the contract with clients says, and no more.

use std::collections::BTreeMap;

use thence::model::{Context, Request};
use thence::relay::{Gone, Phase, SyncPoint};
use thence::store::{PageLimits, Row, Upload, WriteError};

use crate::oracles::{ObjectName, Origin, ShownTo, id_of};

/// So many writes of its outbox it sends at once.
const SENT_AT_ONCE: usize = 3;

/// How far a client is, and what only the world knows of it: where that was written.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) point: SyncPoint,
    pub(super) made: Origin,
}

/// What a client asks a node.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    Uploads(Vec<Upload>),
    Page { token: Option<Token>, limits: PageLimits },
}

/// What a node answers.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Uploaded(Box<Upload>, Result<Context, WriteError>),
    Page {
        rows: Vec<Row>,
        token: Token,
        /// What the node shows, if there is no more.
        shown: Option<ShownTo>,
        /// Whether the token that it follows on was made where positions are numbered otherwise, and nobody knew.
        is_misled: bool,
    },
    Gone(Gone, Token),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Client {
    number: usize,
    written: u64,
    pub(super) outbox: Vec<Upload>,
    token: Option<Token>,
    pub(super) rows: ShownTo,
    seen: BTreeMap<ObjectName, Context>,
    /// So many rows at once it asks for; none if it has all that it wanted.
    pub(super) limit: Option<usize>,
    /// The node that it speaks to.
    pub(super) node: usize,
    /// The number of what it asked last, and how many answers to that it waits for.
    pub(super) asked: u64,
    pub(super) waits: usize,
    /// Whether it went on, in good faith, where positions mean something else.
    pub(super) is_misled: bool,
}

impl Client {
    pub(super) fn new(number: usize) -> Self {
        Self { number, ..Self::default() }
    }

    /// It writes: what it saw of an object goes with it, if it `says` so.
    pub(super) fn write(&mut self, request: &Request, says: bool) {
        self.written += 1;
        let id = Some(id_of(self.number, self.written));
        let name = (request.collection.clone(), request.key.clone());
        let seen = self.seen.get(&name).cloned().filter(|_| says);
        let remark = thence::model::Remark { id, source_version: None, by: None };
        self.outbox.push(Upload {
            request: request.clone(),
            seen,
            expected: None,
            only: None,
            remark,
            bytes_max: thence::model::OBJECT_BYTES_MAX,
        });
    }

    /// What it asks next, if it has anything to ask.
    pub(super) fn next(&mut self, bytes: usize) -> Option<Ask> {
        if self.waits > 0 {
            return None;
        }
        let ask = if self.outbox.is_empty() {
            let limits = PageLimits { rows: self.limit?, bytes, looked_at: 2 * self.limit? };
            Ask::Page { token: self.token.clone(), limits }
        } else {
            Ask::Uploads(self.outbox.iter().take(SENT_AT_ONCE).cloned().collect())
        };
        self.waits = if let Ask::Uploads(uploads) = &ask { uploads.len() } else { 1 };
        self.asked += 1;
        Some(ask)
    }

    /// Takes in an answer to what it asked last. Returns what the node showed, if it was told that there is no more.
    pub(super) fn hear(&mut self, answer: Answer) -> Option<ShownTo> {
        self.waits = self.waits.saturating_sub(1);
        match answer {
            Answer::Uploaded(upload, outcome) => {
                // There may be such a space, or it may write there, a moment later.
                if !matches!(outcome, Err(WriteError::UnknownSpace(_))) {
                    self.outbox.retain(|other| other.remark != upload.remark);
                }
                None
            }
            Answer::Page { rows, token, shown, is_misled } => {
                for row in rows {
                    let name = (row.collection, row.key);
                    self.seen.insert(name.clone(), row.context);
                    match row.fields {
                        Some(fields) => self.rows.insert(name, fields),
                        None => self.rows.remove(&name),
                    };
                }
                self.token = Some(token);
                self.is_misled |= is_misled;
                if shown.is_some() {
                    self.limit = None;
                }
                shown.filter(|_| !self.is_misled)
            }
            Answer::Gone(_, token) => {
                // Everything comes again; what it has not sent yet it keeps.
                (self.rows, self.seen) = Default::default();
                (self.token, self.is_misled) = (Some(token), false);
                None
            }
        }
    }
}

/// Where a client goes on from, and whether that is the very beginning.
pub(super) fn point_of(token: Option<&Token>, beginning: SyncPoint) -> SyncPoint {
    token.map_or(beginning, |token| token.point.clone())
}

/// A sync point in a space as it is now.
pub(super) fn sync_point(epoch: u64, revision: u64, phase: Phase) -> SyncPoint {
    SyncPoint { epoch, revision, schema: 0, filter: 0, phase }
}
