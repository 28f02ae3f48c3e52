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
        values.set(key.clone(), STANDARD.decode(value.as_str()?).ok()?, usize::MAX).ok()?;
    }
    Some(Kept { plugin: name("plugin")?, tenant: name("tenant")?, values })
}
