//! Large files, written and freed a little at a time.
//!
//! fjall fills a table of up to 64 MB, syncs it at its end, and removes tables and journals whole. Each is one large
//! piece of work for the disk, and a commit that syncs its journal meanwhile waits behind it: up to 50 ms. So the disk
//! is told to begin with what was written so far, and the space of a removed file, held open here, is given back in steps.
//!
//! Nothing here is needed for a promise: what fails is left to happen at once.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::num::NonZeroU64;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{Advice, fadvise};

/// Bytes of a growing file that the disk is asked to write at once.
const WRITE_STEP: u64 = 1 << 20;
/// Bytes of a removed file that are given back at once.
const FREE_STEP: u64 = 4 << 20;
/// Files held open to be freed slowly when they are removed: the newest, for those are the ones that do not live long.
const HELD_MAX: usize = 64;

/// Steps with the files of a store, to be called often while the answer is that there are more.
pub(super) fn steps(
    journals: &Path,
    tables: impl IntoIterator<Item = PathBuf>,
) -> impl FnMut() -> bool + Send + 'static {
    let files = Files::of(journals, tables).inspect_err(|error| {
        tracing::warn!(
            error = error as &dyn std::error::Error,
            "large files are not followed, commits may wait for them"
        );
    });
    let mut files = files.ok();
    move || files.as_mut().is_some_and(Files::step)
}

/// Files of a store that grow, that are complete, and that are removed but take space yet.
struct Files {
    events: rustix::fd::OwnedFd,
    folders: Vec<Folder>,
    growing: Vec<Growing>,
    held: VecDeque<File>,
    leaving: Vec<File>,
}

struct Folder {
    watch: i32,
    path: PathBuf,
    /// Whether its files are written once and from end to end. Journals are not: each commit syncs them.
    of_tables: bool,
}

struct Growing {
    watch: i32,
    name: OsString,
    file: File,
    /// Bytes the disk was asked to write.
    begun: u64,
}

impl Files {
    /// Follows the journals in one folder and the tables in others.
    fn of(journals: &Path, tables: impl IntoIterator<Item = PathBuf>) -> io::Result<Self> {
        let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let flags = WatchFlags::CREATE | WatchFlags::CLOSE_WRITE | WatchFlags::DELETE | WatchFlags::ONLYDIR;
        let follow = |path: PathBuf, of_tables| {
            let watch = inotify::add_watch(&events, &path, flags)?;
            io::Result::Ok(Folder { watch, path, of_tables })
        };
        let mut folders = vec![follow(journals.to_owned(), false)?];
        for path in tables {
            folders.push(follow(path, true)?);
        }
        let mut files = Self { events, folders, growing: Vec::new(), held: VecDeque::new(), leaving: Vec::new() };
        for entry in fs::read_dir(journals)? {
            let path = entry?.path();
            if is_journal(&path) {
                files.hold(open(&path)?);
            }
        }
        Ok(files)
    }

    /// Takes one step with each file. Returns whether there are more to take.
    fn step(&mut self) -> bool {
        let removed = self.look();
        if removed {
            let is_removed = |file: &File| file.metadata().is_ok_and(|of| of.nlink() == 0);
            let (gone, held) = self.held.drain(..).partition::<Vec<_>, _>(is_removed);
            self.leaving.extend(gone);
            self.held.extend(held);
        }
        for growing in &mut self.growing {
            growing.write();
        }
        self.leaving.retain(free);
        !self.growing.is_empty() || !self.leaving.is_empty()
    }

    /// Follows what happened in the folders since the last look. Returns whether files were removed.
    fn look(&mut self) -> bool {
        let Self { events, folders, growing, .. } = self;
        let (mut complete, mut removed) = (Vec::new(), false);
        let mut buffer = [const { std::mem::MaybeUninit::uninit() }; 4096];
        let mut events = inotify::Reader::new(events, &mut buffer);
        // An error is that there are no more for now.
        while let Ok(event) = events.next() {
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                // Whatever grew may be complete or gone.
                growing.clear();
                removed = true;
            }
            let Some(folder) = folders.iter().find(|folder| folder.watch == event.wd()) else { continue };
            let Some(name) = event.file_name().map(|name| std::ffi::OsStr::from_bytes(name.to_bytes())) else {
                continue;
            };
            if event.events().contains(ReadFlags::DELETE) {
                growing.retain(|one| one.watch != folder.watch || one.name != name);
                removed = true;
            } else if event.events().contains(ReadFlags::CREATE) {
                let path = folder.path.join(name);
                // It may be gone again.
                let Some(file) = (folder.of_tables || is_journal(&path)).then(|| open(&path).ok()).flatten() else {
                    continue;
                };
                if folder.of_tables {
                    growing.push(Growing { watch: folder.watch, name: name.to_owned(), file, begun: 0 });
                } else {
                    complete.push(file);
                }
            } else if let Some(place) = growing.iter().position(|one| one.watch == folder.watch && one.name == name) {
                complete.push(growing.swap_remove(place).file);
            }
        }
        for file in complete {
            self.hold(file);
        }
        removed
    }

    fn hold(&mut self, file: File) {
        self.held.push_back(file);
        if self.held.len() > HELD_MAX {
            self.held.pop_front();
        }
    }
}

