//! The append-only file of checkpoints: one line each, a round of them in one write and one sync.
//!
//! Whoever writes knows how long the file is and where each project's tree stands. When the length is another than
//! that, or a write failed half-way, the file is read again. A torn line is ended, never removed: the file may allow
//! nothing but appending.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use domain::id::ProjectId;
use domain::ledger::{Checkpoint, CheckpointKey, Point, PublicKey, Roll, Rolled, Tree};

/// Lines between two words of progress.
const PROGRESS_EVERY: u64 = 100_000;

/// Reads a file of checkpoints, of all projects or of one; `progress` hears how many lines were read.
pub fn read(
    path: &Path,
    keys: &[PublicKey],
    only: Option<ProjectId>,
    mut progress: impl FnMut(u64),
) -> std::io::Result<Rolled> {
    let mut file = BufReader::with_capacity(1 << 16, File::open(path)?);
    let wanted = only.map(|project| if project == ProjectId::NIL { "null".to_owned() } else { project.to_string() });
    let mut roll = Roll::new(keys);
    let (mut line, mut lines) = (Vec::new(), 0_u64);
    while file.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        // Cheaper than to read what is not asked for. A torn line may be anybody's.
        let is_torn = !text.trim_end().ends_with('}');
        let is_wanted = is_torn || wanted.as_ref().is_none_or(|wanted| text.contains(wanted.as_str()));
        if is_wanted {
            roll.read(&text)
        } else {
            roll.skip()
        }
        line.clear();
        lines += 1;
        if lines.is_multiple_of(PROGRESS_EVERY) {
            progress(lines);
        }
    }
    Ok(roll.end())
}

/// The file as its writer knows it.
pub struct Book {
    path: PathBuf,
    key: Arc<CheckpointKey>,
    /// Bytes of the file after our last write; `None` when that is not known.
    length: Option<u64>,
    trees: HashMap<ProjectId, Tree>,
    newest: HashMap<ProjectId, Checkpoint>,
}

impl Book {
    pub fn new(path: PathBuf, key: Arc<CheckpointKey>) -> Self {
        Self { path, key, length: None, trees: HashMap::new(), newest: HashMap::new() }
    }

    /// The newest checkpoint of each project.
    pub fn newest(&mut self) -> std::io::Result<&HashMap<ProjectId, Checkpoint>> {
        drop(self.open()?);
        Ok(&self.newest)
    }

    /// Signs points, which are in the order of their chains, and appends them; they are on disk when this is `Ok`.
    pub fn append(&mut self, points: &[Point]) -> std::io::Result<()> {
        let (mut file, length) = self.open()?;
        let mut text = String::new();
        if !ends_with_a_line(&file, length)? {
            tracing::warn!(file = %self.path.display(), "the last line of the checkpoints is torn; it is left out");
            text.push('\n');
        }
        // Trees grow only when their lines are on disk.
        let mut trees: HashMap<ProjectId, Tree> = HashMap::new();
        let mut signed = Vec::with_capacity(points.len());
        for point in points {
            let known = || self.trees.get(&point.project).cloned().unwrap_or_default();
            let checkpoint = point.sign(trees.entry(point.project).or_insert_with(known), &self.key);
            text.push_str(&checkpoint.line());
            text.push('\n');
            signed.push(checkpoint);
        }
        // A failure from here on leaves unknown what is in the file.
        self.length = None;
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        self.length = Some(length + text.len() as u64);
        self.trees.extend(trees);
        self.newest.extend(signed.into_iter().map(|checkpoint| (checkpoint.point.project, checkpoint)));
        Ok(())
    }

    /// Opens the file, and reads it if it is not as we left it. Returns its length too.
    fn open(&mut self) -> std::io::Result<(File, u64)> {
        let is_new = !self.path.try_exists()?;
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o644).open(&self.path)?;
        if is_new && let Some(folder) = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            File::open(folder)?.sync_all()?;
        }
        let length = file.metadata()?.len();
        if self.length == Some(length) {
            return Ok((file, length));
        }
        if self.length.is_some() {
            tracing::error!(file = %self.path.display(), "the file of checkpoints was changed by somebody else; reading it again");
        }
        self.load()?;
        self.length = Some(length);
        Ok((file, length))
    }

    fn load(&mut self) -> std::io::Result<()> {
        let rolled = read(&self.path, &[self.key.public()], None, |_| {})?;
        for remark in &rolled.remarks {
            if remark.is_fault() {
                tracing::error!(file = %self.path.display(), %remark, "the file of checkpoints is not as it was written");
            } else {
                tracing::warn!(file = %self.path.display(), %remark, "the file of checkpoints");
            }
        }
        self.trees.clear();
        let mut lost: Vec<ProjectId> = self.newest.keys().copied().collect();
        for (project, signed) in rolled.projects {
            self.trees.extend(signed.tree.map(|tree| (project, tree)));
            let Some(newest) = signed.newest else { continue };
            let known = self.newest.entry(project).or_insert(newest);
            if newest.point.seq >= known.point.seq {
                *known = newest;
                lost.retain(|lost| *lost != project);
            }
        }
        // What was signed stays signed: nothing that contradicts it will be.
        for project in lost {
            tracing::error!(file = %self.path.display(), project.id = %project, "checkpoints are missing from the file");
        }
        Ok(())
    }
}

