//! What the chores need of a fresh Debian 12 with cargo: the packages, targets and tools, in tables.
//!
//! Quick and silent when nothing is missing. Only root installs; anybody else is shown the one command to run.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::programs::{cargo, command, find, output, root, run};

/// A chore that has needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chore {
    /// `cargo xtask check`
    Check,
    /// `cargo xtask test`
    Test,
    /// `cargo xtask demo`
    Demo,
    /// `cargo xtask bench`
    Bench,
    /// `cargo xtask dist`
    Dist,
}

impl Chore {
    /// All of them.
    pub(crate) const ALL: [Self; 5] = [Self::Check, Self::Test, Self::Demo, Self::Bench, Self::Dist];

    /// The word on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Test => "test",
            Self::Demo => "demo",
            Self::Bench => "bench",
            Self::Dist => "dist",
        }
    }
}

/// A Debian package, the file that shows that it is there, the chores that need it and what for.
struct Package {
    name: &'static str,
    file: &'static str,
    chores: &'static [Chore],
    /// Read by people: it is the reason why the line is here.
    #[allow(dead_code)]
    purpose: &'static str,
}

const fn package(
    name: &'static str,
    file: &'static str,
    chores: &'static [Chore],
    purpose: &'static str,
) -> Package {
    Package { name, file, chores, purpose }
}

use Chore::{Bench, Check, Demo, Dist, Test};

const RUNS: &[Chore] = &[Test, Demo, Bench];
const BUILDS: &[Chore] = &Chore::ALL;

#[rustfmt::skip]
const PACKAGES: &[Package] = &[
    package("gcc",                         "/usr/bin/cc",                 BUILDS,  "links, and compiles SQLite"),
    package("libc6-dev",                   "/usr/include/stdio.h",        BUILDS,  "compiles SQLite"),
    package("git",                         "/usr/bin/git",                &[Check, Dist], "the list of sources, the commit's date"),
    package("g++",                         "/usr/bin/c++",                &[Test], "compiles libFuzzer"),
    package("iproute2",                    "/usr/sbin/ip",                RUNS,    "reads back links, the peer of the benchmarks"),
    package("nftables",                    "/usr/sbin/nft",               RUNS,    "reads back rules, the peer of the benchmarks"),
    package("iptables",                    "/usr/sbin/iptables-legacy",   &[Test, Bench], "the older packet filter, which we must notice; Podman uses it"),
    package("procps",                      "/usr/bin/ps",                 RUNS,    "lists processes"),
    package("passt",                       "/usr/bin/pasta",              RUNS,    "the uplink of an ordinary user"),
    package("uidmap",                      "/usr/bin/newuidmap",          RUNS,    "maps sub-ids of an ordinary user"),
    package("iputils-ping",                "/usr/bin/ping",               RUNS,    "a client"),
    package("busybox-static",              "/usr/bin/busybox",            RUNS,    "DHCP client, web server"),
    package("curl",                        "/usr/bin/curl",               RUNS,    "web client"),
    package("bind9-dnsutils",              "/usr/bin/dig",                RUNS,    "DNS client"),
    package("isc-dhcp-client",             "/usr/sbin/dhclient",          RUNS,    "DHCPv4 and DHCPv6 client"),
    package("iperf3",                      "/usr/bin/iperf3",             RUNS,    "throughput"),
    package("socat",                       "/usr/bin/socat",              RUNS,    "odd connections, the peer of the benchmarks"),
    package("tcpdump",                     "/usr/bin/tcpdump",            &[Test], "what is really on the wire"),
    package("docker-registry",             "/usr/bin/docker-registry",    &[Test, Bench], "the registry that images come from"),
    package("skopeo",                      "/usr/bin/skopeo",             &[Test, Bench], "pushes and pulls images, and judges ours"),
    package("openssh-client",              "/usr/bin/ssh",                &[Test], "logs in to machines"),
    package("openssl",                     "/usr/bin/openssl",            &[Test], "certificates for a registry"),
    package("zstd",                        "/usr/bin/zstd",               &[Test], "compresses layers"),
    package("mmdebstrap",                  "/usr/bin/mmdebstrap",         &[Test], "makes Debian's images"),
    package("gnupg",                       "/usr/bin/gpg-agent",          &[Test], "signs what a mirror of Debian has"),
    package("umoci",                       "/usr/bin/umoci",              &[Test, Bench], "unpacks the same image, to be compared"),
    package("buildah",                     "/usr/bin/buildah",            &[Test], "builds images"),
    package("attr",                        "/usr/bin/setfattr",           &[Test], "changes what is on an overlayfs"),
    package("xfsprogs",                    "/usr/sbin/mkfs.xfs",          &[Test], "a file system whose files share blocks"),
    package("e2fsprogs",                   "/usr/sbin/mkfs.ext4",         &[Test], "disks of guests"),
    package("qemu-system-x86",             "/usr/bin/qemu-system-x86_64", &[Test], "runs guests"),
    package("qemu-utils",                  "/usr/bin/qemu-img",           &[Test], "another program's view of disks"),
    package("dosfstools",                  "/usr/sbin/mkfs.vfat",         &[Test], "what a disk boots from"),
    package("mtools",                      "/usr/bin/mcopy",              &[Test], "the same, without mounting it"),
    package("syslinux",                    "/usr/bin/syslinux",           &[Test], "a boot loader"),
    package("syslinux-common",             "/usr/lib/syslinux/mbr/mbr.bin", &[Test], "its first stage"),
    package("ovmf",                        "/usr/share/OVMF/OVMF_CODE_4M.fd", &[Test], "another firmware for guests"),
    package("zsh",                         "/usr/bin/zsh",                &[Test], "judges completion"),
    package("fish",                        "/usr/bin/fish",               &[Test], "judges completion"),
    package("man-db",                      "/usr/bin/man",                &[Test], "reads the man pages"),
    package("erofs-utils",                 "/usr/bin/mkfs.erofs",         &[Test], "roots of guests"),
    package("dnsmasq-base",                "/usr/sbin/dnsmasq",           &[Test, Bench], "names and addresses of others, and the peer of the benchmarks"),
    package("containernetworking-plugins", "/usr/lib/cni/bridge",         &[Bench], "the peer of the benchmarks"),
    package("podman",                      "/usr/bin/podman",             &[Bench], "the peer of the benchmarks"),
    package("podman-compose",              "/usr/bin/podman-compose",     &[Bench], "the peer of the benchmarks"),
    package("runc",                        "/usr/sbin/runc",              &[Bench], "the peer of the benchmarks, and Podman's runtime"),
    package("netavark",                    "/usr/lib/podman/netavark",    &[Bench], "Podman's networks"),
    package("aardvark-dns",                "/usr/lib/podman/aardvark-dns", &[Bench], "Podman's names"),
    package("musl-tools",                  "/usr/bin/musl-gcc",           &[Dist], "compiles SQLite for the static binary"),
];

