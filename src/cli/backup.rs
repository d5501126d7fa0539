//! `thence backup`, `thence restore` and `thence repair`: everything that is kept here, to a file and back.
//!
//! The bytes of a backup come from whoever has the store open, the running node or this process; the file is this
//! process's, with the rights of the user who asked for it, wherever the node may write.
//!
//! **Invariant**: a file of the name that was asked for is a whole backup, read back from the disk and checked, or it is
//! not there. Nothing is overwritten.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde::Serialize;

use super::answer::Answer;
use super::command::Command;
use super::failure::{Code, Failure};
use super::reach::{PATIENCE, Reach};
use super::show::{count, size, spinner};
use crate::node::{BackupSummary, DataFolder, check_backup};

/// A backup that was made.
#[derive(Debug, Serialize)]
pub struct Made {
    file: String,
    made_ms: u64,
    rows: u64,
    bytes: u64,
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "backed up {}, {}, to {}", count(self.rows, "row"), size(self.bytes), self.file)
    }
}

/// A backup that was restored.
#[derive(Debug, Serialize)]
pub struct Restored {
    device: String,
    replica: String,
    made_ms: u64,
    rows: u64,
    spaces: Vec<RestoredSpace>,
    /// Where the store is that was there before, if there was one.
    moved_aside: Option<String>,
}

#[derive(Debug, Serialize)]
struct RestoredSpace {
    id: String,
    name: String,
    /// What this device may do there; none if it has to be let in first.
    role: Option<String>,
    objects: u64,
}

impl fmt::Display for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "restored {} as device {}", count(self.spaces.len() as u64, "space"), self.device)?;
        for space in &self.spaces {
            let role = space.role.as_deref().unwrap_or("no role: ask an owner for a ticket and `thence join` it");
            write!(f, "\n  {}  {}  {}  {role}", space.name, space.id, count(space.objects, "object"))?;
        }
        if let Some(path) = &self.moved_aside {
            write!(f, "\nthe store that was here before is now {path}")?;
        }
        write!(f, "\na backup names no peers: `thence peer add DEVICE_ID@ADDR:PORT`")
    }
}

/// A store that was repaired.
#[derive(Debug, Serialize)]
pub struct Repaired {
    device: String,
    replica: String,
    spaces: Vec<RepairedSpace>,
    /// Where the damaged store is.
    moved_aside: String,
}

#[derive(Debug, Serialize)]
struct RepairedSpace {
    id: String,
    name: String,
    objects: u64,
    /// How many signed runs of events were whole.
    kept: u64,
    /// How many were not, or depend on one that was not.
    lost: u64,
}

impl fmt::Display for Repaired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "repaired the store of device {}", self.device)?;
        for RepairedSpace { id, name, objects, kept, lost } in &self.spaces {
            let of = kept + lost;
            write!(f, "\n  {name}  {id}  {}  whole: {kept} of {of} signed runs of events", count(*objects, "object"))?;
        }
        write!(f, "\nthe damaged store is now {}", self.moved_aside)?;
        if self.spaces.iter().any(|space| space.lost > 0) {
            write!(f, "\nwhat was not whole comes back from peers that have it: `thence sync`")?;
        }
        Ok(())
    }
}

/// Makes the store of `folder` anew from what can be read of it.
pub fn repair(folder: &DataFolder, cache_bytes: usize) -> Result<Repaired, Failure> {
    let repaired = folder.repair(PATIENCE, cache_bytes)?;
    let spaces = repaired.spaces.into_iter().map(|(summary, salvaged)| RepairedSpace {
        id: summary.id.to_string(),
        name: summary.name,
        objects: summary.objects,
        kept: salvaged.kept,
        lost: salvaged.lost,
    });
    Ok(Repaired {
        device: repaired.device.to_string(),
        replica: repaired.replica.to_string(),
        spaces: spaces.collect(),
        moved_aside: repaired.moved_aside.display().to_string(),
    })
}

