//! One file per plugin and tenant: named by a hash, since names are any text, with the names inside.
//!
//! A line with the version and a checksum of the rest, then JSON. A file is written aside and renamed, so that no start
//! finds half of it; it is not synced, because what plugins keep may lose its last change to a power cut (the checksum
//! shows a torn file), and a tick must not wait for a disk.

use super::super::cache::{check_owner, hexadecimal};
use super::Values;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const VERSION: &str = "trommel plugin state 1";
/// The share of a tenant, in base64 and with every character of its keys escaped, is smaller.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// What could not be read; looked at by people only.
const ASIDE: &str = "aside";
/// What is being written.
const NEW: &str = "new";

/// What a file holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) plugin: String,
    pub(super) tenant: String,
    pub(super) values: Values,
}

/// Gives each file to `take`, which says whether there was room. What is no file of ours is set aside.
pub(super) fn read_all(folder: &Path, mut take: impl FnMut(Kept) -> bool) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    // The same order at each start, so that it is the same ones for which there is no room.
    files.sort();
    for file in files {
        match file.extension().and_then(|extension| extension.to_str()) {
            Some(ASIDE) => {}
            // A write that the end of the process cut short: the file beside it is whole.
            Some(NEW) => {
                let _ = fs::remove_file(&file);
            }
            _ => match read(&file) {
                Ok(kept) => {
                    if !take(kept) {
                        tracing::warn!(file = %file.display(), "no room for what a plugin kept");
                    }
                }
                Err(why) => set_aside(&file, &why),
            },
        }
    }
}

/// Removes the file of a tenant that has nothing.
pub(super) fn write(folder: &Path, plugin: &str, tenant: &str, values: &Values) -> std::io::Result<()> {
    let file = folder.join(name(plugin, tenant));
    if values.is_empty() {
        return match fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    }
    let aside = file.with_extension(NEW);
    let text = text_of(plugin, tenant, values);
    let written =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside).and_then(
            |mut open| {
                open.write_all(text.as_bytes())?;
                fs::rename(&aside, &file)
            },
        );
    if written.is_err() {
        let _ = fs::remove_file(&aside);
    }
    written
}

fn set_aside(file: &Path, why: &str) {
    let mut aside = file.as_os_str().to_owned();
    aside.push(format!(".{ASIDE}"));
    let moved = fs::rename(file, &aside);
    let moved = moved.map_or_else(|error| error.to_string(), |()| "renamed".into());
    tracing::warn!(file = %file.display(), why, moved, "this is nothing that a plugin kept; it is set aside");
}

fn name(plugin: &str, tenant: &str) -> String {
    let hash = Sha256::new()
        .chain_update((plugin.len() as u64).to_le_bytes())
        .chain_update(plugin)
        .chain_update(tenant)
        .finalize();
    format!("{}.state", hexadecimal(&hash[..16]))
}

fn text_of(plugin: &str, tenant: &str, values: &Values) -> String {
    let values: Map<String, Value> =
        values.iter().map(|(key, value)| (key.clone(), STANDARD.encode(value).into())).collect();
    let body = json!({ "plugin": plugin, "tenant": tenant, "values": values }).to_string();
    format!("{VERSION} {}\n{body}\n", checksum(&body))
}

fn checksum(body: &str) -> String {
    hexadecimal(&Sha256::digest(body))
}

fn read(file: &Path) -> Result<Kept, String> {
    let text = text_in(file)?;
    let kept = parsed(&text).ok_or("it is damaged, or of another version")?;
    match file.file_name().is_some_and(|found| found == name(&kept.plugin, &kept.tenant).as_str()) {
        true => Ok(kept),
        false => Err("its name is that of another plugin or tenant".into()),
    }
}

fn text_in(file: &Path) -> Result<String, String> {
    let nofollow = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let open = fs::OpenOptions::new().read(true).custom_flags(nofollow.bits().cast_signed()).open(file);
    let mut open = open.map_err(|error| error.to_string())?;
    let found = open.metadata().map_err(|error| error.to_string())?;
    if !found.is_file() {
        return Err("it is no file".into());
    }
    check_owner(&found)?;
    if found.mode() & 0o022 != 0 {
        return Err("others may write to it".into());
    }
    if found.len() > FILE_BYTES_MAX {
        return Err("it is too large".into());
    }
    let mut text = String::new();
    open.read_to_string(&mut text).map_err(|error| error.to_string())?;
    Ok(text)
}

