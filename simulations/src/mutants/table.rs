//! The bugs that are planted in the product, and what each would have done to users.
//!
//! **Invariant**: every `planted!("…")` in the product stands here once, and nothing else does (`tests/mutants.rs`).

use super::{Area, Mutant, Regression};
use crate::level::Level;

/// No faults at all: the bug shows in fair weather.
const NONE: &[&str] = &[];
/// Whatever the level has.
const ANY: &[&str] = crate::core::FAULTS;
const NETWORK: &[&str] = &["loss", "duplicate", "reorder", "delay", "cut", "one-way", "drop"];
const CRASHES: &[&str] = &["crash", "disk", "slow-disk", "drop"];
/// Stores that are copied or put back, and what makes them meet late.
const COPIES: &[&str] = &["copy", "put-back", "crash", "slow-disk", "delay", "cut", "drop"];
const TOLD_IN_TROUBLE: &[&str] = &["copy", "put-back", "disk", "slow-disk"];
const HOSTILE: &[&str] = &["hostile", "outsider"];
const POWER: &[&str] = &["crash", "crash-at"];
const ROT: &[&str] = &["rot", "crash", "crash-at"];
const LINKS: &[&str] = &["drop", "cut", "crash"];
const TROUBLE: &[&str] = &["disk", "io-error", "full"];

/// Somebody never gets what others have: which oracle notices first depends on what is missing.
const STUCK: &[&str] =
    &["liveness", "convergence", "durability", "no honest peer is accused", "no stalls without a fault"];

/// The same, where a node may notice before that what it believes is not so.
const STUCK_OR_FALSE: &[&str] =
    &["liveness", "convergence", "durability", "no honest peer is accused", "no stalls without a fault", "true claims"];

/// A thin client was told that it has everything, and has not.
const THIN: &[&str] = &["thin clients miss nothing"];
const ONCE: &[&str] = &["an id takes effect once"];

type Faults = &'static [&'static str];
type Oracles = &'static [&'static str];

const fn core(name: &'static str, faults: Faults, seeds: u64, oracles: Oracles, suffered: &'static str) -> Mutant {
    Mutant { name, suffered, oracles, level: Level::Core, faults, seeds, regression: None, out_of_reach: None }
}

const fn store(name: &'static str, faults: Faults, seeds: u64, oracles: Oracles, suffered: &'static str) -> Mutant {
    Mutant { name, suffered, oracles, level: Level::Store, faults, seeds, regression: None, out_of_reach: None }
}

const fn node(name: &'static str, faults: Faults, seeds: u64, oracles: Oracles, suffered: &'static str) -> Mutant {
    Mutant { name, suffered, oracles, level: Level::Node, faults, seeds, regression: None, out_of_reach: None }
}

impl Mutant {
    /// The same, where a regression shows it.
    const fn shown_by(self, regression: Regression) -> Self {
        Self { regression: Some(regression), ..self }
    }

    /// The same, where no world can show it.
    const fn out_of_reach(self, why: &'static str) -> Self {
        Self { out_of_reach: Some(why), ..self }
    }
}

/// A regression, by the name of its file without its ending.
macro_rules! regression {
    ($name:literal) => {
        Regression { name: $name, text: include_str!(concat!("../../regressions/", $name, ".scenario")) }
    };
}

