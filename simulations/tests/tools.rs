//! What surrounds a run leaves it as it is: recording, counting, shrinking, drawing.

use simulations::draw::page;
use simulations::level::{Level, Shape, observe, run};
use simulations::reach::{Phase, Reach};
use simulations::world::{Fate, MarkKind, Scenario, SpanKind, Trace};

fn scenario(seed: u64) -> Scenario {
    Level::Core.generate(seed, &Shape::default())
}

#[test]
fn whoever_looks_changes_nothing() {
    for seed in 0..20 {
        let scenario = scenario(seed);
        let plain = run(&scenario, false);
        let mut trace = Trace::default().recording().counting();
        let watched = observe(&scenario, &mut trace);
        assert_eq!((watched.hash, watched.violation), (plain.hash, plain.violation), "seed {seed}");
    }
}

#[test]
fn a_story_has_what_happened() {
    let text = "nodes 2\nedge 1 0\n\
        10 redeem 1 0 from 0 as owner\n\
        400 write 0 0 [{\"collection\":\"notes\",\"key\":\"k\",\"operation\":{\"put\":{\"title\":1}}}]\n\
        600 cut 0 1\n\
        700 write 0 0 [{\"collection\":\"notes\",\"key\":\"k\",\"operation\":\"delete\"}]\n\
        900 heal 0 1\n\
        1000 crash 1\n\
        1200 restart 1\n\
        quiet 1500\n";
    let scenario: Scenario = text.parse().expect("a scenario");
    let mut trace = Trace::default().recording();
    assert_eq!(observe(&scenario, &mut trace).violation, None);
    let story = trace.into_story().expect("it was recorded");
    let count = |kind| story.marks.iter().filter(|mark| mark.kind == kind).count();
    assert_eq!((count(MarkKind::Write), count(MarkKind::Acknowledged)), (2, 2));
    assert_eq!((count(MarkKind::Crash), count(MarkKind::Restart)), (1, 1));
    let spans: Vec<_> = story.spans.iter().map(|span| (span.kind, span.from_ms, span.to_ms)).collect();
    assert_eq!(spans, [(SpanKind::Cut, 600, Some(900)), (SpanKind::Down, 1000, Some(1200))]);
    // What was said during the cut came when it was over.
    let late = story.messages.iter().find(|message| (600..900).contains(&message.sent_at) && message.from == 0);
    assert!(matches!(late.expect("it says that it wrote").fate, Fate::Arrived(at) if at >= 900));

    let page = page("told", &scenario, &story);
    let elsewhere = ["https:", "http:", "src=", "href=", "@import", "url("];
    let allowed = page.replace("http://www.w3.org/2000/svg", "");
    assert!(elsewhere.iter().all(|way| !allowed.contains(way)), "the page asks the network for something");
    // People do not read names of bytes.
    assert!(page.contains("on disk: n0:") && page.contains("notes/k delete"));
}

#[test]
fn faults_are_counted_where_they_strike() {
    let mut reach = Reach::default();
    for seed in 0..40 {
        let mut trace = Trace::default().counting();
        observe(&scenario(seed), &mut trace);
        reach.add(&trace.into_reach().expect("it was counted"));
    }
    for (fault, phase) in [
        ("crash", Phase::CommitInFlight),
        ("crash", Phase::Live),
        ("cut", Phase::AwaitingAck),
        ("loss", Phase::CatchingUp),
        ("put-back", Phase::Live),
    ] {
        assert!(reach.count(fault, phase) > 0, "{fault} never struck while {}", phase.name());
    }
}
