//! This machine: open files, and the folder and the disk under the single process.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Access, access, statfs};
use rustix::process::{Resource, getrlimit};

use super::{Findings, databases};
use crate::keeper::SHOP;
use crate::up::held::hold;

/// Fewer open files are soon used up: two for every checkout at the gateway, one at a service.
const OPEN_FILES: u64 = 4_096;
/// A fresh shop takes 192 MiB at once, and every database 300 MiB and three times its state in the end.
const FREE_BYTES: u64 = 1 << 30;
/// Linux's number for file systems in memory (`TMPFS_MAGIC`).
const TMPFS: u64 = 0x0102_1994;
/// And for those that are as volatile (`RAMFS_MAGIC`).
const RAMFS: u64 = 0x8584_58f6;

pub(super) fn limits(findings: &mut Findings) {
    // A process raises its own limit as far as it may.
    match getrlimit(Resource::Nofile).maximum {
        Some(files) if files < OPEN_FILES => findings.warning(
            "open files",
            format!(
                "a process may have {files} open, and so fewer connections: set `ulimit -Hn` or `LimitNOFILE=` to {OPEN_FILES} or more"
            ),
        ),
        Some(files) => findings.ok("open files", format!("a process may have {files} open")),
        None => findings.ok("open files", "a process may have any number open"),
    }
}

pub(super) fn data(folder: &Path, findings: &mut Findings) {
    let about = "data folder";
    let shown = folder.display();
    // One that is not there is made in the folder above.
    let nearest = folder.ancestors().find(|folder| folder.is_dir()).unwrap_or_else(|| ".".as_ref());
    let nearest = if nearest.as_os_str().is_empty() { ".".as_ref() } else { nearest };
    if folder.exists() && !folder.is_dir() {
        return findings.wrong(about, format!("{shown} is no folder: give another one with --data"));
    }
    if access(nearest, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        return findings
            .wrong(about, format!("{} cannot be written to by this user: give it to that user", nearest.display()));
    }
    if folder.is_dir() {
        match std::fs::metadata(folder) {
            Ok(found) if found.mode() & 0o007 != 0 => {
                findings.warning(
                    about,
                    format!("everybody may look into {shown}, where orders and balances are: `chmod 700 {shown}`"),
                );
            }
            Ok(_) => findings.ok(about, format!("{shown} is its owner's alone")),
            Err(error) => findings.wrong(about, format!("{shown}: {error}")),
        }
    } else {
        findings.ok(about, format!("{shown} will be made at the first start"));
    }
    disk(nearest, findings);
    let hold = hold(folder, SHOP);
    if hold.exists() {
        findings.warning(
            about,
            format!(
                "{} is there: a shop that has ended is not started again by `settle serve --restart`. Remove it, unless you mean that",
                hold.display()
            ),
        );
    }
    if folder.is_dir() {
        databases::examine(folder, findings);
    }
}

/// The disk that a folder is on, which something is written to for good.
pub(super) fn disk(nearest: &Path, findings: &mut Findings) {
    match statfs(nearest) {
        Ok(found) => {
            #[allow(
                clippy::cast_sign_loss,
                clippy::unnecessary_cast,
                reason = "the type of it differs from system to system"
            )]
            let kind = (found.f_type as u64) & 0xffff_ffff;
            if kind == TMPFS || kind == RAMFS {
                findings.wrong(
                    "disk",
                    format!(
                        "{} is in memory: a restart of the machine loses every order. Take a folder on a disk",
                        nearest.display()
                    ),
                );
            }
            #[allow(
                clippy::cast_sign_loss,
                clippy::unnecessary_cast,
                reason = "the type of it differs from system to system"
            )]
            let free = (found.f_bavail as u64).saturating_mul(found.f_bsize as u64);
            let mib = free >> 20;
            if free < FREE_BYTES {
                findings.wrong(
                    "disk",
                    format!("{mib} MiB are free under {}; a database needs 1024 to begin with", nearest.display()),
                );
            } else {
                findings.ok("disk", format!("{mib} MiB are free under {}", nearest.display()));
            }
        }
        Err(error) => findings.wrong("disk", format!("{}: {error}", nearest.display())),
    }
}
