//! Compiled code on disk, so that a start does not compile.
//!
//! What is read back is run as machine code, so a file counts only if this user alone could have written it: the
//! folder is ours with mode 0700 and no link, the file is ours and no link, and its checksum stands. The key covers
//! the content, the engine's version and its settings. On any doubt the component is compiled again, and the file
//! replaced; the cache never makes a load fail.

use sha2::{Digest, Sha256};
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use wasmtime::Engine;
use wasmtime::component::Component;

/// More compiled plugins than this are not kept; the oldest files go.
const FILES_MAX: usize = 64;
/// A larger file was not written by us.
const FILE_BYTES_MAX: u64 = 512 << 20;
const CHECKSUM_BYTES: usize = 32;

#[derive(Debug)]
pub(super) struct Cache {
    /// `None`: nothing is kept.
    folder: Option<PathBuf>,
}

impl Cache {
    /// Makes the folder if it is missing. One that others could write to is not used; the log says so.
    pub(super) fn open(folder: Option<PathBuf>) -> Cache {
        let folder = folder.filter(|folder| match private_folder(folder) {
            Ok(()) => true,
            Err(why) => {
                tracing::warn!(folder = %folder.display(), why, "compiled plugins are not kept");
                false
            }
        });
        Cache { folder }
    }

    /// The component of these bytes, compiled now or before. The error is wasmtime's, about the bytes.
    pub(super) fn component(&self, engine: &Engine, bytes: &[u8]) -> wasmtime::Result<Component> {
        let Some(folder) = &self.folder else { return Component::from_binary(engine, bytes) };
        let key = key(engine, bytes);
        let file = folder.join(format!("{}.compiled", hexadecimal(&key)));
        if let Some(component) = read(&file, &key).and_then(|code| restore(engine, &code)) {
            return Ok(component);
        }
        let component = Component::from_binary(engine, bytes)?;
        if let Err(error) =
            component.serialize().map_err(std::io::Error::other).and_then(|code| write(&file, &key, &code))
        {
            tracing::warn!(file = %file.display(), %error, "a compiled plugin was not kept");
        }
        prune(folder);
        Ok(component)
    }
}

#[allow(unsafe_code, reason = "the only way to load compiled code")]
fn restore(engine: &Engine, code: &[u8]) -> Option<Component> {
    // SAFETY: `deserialize` trusts its input to come from `Component::serialize`. `read` took it from a file that
    // only this user can have written, in a folder that only this user can enter, and its checksum over key and code
    // stands: it is what `write` wrote after compiling. wasmtime itself refuses another version or other settings.
    unsafe { Component::deserialize(engine, code) }.ok()
}

fn key(engine: &Engine, bytes: &[u8]) -> [u8; 32] {
    let mut settings = std::hash::DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut settings);
    let mut hash = Sha256::new();
    hash.update(b"trommel compiled 1\0");
    hash.update(settings.finish().to_le_bytes());
    hash.update(bytes);
    hash.finalize().into()
}

pub(super) fn private_folder(folder: &Path) -> Result<(), String> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| error.to_string())?;
    let found = fs::symlink_metadata(folder).map_err(|error| error.to_string())?;
    if !found.is_dir() {
        return Err("it is no folder".into());
    }
    check_owner(&found)?;
    match found.mode() & 0o077 {
        0 => Ok(()),
        _ => Err(format!("others may enter it (mode {:o}); it must be 0700", found.mode() & 0o777)),
    }
}

pub(super) fn check_owner(found: &fs::Metadata) -> Result<(), String> {
    match found.uid() == rustix::process::geteuid().as_raw() {
        true => Ok(()),
        false => Err("it belongs to another user".into()),
    }
}

/// The code in the file, if the file is ours and whole.
fn read(file: &Path, key: &[u8; 32]) -> Option<Vec<u8>> {
    let nofollow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let mut open = fs::OpenOptions::new().read(true).custom_flags(nofollow).open(file).ok()?;
    let found = open.metadata().ok()?;
    if !found.is_file()
        || found.len() > FILE_BYTES_MAX
        || check_owner(&found).is_err()
        || found.mode() & 0o022 != 0
    {
        return None;
    }
    let mut all = Vec::with_capacity(found.len() as usize);
    open.read_to_end(&mut all).ok()?;
    let code = all.split_off(CHECKSUM_BYTES.min(all.len()));
    (all == checksum(key, &code)).then_some(code)
}

