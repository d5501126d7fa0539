//! `thence manual`: manual pages, generated from the same words as the help.
//!
//! The commands are documented in one place, [`arguments`](super::arguments); nothing is said here that is not said there.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap_mangen::Man;

/// The page of the program itself.
pub fn page(program: clap::Command, into: &mut impl Write) -> io::Result<()> {
    Man::new(named(program)).render(into)
}

/// A page for the program and one for each command, as `thence.1`, `thence-put.1` and so on, in a folder that is made
/// if need be.
pub fn pages(program: clap::Command, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    clap_mangen::generate_to(named(program), folder)
}

/// Pages are of the section for programs, and say which version they describe.
fn named(program: clap::Command) -> clap::Command {
    // A page per command is enough; one for `help` and its copies of all of them would say nothing new.
    program.disable_help_subcommand(true)
}
