//! `cargo xtask dist`: one static binary, and it packed as a Debian package and an archive, the same bytes each
//! time from the same commit. What was made is then looked at: static, unpacks, prints its version.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::Outcome;
use crate::programs::{self, cargo, command, output, root};
use crate::setup::{self, Chore};

const TARGET: &str = "x86_64-unknown-linux-musl";

/// Where completions belong, by shell.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/stead"),
    ("zsh", "usr/share/zsh/vendor-completions/_stead"),
    ("fish", "usr/share/fish/vendor_completions.d/stead.fish"),
];
/// What goes along: what README leads users to.
const DOCUMENTS: [&str; 13] = [
    "README.md",
    "CHANGELOG.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "docs/exit-codes.md",
    "docs/oci.md",
    "docs/stead.yaml.md",
    "docs/stead.schema.json",
    "examples/router/stead.yaml",
    "examples/shop/dhcp.sh",
    "examples/shop/stead.yaml",
    "examples/shop/www/index.html",
    "examples/vms/stead.yaml",
];

/// The chore, into an empty `target/dist`.
pub(crate) fn run() -> Result<Outcome> {
    if !setup::ensure(&[Chore::Dist])? {
        return Ok(Outcome::Refused);
    }
    let dist = root().join("target/dist");
    if dist.exists() {
        fs::remove_dir_all(&dist)?;
    }
    fs::create_dir_all(&dist)?;
    make(&dist)?;
    println!("made in {}", dist.display());
    Ok(Outcome::Good)
}

fn make(dist: &Path) -> Result<()> {
    let epoch = output(&mut command("git", &["log", "-1", "--format=%ct"]))?.trim().to_owned();
    let version = env!("CARGO_PKG_VERSION");
    let binary = build(&epoch)?;
    let binary = &place(&binary, &dist.join("stead"), 0o755)?;
    refuse_dynamic(binary)?;
    let tree = dist.join("tree");
    lay_out(binary, &root(), &tree)?;
    let deb = format!("stead_{version}_amd64.deb");
    let archive = format!("stead-{version}-{TARGET}.tar.gz");
    pack_archive(&tree, &dist.join(&archive), &epoch)?;
    pack_deb(&tree, &dist.join(&deb), version, &epoch)?;
    let sums = output(Command::new("sha256sum").args(["stead", &deb, &archive]).current_dir(dist))?;
    fs::write(dist.join("SHA256SUMS"), &sums)?;
    installs(&dist.join(&deb), version)?;
    fs::remove_dir_all(&tree)?;
    print!("{sums}");
    Ok(())
}

fn build(epoch: &str) -> Result<PathBuf> {
    // Paths of this computer would otherwise be in the messages of panics.
    let home = std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME").map(|home| home + "/.cargo"))?;
    let flags = format!("--remap-path-prefix={}=/stead --remap-path-prefix={home}=/cargo", root().display());
    programs::run(
        cargo(&["build", "--release", "--locked", "--package", "stead", "--target", TARGET])
            .env("SOURCE_DATE_EPOCH", epoch)
            .env("CC_x86_64_unknown_linux_musl", "musl-gcc")
            .env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_RUSTFLAGS", flags),
    )?;
    Ok(root().join("target").join(TARGET).join("release/stead"))
}

/// A file under a new name, with its mode, and what leads there.
fn place(from: &Path, to: &Path, mode: u32) -> Result<PathBuf> {
    let text = fs::read(from).with_context(|| format!("could not read {}", from.display()))?;
    write(to, &text, mode)?;
    Ok(to.to_path_buf())
}

fn write(to: &Path, text: &[u8], mode: u32) -> Result<()> {
    let directory = to.parent().context("a file without a directory")?;
    fs::create_dir_all(directory)?;
    fs::write(to, text).with_context(|| format!("could not write {}", to.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode))?;
    Ok(())
}

