//! The file operations that the file store's promises rest on, each doing its own part of lasting.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// A disk. In tests it keeps a record of what it was asked, for making up what a power failure leaves.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    #[cfg(test)]
    pub(super) record: Option<std::sync::Arc<std::sync::Mutex<Vec<Step>>>>,
}

/// One thing asked of a disk.
#[cfg(test)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    MakeFolder(std::path::PathBuf),
    Create(std::path::PathBuf),
    Write(std::path::PathBuf, u64, Vec<u8>),
    Sync(std::path::PathBuf),
    Rename(std::path::PathBuf, std::path::PathBuf),
    Remove(std::path::PathBuf),
    SyncFolder(std::path::PathBuf),
}

impl Disk {
    /// Writes `bytes` at the end of a file that is `length` long, for good.
    pub(super) fn append(&self, path: &Path, length: u64, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::options().append(true).open(path)?;
        let written = file.write_all(bytes);
        #[cfg(test)]
        self.note(Step::Write(path.to_owned(), length, bytes.to_vec()));
        fail::fail_point!("store::file::append::after-write");
        if let Err(error) = written.and_then(|()| file.sync_data()) {
            // On a full disk a part may be there. The codec would notice; this spares it the trouble, and
            // if it fails the first error is still the one to tell.
            let _cut = file.set_len(length);
            return Err(error);
        }
        #[cfg(test)]
        self.note(Step::Sync(path.to_owned()));
        Ok(())
    }

    /// Writes a whole file, for good but for its name.
    pub(super) fn create(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::create(path)?;
        #[cfg(test)]
        self.note(Step::Create(path.to_owned()));
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        if let Err(error) = written {
            // A part of a file that nothing speaks of: only its room matters.
            let _removed = fs::remove_file(path);
            return Err(error);
        }
        #[cfg(test)]
        {
            self.note(Step::Write(path.to_owned(), 0, bytes.to_vec()));
            self.note(Step::Sync(path.to_owned()));
        }
        Ok(())
    }

    /// Gives a file another name, over what has it; lasts with the next [`sync_folder`](Self::sync_folder).
    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)?;
        #[cfg(test)]
        self.note(Step::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    /// Removes a file; one that is not there is removed already.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        #[cfg(test)]
        self.note(Step::Remove(path.to_owned()));
        Ok(())
    }

    /// Makes the names in a folder last.
    pub(super) fn sync_folder(&self, path: &Path) -> io::Result<()> {
        // Elsewhere folders cannot be opened, and need not be.
        if cfg!(unix) {
            File::open(path)?.sync_all()?;
        }
        #[cfg(test)]
        self.note(Step::SyncFolder(path.to_owned()));
        Ok(())
    }

    /// Makes `folder`, which is in `root`, and all between, for good.
    pub(super) fn make_folder(&self, root: &Path, folder: &Path) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        fs::create_dir_all(folder)?;
        for made in folder.ancestors() {
            #[cfg(test)]
            self.note(Step::MakeFolder(made.to_owned()));
            match made.parent() {
                Some(parent) if parent.as_os_str().is_empty() => self.sync_folder(".".as_ref())?,
                Some(parent) => self.sync_folder(parent)?,
                None => {}
            }
            if made == root {
                break;
            }
        }
        Ok(())
    }

    #[cfg(test)]
    fn note(&self, step: Step) {
        if let Some(record) = &self.record {
            record.lock().unwrap().push(step);
        }
    }
}
