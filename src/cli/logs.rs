//! Where logs go: stderr, so that stdout holds nothing but answers.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use super::failure::Failure;
use crate::config::{LogFormat, Settings};

/// Begins to log. `quiet` is what is logged when nobody said what.
pub fn begin(settings: &Settings, quiet: &str) -> Result<(), Failure> {
    let directives = settings.log.as_deref().unwrap_or(quiet);
    let filter = EnvFilter::try_new(directives).map_err(|error| {
        let help = "THENCE_LOG takes a level (error, warn, info, debug, trace), or levels by part: thence::node=debug";
        Failure::usage(format!("{directives:?} does not say what to log: {error}"), help)
    })?;
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    // The only one who begins to log in this process is this function, once; a second time changes nothing.
    let _ = match settings.log_format {
        LogFormat::Text => logs.try_init(),
        LogFormat::Json => logs.json().try_init(),
    };
    Ok(())
}
