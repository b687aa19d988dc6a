//! The data folder: whose it is, which format it has, and that one process at a time has it.
//!
//! ```text
//! FORMAT    "thalamus embedded store, format N"; written first, checked on every open
//! LOCK      locked by the process that has the folder
//! rows/     fjall's own files
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

const FORMAT_FILE: &str = "FORMAT";
const LOCK_FILE: &str = "LOCK";
const FORMAT_NAME: &str = "thalamus embedded store, format ";
/// Goes up when an older binary could misread what a newer one wrote.
const FORMAT: u32 = 1;

/// Why a folder cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("data folder {path} is in use by another process")]
    InUse { path: PathBuf },
    #[error("data folder {path} is not empty and not ours")]
    Foreign { path: PathBuf },
    #[error("data folder {path} has format {found}, this version reads format {FORMAT}")]
    Format { path: PathBuf, found: String },
    #[error("data folder {path} cannot be used")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("data folder {path} cannot be opened")]
    Engine {
        path: PathBuf,
        #[source]
        source: fjall::Error,
    },
}

/// A folder that this process has; gives it up when dropped.
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Creates the folder if it is missing, takes it, and checks its format.
    pub(super) fn take(path: &Path) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(io)?;
        let lock_path = path.join(LOCK_FILE);
        let format_path = path.join(FORMAT_FILE);
        let fresh = !format_path.try_exists().map_err(io)?;
        if fresh && !only_lock(path).map_err(io)? {
            return Err(OpenError::Foreign { path: path.to_owned() });
        }
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(lock_path).map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        if fresh {
            write_format(path, &format_path).map_err(io)?;
        }
        let text = fs::read_to_string(format_path).map_err(io)?;
        let found = text.trim_end().strip_prefix(FORMAT_NAME);
        match found {
            None => Err(OpenError::Foreign { path: path.to_owned() }),
            Some(found) if found != FORMAT.to_string() => {
                Err(OpenError::Format { path: path.to_owned(), found: found.to_owned() })
            }
            Some(_) => Ok(Self { path: path.to_owned(), _lock: lock }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn rows(&self) -> PathBuf {
        self.path.join("rows")
    }
}

/// Whether a folder without a format is as good as new: empty, or left by a process that died right here.
fn only_lock(path: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        let ours = [LOCK_FILE, "FORMAT.new", "lost+found"].iter().any(|known| name == *known);
        if !ours {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whole or not there at all, and there before the first row.
fn write_format(folder: &Path, path: &Path) -> io::Result<()> {
    let new = folder.join("FORMAT.new");
    let mut file = File::create(&new)?;
    writeln!(file, "{FORMAT_NAME}{FORMAT}")?;
    file.sync_all()?;
    fs::rename(new, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_told_who_has_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let held = Folder::take(folder.path()).unwrap();
        assert!(matches!(Folder::take(folder.path()), Err(OpenError::InUse { .. })));
        drop(held);
        assert!(Folder::take(folder.path()).is_ok());
    }

    #[test]
    fn a_folder_of_someone_else_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("holiday.jpg"), "x").unwrap();
        assert!(matches!(Folder::take(folder.path()), Err(OpenError::Foreign { .. })));
    }

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        drop(Folder::take(folder.path()).unwrap());
        fs::write(folder.path().join(FORMAT_FILE), "thalamus embedded store, format 2\n").unwrap();
        let refused = Folder::take(folder.path()).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(refused.ends_with("has format 2, this version reads format 1"), "{refused}");
    }
}