impl Growing {
    fn write(&mut self) {
        let length = self.file.metadata().map_or(0, |of| of.len());
        let Some(more) = NonZeroU64::new(length.saturating_sub(self.begun)).filter(|more| more.get() >= WRITE_STEP)
        else {
            return;
        };
        // Linux begins to write pages before it would drop them, and does not drop those that are being written.
        if fadvise(&self.file, self.begun, Some(more), Advice::DontNeed).is_ok() {
            self.begun = length;
        }
    }
}

/// Gives back a part of a removed file. Returns whether it has more.
fn free(file: &File) -> bool {
    let length = file.metadata().map_or(0, |of| of.len()).saturating_sub(FREE_STEP);
    length > 0 && file.set_len(length).is_ok()
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).open(path)
}

fn is_journal(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "jnl")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const MIB: usize = 1 << 20;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let tables = folder.path().join("tables");
        fs::create_dir(&tables).unwrap();
        (folder, tables)
    }

    #[test]
    fn a_table_is_followed_from_its_first_byte_until_its_space_is_back() {
        let (folder, tables) = folder();
        let mut files = Files::of(folder.path(), [tables.clone()]).unwrap();
        assert!(!files.step());
        let mut table = File::create_new(tables.join("7")).unwrap();
        table.write_all(&vec![7; 3 * MIB]).unwrap();
        assert!(files.step(), "it grows");
        assert_eq!(files.growing[0].begun, 3 << 20);
        table.write_all(&vec![7; 7 * MIB]).unwrap();
        drop(table);
        assert!(!files.step(), "it is complete");
        assert_eq!(fs::read(tables.join("7")).unwrap(), vec![7; 10 * MIB], "nothing of it changes");
        fs::remove_file(tables.join("7")).unwrap();
        let mut lengths = Vec::new();
        while files.step() {
            lengths.push(files.leaving[0].metadata().unwrap().len() >> 20);
        }
        assert_eq!(lengths, [6, 2]);
        assert!(files.held.is_empty() && files.leaving.is_empty());
    }

    #[test]
    fn journals_are_held_and_freed_but_never_asked_for_early() {
        let (folder, tables) = folder();
        let old = folder.path().join("1.jnl");
        File::create_new(&old).unwrap().set_len(9 << 20).unwrap();
        fs::write(folder.path().join("lock"), "").unwrap();
        let mut files = Files::of(folder.path(), [tables]).unwrap();
        assert_eq!(files.held.len(), 1);
        File::create_new(folder.path().join("2.jnl")).unwrap().set_len(9 << 20).unwrap();
        fs::write(folder.path().join("other"), "").unwrap();
        assert!(!files.step());
        assert_eq!(files.held.len(), 2);
        fs::remove_file(old).unwrap();
        assert!(files.step());
        assert_eq!((files.held.len(), files.leaving.len()), (1, 1));
    }

    #[test]
    fn a_file_that_somebody_else_names_keeps_its_bytes() {
        let (folder, tables) = folder();
        let mut files = Files::of(folder.path(), [tables.clone()]).unwrap();
        fs::write(tables.join("7"), vec![7; 5 * MIB]).unwrap();
        assert!(!files.step());
        fs::hard_link(tables.join("7"), folder.path().join("kept")).unwrap();
        fs::remove_file(tables.join("7")).unwrap();
        assert!(!files.step());
        assert_eq!(fs::read(folder.path().join("kept")).unwrap(), vec![7; 5 * MIB]);
    }

    #[test]
    fn few_files_are_held_open() {
        let (folder, tables) = folder();
        let mut files = Files::of(folder.path(), [tables.clone()]).unwrap();
        for number in 0..2 * HELD_MAX {
            fs::write(tables.join(number.to_string()), "table").unwrap();
        }
        assert!(!files.step());
        assert_eq!(files.held.len(), HELD_MAX);
    }
}