/// Depends on the newest kernel for guests.
const KERNEL: &str = "linux-image-cloud-amd64";

/// Where Docker is, below the workspace.
pub(crate) const DOCKER: &str = "target/docker";

const MUSL_TARGET: &str = "x86_64-unknown-linux-musl";

/// Sees to everything the chores need. False if that takes root; what to do about it has then been said.
pub(crate) fn ensure(chores: &[Chore]) -> Result<bool> {
    // Twice: of packages from elsewhere that do not fit with those that come, apt removes what we have need of.
    for _ in 0..2 {
        let missing = missing(chores, |file| fs::exists(file).unwrap_or(false));
        if !missing.is_empty() && !packages(&missing)? {
            return Ok(false);
        }
    }
    if chores.contains(&Check) {
        component("clippy", "cargo-clippy")?;
        component("rustfmt", "rustfmt")?;
        cargo_deny()?;
    }
    if chores.contains(&Test) {
        kernel()?;
        docker()?;
    }
    // `rust-toolchain.toml` asks for it, but a rustup that is not to install by itself does not heed that.
    musl_target()?;
    Ok(true)
}

fn missing(chores: &[Chore], exists: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let needed = |package: &&Package| package.chores.iter().any(|chore| chores.contains(chore));
    PACKAGES
        .iter()
        .filter(needed)
        .filter(|package| !exists(package.file))
        .map(|package| package.name)
        .collect()
}