/// Makes a backup at `file`.
pub async fn backup(reach: &Reach, file: &Path, show_progress: bool) -> Result<Made, Failure> {
    let trouble = |error: io::Error| unwritten(file, &error);
    if file.try_exists().map_err(trouble)? {
        return Err(taken(file));
    }
    let beside = Beside::make(file).map_err(trouble)?;
    let bar = if show_progress { spinner("backing up") } else { ProgressBar::hidden() };
    let mut bytes = 0;
    let mut take = |answer: Answer| match answer {
        Answer::Bytes(text) => {
            let piece = BASE64.decode(text.as_bytes()).map_err(Failure::bug)?;
            bytes += piece.len() as u64;
            bar.set_message(format!("backing up: {}", HumanBytes(bytes)));
            bar.tick();
            (&beside.file).write_all(&piece).map_err(trouble)
        }
        other => Err(Failure::bug(format!("{other:?} is not a piece of a backup"))),
    };
    reach.ask(&Command::Backup, &mut take).await?;
    bar.set_message("checking what was written");
    beside.file.sync_all().map_err(trouble)?;
    let checked = check_backup(&beside.path, &mut |_| bar.tick()).map_err(|error| {
        let message = format!("what was written to {} is not what was to be: {error}", file.display());
        Failure::new(Code::File, message, "look after the disk that it is on; nothing was kept")
    });
    let BackupSummary { made_ms, rows, bytes } = checked?;
    beside.put_in_place(file).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => taken(file),
        _ => trouble(error),
    })?;
    bar.finish_and_clear();
    Ok(Made { file: file.display().to_string(), made_ms, rows, bytes })
}

/// Restores the backup `file` into `folder`.
pub fn restore(folder: &DataFolder, file: &Path, cache_bytes: usize, show_progress: bool) -> Result<Restored, Failure> {
    let bar = if show_progress { progress_bar(file) } else { ProgressBar::hidden() };
    let restored = folder.restore(file, PATIENCE, cache_bytes, &mut |bytes| bar.set_position(bytes));
    bar.finish_and_clear();
    let restored = restored?;
    let space = |space: crate::store::SpaceSummary| RestoredSpace {
        id: space.id.to_string(),
        name: space.name,
        role: space.role.map(|role| role.to_string()),
        objects: space.objects,
    };
    Ok(Restored {
        device: restored.device.to_string(),
        replica: restored.replica.to_string(),
        made_ms: restored.made_ms,
        rows: restored.rows,
        spaces: restored.spaces.into_iter().map(space).collect(),
        moved_aside: restored.moved_aside.map(|path| path.display().to_string()),
    })
}

fn progress_bar(file: &Path) -> ProgressBar {
    let bytes = fs::metadata(file).map_or(0, |metadata| metadata.len());
    let style = ProgressStyle::with_template("{bar:30} {bytes} of {total_bytes}");
    ProgressBar::new(bytes).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn taken(file: &Path) -> Failure {
    let message = format!("there is a file at {} already", file.display());
    Failure::new(Code::File, message, "name another: a backup overwrites nothing")
}

fn unwritten(file: &Path, error: &io::Error) -> Failure {
    let message = format!("{} cannot be written: {error}", file.display());
    Failure::new(Code::File, message, "name a file in a folder that exists, has room, and that this user may write")
}

/// The file while it is not whole. Unless it is put in its place, it goes when this is dropped.
struct Beside {
    path: PathBuf,
    file: File,
}

impl Beside {
    /// Takes the place beside `file`, with what an interrupted backup left there.
    fn make(file: &Path) -> io::Result<Self> {
        let mut path = file.to_owned().into_os_string();
        path.push(".new");
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true);
        // Whoever may read it may read everything.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(io::Error::other("another backup is being written there")),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        file.set_len(0)?;
        Ok(Self { path: path.into(), file })
    }

    /// Gives the whole file its name, unless that is taken, and makes that durable.
    fn put_in_place(&self, file: &Path) -> io::Result<()> {
        match fs::hard_link(&self.path, file) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
            Err(_) if file.try_exists()? => return Err(io::ErrorKind::AlreadyExists.into()),
            // A file system without links, as memory sticks have.
            Err(_) => fs::rename(&self.path, file)?,
            Ok(()) => {}
        }
        // Not every platform can sync a folder.
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
        Ok(())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
