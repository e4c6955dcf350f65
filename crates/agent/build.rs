//! With the feature `embed`: builds the program for guests, static and small, and leaves it in `OUT_DIR`.
//!
//! Cargo has no stable way to depend on a binary of another target, so cargo is run once more, with a target directory of
//! its own, which all builds of the outer one's profile share: lints and tests run this script anew each. It needs nothing that
//! the outer one has not fetched, and the target's standard library, which `rust-toolchain.toml` asks for.

#![allow(clippy::print_stdout)]

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the program is made of, beside the standard library and other people's crates.
const SOURCES: [&str; 4] = ["agent", "container", "model", "net"];

/// A program made elsewhere, to be used instead.
const GIVEN: &str = "STEAD_AGENT_PROGRAM";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={GIVEN}");
    if env::var_os("CARGO_FEATURE_EMBED").is_none() {
        return Ok(());
    }
    let out = PathBuf::from(var("OUT_DIR")?);
    let to = out.join("stead-agent");
    if let Some(given) = env::var_os(GIVEN).filter(|path| !path.is_empty()) {
        println!("cargo::rerun-if-changed={}", Path::new(&given).display());
        fs::copy(given, &to)?;
        return write_digest(&to);
    }
    let crates = PathBuf::from(var("CARGO_MANIFEST_DIR")?).join("..");
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", crates.join(source).join("src").display());
        println!("cargo::rerun-if-changed={}", crates.join(source).join("Cargo.toml").display());
    }
    println!("cargo::rerun-if-changed={}", crates.join("../Cargo.lock").display());
    // `…/debug/build/stead-agent-…/out`
    let shared = out.ancestors().nth(3).unwrap_or(&out).join("stead-agent-guest");
    let made = build(&crates.join(".."), &shared)?;
    fs::copy(made, &to)?;
    write_digest(&to)
}

/// Leaves beside the program what tells it from others, which would take long to find out each time that a guest starts. Nobody
/// makes a program to deceive us here, so a plain hash does.
fn write_digest(program: &Path) -> Result<(), Box<dyn Error>> {
    let mut hasher = DefaultHasher::new();
    hasher.write(&fs::read(program)?);
    fs::write(program.with_extension("digest"), format!("{:016x}", hasher.finish()))?;
    Ok(())
}

fn var(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("cargo did not set {name}"))
}

/// Builds the program in this workspace: where it is then.
fn build(workspace: &Path, target_directory: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let architecture = env::var("CARGO_CFG_TARGET_ARCH")?;
    let target = format!("{architecture}-unknown-linux-musl");
    let profile = if env::var("PROFILE")? == "release" { "agent" } else { "agent-dev" };
    let mut cargo = Command::new(var("CARGO")?);
    cargo
        .current_dir(workspace)
        .args(["build", "--offline", "--locked", "--package", "stead-agent", "--bin", "stead-agent"])
        .args(["--features", "guest", "--profile", profile, "--target", &target])
        .arg("--target-dir")
        .arg(target_directory);
    // What the outer cargo says to its compilers is not meant for ours: clippy, coverage, other targets.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let is_said = ["CARGO_", "RUSTC", "RUSTFLAGS", "RUSTDOC"].iter().any(|word| text.starts_with(word));
        if is_said && !matches!(&*text, "CARGO_HOME" | "CARGO_NET_OFFLINE") {
            cargo.env_remove(&name);
        }
    }
    // Paths of this computer would otherwise be in the messages of panics.
    let home = env::var("CARGO_HOME").or_else(|_| env::var("HOME").map(|home| home + "/.cargo"))?;
    let root = workspace.canonicalize()?;
    let flags = format!("--remap-path-prefix={}=/stead\x1f--remap-path-prefix={home}=/cargo", root.display());
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags);
    let output = cargo.output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let hint = format!("hint: `rustup target add {target}` installs that target's standard library");
        return Err(format!("cannot build the program for guests:\n{said}\n{hint}").into());
    }
    Ok(target_directory.join(target).join(profile).join("stead-agent"))
}
