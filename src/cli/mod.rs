//! The command line: `thence`.
//!
//! | part | what |
//! |---|---|
//! | `arguments` | the words and their help |
//! | `meaning` | words → a checked `Command` |
//! | `reach` | who does it: the running node of the data folder, or this process |
//! | `execute` | does it, with a node; the one path for all commands |
//! | `show` | answers → text or JSON |
//! | `serve`, `socket`, `wire` | how a running node is asked |
//! | `import`, `watch`, `backup`, `node`, `relay` | what is more than one question |
//! | `manual` | the words as manual pages |
//! | `failure` | exit codes, and errors that say what to do |
//!
//! **Invariant**: stdout holds only what was asked for; errors, remarks, progress and logs go to stderr.
//!
//! It does not touch the store or the network itself: everything goes through [`Node`](crate::node::Node).

mod answer;
mod arguments;
mod backup;
mod command;
mod execute;
mod failure;
mod import;
mod interrupt;
mod logs;
mod manual;
mod meaning;
mod node;
mod reach;
mod relay;
mod report;
mod serve;
mod show;
mod socket;
mod watch;
mod wire;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};

use self::arguments::{Action, Arguments, ImportArguments};
use self::failure::{Code, Failure};
use self::import::Import;
use self::interrupt::Interrupt;
use self::reach::Reach;
use self::show::Show;
use crate::config::Settings;
use crate::model::CollectionName;
use crate::node::DataFolder;

/// What commands log when nobody said what: nothing. What they have to say, they say themselves.
const COMMANDS_LOG: &str = "off";
/// What nodes log when nobody said what.
const NODES_LOG: &str = "thence=warn";
/// How long to wait for threads that read files when everything else is done.
const THREADS_TIME_MAX: Duration = Duration::from_millis(100);

/// Runs the command that `arguments` say, the first of which is the program's name, and prints what comes of it.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    // Known before anything is parsed, since it decides how it is said that nothing could be.
    let json = arguments.iter().skip(1).take_while(|word| *word != "--").any(|word| word == "--json");
    let parsed = match Arguments::try_parse_from(&arguments) {
        Ok(parsed) => parsed,
        Err(error) => return refuse(&error, json),
    };
    let settings = match Settings::gather(parsed.flags(), &|name| std::env::var_os(name)) {
        Ok(settings) => settings,
        Err(error) => return tell(&error.into(), json),
    };
    match perform(&parsed.action, &settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => tell(&failure, settings.json),
    }
}

/// Says what is wrong with the words, or helps if that was asked for.
fn refuse(error: &clap::Error, json: bool) -> ExitCode {
    if !error.use_stderr() || !json {
        // A reader who leaves in the middle of the help has seen enough.
        let _ = error.print();
        return if error.use_stderr() { ExitCode::from(Code::Usage.exit_code()) } else { ExitCode::SUCCESS };
    }
    let text = error.to_string();
    let (message, help) = text.split_once("\n\n").unwrap_or((&text, ""));
    let message = message.trim_start_matches("error: ").trim();
    let help = if help.trim().is_empty() { "`thence --help` lists the commands" } else { help.trim() };
    tell(&Failure::usage(message, help), true)
}

fn tell(failure: &Failure, json: bool) -> ExitCode {
    if failure.code != Code::OutputClosed {
        let text = if json { failure.to_json() } else { format!("error: {}\nhelp: {}", failure.message, failure.help) };
        // Without stderr there is nobody to tell; the exit code still says it.
        let _ = writeln!(io::stderr(), "{text}");
    }
    ExitCode::from(failure.code.exit_code())
}

