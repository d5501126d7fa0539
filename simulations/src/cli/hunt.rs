//! `cargo sim mutants`: would the simulations find a bug?

use clap::Args;

use crate::mutants;

/// Plants bugs in the product, one at a time, and says which oracle catches each after how many seeds.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo sim mutants                             all of them; the last line says how many are caught
  cargo sim mutants --sample 6                  six of them, others with each commit
  cargo sim mutants ack-before-durable          only this one
  cargo sim draw core:1 --plant ack-before-durable   what it does, as a page to look at")]
pub(super) struct Mutants {
    /// Only so many, others with each commit.
    #[arg(long, value_name = "K", conflicts_with = "names")]
    sample: Option<usize>,
    /// Choose the sample by this number instead of the commit.
    #[arg(long, requires = "sample")]
    from: Option<u64>,
    /// Only these.
    names: Vec<String>,
}

impl Mutants {
    pub(super) fn run(&self) -> Result<bool, String> {
        mutants::run(self.sample, self.from, &self.names)
    }
}
