//! A world of one's own: what users of an application do, and what the application counts on.
//!
//! A shop sells apples at several tills. Each sale is one transaction: it writes down the sale, and adds to what was
//! sold. However the tills are cut off from one another, crash, and meet again, what was sold is the sum of the sales:
//! at every till, after every commit. Sales of other tills come late, but never half.
//!
//! ```text
//! cargo run --release -p simulations --example own_world -- run --seeds 1000
//! cargo run --release -p simulations --example own_world -- draw core:7      a page that shows what happened
//! ```
//!
//! Break it to see what a failure looks like: put the two requests into transactions of their own, or let `sold` be a
//! field that is patched instead of a counter. `overbooked.rs` is a world whose belief is mistaken from the start.

use std::ops::ControlFlow;
use std::process::ExitCode;

use serde_json::{Map, json};
use simulations::application::{Application, WorldsOf};
use simulations::world::Draws;
use thence::model::{CollectionName, Operation, Request};
use thence::store::View;

#[derive(Default)]
struct Shop;

impl Application for Shop {
    fn transaction(&mut self, draws: &mut Draws) -> Vec<Request> {
        let (sale, apples) = (format!("sale-{:x}", draws.next_u64()), draws.within((1, 5)));
        let written = Operation::Put(Map::from_iter([("apples".to_owned(), json!(apples))]));
        let counted = Operation::Increment("sold".parse().expect("a path"), apples.cast_signed());
        vec![request("sales", &sale, written), request("stock", "apples", counted)]
    }

    fn after_commit(&mut self, _node: usize, view: &View) -> Result<(), String> {
        let (mut sum, mut sold) = (0, 0);
        let visited = view.visit(None, &mut |collection, _, object| {
            let fields = object.shown().unwrap_or_default();
            match collection.as_str() {
                "sales" => sum += fields["apples"].as_i64().unwrap_or(0),
                "stock" => sold += fields["sold"].as_i64().unwrap_or(0),
                _ => {}
            }
            ControlFlow::Continue(())
        });
        visited.map_err(|error| error.to_string())?;
        if sum == sold { Ok(()) } else { Err(format!("{sold} apples were sold, in sales of {sum}")) }
    }
}

fn request(collection: &str, key: &str, operation: Operation) -> Request {
    let collection = CollectionName::user(collection).expect("a collection's name");
    Request { collection, key: key.parse().expect("a key"), operation }
}

fn main() -> ExitCode {
    simulations::cli::main(&WorldsOf::<Shop>::default())
}

#[test]
fn what_was_sold_is_the_sum_of_the_sales() {
    use simulations::level::{Level, Shape, Worlds};
    let worlds = WorldsOf::<Shop>::default();
    for seed in 0..30 {
        let scenario = worlds.generate(Level::Core, seed, &Shape::default());
        let outcome = worlds.run(&scenario, &mut simulations::world::Trace::default());
        assert_eq!(outcome.violation, None, "seed {seed}");
        assert!(outcome.events > 0, "seed {seed}");
    }
}
