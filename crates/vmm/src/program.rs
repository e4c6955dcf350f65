//! Where programs are.

use std::path::PathBuf;

/// Where a program is, by `PATH` and the directories in which those of administrators are, which a user's `PATH` lacks.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/bin", "/usr/sbin", "/sbin", "/usr/local/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|directory| directory.join(name)).find(|path| path.is_file())
}

/// What to say when it is nowhere.
pub fn missing_program(name: &str) -> String {
    let package = match name {
        "mkfs.ext4" => "e2fsprogs",
        "mkfs.erofs" => "erofs-utils",
        "dpkg-deb" => "dpkg",
        "apt-get" => "apt",
        // In Debian 12 it is one of QEMU's own.
        "virtiofsd" => "virtiofsd` or `qemu-system-common",
        _ => "qemu-system-x86",
    };
    format!("`{name}` is not installed; hint: install the package `{package}`")
}