/// A program header of type `PT_INTERP` names the loader; a static binary has none.
fn refuse_dynamic(binary: &Path) -> Result<()> {
    let headers = output(Command::new("readelf").args(["--program-headers", "--wide"]).arg(binary))?;
    if headers.lines().any(|line| line.trim_start().starts_with("INTERP")) {
        bail!("{} needs a dynamic loader", binary.display());
    }
    Ok(())
}

/// The files as they will be installed.
fn lay_out(binary: &Path, source: &Path, tree: &Path) -> Result<()> {
    place(binary, &tree.join("usr/bin/stead"), 0o755)?;
    // By this name it is an OCI runtime, which others call by a path without a word behind it.
    std::os::unix::fs::symlink("stead", tree.join("usr/bin/stead-oci"))?;
    for (shell, path) in COMPLETIONS {
        let text = output(Command::new(binary).args(["completion", shell]))?;
        write(&tree.join(path), text.as_bytes(), 0o644)?;
    }
    let pages = tree.join("usr/share/man/man1");
    fs::create_dir_all(&pages)?;
    output(Command::new(binary).args(["man", "--dir"]).arg(&pages))?;
    for page in fs::read_dir(&pages)? {
        // `-n` leaves name and time out.
        output(Command::new("gzip").args(["-9", "-n"]).arg(page?.path()))?;
    }
    for document in DOCUMENTS {
        let mode = if document.ends_with(".sh") { 0o755 } else { 0o644 };
        place(&source.join(document), &tree.join("usr/share/doc/stead").join(document), mode)?;
    }
    place(&source.join("packaging/copyright"), &tree.join("usr/share/doc/stead/copyright"), 0o644)?;
    for directory in output(Command::new("find").arg(tree).args(["-type", "d"]))?.lines() {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    }
    for file in output(Command::new("find").arg(&pages).args(["-type", "f"]))?.lines() {
        fs::set_permissions(file, fs::Permissions::from_mode(0o644))?;
    }
    Ok(())
}

fn pack_archive(tree: &Path, archive: &Path, epoch: &str) -> Result<()> {
    let uncompressed = archive.with_extension("");
    programs::run(
        Command::new("tar")
            .args(["--create", "--sort=name", "--format=gnu", "--owner=0", "--group=0", "--numeric-owner"])
            .arg(format!("--mtime=@{epoch}"))
            .arg("--file")
            .arg(&uncompressed)
            .arg("--directory")
            .arg(tree)
            .arg("usr"),
    )?;
    output(Command::new("gzip").args(["-9", "-n"]).arg(&uncompressed))?;
    Ok(())
}

fn pack_deb(tree: &Path, deb: &Path, version: &str, epoch: &str) -> Result<()> {
    let size_kib = output(Command::new("du").args(["--apparent-size", "-sk"]).arg(tree))?;
    let size_kib = size_kib.split_whitespace().next().context("`du` said nothing")?;
    let template =
        fs::read_to_string(root().join("packaging/control")).context("could not read packaging/control")?;
    let control = template.replace("@VERSION@", version).replace("@SIZE_KIB@", size_kib);
    write(&tree.join("DEBIAN/control"), control.as_bytes(), 0o644)?;
    fs::set_permissions(tree.join("DEBIAN"), fs::Permissions::from_mode(0o755))?;
    // xz: Debian 12 and older derivatives read it; one thread, because its blocks depend on the number.
    output(
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Zxz", "--threads-max=1", "--build"])
            .arg(tree)
            .arg(deb)
            .env("SOURCE_DATE_EPOCH", epoch),
    )?;
    Ok(())
}

