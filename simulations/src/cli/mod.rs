//! `cargo sim`: what a person meets. One command a file.
//!
//! All of it is written over [`Worlds`], so that an application's own worlds have the same commands.
//!
//! Exit codes: 0 if everything holds, 1 if something fails, 2 if the question was wrong.

mod crashes;
mod crew;
mod draw;
mod hunt;
mod interrupt;
mod kinds;
mod replay;
mod run;
mod shape;
mod shrink;
mod soak;
mod which;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::level::Worlds;
use crate::mutants;

/// Deterministic simulation of thence: a seed decides a world, and the world tries to break the node.
#[derive(Parser)]
#[command(
    name = "cargo sim",
    bin_name = "cargo sim",
    after_help = "\
Examples:
  cargo sim run --seeds 1000                a thousand worlds of the level core
  cargo sim run --level all --minutes 5     all levels, for five minutes
  cargo sim draw core:42                    shrinks a failure and draws it: core-42.html
  cargo sim replay core:42 --tell           what happens in it, line by line
  cargo sim soak --minutes 480              a night of fresh seeds; failures are in target/soak

A failure is one number. `draw` it first: most come down to a few items, and one sees what happened.
simulations/README.md tells how to read one."
)]
struct Cli {
    /// Run it with this bug planted in the product (`replay`, `shrink` and `draw` only).
    #[arg(long, global = true, value_name = "MUTANT")]
    plant: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs worlds by seed; the last line says how many passed and how many failed.
    Run(run::Run),
    /// Runs one world twice, or against a hash, and says whether they agree.
    Replay(replay::Replay),
    /// Writes the smallest scenario that still fails in the same way.
    Shrink(shrink::Shrink),
    /// Draws one world as a page to look at. One that fails is shrunk first.
    Draw(draw::Draw),
    /// Plants bugs in the product, and says which oracle catches each.
    Mutants(hunt::Mutants),
    /// Crashes at every operation on a disk, in small stories, and looks what is left.
    Crashes(crashes::Crashes),
    /// Runs fresh seeds of all levels by turns; failures are told apart, shrunk, and drawn.
    Soak(soak::Soak),
}

/// Runs what the command line says, in these worlds.
pub fn main(worlds: &dyn Worlds) -> ExitCode {
    hush_the_engine();
    match perform(&Cli::parse(), worlds) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(2)
        }
    }
}

/// The storage engine panics on damaged files, and the store takes that for an answer: nobody need hear of it.
fn hush_the_engine() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.location().is_some_and(|at| at.file().contains("/redb-")) {
            tell(panic);
        }
    }));
}

fn perform(cli: &Cli, worlds: &dyn Worlds) -> Result<bool, String> {
    // A bug is planted on this thread, and these run nothing on another one.
    let stays_here = matches!(cli.command, Command::Replay(_) | Command::Shrink(_) | Command::Draw(_));
    let _planting = match &cli.plant {
        Some(_) if !stays_here => return Err("--plant goes with replay, shrink and draw".to_owned()),
        Some(name) => Some(mutants::plant(name)?),
        None => None,
    };
    match &cli.command {
        Command::Run(run) => run.run(worlds),
        Command::Replay(replay) => replay.run(worlds),
        Command::Shrink(shrink) => shrink.run(worlds),
        Command::Draw(draw) => draw.run(worlds),
        Command::Mutants(hunt) => hunt.run(),
        Command::Crashes(crashes) => crashes.run(),
        Command::Soak(soak) => soak.run(worlds),
    }
}

/// A hash as it is shown: lower-case hex.
fn hex(hash: &[u8; 32]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The commit that this is run on, if the repository can be asked.
fn commit() -> Option<String> {
    let asked = std::process::Command::new("git").args(["rev-parse", "HEAD"]).output().ok()?;
    let said = asked.status.success().then_some(asked.stdout)?;
    Some(String::from_utf8(said).ok()?.trim().to_owned())
}
