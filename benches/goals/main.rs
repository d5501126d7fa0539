//! The goals of speed, measured: every figure beside a floor that was taken in the same run.
//!
//! ```text
//! cargo bench --bench goals                          # everything, at 10,000 and 100,000 rows
//! cargo bench --bench goals -- G3 --million          # one goal, also at a million rows
//! cargo bench --bench goals -- --rounds 1 --json     # quickly, for a program to read
//! ```
//!
//! **Invariant**: a figure counts only as a ratio. Machines differ and are shared, so each round takes the floor (plain
//! redb, plain quinn, or the two put together, see [`floor`]) and thence one after the other, and what is reported is
//! the median of the rounds' ratios. The one thing that is judged as it stands is what no machine changes: bytes.
//!
//! Everything goes through the public interface of the crate, on real files and over real QUIC on the loopback, with
//! the settings that a user gets: durable, signed, checked. Every row that was sent is compared on the receiver.
//!
//! What it does not do: fail when a goal is missed. It says so, and a person decides.

mod apart;
mod catch_up;
mod changed;
mod device;
mod floor;
#[path = "../../tests/house/mod.rs"]
mod house;
mod live;
mod opening;
mod process;
mod quiet;
mod replicas;
mod rounds;
mod rows;
mod table;
mod writes;

use std::error::Error;

use clap::Parser;

use self::table::Table;

/// Whatever went wrong: a measurement that cannot be taken ends the run.
type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Measures the goals of speed against their floors.
#[derive(Debug, Parser)]
#[command(name = "goals")]
struct Arguments {
    /// Only these goals, such as G3; all of them if none is named
    goals: Vec<String>,
    /// Rows in the space, several sizes one after the other
    #[arg(long, value_delimiter = ',', default_value = "10000,100000")]
    sizes: Vec<u64>,
    /// Measure at a million rows as well; takes many times as long
    #[arg(long)]
    million: bool,
    /// How often floor and thence are measured in turn; their median counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Print one JSON document instead of a table
    #[arg(long)]
    json: bool,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

impl Arguments {
    fn wants(&self, goal: &str) -> bool {
        self.goals.is_empty() || self.goals.iter().any(|wanted| wanted.eq_ignore_ascii_case(goal))
    }
}

#[tokio::main]
async fn main() -> Outcome<()> {
    if let Some(errand) = process::Errand::from_arguments() {
        return errand.run().await;
    }
    let mut arguments = Arguments::parse();
    if !arguments.bench {
        // `cargo test --all-targets` runs this too, and wants no measurement.
        println!("nothing is measured without --bench, which `cargo bench` gives");
        return Ok(());
    }
    if arguments.million {
        arguments.sizes.push(1_000_000);
    }
    arguments.sizes.sort_unstable();
    arguments.sizes.dedup();
    let mut table = Table::new(arguments.json);
    let rounds = arguments.rounds;
    if arguments.wants("G1") || arguments.wants("G2") {
        writes::measure(&mut table, rounds, arguments.wants("G1"), arguments.wants("G2")).await?;
    }
    if arguments.wants("G3") {
        catch_up::measure(&mut table, rounds, &arguments.sizes).await?;
    }
    if arguments.wants("G4") || arguments.wants("G5") {
        apart::measure(&mut table, rounds, &arguments.sizes, arguments.wants("G4"), arguments.wants("G5")).await?;
    }
    if arguments.wants("G5") {
        replicas::measure(&mut table, rounds).await?;
    }
    if arguments.wants("G6") {
        live::measure(&mut table, rounds).await?;
    }
    if arguments.wants("G7") {
        opening::measure(&mut table, rounds, &arguments.sizes).await?;
    }
    table.finish();
    Ok(())
}
