//! The disk as the log uses it: one folder and the files in it.
//!
//! An enum of two arms: the real one, and for tests one in memory that forgets what was not synced.

#[cfg(test)]
use super::faulty;
use std::fs::{self, TryLockError};
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What one call of the system takes.
const SLICES_MAX: usize = 1024;

/// A folder. Its clones are the same folder.
#[derive(Clone, Debug)]
pub(crate) enum Disk {
    Real(Arc<Folder>),
    #[cfg(test)]
    Faulty(faulty::Faulty),
}

#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    handle: fs::File,
}

/// A file of the folder.
#[derive(Debug)]
pub(crate) enum File {
    Real(fs::File),
    #[cfg(test)]
    Faulty(faulty::Open),
}

/// What stands in the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    /// No folder, no link, no pipe.
    pub(crate) is_file: bool,
}

impl Disk {
    /// The folder is made, for this user alone, if it is missing.
    pub(crate) fn real(path: &Path) -> io::Result<Disk> {
        if !path.try_exists()? {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
            if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                fs::File::open(parent)?.sync_all()?;
            }
        }
        Ok(Disk::Real(Arc::new(Folder { path: path.to_path_buf(), handle: fs::File::open(path)? })))
    }

    pub(crate) fn list(&self) -> io::Result<Vec<Listed>> {
        match self {
            Disk::Real(folder) => list(&folder.path),
            #[cfg(test)]
            Disk::Faulty(disk) => Ok(disk.list()),
        }
    }

    /// Fails if the name is taken.
    pub(crate) fn create(&self, name: &str) -> io::Result<File> {
        match self {
            Disk::Real(folder) => {
                open(&folder.path.join(name), fs::OpenOptions::new().create_new(true)).map(File::Real)
            }
            #[cfg(test)]
            Disk::Faulty(disk) => disk.create(name).map(File::Faulty),
        }
    }

    pub(crate) fn open(&self, name: &str) -> io::Result<File> {
        match self {
            Disk::Real(folder) => open(&folder.path.join(name), &mut fs::OpenOptions::new()).map(File::Real),
            #[cfg(test)]
            Disk::Faulty(disk) => disk.open(name).map(File::Faulty),
        }
    }

    /// As [`Disk::open`], for whoever only reads: it can be done where nothing may be written any more.
    pub(crate) fn open_to_read(&self, name: &str) -> io::Result<File> {
        match self {
            Disk::Real(folder) => {
                open_as(&folder.path.join(name), fs::OpenOptions::new().read(true)).map(File::Real)
            }
            #[cfg(test)]
            Disk::Faulty(disk) => disk.open(name).map(File::Faulty),
        }
    }

    /// The lock, for as long as the file is kept. `None`: another process has it.
    pub(crate) fn lock(&self, name: &str) -> io::Result<Option<File>> {
        match self {
            Disk::Real(folder) => {
                let file = open(&folder.path.join(name), fs::OpenOptions::new().create(true))?;
                match file.try_lock() {
                    Ok(()) => Ok(Some(File::Real(file))),
                    Err(TryLockError::WouldBlock) => Ok(None),
                    Err(TryLockError::Error(error)) => Err(error),
                }
            }
            #[cfg(test)]
            Disk::Faulty(disk) => Ok(Some(File::Faulty(disk.lock(name)))),
        }
    }

    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        match self {
            Disk::Real(folder) => fs::rename(folder.path.join(from), folder.path.join(to)),
            #[cfg(test)]
            Disk::Faulty(disk) => disk.rename(from, to),
        }
    }

    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        match self {
            Disk::Real(folder) => fs::remove_file(folder.path.join(name)),
            #[cfg(test)]
            Disk::Faulty(disk) => disk.remove(name),
        }
    }

    /// What was created, renamed and removed stays so once this returns.
    pub(crate) fn sync_folder(&self) -> io::Result<()> {
        match self {
            Disk::Real(folder) => folder.handle.sync_all(),
            #[cfg(test)]
            Disk::Faulty(disk) => disk.sync_folder(),
        }
    }

    /// What this user may still write.
    pub(crate) fn free_bytes(&self) -> io::Result<u64> {
        match self {
            Disk::Real(folder) => {
                let found = rustix::fs::fstatvfs(&folder.handle)?;
                Ok(found.f_bavail.saturating_mul(found.f_frsize))
            }
            #[cfg(test)]
            Disk::Faulty(disk) => Ok(disk.free_bytes()),
        }
    }
}

impl File {
    pub(crate) fn bytes(&self) -> io::Result<u64> {
        match self {
            File::Real(file) => Ok(file.metadata()?.len()),
            #[cfg(test)]
            File::Faulty(file) => Ok(file.bytes()),
        }
    }

    /// Fills the buffer.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            File::Real(file) => file.read_exact_at(buffer, offset),
            #[cfg(test)]
            File::Faulty(file) => file.read_at(buffer, offset),
        }
    }

    /// All of the parts, one behind the other. After an error any of it may have been written.
    pub(crate) fn write_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        match self {
            File::Real(file) => write_at(file, parts, offset),
            #[cfg(test)]
            File::Faulty(file) => file.write_at(parts, offset),
        }
    }

    /// What was written and the file's length are safe once this returns.
    pub(crate) fn sync_data(&self) -> io::Result<()> {
        match self {
            File::Real(file) => file.sync_data(),
            #[cfg(test)]
            File::Faulty(file) => file.sync_data(),
        }
    }

    /// Gives back what was preallocated beyond as well.
    pub(crate) fn truncate(&self, bytes: u64) -> io::Result<()> {
        match self {
            File::Real(file) => file.set_len(bytes),
            #[cfg(test)]
            File::Faulty(file) => file.truncate(bytes),
        }
    }

    /// Takes the room for so many bytes without a change of the file's length.
    pub(crate) fn preallocate(&self, bytes: u64) -> io::Result<()> {
        match self {
            File::Real(file) => {
                Ok(rustix::fs::fallocate(file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, bytes)?)
            }
            #[cfg(test)]
            File::Faulty(file) => file.preallocate(bytes),
        }
    }
}

fn list(path: &Path) -> io::Result<Vec<Listed>> {
    let entries = fs::read_dir(path)?.map(|entry| {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // One that has gone since is no longer there; all else is an error of the folder.
        match entry.metadata() {
            Ok(found) => Ok(Some(Listed { name, bytes: found.len(), is_file: found.is_file() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    });
    entries.filter_map(Result::transpose).collect()
}

fn open(path: &Path, options: &mut fs::OpenOptions) -> io::Result<fs::File> {
    open_as(path, options.read(true).write(true).mode(0o600))
}

/// Follows no link and waits for no pipe: the name may have been taken by something else.
fn open_as(path: &Path, options: &mut fs::OpenOptions) -> io::Result<fs::File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = options.custom_flags(flags.bits().cast_signed()).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file")),
    }
}

fn write_at(file: &fs::File, parts: &[&[u8]], mut offset: u64) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let mut rest = &mut slices[..];
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        match rustix::io::pwritev(file, &rest[..rest.len().min(SLICES_MAX)], offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                offset += written as u64;
                IoSlice::advance_slices(&mut rest, written);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
