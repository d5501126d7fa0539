//! `cargo sim`: worlds that try thence, by seed.

use std::process::ExitCode;

use simulations::level::Product;

fn main() -> ExitCode {
    simulations::cli::main(&Product)
}