/// Unpacks the package elsewhere and asks the binary in it who it is.
fn installs(deb: &Path, version: &str) -> Result<()> {
    let place = tempfile::tempdir().context("could not make a directory")?;
    output(Command::new("dpkg-deb").arg("--extract").arg(deb).arg(place.path()))?;
    let said = output(Command::new(place.path().join("usr/bin/stead")).arg("--version"))?;
    if !said.contains(version) {
        bail!("the packed binary says `{}` and not version {version}", said.trim());
    }
    for (_, file) in COMPLETIONS {
        if !place.path().join(file).is_file() {
            bail!("the package lacks {file}");
        }
    }
    if !place.path().join("usr/share/man/man1/stead.1.gz").is_file() {
        bail!("the package lacks the man page");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers as far as packing goes.
    const STEAD: &str = r#"#!/bin/sh
case "$1" in
completion) echo "completion for $2" ;;
man) echo .TH STEAD 1 > "$3/stead.1" ;;
--version) echo stead 1.2.3 ;;
esac
"#;

    /// A package, made from nothing in a directory of its own.
    fn pack(place: &Path) -> Vec<u8> {
        let source = place.join("source");
        for document in DOCUMENTS {
            write(&source.join(document), document.as_bytes(), 0o600).unwrap();
        }
        write(&source.join("packaging/copyright"), b"ours", 0o600).unwrap();
        write(&place.join("stead"), STEAD.as_bytes(), 0o700).unwrap();
        let (tree, deb) = (place.join("tree"), place.join("stead.deb"));
        lay_out(&place.join("stead"), &source, &tree).unwrap();
        pack_archive(&tree, &place.join("stead.tar.gz"), "1700000000").unwrap();
        pack_deb(&tree, &deb, "1.2.3", "1700000000").unwrap();
        installs(&deb, "1.2.3").unwrap();
        assert!(installs(&deb, "9.9.9").is_err());
        [fs::read(&deb).unwrap(), fs::read(place.join("stead.tar.gz")).unwrap()].concat()
    }

    #[test]
    fn the_same_files_become_the_same_package_anywhere() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert!(pack(one.path()) == pack(other.path()), "the packages differ");
        let list =
            output(Command::new("dpkg-deb").arg("--contents").arg(one.path().join("stead.deb"))).unwrap();
        for line in list.lines() {
            assert!(line.contains("root/root"), "{line}");
            assert!(
                line.starts_with("drwxr-xr-x")
                    || line.starts_with("-rw-r--r--")
                    || line.contains("usr/bin/stead")
                    || line.contains("dhcp.sh")
            );
        }
    }

    /// The packages that a field of the package names, in the order of the field.
    fn field<'a>(control: &'a str, name: &str) -> Vec<&'a str> {
        let line = control.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start_matches(':').split([',', '|']).map(str::trim).collect()
    }

    #[test]
    fn the_package_asks_for_what_the_readme_says_that_is_needed() {
        let control = fs::read_to_string(root().join("packaging/control")).unwrap();
        let readme = fs::read_to_string(root().join("README.md")).unwrap();
        let (_, table) = readme.split_once("| Debian 12 package | needed for |").unwrap();
        let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
        // What builds stead and tests it is nothing to who installs it.
        let own = rows.filter(|row| !row.contains("| building") && !row.contains("not stead"));
        let told =
            own.flat_map(|row| row.split('|').nth(1).unwrap_or_default().split('`').skip(1).step_by(2));
        let mut told: Vec<&str> = told.collect();
        let mut asked = [field(&control, "Recommends"), field(&control, "Suggests")].concat();
        told.sort_unstable();
        asked.sort_unstable();
        assert_eq!(asked, told);
        let (_, description) = control.split_once("Description: ").unwrap();
        for word in ["containers", "microVMs", "VMs", "OCI images", "networks"] {
            assert!(description.contains(word), "{word}");
        }
        assert!(control.lines().all(|line| line.len() <= 120 && !line.is_empty()), "{control}");
    }

    #[test]
    fn a_binary_that_needs_a_loader_is_refused() {
        assert!(refuse_dynamic(Path::new("/bin/ls")).is_err());
        refuse_dynamic(Path::new("/bin/busybox")).unwrap();
    }
}
