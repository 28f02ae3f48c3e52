//! The floor: frames appended to a file and synced, by one thread that does nothing else.

use anyhow::Result;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tokio::time::Instant;

/// As large as the journal's segments: the next frame goes to a new file.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// What is appended, and how often.
pub(crate) struct Bare {
    pub(crate) folder: PathBuf,
    pub(crate) frame_bytes: usize,
    /// Frames that one sync makes safe.
    pub(crate) gathered: usize,
    pub(crate) rounds: usize,
}

/// Prints `p50_us p99_us` of a round: the appends and their sync.
#[allow(clippy::print_stdout, reason = "its figures, for the process that started it")]
pub(crate) fn run(bare: &Bare) -> Result<()> {
    let frame: Vec<u8> = (0..bare.frame_bytes).map(|at| (at * 31 % 251) as u8).collect();
    let path = bare.folder.join("bare");
    let (mut file, mut end) = (create(&path)?, 0);
    let mut took_us = Vec::new();
    for _ in 0..bare.rounds {
        if end >= FILE_BYTES_MAX {
            (file, end) = (create(&path)?, 0);
        }
        let started = Instant::now();
        for _ in 0..bare.gathered {
            file.write_all_at(&frame, end)?;
            end += frame.len() as u64;
        }
        file.sync_data()?;
        took_us.push(started.elapsed().as_micros());
    }
    std::fs::remove_file(&path)?;
    took_us.sort_unstable();
    let at = |share: f64| took_us[((took_us.len() - 1) as f64 * share) as usize];
    println!("{} {}", at(0.5), at(0.99));
    Ok(())
}

/// A new file in the place of the one before.
fn create(path: &Path) -> Result<File> {
    if path.exists() {
        std::fs::remove_file(path)?;
    }
    let file = OpenOptions::new().create_new(true).write(true).open(path)?;
    file.sync_all()?;
    Ok(file)
}
