//! What is asked of a node's ledger when all is over: it reads whole, is the same when it is opened anew, and another
//! node that is sent its log knows the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::ops::ControlFlow;
use std::sync::Arc;

use thence::causal::VersionVector;
use thence::model::{CollectionName, DeviceId, ObjectKey, Role, Segment, SpaceId};
use thence::replica::{Introduction, SessionId};
use thence::store::{ChangeKind, Ledger, MemoryStore, View, Work};

use super::super::world::{OBSERVER, OWNER, empty_store, key, ledger, node_store};

/// How a ledger came to hold each of its spaces.
pub(super) type Origins = BTreeMap<SpaceId, (Introduction, DeviceId)>;

/// Looks at a ledger that has been through anything.
pub(super) fn check(store: &Arc<MemoryStore>, ledger: &Ledger, origins: &Origins) {
    let again = Ledger::open(Arc::clone(store) as _, key(OWNER).clone()).expect("it can be opened anew");
    assert_eq!((again.replica(), again.held()), (ledger.replica(), ledger.held()), "nothing is known by heart only");
    let began = node_store();
    let began = self::ledger(Arc::new(began), OWNER);
    for (space, (introduction, introducer)) in origins {
        let view = view(ledger, *space);
        let all = all_of(&view);
        if began.view(*space).expect("readable").is_some_and(|view| view.vector() == Ok(all.vector.clone())) {
            continue;
        }
        let other = self::ledger(Arc::new(empty_store(OBSERVER)), OBSERVER);
        let join = Work::Join { introduction: introduction.clone(), introducer: *introducer };
        other.commit(&[join], 0, 1).expect("memory does not fail");
        let log = view.log_after(&VersionVector::new(), usize::MAX).expect("readable");
        let genuine = |bytes: &Arc<[u8]>| Segment::verify(*space, introduction.revision.number(), Arc::clone(bytes));
        let segments: Vec<Segment> =
            log.iter().map(|stretch| genuine(&stretch.bytes).expect("only what is genuine is kept")).collect();
        let sent = Work::Receive { session: SessionId(0), space: *space, segments };
        let report = other.commit(&[sent], 0, 2).expect("memory does not fail");
        let rejected = report.changed.get(space).map(|changed| changed.rejected.clone()).unwrap_or_default();
        assert_eq!(rejected, [], "what is kept is taken by everybody");
        let known = |ledger: &Ledger| ledger.held().into_iter().find(|held| held.0 == *space).map(|held| held.2);
        assert_eq!(known(&other), known(ledger), "both know the same");
        assert_eq!(all_of(&self::view(&other, *space)), all, "both have the same");
        let role = |ledger: &Ledger, device| ledger.access(*space).expect("it is held").role(device);
        let devices = ledger.access(*space).expect("it is held").devices();
        let roles = |of: &Ledger| devices.iter().map(|device| role(of, *device)).collect::<Vec<Option<Role>>>();
        assert_eq!(roles(&other), roles(ledger), "both let the same devices do the same");
    }
}

fn view(ledger: &Ledger, space: SpaceId) -> View {
    ledger.view(space).expect("readable").expect("it is held")
}

/// All that a space shows.
#[derive(Debug, PartialEq)]
struct All {
    vector: VersionVector,
    objects: BTreeMap<(CollectionName, ObjectKey), String>,
    conflicts: String,
    lost: String,
}

fn all_of(view: &View) -> All {
    let text = |value: &dyn Debug| format!("{value:?}");
    let mut objects = BTreeMap::new();
    let visited = view.visit(None, &mut |collection, key, object| {
        objects.insert((collection.clone(), key), text(object));
        ControlFlow::Continue(())
    });
    visited.expect("readable");
    let (conflicts, lost) = (view.conflicts().expect("readable"), view.lost().expect("readable"));
    let summary = view.summary().expect("readable");
    let counted = (summary.objects, summary.conflicts, summary.lost);
    assert_eq!(counted, (objects.len() as u64, conflicts.len() as u64, lost.len() as u64), "it counts well");
    let changes = view.changes(0, usize::MAX).expect("readable");
    let there = changes.iter().filter(|change| matches!(change.kind, ChangeKind::Put(_)));
    let fed: BTreeSet<_> = there.map(|change| (change.collection.clone(), change.key.clone())).collect();
    assert!(fed.iter().eq(objects.keys()), "what is there is in the feed");
    view.credentials().expect("readable");
    All { vector: summary.vector, objects, conflicts: text(&conflicts), lost: text(&lost) }
}
