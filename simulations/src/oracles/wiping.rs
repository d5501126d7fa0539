//! A wipe is clean: after a space was begun anew nobody sees a part of what it was, and nobody but its owners begins it
//! anew.
//!
//! Most of it follows from how the oracles keep what they know: by [`Era`]. What lies on a disk, what its objects show, what
//! is claimed and what clients are told is held against the events of the disk's own era, so anything of another one is too
//! much. What is left is here:
//!
//! - **Forward only**: the revision of a disk never goes back, nor does anybody's word for it vanish; but where the disk is put back.
//! - **By owners**: whose word it is was asked for by a user of that device, which somebody had made an owner before; and it
//!   stood on the disk of that device first.
//! - **Commit before send**: no node speaks of a revision that its disk is not in.
//! - **Nobody is left out**: whoever begins a space anew writes again who may do what, as far as it knows.
//! - **No mixture**: a thin client that holds rows of one revision gets none of another before it was told to begin anew,
//!   and what it writes about the one is not taken in the other.
//! - **Durability**: what a user was told is written is there, unless the space was begun anew since; and so is a wipe.

use std::collections::{BTreeMap, BTreeSet};

use thence::model::{Access, DeviceId, Revision, Role, SpaceId};
use thence::store::{Ledger, StoreError, Upload};

use super::history::{History, Shelf};
use super::{Broken, Era, Verdict, broken, trespass};

const INVARIANT: &str = "a wipe is clean";

/// Who began which era of those after the first, as it was found on disks.
pub(crate) type Begun = BTreeMap<Era, BTreeSet<DeviceId>>;

/// Who was asked by a user to begin which space anew.
pub(crate) type AskedToWipe = BTreeSet<(SpaceId, DeviceId)>;

impl History {
    /// Goes over to the era of a disk of `owner` whose revision is this one, if it was in another one before. Returns what
    /// was left behind.
    pub(super) fn go_over(
        &mut self,
        owner: DeviceId,
        shelf: &mut Shelf,
        era: Era,
        revision: &Revision,
    ) -> Result<Option<Shelf>, Broken> {
        if era.revision < shelf.revision {
            let (before, now) = (shelf.revision, era.revision);
            return broken(INVARIANT, format!("{:?} was at revision {before} and is at {now}", era.space));
        }
        let is_another = era.revision > shelf.revision;
        let began: BTreeSet<DeviceId> = revision.owners().collect();
        if !is_another && !began.is_superset(&shelf.began) {
            return broken(INVARIANT, format!("it is forgotten who began revision {}", era.revision));
        }
        for device in &began {
            self.learn_who_began(owner, era, *device)?;
        }
        let left = is_another.then(|| std::mem::take(shelf)).filter(|left| left.revision > 0);
        (shelf.revision, shelf.began) = (era.revision, began);
        Ok(left)
    }

    fn learn_who_began(&mut self, owner: DeviceId, era: Era, device: DeviceId) -> Verdict {
        if self.begun.get(&era).is_some_and(|known| known.contains(&device)) {
            return Ok(());
        }
        let Era { space, revision } = era;
        if !trespass::was_owner(self, era, device) {
            return broken("no trespass", format!("{device} begins {space:?} anew, and nobody ever made it an owner"));
        }
        if !self.asked_to_wipe.contains(&(space, device)) {
            return broken(
                "no trespass",
                format!("{device} begins {space:?} anew, and none of its users asked for it"),
            );
        }
        if device != owner {
            let detail = format!("revision {revision} of {space:?} is by {device}, whose disk does not say so");
            return broken("commit before send", detail);
        }
        self.begun.entry(era).or_default().insert(device);
        Ok(())
    }
}

/// Whether a node whose disk holds `shelf` may say that a space is in this revision.
pub(crate) fn check_opened(shelf: &Shelf, revision: &Revision) -> Verdict {
    let (said, held) = (revision.number(), shelf.revision);
    // The disk may be ahead: then nobody has told the protocol yet.
    if said < held || said == held && revision.owners().all(|owner| shelf.began.contains(&owner)) {
        return Ok(());
    }
    broken("commit before send", format!("revision {said} is spoken of, and the disk is at {held}"))
}

/// Whether all that had a role before a wipe have it still.
pub(crate) fn check_kept(before: &Access, now: &Access) -> Verdict {
    let is_kept = |(device, role): &(DeviceId, Role)| now.role(*device) >= Some(*role);
    let mut roles = before.members().map(|grant| (grant.device, grant.role));
    match roles.find(|role| !is_kept(role)) {
        None => Ok(()),
        Some((device, role)) => {
            broken("a wipe leaves nobody out", format!("{device} was {role}, and is {:?} now", now.role(device)))
        }
    }
}

/// Whether a client whose rows are of the revision `held` may be given more of them at `now`.
pub(crate) fn check_page(client: &str, held: u64, now: u64) -> Verdict {
    if held == now {
        return Ok(());
    }
    broken(INVARIANT, format!("{client} has rows of revision {held}, and is given some of {now}"))
}

/// Whether what a client wrote may have been taken at a disk that is in the revision `now`.
pub(crate) fn check_upload(upload: &Upload, now: u64) -> Verdict {
    let of_another = |seen: &&thence::model::Context| !seen.is_empty() && seen.revision() != now;
    match upload.seen.iter().find(of_another) {
        None => Ok(()),
        Some(seen) => {
            let id = upload.remark.id.as_ref().map(|id| id.as_str()).unwrap_or_default();
            broken(INVARIANT, format!("{id:?} is about what was in revision {}, and taken in {now}", seen.revision()))
        }
    }
}

/// Whether a disk that holds `shelf` is where a wipe that a user was told is done has led, or beyond.
pub(crate) fn check_wiped(shelf: &Shelf, wiped: &(Era, DeviceId)) -> Verdict {
    if has_wiped(shelf, wiped) {
        return Ok(());
    }
    let (Era { space, revision }, held) = (wiped.0, shelf.revision);
    broken("durability", format!("a user was told that {space:?} is wiped (revision {revision}), and it is at {held}"))
}

/// The same, as a question.
pub(crate) fn has_wiped(shelf: &Shelf, (era, device): &(Era, DeviceId)) -> bool {
    shelf.revision > era.revision || shelf.revision == era.revision && shelf.began.contains(device)
}

/// Whether nothing is left of what was wiped, once there was time to remove it.
pub(crate) fn check_removed(ledger: &Ledger) -> Result<Verdict, StoreError> {
    let invariant = "nothing is left of what was wiped";
    let unfinished: Vec<String> = (ledger.removals()?.into_iter())
        .filter(|removal| removal.done_ms.is_none())
        .map(|removal| removal.id())
        .collect();
    let rows = ledger.rows_left_behind()?;
    Ok(if unfinished.is_empty() && rows == 0 {
        Ok(())
    } else {
        broken(invariant, format!("{rows} rows are left, and these removals are not done: {unfinished:?}"))
    })
}