/// All of them, by what they break.
pub const AREAS: &[Area] = &[
    Area {
        name: "thin clients",
        mutants: &[
            core("id-forgotten", NONE, 100, ONCE, "a phone on a bad line sends a like again, and it counts twice"),
            core(
                "id-stays-where-it-was-written",
                NETWORK,
                500,
                ONCE,
                "a phone that was not answered asks another relay, and its like counts twice",
            ),
            core(
                "horizon-stays",
                NONE,
                300,
                THIN,
                "a phone that was away for long shows for ever what was deleted meanwhile",
            ),
            core(
                "too-old-goes-on",
                NONE,
                300,
                THIN,
                "a phone that was away for long is not told to begin anew, and shows for ever what was deleted meanwhile",
            ),
            core(
                "old-token-goes-on",
                NETWORK,
                300,
                THIN,
                "a phone that changes to another relay misses what stands there at other places",
            ),
            core(
                "changes-meanwhile-missed",
                NONE,
                300,
                THIN,
                "what is written while a phone fetches everything for the first time never comes to it",
            ),
            core("next-round-untold", NONE, 300, THIN, "a phone says that it is up to date, and is not"),
            core(
                "page-skips-what-does-not-fit",
                NONE,
                300,
                THIN,
                "of many long rows that changed a phone never gets those that did not fit into a page",
            ),
        ],
    },
    Area {
        name: "wipes",
        mutants: &[
            core(
                "anybody-wipes",
                HOSTILE,
                2000,
                &["no trespass"],
                "a reader who forges an owner's word empties everybody's space",
            ),
            core(
                "wipe-forgets-members",
                NONE,
                100,
                &["a wipe leaves nobody out"],
                "whoever wipes a space throws out all with whom it is shared",
            ),
            core(
                "wipe-not-followed",
                NONE,
                100,
                STUCK,
                "what was wiped on the laptop stays on the phone for ever, and the two never speak again",
            ),
            core(
                "admitted-in-silence",
                NETWORK,
                3000,
                STUCK,
                "a device that a wipe left out is invited again, and is given nothing",
            )
            .shown_by(regression!("034-invited-again-after-a-wipe")),
            core(
                "wiped-rows-stay",
                NONE,
                100,
                &["nothing is left of what was wiped"],
                "what somebody wiped lies on every disk for ever",
            ),
            core(
                "positions-begin-again",
                NONE,
                300,
                &["feed"],
                "an app that follows a space shows after a wipe what is not there any more",
            ),
            core(
                "old-revision-merged",
                ANY,
                2000,
                &["readable log", "a wipe is clean", "the equation", "commit before send"],
                "what was on its way when a space was wiped is in it afterwards",
            ),
            core(
                "old-revision-taken-in",
                ANY,
                2000,
                STUCK_OR_FALSE,
                "a device takes what a peer had of a wiped space for what it has of the new one, and never sends that",
            ),
            core(
                "context-outlives-a-wipe",
                NONE,
                1000,
                &["a wipe is clean"],
                "a phone that was away while a space was wiped deletes what it never saw",
            ),
        ],
    },
    Area {
        name: "join",
        mutants: &[
            core(
                "delete-removes-nothing",
                NONE,
                50,
                &["the equation"],
                "what is deleted on the phone stays on the laptop for ever",
            ),
            core(
                "delete-removes-the-unseen",
                NONE,
                200,
                &["the equation"],
                "a delete takes along what somebody else wrote at the same time",
            ),
            core(
                "edit-removes-the-unseen",
                NONE,
                200,
                &["the equation"],
                "of two people who write one field at once, one loses the edit in silence",
            ),
            core(
                "transaction-torn",
                NONE,
                50,
                &["the equation"],
                "a transfer is taken from one account and never put on the other",
            ),
            core(
                "conflict-unlisted",
                NONE,
                300,
                &["no lost update"],
                "of two values that were written at once nobody ever hears of the second",
            ),
            core(
                "sibling-dropped",
                NONE,
                1000,
                &["no lost update"],
                "of three values that were written at once only two are shown",
            ),
            core(
                "lost-edit-unlisted",
                NONE,
                500,
                &["no lost update"],
                "an edit that lost to a delete is nowhere to be found",
            ),
        ],
    },
    Area {
        name: "writes",
        mutants: &[
            core(
                "put-leaves-lost-edits",
                NONE,
                500,
                &["a write does what was asked"],
                "an object that is written anew shows fields of the deleted one",
            ),
            core(
                "unset-leaves-members",
                NONE,
                300,
                &["a write does what was asked"],
                "a map that was removed is still there",
            ),
            core(
                "update-keeps-the-rest",
                NONE,
                100,
                &["a write does what was asked"],
                "fields that a file does not have any more stay in the object",
            ),
            core(
                "write-replaces-one-value",
                NONE,
                500,
                &["a write does what was asked"],
                "a conflict that was decided is still a conflict",
            ),
            core(
                "winner-not-written-again",
                NETWORK,
                1000,
                &["a write does what was asked"],
                "who decides a conflict for what is shown decides nothing",
            ),
        ],
    },
    Area {
        name: "counters",
        mutants: &[
            core(
                "counter-starts-over",
                NONE,
                200,
                &["a write does what was asked"],
                "each like on the phone replaces the one before it",
            ),
            core(
                "counter-takes-any",
                ANY,
                2000,
                &["counters come to what was counted"],
                "a stock that was counted down is back at what it was",
            ),
            core(
                "reset-forgotten",
                NONE,
                300,
                &["a write does what was asked", "counters come to what was counted"],
                "a counter that was reset to nothing goes on from the old total",
            ),
            core(
                "counts-not-remembered",
                COPIES,
                4000,
                &["the equation"],
                "after a backup was put back, what had been counted before counts as nothing",
            ),
            core(
                "branch-counts-twice",
                COPIES,
                4000,
                &["the equation"],
                "after a backup was put back, what had been counted before counts twice",
            ),
        ],
    },
    Area {
        name: "feed",
        mutants: &[
            core(
                "feed-forgets-deletes",
                NONE,
                100,
                &["feed"],
                "an app that follows the feed shows deleted objects for ever",
            ),
            core(
                "feed-keeps-old-places",
                NONE,
                50,
                &["feed"],
                "a new app is sent every old place of every object, and the store grows with every write",
            ),
            core("feed-gives-a-place-twice", NONE, 100, &["feed"], "an app that follows the feed misses changes"),
            core(
                "feed-loses-the-deleted",
                NONE,
                300,
                &["feed"],
                "an object that comes back stands in the feed twice, once as deleted",
            ),
            core(
                "feed-page-skips-one",
                NONE,
                100,
                &["feed"],
                "an app that reads the feed page by page misses the first change of every page",
            ),
            core(
                "total-counts-changes",
                NONE,
                50,
                &["totals and indexes"],
                "a space with one note says that it holds a hundred",
            ),
            core(
                "index-keeps-what-was-solved",
                NONE,
                300,
                &["totals and indexes"],
                "conflicts that were decided are listed for ever",
            ),
        ],
    },
    Area {
        name: "commit order",
        mutants: &[
            core(
                "vector-without-events",
                NONE,
                50,
                &["readable log"],
                "a node says that it has a note that is nowhere on its disk",
            ),
            core(
                "ack-before-durable",
                NONE,
                50,
                &["true claims"],
                "the phone shows 'synced', the laptop's power fails, and the note is on neither",
            ),
            core(
                "failed-commit-counts",
                CRASHES,
                1000,
                &["durability"],
                "a full disk refuses a write, and the user is told that it is saved",
            ),
            core(
                "reopened-unread",
                CRASHES,
                1000,
                &["true claims"],
                "after a disk error a node offers to others what it does not have",
            ),
            core(
                "landed-commit-untold",
                CRASHES,
                3000,
                STUCK,
                "after a disk error a note that was saved after all reaches nobody",
            ),
        ],
    },
    Area {
        name: "crash recovery",
        mutants: &[
            core(
                "totals-not-stored",
                CRASHES,
                50,
                &["durability", "causal order", "readable log", "vector and log in one batch"],
                "after a restart new notes are written over old ones",
            ),
            core(
                "tips-not-stored",
                CRASHES,
                1000,
                &["causal order"],
                "after a restart every note drags along all that it ever built on",
            ),
            core(
                "collection-unnamed",
                CRASHES,
                200,
                &["the equation", "no failure without a fault"],
                "after a restart a whole collection is gone",
            ),
            core(
                "restart-forgets-grants",
                CRASHES,
                300,
                STUCK,
                "after a restart the phone is shut out of its own space",
            ),
            core(
                "restart-forgets-the-inviter",
                CRASHES,
                4000,
                STUCK,
                "a phone that is switched off while it joins takes the owner for a liar",
            ),
            core(
                "restart-forgets-the-new-name",
                COPIES,
                500,
                &["no name is used again"],
                "a phone that was restored, and restarted, writes under names that its lost notes bear",
            ),
            core(
                "known-again-in-the-log",
                COPIES,
                3000,
                &["causal order"],
                "a new device is sent what it cannot take in yet, since what that builds on stands further on in the log",
            )
            .shown_by(regression!("037-known-before-it-came-again")),
            core(
                "restart-forgets-copies",
                COPIES,
                2000,
                &["vector and log in one batch", "no failure without a fault"],
                "after a restart what two copies of a store wrote is one heap",
            ),
        ],
    },
    Area {
        name: "vectors",
        mutants: &[
            core("dependency-forgotten", NONE, 50, &["causal order"], "a reply is shown before what it replies to"),
            core(
                "dependencies-pile-up",
                NONE,
                50,
                &["causal order"],
                "every note names every device that ever wrote: vectors for each of them",
            ),
            core(
                "depth-of-own-events",
                NONE,
                50,
                &["causal order"],
                "a value from yesterday wins against one that was written over it today",
            ),
            core(
                "depth-unchecked",
                HOSTILE,
                2000,
                &["causal order"],
                "a hostile device writes a value that wins every conflict for ever",
            ),
            core(
                "forwarder-accused",
                HOSTILE,
                3000,
                &["no honest peer is accused"],
                "who passes on what a hostile device wrote is taken for hostile too, and cut off",
            )
            .shown_by(regression!("030-deeper-than-what-is-here")),
            core(
                "witness-unchecked",
                HOSTILE,
                4000,
                &["causal order"],
                "a hostile device deletes on some nodes, and not on others, what is still on its way",
            ),
            core("digest-grows-old", NONE, 100, &["true claims"], "two devices say that they are in step, and are not"),
            core(
                "digest-of-counters",
                COPIES,
                4000,
                STUCK,
                "two copies of a store that wrote equally much never hear of each other's notes",
            ),
        ],
    },
    Area {
        name: "catch-up",
        mutants: &[
            core("newcomer-asks-nobody", NONE, 200, STUCK, "a phone that joins stays empty"),
            core(
                "knowledge-untold",
                NONE,
                200,
                &["no stalls without a fault"],
                "two devices with much to say wait ten seconds before they begin",
            ),
            core(
                "old-answer-counts-as-new",
                ANY,
                2000,
                &["true claims"],
                "what was written while two devices greet each other is never sent",
            ),
            core(
                "question-unanswered",
                NETWORK,
                2000,
                STUCK,
                "a message is lost at the beginning, and two devices wait for each other for ever",
            ),
            core(
                "catch-up-skips-one",
                NONE,
                50,
                &["vector and log in one batch", "liveness"],
                "a phone that was offline never catches up",
            ),
            core(
                "catch-up-backwards",
                NONE,
                300,
                &["causal order", "liveness"],
                "a phone that was offline for long never catches up",
            ),
            core("stalled-for-ever", NETWORK, 1000, STUCK, "one lost message, and a device waits for ever"),
            core(
                "read-error-is-final",
                CRASHES,
                4000,
                STUCK,
                "one read error, and a device sends nothing more until it is restarted",
            ),
        ],
    },
    Area {
        name: "live push",
        mutants: &[
            core(
                "nothing-forwarded",
                NONE,
                100,
                STUCK,
                "two phones that meet only the laptop never see each other's notes",
            ),
            core(
                "sent-counts-as-received",
                NONE,
                50,
                &["true claims"],
                "the app says that the other side has it, and it is lost on the way",
            ),
            core(
                "old-names-sent",
                COPIES,
                4000,
                STUCK,
                "after a store was copied, one device never gets what the others have",
            ),
            core(
                "renamed-in-silence",
                COPIES,
                2000,
                STUCK,
                "after a store was copied, two devices never agree who has what",
            ),
        ],
    },
    Area {
        name: "acks",
        mutants: &[
            core(
                "ack-by-name",
                COPIES,
                4000,
                STUCK,
                "a copy says that it has its own note, and is never sent the other one of that name",
            ),
            core(
                "one-ack-for-two",
                COPIES,
                4000,
                STUCK,
                "two copies of a store each take the other's note for their own",
            )
            .shown_by(regression!("010-one-name-acknowledged-for-two")),
            core(
                "older-ack-counts",
                NETWORK,
                1000,
                &["no storms"],
                "a late acknowledgement makes a device send again what is long there",
            ),
            core(
                "other-history-believed",
                COPIES,
                4000,
                STUCK,
                "a copy that wrote under one name counts as one that has everything",
            ),
            core(
                "other-history-unsent",
                COPIES,
                2000,
                STUCK,
                "what a restored phone wrote is refused by all others for ever",
            ),
            core(
                "other-history-acknowledged",
                COPIES,
                4000,
                STUCK,
                "a copy says that it has what it was never sent, and asks for it for ever",
            ),
        ],
    },
    Area {
        name: "backpressure",
        mutants: &[
            core("window-leaks", NONE, 200, STUCK, "sending gets slower and slower, and ends"),
            core(
                "window-leaks-at-reopening",
                NETWORK,
                2000,
                STUCK,
                "after some bad minutes on a train nothing is sent any more",
            ),
            core(
                "push-past-the-window",
                ANY,
                3000,
                &["bounded window"],
                "one slow phone makes the relay's memory grow",
            ),
            core(
                "window-uncounted",
                NONE,
                200,
                &["bounded window"],
                "one phone that catches up makes the relay's memory grow",
            ),
            core("session-window-leaks", NONE, 300, STUCK, "a device with many spaces stops sending all of them"),
            core(
                "session-window-ignored",
                ANY,
                6000,
                &["bounded window"],
                "one phone with a thousand spaces makes the relay's memory grow",
            ),
            core("waiting-space-forgotten", NONE, 500, STUCK, "of many spaces some are never sent"),
        ],
    },
    Area {
        name: "copies",
        mutants: &[
            core(
                "lost-names-used-again",
                COPIES,
                500,
                &["no name is used again"],
                "a phone that was restored writes under names that its lost notes bear",
            ),
            core(
                "rollback-unheeded",
                COPIES,
                1000,
                &["no name is used again"],
                "a phone that was restored is told so, and writes under used names all the same",
            ),
            core(
                "renewal-fails-for-good",
                TOLD_IN_TROUBLE,
                5000,
                &["no name is used again"],
                "a phone that was restored is told so while its disk is full, and writes under used names all the same",
            ),
            core(
                "branches-share-a-name",
                COPIES,
                500,
                &["vector and log in one batch", "no honest peer is accused", "the equation"],
                "of two copies' notes one stands for both",
            ),
            core(
                "dependency-keeps-its-name",
                COPIES,
                2000,
                &["the equation"],
                "after a store was copied, an edit removes what its author never saw",
            )
            .out_of_reach(
                "an event would have to build on another branch of its own author's history, and whoever takes in one \
                 writes under another id from that commit on",
            ),
            core(
                "event-read-in-old-names",
                COPIES,
                2000,
                &["the equation", "liveness"],
                "after a store was copied, a delete hits the wrong copy's note",
            ),
            core(
                "split-loses-places",
                COPIES,
                500,
                &["no failure without a fault", "liveness", "readable log"],
                "after a store was copied, a device cannot find what it has in its own log",
            ),
        ],
    },
    Area {
        name: "cluster",
        mutants: &[
            core("space-not-introduced", NONE, 500, STUCK, "a new node of a cluster stays empty"),
            core("cluster-peer-not-granted", NONE, 500, STUCK, "a new node of a cluster is refused everything"),
        ],
    },
    Area {
        name: "grants",
        mutants: &[
            core(
                "reader-writes",
                HOSTILE,
                500,
                &["no trespass"],
                "what a reader writes is refused by everybody, and it is cut off",
            ),
            core("reader-is-believed", HOSTILE, 1000, &["no trespass"], "whoever may read a space writes in it"),
            core("writer-grants", HOSTILE, 2000, &["no trespass"], "whoever may write invites whom they like"),
            core(
                "weakest-grant-counts",
                ANY,
                6000,
                STUCK,
                "an owner who is also invited as a reader is refused by those who hear of that first",
            ),
            core("anybody-may-see", HOSTILE, 300, &["no trespass"], "a stranger who connects is sent the space"),
            core("refusal-tells", HOSTILE, 1000, &["no trespass"], "a stranger finds out which spaces a device holds"),
            core(
                "probe-tells",
                HOSTILE,
                2000,
                &["no trespass"],
                "a stranger finds out which spaces a device holds, and when they are in step",
            ),
            core(
                "grant-not-shown",
                COPIES,
                3000,
                STUCK,
                "an owner who restored a backup shuts out for ever whom they had invited since",
            ),
            core(
                "grant-looked-for-too-early",
                COPIES,
                4000,
                STUCK,
                "a phone whose grant comes a moment after it was refused is shut out by a restored owner for ever",
            ),
            core(
                "shown-too-late",
                ANY,
                3000,
                STUCK,
                "`sync` of a node that joins never ends, though everything is there",
            ),
            core(
                "anybody-vouches",
                HOSTILE,
                3000,
                &["no trespass"],
                "a stranger who signs a grant to themselves is sent the space",
            ),
            core(
                "anybodys-ticket",
                HOSTILE,
                1000,
                &["no trespass"],
                "a stranger who signs a ticket for themselves owns the space",
            ),
            core(
                "ticket-unsigned",
                HOSTILE,
                1000,
                &["no trespass"],
                "a stranger who forges the owner's ticket owns the space",
            ),
        ],
    },
    Area {
        name: "segments",
        mutants: &[
            core(
                "signature-unchecked",
                HOSTILE,
                2000,
                &["commit before send"],
                "a relay alters what a user wrote, and nobody notices",
            ),
            core(
                "segment-fits-any-space",
                HOSTILE,
                4000,
                &["commit before send", "one dot, one event"],
                "a note is moved into another space by whoever forwards it",
            ),
        ],
    },
    Area {
        name: "the disk (level `store`)",
        mutants: &[
            store("nothing-synced", POWER, 1000, &["durability"], "the power fails, and with it goes what was saved"),
            store(
                "commit-in-one-phase",
                ROT,
                3000,
                &["durability"],
                "one flipped bit after a power failure takes the last note with it in silence",
            ),
            store(
                "damage-unseen",
                ROT,
                3000,
                &["no failure without a fault"],
                "a flipped bit is served as if it were what somebody wrote",
            ),
        ],
    },
    Area {
        name: "the node's loop (level `node`)",
        mutants: &[
            node("lost-peer-not-sought", LINKS, 300, STUCK, "a connection that breaks is never made again"),
            node(
                "recovered-in-silence",
                TROUBLE,
                300,
                STUCK,
                "after a disk was full for a moment, a device takes part in nothing until it is restarted",
            ),
            node(
                "room-never-given-back",
                NONE,
                400,
                STUCK,
                "a device takes less and less from others, and then nothing",
            ),
        ],
    },
];
