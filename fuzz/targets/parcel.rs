//! What a hostile guest sends where files of it are wanted, unpacked for real. What is beside the directory must stay as it
//! is.
#![no_main]

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use stead_container::{End, Owners, Root, unpack};

/// A place for this process.
static WORLD: LazyLock<PathBuf> =
    LazyLock::new(|| std::env::temp_dir().join(format!("parcel-{}", std::process::id())));

fuzz_target!(init: stead_fuzz::seeds::plant("parcel"), |bytes: &[u8]| {
    let to = WORLD.join("to");
    fs::create_dir_all(&to).expect("it can be made");
    fs::write(WORLD.join("precious"), "untouched").expect("it can be written");
    std::os::unix::fs::symlink("..", to.join("up")).expect("it can be made");
    let root = Root::Container(File::open(&to).expect("it is there").into());
    let mut short = &bytes[..bytes.len().min(1 << 16)];
    let _ = unpack(&mut short, &End { root: &root, path: "/" }, Owners::Ours);
    assert_eq!(fs::read(WORLD.join("precious")).expect("it is there"), b"untouched");
    assert_eq!(fs::read_dir(&*WORLD).expect("it is there").count(), 2);
    fs::remove_dir_all(&*WORLD).expect("it can be removed");
});
