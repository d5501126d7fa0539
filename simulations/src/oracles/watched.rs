//! One node as the oracles watch it: what lies on its disk, and what its users were told.

use std::collections::{BTreeMap, BTreeSet};

use thence::causal::EventHash;
use thence::model::{DeviceId, SpaceId};
use thence::store::{StoreError, View};

use super::{Broken, Era, Follower, History, Shelf, check_acknowledged, check_object, check_reopened, convergence};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    pub(crate) shelves: BTreeMap<SpaceId, Shelf>,
    /// What users of this node were told is written, and no fault took away.
    pub(crate) acknowledged: BTreeSet<(Era, EventHash)>,
    followers: BTreeMap<SpaceId, Follower>,
}

/// What is read may be unreadable, or wrong.
type Watch<T> = Result<Result<T, Broken>, StoreError>;

impl Watched {
    /// Reads what a disk has beyond what was seen of it, and checks it: new events, the objects that they touch (or
    /// all), and the feed, of which `page` changes are taken at a time.
    ///
    /// Returns how many of the new events the disk's own device wrote.
    pub(crate) fn read_on(
        &mut self,
        history: &mut History,
        owner: DeviceId,
        views: &[View],
        all: bool,
        page: usize,
    ) -> Watch<usize> {
        let mut own = 0;
        for view in views {
            let space = view.id();
            let shelf = self.shelves.entry(space).or_default();
            let mut read = match history.read_on(owner, shelf, view)? {
                Ok(read) => read,
                Err(wrong) => return Ok(Err(wrong)),
            };
            own += read.own;
            if all || read.renamed || read.left.is_some() {
                read.touched = history.objects(space);
            }
            for name in &read.touched {
                let object = view.state(&name.0, &name.1)?;
                if let Err(wrong) = check_object(history, shelf.era(space), name, shelf, object.as_ref()) {
                    return Ok(Err(wrong));
                }
            }
            if let Err(wrong) = self.followers.entry(space).or_default().follow(view, page)? {
                return Ok(Err(wrong));
            }
        }
        Ok(Ok(own))
    }

    /// Reads a disk from its beginning, and compares it with what it held before.
    pub(crate) fn read_again(&mut self, history: &mut History, owner: DeviceId, views: &[View]) -> Watch<()> {
        let before = std::mem::take(&mut self.shelves);
        if let Err(wrong) = self.read_on(history, owner, views, true, 3)? {
            return Ok(Err(wrong));
        }
        for (space, old) in &before {
            let now = self.shelves.get(space).cloned().unwrap_or_default();
            if let Err(wrong) = check_reopened(old, &now) {
                return Ok(Err(wrong));
            }
        }
        Ok(Ok(()))
    }

    /// All that a device has written here up to now, its users were told is written.
    pub(crate) fn acknowledge(&mut self, history: &History, space: SpaceId, device: DeviceId) {
        let Some(shelf) = self.shelves.get(&space) else { return };
        let era = shelf.era(space);
        let own = shelf.log.iter().filter(|event| history.is_by(era, **event, device));
        self.acknowledged.extend(own.map(|event| (era, *event)));
    }

    /// Whether everything that anybody acknowledged is there and shown rightly, and what a user sees of it.
    pub(crate) fn check_whole(
        &mut self,
        history: &History,
        view: &View,
        acknowledged: &BTreeSet<(Era, EventHash)>,
    ) -> Watch<convergence::Export> {
        let space = view.id();
        let export = match convergence::Export::read(view)? {
            Ok(export) => export,
            Err(wrong) => return Ok(Err(wrong)),
        };
        let shelf = self.shelves.entry(space).or_default();
        for name in &history.objects(space) {
            let object = view.state(&name.0, &name.1)?;
            if let Err(wrong) = check_object(history, shelf.era(space), name, shelf, object.as_ref()) {
                return Ok(Err(wrong));
            }
        }
        for (era, event) in acknowledged {
            if let Err(wrong) = check_acknowledged(history, *era, shelf, *event) {
                return Ok(Err(wrong));
            }
        }
        let follower = self.followers.entry(space).or_default();
        loop {
            match follower.follow(view, 3)? {
                Ok(true) => {}
                Ok(false) => break,
                Err(wrong) => return Ok(Err(wrong)),
            }
        }
        if let Err(wrong) = follower.check(view)? {
            return Ok(Err(wrong));
        }
        Ok(Ok(export))
    }

    /// Forgets what was followed, after the disk became another one.
    pub(crate) fn forget_feed(&mut self) {
        self.followers.clear();
    }
}
