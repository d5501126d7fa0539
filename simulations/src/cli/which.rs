//! Which world is meant: a level and a seed, or a scenario in a file.

use std::path::{Path, PathBuf};

use clap::Args;

use super::shape::ShapeArgs;
use crate::level::{Level, Worlds};
use crate::world::Scenario;

/// Which world is meant.
#[derive(Args, Clone, Debug)]
pub(super) struct Which {
    /// LEVEL:SEED, such as core:42, or a scenario file.
    #[arg(value_name = "LEVEL:SEED | FILE.scenario")]
    pub(super) what: String,
    #[command(flatten)]
    shape: ShapeArgs,
}

impl Which {
    /// The scenario that is meant.
    pub(super) fn scenario(&self, worlds: &dyn Worlds) -> Result<Scenario, String> {
        if let Some((level, seed)) = self.what.split_once(':')
            && let Ok(level) = level.parse::<Level>()
        {
            let seed = seed.parse().map_err(|_| format!("{seed:?} is no seed: it is a number, as in {level}:42"))?;
            return Ok(worlds.generate(level, seed, &self.shape.shape(worlds, &[level])?));
        }
        if !self.is_file() {
            return Err(format!("{:?} is neither LEVEL:SEED, such as core:42, nor a scenario file", self.what));
        }
        let text = std::fs::read_to_string(&self.what).map_err(|error| format!("{}: {error}", self.what))?;
        text.parse().map_err(|error| format!("{}: {error}", self.what))
    }

    /// Whether it is a scenario in a file.
    pub(super) fn is_file(&self) -> bool {
        Path::new(&self.what).is_file()
    }

    /// Where to write what is made of it, unless somebody said where.
    pub(super) fn beside(&self, extension: &str) -> PathBuf {
        match self.is_file() {
            true => Path::new(&self.what).with_extension(extension),
            false => PathBuf::from(format!("{}.{extension}", self.what.replace(':', "-"))),
        }
    }
}
