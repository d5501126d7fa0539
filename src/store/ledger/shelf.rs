//! One revision of one space while the node runs: the small things that every read and write needs.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::key;
use super::record::{self, Author, HeadRow, SpaceRow, Totals};
use crate::causal::{Branch, Known, ReplicaId};
use crate::model::{Access, CollectionName, Grant, Incarnation, Roster, SpaceId};
use crate::store::{Read, StoreError};

/// Numbers for replica ids and collection names. They are only ever added, so a number read from an older snapshot
/// means the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    pub(super) replicas: Roster,
    pub(super) authors: Vec<Author>,
    pub(super) collections: Vec<CollectionName>,
    collection_numbers: BTreeMap<CollectionName, u32>,
}

impl Names {
    pub(super) fn collection(&self, name: &CollectionName) -> Option<u32> {
        self.collection_numbers.get(name).copied()
    }

    pub(super) fn collection_name(&self, number: u32) -> Option<&CollectionName> {
        self.collections.get(usize::try_from(number).ok()?)
    }

    pub(super) fn author(&self, replica: u32) -> Option<&Author> {
        self.authors.get(usize::try_from(replica).ok()?)
    }

    pub(super) fn incarnation(&self, replica: u32) -> Option<Incarnation> {
        Some(self.author(replica)?.incarnation)
    }

    /// How many events its incarnation wrote before the first of this replica.
    pub(super) fn offset(&self, replica: u32) -> u64 {
        self.author(replica).and_then(|author| author.branch).map_or(0, |(after, _)| after)
    }

    pub(super) fn add_collection(&mut self, name: CollectionName) -> u32 {
        let number = u32::try_from(self.collections.len()).unwrap_or(u32::MAX);
        self.collections.push(name.clone());
        self.collection_numbers.insert(name, number);
        number
    }

    pub(super) fn add_replica(&mut self, author: Author) -> u32 {
        let number = self.replicas.number(author.replica());
        if usize::try_from(number).is_ok_and(|number| number == self.authors.len()) {
            self.authors.push(author);
        }
        number
    }

    /// Whether `newer` has no names that these lack. Names only grow; most commits add none, and then readers keep
    /// sharing the old copy.
    pub(super) fn are_all_of(&self, newer: &Self) -> bool {
        self.authors.len() == newer.authors.len() && self.collections.len() == newer.collections.len()
    }

    /// Collections that users may see, by name.
    pub(super) fn user_collections(&self) -> impl Iterator<Item = (&CollectionName, u32)> + '_ {
        self.collection_numbers.iter().filter(|(name, _)| !name.is_reserved()).map(|(name, number)| (name, *number))
    }
}

#[derive(Clone, Debug)]
pub(super) struct Shelf {
    pub(super) id: SpaceId,
    pub(super) row: SpaceRow,
    pub(super) totals: Totals,
    pub(super) known: Known,
    pub(super) access: Access,
}

/// Reads all rows below `prefix`.
pub(super) fn rows<T: serde::de::DeserializeOwned>(
    read: &dyn Read,
    prefix: &[u8],
    mut each: impl FnMut(&[u8], T) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut result = Ok(());
    read.scan(prefix, &key::after_prefix(prefix), &mut |key, value| {
        result = record::read(key, value).and_then(|row| each(key, row));
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    result
}

fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(what.to_owned())
}

impl Shelf {
    /// An empty space.
    pub(super) fn new(row: SpaceRow) -> Self {
        let mut access = Access::new(&row.genesis);
        access.introduce(row.introducer);
        access.begin(row.revision.owners());
        access.inherit(row.inherited.iter().cloned());
        Self { id: row.genesis.space(), row, totals: Totals::default(), known: Known::new(), access }
    }

    /// A space as it is stored.
    pub(super) fn load(read: &dyn Read, row: SpaceRow) -> Result<(Self, Names), StoreError> {
        let number = row.number;
        let mut shelf = Self::new(row);
        if planted!("restart-forgets-the-inviter") {
            shelf.access.introduce(None);
        }
        let mut names = Names::default();
        let totals = key::totals(number);
        if let Some(value) = read.get(&totals)? {
            shelf.totals = record::read(&totals, &value)?;
            let Totals { objects, bytes, conflicts, lost, position, arrival, horizon, begun } = shelf.totals;
            record::check_counts(&[objects, bytes, conflicts, lost, position, arrival, horizon, begun])?;
        }
        rows(read, &key::replicas(number), |_, author: Author| {
            names.add_replica(author);
            Ok(())
        })?;
        let mut branches = Vec::new();
        rows(read, &key::branches(number), |key, parent: u32| {
            let author = key::number_at(key, 5).and_then(|number| names.author(number));
            let (author, parent) = (author.copied(), names.replicas.replica(parent));
            let (Some(Author { incarnation, branch: Some((after, first)) }), Some(parent)) = (author, parent) else {
                return Err(damaged("a branch of nothing"));
            };
            record::check_counts(&[after])?;
            let root = incarnation.replica();
            branches.push((incarnation.branch(first), Branch { root, parent, after, first }));
            Ok(())
        })?;
        rows(read, &key::collections(number), |_, name: CollectionName| {
            names.add_collection(name);
            Ok(())
        })?;
        let mut heads = Vec::new();
        rows(read, &key::heads(number), |key, row: HeadRow| {
            record::check_counts(&[row.head.counter, row.head.depth])?;
            let replica: Option<ReplicaId> = key::number_at(key, 7).and_then(|number| names.replicas.replica(number));
            heads.push((replica.ok_or_else(|| damaged("head of an unknown replica"))?, row.head, row.tip));
            Ok(())
        })?;
        branches.retain(|_| !planted!("restart-forgets-copies"));
        shelf.known = Known::of_branches(branches).ok_or_else(|| damaged("a branch of nothing"))?;
        heads.into_iter().for_each(|(replica, head, tip)| shelf.known.set(replica, head, tip));
        if let Some(grants) = names.collection(&CollectionName::grants()) {
            let prefix = key::objects(number, grants);
            rows(read, &prefix, |key, row: record::ObjectRow| {
                let object = row.object.unpack(&names.replicas).map_err(|error| damaged(&error.to_string()))?;
                let name = std::str::from_utf8(&key[prefix.len()..]).map_err(|_| damaged("object key"))?;
                if !planted!("restart-forgets-grants") {
                    shelf.access.learn(name, Grant::from_object(name, &object));
                }
                Ok(())
            })?;
        }
        Ok((shelf, names))
    }
}