fn parsed(text: &str) -> Option<Kept> {
    let (head, body) = text.split_once('\n')?;
    let body = body.strip_suffix('\n')?;
    if head.strip_prefix(VERSION)?.strip_prefix(' ')? != checksum(body) {
        return None;
    }
    let kept: Value = serde_json::from_str(body).ok()?;
    let name = |key: &str| kept[key].as_str().map(str::to_owned);
    let mut values = Values::default();
    for (key, value) in kept["values"].as_object()? {
        values.set(key.clone(), STANDARD.decode(value.as_str()?).ok()?, usize::MAX, usize::MAX).ok()?;
    }
    Some(Kept { plugin: name("plugin")?, tenant: name("tenant")?, values })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn values(of_keys: &[(&str, &[u8])]) -> Values {
        let mut values = Values::default();
        of_keys.iter().for_each(|(key, value)| {
            values.set((*key).into(), value.to_vec(), usize::MAX, usize::MAX).unwrap()
        });
        values
    }

    fn kept_in(folder: &Path) -> Vec<Kept> {
        let mut all = Vec::new();
        read_all(folder, |kept| {
            all.push(kept);
            true
        });
        all.sort_by(|a, b| (&a.plugin, &a.tenant).cmp(&(&b.plugin, &b.tenant)));
        all
    }

    fn files(folder: &Path) -> Vec<String> {
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut files: Vec<String> = fs::read_dir(folder).unwrap().map(name).collect();
        files.sort();
        files
    }

    #[test]
    fn what_was_written_is_read_back_whatever_the_names_are() {
        let folder = tempfile::tempdir().unwrap();
        let names = [("anomaly", "acme"), ("anomal", "yacme"), ("../../etc", "ten/ant\"\n漢"), ("", " ")];
        let all = values(&[("a", b"\0\xff"), ("line\n\"", b""), ("b", &[7; 1000])]);
        for (plugin, tenant) in names {
            write(folder.path(), plugin, tenant, &values(&[("old", b"value")])).unwrap();
            write(folder.path(), plugin, tenant, &all).unwrap();
        }
        assert_eq!(files(folder.path()).len(), 4);
        let mut names: Vec<_> = names.into();
        names.sort();
        let kept = kept_in(folder.path());
        assert_eq!(kept.iter().map(|kept| (&*kept.plugin, &*kept.tenant)).collect::<Vec<_>>(), names);
        assert!(kept.iter().all(|kept| kept.values == all));
        for file in files(folder.path()) {
            let mode = fs::metadata(folder.path().join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        write(folder.path(), "anomaly", "acme", &Values::default()).unwrap();
        write(folder.path(), "anomaly", "acme", &Values::default()).unwrap();
        assert_eq!(kept_in(folder.path()).len(), 3);
    }

    #[test]
    fn the_largest_share_of_the_worst_keys_fits_into_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut all = Values::default();
        (0..256).for_each(|at| {
            all.set(format!("{at:03}{}", "\0".repeat(253)), Vec::new(), usize::MAX, usize::MAX).unwrap()
        });
        write(folder.path(), &"\0".repeat(128), &"\0".repeat(128), &all).unwrap();
        assert_eq!(kept_in(folder.path())[0].values, all);
    }

    #[test]
    fn what_is_damaged_or_foreign_is_set_aside_and_the_others_are_read() {
        let check = |spoil: &dyn Fn(&Path, &Path)| {
            let folder = tempfile::tempdir().unwrap();
            let all = values(&[("a", b"value")]);
            write(folder.path(), "anomaly", "acme", &all).unwrap();
            let good = files(folder.path());
            write(folder.path(), "anomaly", "other", &all).unwrap();
            let spoilt = files(folder.path()).into_iter().find(|file| !good.contains(file)).unwrap();
            spoil(folder.path(), &folder.path().join(&spoilt));
            let kept = kept_in(folder.path());
            assert_eq!(kept.iter().map(|kept| &*kept.tenant).collect::<Vec<_>>(), ["acme"]);
            let after = files(folder.path());
            assert_eq!(after.iter().filter(|file| file.ends_with(".aside")).count(), 1, "{after:?}");
            kept_in(folder.path());
            assert_eq!(files(folder.path()), after, "once is enough");
            // The tenant begins anew.
            write(folder.path(), "anomaly", "other", &all).unwrap();
            assert_eq!(kept_in(folder.path()).len(), 2);
        };
        let change = |change: fn(&mut Vec<u8>)| {
            check(&|_, file| {
                let mut bytes = fs::read(file).unwrap();
                change(&mut bytes);
                fs::write(file, bytes).unwrap();
            });
        };
        change(|bytes| bytes.clear());
        change(|bytes| bytes.truncate(bytes.len() / 2));
        change(|bytes| bytes.truncate(bytes.len() - 1));
        change(|bytes| *bytes.last_mut().unwrap() = b' ');
        change(|bytes| bytes[100] ^= 1);
        change(|bytes| bytes[21] = b'2');
        change(|bytes| *bytes = vec![0xff; 100]);
        change(|bytes| *bytes = vec![b'x'; (1 << 20) + 1]);
        // Right by its checksum, and not by what it says.
        change(|bytes| {
            let body = r#"{"plugin":"anomaly","tenant":"other","values":{"a":"no base64!"}}"#;
            *bytes = format!("{VERSION} {}\n{body}\n", checksum(body)).into_bytes();
        });
        // Another tenant's, copied over it.
        check(&|folder, file| {
            write(folder, "anomaly", "victim", &values(&[("a", b"forged")])).unwrap();
            fs::rename(folder.join(name("anomaly", "victim")), file).unwrap();
        });
        check(&|_, file| fs::set_permissions(file, fs::Permissions::from_mode(0o622)).unwrap());
        check(&|folder, file| {
            fs::remove_file(file).unwrap();
            std::os::unix::fs::symlink(folder.join(name("anomaly", "acme")), file).unwrap();
        });
        check(&|_, file| {
            fs::remove_file(file).unwrap();
            fs::create_dir(file).unwrap();
        });
    }

    #[test]
    fn a_write_that_was_cut_short_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "anomaly", "acme", &values(&[("a", b"value")])).unwrap();
        let file = folder.path().join(name("anomaly", "acme"));
        fs::write(file.with_extension(NEW), "half").unwrap();
        assert_eq!(kept_in(folder.path()).len(), 1);
        assert_eq!(files(folder.path()).len(), 1);
    }
}