fn packages(missing: &[&str]) -> Result<bool> {
    let mut install = vec!["install", "--yes", "--no-install-recommends"];
    install.extend(missing);
    if !rustix::process::geteuid().is_root() {
        eprintln!("error: Debian packages are missing; as root run");
        eprintln!("  apt-get update && apt-get {}", install.join(" "));
        return Ok(false);
    }
    if find("apt-get").is_none() {
        bail!("these Debian packages are missing, and there is no `apt-get` here: {}", missing.join(" "));
    }
    println!("installing {}", missing.join(" "));
    let apt =
        |arguments: &[&str]| run(command("apt-get", arguments).env("DEBIAN_FRONTEND", "noninteractive"));
    if !has_package_lists()? {
        apt(&["update"])?;
    }
    // Lists that are there may be too old to name files that still exist: then once more with fresh ones.
    if apt(&install).is_err() {
        apt(&["update"])?;
        apt(&install)?;
    }
    Ok(true)
}

fn has_package_lists() -> Result<bool> {
    let lists = fs::read_dir("/var/lib/apt/lists").context("could not read /var/lib/apt/lists")?;
    Ok(lists.filter_map(Result::ok).any(|entry| entry.file_name().to_string_lossy().contains("_Packages")))
}

fn component(name: &str, program: &str) -> Result<()> {
    if find(program).is_some() {
        return Ok(());
    }
    run(&mut command("rustup", &["component", "add", name]))
}

/// Without optimisation it compiles in a minute on two cores, with it in several; it is fast enough either way.
fn cargo_deny() -> Result<()> {
    if find("cargo-deny").is_some() {
        return Ok(());
    }
    println!("installing cargo-deny");
    run(&mut cargo(&["install", "--quiet", "--locked", "--debug", "cargo-deny"]))
}

fn musl_target() -> Result<()> {
    let sysroot = output(&mut command("rustc", &["--print", "sysroot"]))?;
    if fs::exists(format!("{}/lib/rustlib/{MUSL_TARGET}/lib", sysroot.trim()))? {
        return Ok(());
    }
    run(&mut command("rustup", &["target", "add", MUSL_TARGET]))
}

/// The kernel of the guests that tests boot. A computer that cannot have it tests the rest.
fn kernel() -> Result<()> {
    let to = root().join("target/kernel");
    if to.is_dir() {
        return Ok(());
    }
    let depends = output(&mut command("apt-cache", &["depends", KERNEL]))?;
    let package = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let Some(package) = package else { bail!("`apt-cache` does not know which kernel `{KERNEL}` is") };
    if !unpacked(&[package], &to)? {
        println!("there is no kernel to be had, so guests are not tested");
    }
    Ok(())
}

/// Docker's engine, which runs within a system of ours. This computer itself is not to have one.
fn docker() -> Result<()> {
    let to = root().join(DOCKER);
    if !to.is_dir() && !unpacked(&["docker.io", "containerd"], &to)? {
        println!("there is no Docker to be had, so none is tested within a system");
    }
    Ok(())
}

/// The files of packages, in a directory of their own. False if they cannot be had.
fn unpacked(packages: &[&str], to: &Path) -> Result<bool> {
    println!("fetching {}", packages.join(" "));
    let fetched = tempfile::tempdir().context("could not make a directory")?;
    // An ordinary user of apt's reads what it fetches.
    let mut download = command("apt-get", &["download"]);
    if !download.args(packages).current_dir(fetched.path()).status().is_ok_and(|status| status.success()) {
        return Ok(false);
    }
    let unpacked = fetched.path().join("unpacked");
    for file in fs::read_dir(fetched.path())?.collect::<std::io::Result<Vec<_>>>()? {
        run(command("dpkg-deb", &["--extract"]).arg(file.path()).arg(&unpacked))?;
    }
    let partial = to.with_extension("partial");
    fs::create_dir_all(root().join("target"))?;
    run(command("cp", &["--recursive", "--no-target-directory"]).arg(&unpacked).arg(&partial))?;
    fs::rename(&partial, to).context("could not keep them")?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_for_the_chore_is_installed() {
        assert_eq!(missing(&[Dist], |file| file != "/usr/bin/musl-gcc"), ["musl-tools"]);
        assert_eq!(missing(&[Check], |file| file != "/usr/bin/musl-gcc"), [""; 0]);
        assert_eq!(missing(&Chore::ALL, |_| true), [""; 0]);
    }

    #[test]
    fn every_package_is_listed_once() {
        let names: std::collections::BTreeSet<_> = PACKAGES.iter().map(|package| package.name).collect();
        assert_eq!(names.len(), PACKAGES.len());
    }
}