fn perform(action: &Action, settings: &Settings) -> Result<(), Failure> {
    let folder = DataFolder::new(&settings.data);
    match action {
        Action::Init => return print_device(&folder.init()?.to_string(), settings.json),
        Action::Id => return print_device(&folder.device()?.to_string(), settings.json),
        Action::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "thence", &mut script);
            return print(&script);
        }
        Action::Manual { folder } => return manual(folder.as_deref()),
        _ => {}
    }
    // Before any thread is started: what makes no sense costs nothing.
    let progress = io::stderr().is_terminal() && !settings.json;
    let command = meaning::command(action, progress)?;
    let import = match action {
        Action::Import(ImportArguments { space, collection, file, key }) => {
            let collection = CollectionName::user(collection)?;
            Some(Import { space: space.clone(), collection, file: file.clone(), key: key.clone() })
        }
        _ => None,
    };
    if let Action::Restore { file } = action {
        let restored = backup::restore(&folder, file, settings.cache_bytes, progress)?;
        return print_summary(&restored, settings.json);
    }
    if let Action::Repair = action {
        return print_summary(&backup::repair(&folder, settings.cache_bytes)?, settings.json);
    }
    let runs = matches!(action, Action::Node(_) | Action::Relay(_));
    logs::begin(settings, if runs { NODES_LOG } else { COMMANDS_LOG })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::bug)?;
    let outcome = runtime.block_on(async {
        let interrupt = Interrupt::listen().map_err(Failure::bug)?;
        let reach = Reach { folder, cache_bytes: settings.cache_bytes, interrupt: interrupt.clone() };
        match (action, command, import) {
            (Action::Node(_), ..) => node::run(settings, &interrupt, None).await,
            (Action::Relay(_), ..) => relay::run(settings, &interrupt).await,
            (Action::Watch { space, from }, ..) => watch::watch(&reach, space.clone(), *from, io::stdout()).await,
            (Action::Backup { file }, ..) => {
                backup::backup(&reach, file, progress).await.and_then(|made| print_summary(&made, settings.json))
            }
            (_, _, Some(import)) => run_import(&reach, &import, settings.json, progress).await,
            (_, Some(command), _) => {
                let mut show = Show::new(BufWriter::new(io::stdout()), settings.json, &command);
                let asked = reach.ask(&command, &mut |answer| show.answer(answer)).await;
                finish(&mut show, asked)
            }
            (action, None, None) => Err(Failure::bug(format!("{action:?} means nothing"))),
        }
    });
    runtime.shutdown_timeout(THREADS_TIME_MAX);
    outcome
}

/// Ends the output. A command that failed before it had answered prints nothing.
fn finish(show: &mut Show<impl io::Write>, asked: Result<(), Failure>) -> Result<(), Failure> {
    match asked {
        Ok(()) => show.finish(),
        Err(failure) => {
            show.abandon()?;
            Err(failure)
        }
    }
}

async fn run_import(reach: &Reach, import: &Import, json: bool, progress: bool) -> Result<(), Failure> {
    let (summary, outcome) = import::import(reach, import, progress).await;
    match outcome {
        Ok(()) if json => print((serde_json::to_string(&summary).map_err(Failure::bug)? + "\n").as_bytes()),
        Ok(()) => {
            let import::Summary { rows, changed, unchanged } = summary;
            print(format!("rows: {rows}, changed: {changed}, unchanged: {unchanged}\n").as_bytes())
        }
        Err(mut failure) => {
            if summary.rows > 0 {
                failure.message.push_str(&format!(" (rows written before: {})", summary.rows));
            }
            Err(failure)
        }
    }
}

/// Prints what a command did: one document for scripts, its sentence for people.
fn print_summary(summary: &(impl serde::Serialize + Display), json: bool) -> Result<(), Failure> {
    let text = if json { serde_json::to_string(summary).map_err(Failure::bug)? } else { summary.to_string() };
    print((text + "\n").as_bytes())
}

fn print_device(device: &str, json: bool) -> Result<(), Failure> {
    let text = if json { serde_json::json!({"device": device}).to_string() } else { device.to_owned() };
    print((text + "\n").as_bytes())
}

fn manual(folder: Option<&Path>) -> Result<(), Failure> {
    match folder {
        Some(folder) => manual::pages(Arguments::command(), folder).map_err(|error| {
            let help = "name a folder that you may write to, or none to print the page";
            Failure::new(Code::File, format!("{}: {error}", folder.display()), help)
        }),
        None => {
            let mut page = Vec::new();
            manual::page(Arguments::command(), &mut page).map_err(Failure::bug)?;
            print(&page)
        }
    }
}

fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(show::output)
}
