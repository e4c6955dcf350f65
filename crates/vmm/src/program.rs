//! Where programs are.

use std::path::PathBuf;

/// Where a program is, by `PATH` and the directories in which those of administrators are, which a user's `PATH` lacks.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/bin", "/usr/sbin", "/sbin", "/usr/local/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|directory| directory.join(name)).find(|path| path.is_file())
}

/// What is missing where [`uefi_files`] are.
pub const UEFI: &str = "OVMF";

/// The firmware UEFI for guests of this computer's architecture: its program, and what it remembers at first. As
/// distributions have them; both of one pair are of one size.
pub fn uefi_files() -> Option<(PathBuf, PathBuf)> {
    let pairs = [
        ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
        ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
        ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
        ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
    ];
    let pairs = pairs.map(|(code, variables)| (PathBuf::from(code), PathBuf::from(variables)));
    pairs.into_iter().find(|(code, variables)| code.is_file() && variables.is_file())
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
        UEFI => "ovmf",
        _ => "qemu-system-x86",
    };
    format!("`{name}` is not installed; hint: install the package `{package}`")
}