/// Written aside and renamed, so that no reader sees half a file.
fn write(file: &Path, key: &[u8; 32], code: &[u8]) -> std::io::Result<()> {
    let aside = file.with_extension(format!("{}.new", std::process::id()));
    let written =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside).and_then(
            |mut open| {
                open.write_all(&checksum(key, code))?;
                open.write_all(code)?;
                fs::rename(&aside, file)
            },
        );
    if written.is_err() {
        let _ = fs::remove_file(&aside);
    }
    written
}

fn checksum(key: &[u8; 32], code: &[u8]) -> Vec<u8> {
    Sha256::new().chain_update(key).chain_update(code).finalize().to_vec()
}

fn prune(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut files: Vec<_> = entries
        .flatten()
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    files.sort_by_key(|file| std::cmp::Reverse(file.0));
    for (_, file) in files.into_iter().skip(FILES_MAX) {
        let _ = fs::remove_file(file);
    }
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn engine() -> Engine {
        Engine::default()
    }

    const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

    fn files(folder: &Path) -> Vec<PathBuf> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn what_was_compiled_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("compiled");
        let (cache, engine) = (Cache::open(Some(inside.clone())), engine());
        cache.component(&engine, COMPONENT).unwrap();
        let [file] = files(&inside).try_into().unwrap();
        assert_eq!(fs::metadata(&inside).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let code = read(&file, &key(&engine, COMPONENT)).unwrap();
        assert!(restore(&engine, &code).is_some());

        // A hit does not write: what stands there stays as it is.
        let written = fs::metadata(&file).unwrap().modified().unwrap();
        cache.component(&engine, COMPONENT).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), written);
    }

    #[test]
    fn a_file_that_somebody_changed_is_not_used_and_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("compiled");
        let (cache, engine) = (Cache::open(Some(inside.clone())), engine());
        cache.component(&engine, COMPONENT).unwrap();
        let [file] = files(&inside).try_into().unwrap();
        let good = fs::read(&file).unwrap();
        let check = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            fs::write(&file, &bytes).unwrap();
            assert_eq!(read(&file, &key(&engine, COMPONENT)), None);
            cache.component(&engine, COMPONENT).unwrap();
            assert_eq!(fs::read(&file).unwrap(), good);
        };
        check(&|bytes| bytes[0] ^= 1);
        check(&|bytes| *bytes.last_mut().unwrap() ^= 1);
        check(&|bytes| bytes.truncate(bytes.len() / 2));
        check(&|bytes| bytes.clear());
        check(&|bytes| bytes.extend_from_slice(b"more"));
        assert_eq!(read(&file, &key(&engine, b"another component")), None);
    }

    #[test]
    fn a_file_that_others_may_write_or_that_is_a_link_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("compiled");
        let (cache, engine) = (Cache::open(Some(inside.clone())), engine());
        cache.component(&engine, COMPONENT).unwrap();
        let [file] = files(&inside).try_into().unwrap();
        let key = key(&engine, COMPONENT);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o622)).unwrap();
        assert_eq!(read(&file, &key), None);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(read(&file, &key).is_some());
        let link = inside.join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(read(&link, &key), None);
    }

    #[test]
    fn a_folder_that_others_may_enter_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let open = folder.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
        let cache = Cache::open(Some(open.clone()));
        assert!(cache.folder.is_none());
        cache.component(&engine(), COMPONENT).unwrap();
        assert!(files(&open).is_empty());
        let link = folder.path().join("link");
        let private = folder.path().join("private");
        Cache::open(Some(private.clone())).folder.unwrap();
        std::os::unix::fs::symlink(&private, &link).unwrap();
        assert!(Cache::open(Some(link)).folder.is_none());
    }

    #[test]
    fn old_files_go() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..FILES_MAX + 5 {
            fs::write(folder.path().join(number.to_string()), "").unwrap();
        }
        prune(folder.path());
        assert_eq!(files(folder.path()).len(), FILES_MAX);
    }
}