fn ends_with_a_line(mut file: &File, length: u64) -> std::io::Result<bool> {
    if length == 0 {
        return Ok(true);
    }
    let mut last = [0];
    file.seek(SeekFrom::Start(length - 1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

#[cfg(test)]
mod tests {
    use domain::ledger::Remark;
    use domain::time::Timestamp;

    use super::*;

    const PROJECT: ProjectId = ProjectId::from_bytes([7; 16]);

    fn point(project: ProjectId, seq: u64) -> Point {
        Point { project, seq, hash: [seq as u8; 32], at: Timestamp::from_secs(1_800_000_000) }
    }

    struct Desk {
        _folder: tempfile::TempDir,
        path: PathBuf,
        key: Arc<CheckpointKey>,
    }

    impl Desk {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("checkpoints.ndjson");
            Self { path, key: Arc::new(CheckpointKey::mint()), _folder: folder }
        }

        fn book(&self) -> Book {
            Book::new(self.path.clone(), Arc::clone(&self.key))
        }

        fn read(&self) -> (Vec<u64>, Vec<Remark>) {
            let mut rolled = read(&self.path, &[self.key.public()], Some(PROJECT), |_| {}).unwrap();
            let witnesses = rolled.projects.remove(&PROJECT).unwrap_or_default().witnesses;
            (witnesses.iter().map(|witness| witness.seq).collect(), rolled.remarks)
        }

        fn append_raw(&self, text: &str) {
            OpenOptions::new().append(true).open(&self.path).unwrap().write_all(text.as_bytes()).unwrap();
        }
    }

    #[test]
    fn the_next_process_goes_on_where_the_last_one_ended() {
        let desk = Desk::new();
        desk.book().append(&[point(PROJECT, 3), point(ProjectId::NIL, 1), point(PROJECT, 5)]).unwrap();
        let mut book = desk.book();
        assert_eq!(book.newest().unwrap()[&PROJECT].point, point(PROJECT, 5));
        book.append(&[point(PROJECT, 9)]).unwrap();
        book.append(&[point(PROJECT, 11)]).unwrap();
        assert_eq!(desk.read(), (vec![3, 5, 9, 11], vec![]));
        assert_eq!(book.newest().unwrap()[&PROJECT].size, 4);
    }

    #[test]
    fn a_torn_last_line_is_told_and_left_behind() {
        let desk = Desk::new();
        desk.book().append(&[point(PROJECT, 3), point(PROJECT, 5)]).unwrap();
        let whole = std::fs::read_to_string(&desk.path).unwrap();
        desk.append_raw(&whole[..90]);
        let mut book = desk.book();
        assert_eq!(book.newest().unwrap()[&PROJECT].point.seq, 5);
        book.append(&[point(PROJECT, 7)]).unwrap();
        assert_eq!(desk.read(), (vec![3, 5, 7], vec![Remark::Torn { line: 3 }]));
        assert!(std::fs::read_to_string(&desk.path).unwrap().starts_with(&whole), "nothing is taken back");
    }

    #[test]
    fn a_file_that_others_changed_is_read_again() {
        let desk = Desk::new();
        let (mut mine, mut theirs) = (desk.book(), desk.book());
        mine.append(&[point(PROJECT, 3)]).unwrap();
        theirs.append(&[point(PROJECT, 5)]).unwrap();
        mine.append(&[point(PROJECT, 7)]).unwrap();
        assert_eq!(desk.read(), (vec![3, 5, 7], vec![]));
        std::fs::remove_file(&desk.path).unwrap();
        assert_eq!(mine.newest().unwrap()[&PROJECT].point.seq, 7, "what was signed stays signed");
        mine.append(&[point(PROJECT, 9)]).unwrap();
        assert_eq!(desk.read(), (vec![9], vec![]), "a new tree in a new file");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_an_error_and_later_none() {
        let desk = Desk::new();
        let mut book = Book::new(desk.path.join("below"), Arc::clone(&desk.key));
        assert!(book.append(&[point(PROJECT, 3)]).is_err());
        std::fs::create_dir(&desk.path).unwrap();
        book.append(&[point(PROJECT, 3)]).unwrap();
        assert_eq!(book.newest().unwrap()[&PROJECT].size, 1);
    }
}
