//! Explores every small scope, and prints how much there is of it: `cargo run --release -p simulations --example scopes`,
//! with the greatest number of states to look at and the beginning of the names, if not all.

use std::time::Instant;

use simulations::model::{SCOPES, explore};
use simulations::world::Scenario;

fn main() -> Result<(), String> {
    let mut arguments = std::env::args().skip(1);
    let states_max = arguments.next().map_or(Ok(1_000_000), |text| text.parse());
    let states_max = states_max.map_err(|error| format!("how many states at most: {error}"))?;
    let beginning = arguments.next().unwrap_or_default();
    println!("| scope | states | transitions | ends | depth | seconds | |\n|---|---|---|---|---|---|---|");
    for scope in SCOPES.iter().filter(|scope| scope.name.starts_with(&beginning)) {
        let scenario: Scenario = scope.text.parse().map_err(|error| format!("{}: {error}", scope.name))?;
        let started = Instant::now();
        let (outcome, extent) = explore(&scenario, states_max, false);
        let verdict = match (&outcome.violation, extent.exhausted) {
            (Some(violation), _) => violation.to_string(),
            (None, true) => "exhausted".to_owned(),
            (None, false) => "up to there".to_owned(),
        };
        println!(
            "| `{}` | {} | {} | {} | {} | {:.1} | {verdict} |",
            scope.name,
            extent.states,
            extent.transitions,
            extent.ends,
            extent.depth,
            started.elapsed().as_secs_f64()
        );
    }
    Ok(())
}
