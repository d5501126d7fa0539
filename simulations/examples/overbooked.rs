//! What version vectors do under partition, seen by an application that believes too much.
//!
//! Seats are booked at several counters, each seat for whoever comes first: "a seat never has two holders". That holds
//! at one counter. Where two are cut off from one another, both may give away one seat, and no replication can prevent
//! it: version vectors say that neither knew of the other, so *both* bookings are kept, and shown as a conflict to be
//! decided. This world finds that out, and draws how it came:
//!
//! ```text
//! cargo run --release -p simulations --example overbooked -- run --seeds 20
//! cargo run --release -p simulations --example overbooked -- draw core:3     core-3.html: shrunk to a few steps
//! ```

use std::process::ExitCode;

use serde_json::{Map, json};
use simulations::application::{Application, WorldsOf};
use simulations::world::Draws;
use thence::model::{CollectionName, Operation, Request};
use thence::store::View;

#[derive(Default)]
struct Seats;

impl Application for Seats {
    fn transaction(&mut self, draws: &mut Draws) -> Vec<Request> {
        let (seat, holder) = (draws.within((1, 4)), *draws.pick(&["ann", "ben", "eve", "joe"]));
        let operation = Operation::Put(Map::from_iter([("holder".to_owned(), json!(holder))]));
        let collection = CollectionName::user("seats").expect("a collection's name");
        vec![Request { collection, key: format!("seat-{seat}").parse().expect("a key"), operation }]
    }

    fn after_commit(&mut self, _node: usize, view: &View) -> Result<(), String> {
        match view.conflicts().map_err(|error| error.to_string())?.first() {
            Some(seat) => {
                let holders: Vec<String> = seat.conflicts[0].values.iter().map(ToString::to_string).collect();
                Err(format!("{} has more than one holder: {}", seat.key, holders.join(" and ")))
            }
            None => Ok(()),
        }
    }
}

fn main() -> ExitCode {
    simulations::cli::main(&WorldsOf::<Seats>::default())
}

#[cfg(test)]
mod tests {
    use simulations::application::APPLICATION;
    use simulations::draw::page;
    use simulations::level::{Level, Shape, Worlds};
    use simulations::shrink::{PATIENCE, shrink_in};
    use simulations::world::{Scenario, Trace};

    use super::*;

    #[test]
    fn a_mistaken_belief_is_found_out_and_replays_and_shrinks_and_is_drawn_like_any_failure() {
        let worlds = WorldsOf::<Seats>::default();
        let run = |scenario: &Scenario| worlds.run(scenario, &mut Trace::default());
        let found = (1..50).find_map(|seed| {
            let scenario = worlds.generate(Level::Core, seed, &Shape::default());
            let outcome = run(&scenario);
            outcome.violation.is_some().then_some((scenario, outcome))
        });
        let (scenario, outcome) = found.expect("fifty worlds in which no seat is booked twice");
        assert_eq!(outcome.violation.as_ref().map(|violation| violation.invariant), Some(APPLICATION));
        assert_eq!(run(&scenario).hash, outcome.hash);

        // Two counters, an invitation and two bookings are what it takes.
        let small = shrink_in(&worlds, &scenario, &outcome, PATIENCE);
        assert_eq!((small.nodes, small.items.len()), (2, 3), "{small}");
        let read: Scenario = small.to_string().parse().expect("what was written can be read");
        assert_eq!(run(&read).violation, run(&small).violation);

        let mut trace = Trace::default().recording();
        worlds.run(&small, &mut trace);
        let page = page("core:1", &small, &trace.into_story().expect("it was recorded"));
        assert!(page.contains("has more than one holder"));
        assert!(page.contains("Node 1 is invited by node 0"));
    }
}
