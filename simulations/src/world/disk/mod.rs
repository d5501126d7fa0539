//! A node's disk: the product's memory store, or the product's real store on a medium that fails.
//!
//! It outlives the node's crashes. What it may do to the node is in [`fault`]; what a crash leaves of it in [`tear`].

mod fault;
mod medium;
mod memory;
mod tear;

use std::sync::Arc;

use thence::store::{Batch, MemoryStore, Store, StoreError};

pub use self::fault::{DiskFault, MediumFault};
pub(crate) use self::medium::{FileImage, Medium, Step};
pub(crate) use self::memory::MemoryDisk;
pub(crate) use self::tear::{Change, Tear};
use super::Chance;
use crate::level::Level;

/// One node's disk.
#[derive(Debug)]
pub(crate) enum Disk {
    /// At the levels `model` and `core`.
    Memory(Arc<MemoryDisk>),
    /// At the levels `store` and `node`.
    Medium(Medium),
}

/// What was on a disk at some time.
#[derive(Debug)]
pub(crate) enum Image {
    Memory(MemoryStore),
    File(FileImage),
}

impl Image {
    pub(crate) fn fork(&self) -> Self {
        match self {
            Self::Memory(memory) => Self::Memory(memory.fork()),
            Self::File(file) => Self::File(file.clone()),
        }
    }
}

impl Disk {
    /// An empty one for a node of this level.
    pub(crate) fn new(level: Level, chance: Chance, node: usize) -> Self {
        match level {
            Level::Model | Level::Core => Self::Memory(Arc::default()),
            Level::Store | Level::Node => Self::Medium(Medium::new(chance, node)),
        }
    }

    /// The medium under the real store, if there is one.
    pub(crate) fn medium(&self) -> Option<&Medium> {
        match self {
            Self::Memory(_) => None,
            Self::Medium(medium) => Some(medium),
        }
    }

    /// Opens the store that is on it, or makes one with `first` in it.
    pub(crate) fn store(&self, first: &Batch) -> Result<Arc<dyn Store>, StoreError> {
        match self {
            Self::Memory(memory) => {
                memory.begin(first)?;
                Ok(Arc::clone(memory) as Arc<dyn Store>)
            }
            Self::Medium(medium) => medium.store(first),
        }
    }

    /// What is on it now.
    pub(crate) fn image(&self) -> Image {
        match self {
            Self::Memory(memory) => Image::Memory(memory.image()),
            Self::Medium(medium) => Image::File(medium.image()),
        }
    }

    /// Puts back what was on it, or on another disk of its level.
    pub(crate) fn put_back(&self, image: &Image) {
        match (self, image) {
            (Self::Memory(memory), Image::Memory(image)) => memory.put_back(image),
            (Self::Medium(medium), Image::File(image)) => medium.put_back(image),
            _ => unreachable!("a world has one level"),
        }
    }

    /// Makes the next commit fail.
    pub(crate) fn fail_next(&self, fault: DiskFault) {
        match self {
            Self::Memory(memory) => memory.fail_next(fault),
            Self::Medium(medium) => medium.fail_next(fault),
        }
    }

    /// Nothing goes wrong with it any more.
    pub(crate) fn recover(&self) {
        match self {
            Self::Memory(memory) => memory.recover(),
            Self::Medium(medium) => medium.calm(),
        }
    }

    /// Ends what the process does to it, which is dropped next.
    pub(crate) fn cut(&self) {
        if let Self::Medium(medium) = self {
            medium.cut();
        }
    }

    /// The process that used it is gone.
    pub(crate) fn crash(&self) {
        match self {
            Self::Memory(memory) => memory.recover(),
            Self::Medium(medium) => medium.crash(),
        }
    }

    /// Lets an oracle read without any fault, or no longer.
    pub(crate) fn look_at(&self, looked_at: bool) {
        if let Self::Medium(medium) = self {
            medium.look_at(looked_at);
        }
    }

    /// Whether the process died at an operation on it.
    pub(crate) fn has_died(&self) -> bool {
        self.medium().is_some_and(Medium::has_died)
    }

    /// Whether an error of the store is this disk's fault.
    pub(crate) fn explains(&self, error: &StoreError) -> bool {
        match self {
            Self::Memory(_) => matches!(error, StoreError::Io(_)),
            Self::Medium(medium) => medium.explains(error),
        }
    }
}
