//! What a kernel starts with: an archive in the form that `cpio` calls `newc`, made in memory.

/// A file or directory of the archive. A directory comes before what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its path, without a slash in front.
    pub path: String,
    /// A directory where absent.
    pub content: Option<&'a [u8]>,
}

const FILE: u32 = 0o100_755;
const DIRECTORY: u32 = 0o040_755;

/// The archive. Pure: the same entries make the same bytes.
pub fn initramfs(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (entry, inode) in entries.iter().zip(1u32..) {
        let mode = if entry.content.is_some() { FILE } else { DIRECTORY };
        write(&mut archive, &entry.path, mode, inode, entry.content.unwrap_or_default());
    }
    write(&mut archive, "TRAILER!!!", 0, 0, &[]);
    archive
}

fn write(archive: &mut Vec<u8>, path: &str, mode: u32, inode: u32, content: &[u8]) {
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    // Inode, mode, owner, group, links, time, length, device (2), its own device (2), length of the name, checksum.
    let numbers = [inode, mode, 0, 0, 1, 0, length(content.len()), 0, 0, 0, 0, length(path.len() + 1), 0];
    archive.extend(b"070701");
    for number in numbers {
        archive.extend(format!("{number:08x}").bytes());
    }
    archive.extend(path.bytes());
    archive.push(0);
    pad(archive);
    archive.extend(content);
    pad(archive);
}

/// Everything begins at a multiple of four.
fn pad(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn another_program_reads_it() {
        let entries = [
            Entry { path: "modules".to_owned(), content: None },
            Entry { path: "modules/10-a.ko".to_owned(), content: Some(b"abc") },
            Entry { path: "init".to_owned(), content: Some(b"#!/bin/sh\n") },
        ];
        let archive = initramfs(&entries);
        let directory = tempfile::tempdir().unwrap();
        let mut child = Command::new("busybox")
            .args(["cpio", "-i"])
            .current_dir(directory.path())
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&archive).unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(std::fs::read(directory.path().join("modules/10-a.ko")).unwrap(), b"abc");
        assert_eq!(std::fs::read(directory.path().join("init")).unwrap(), b"#!/bin/sh\n");
    }
}
