//! Archives of any form, unpacked for real: for overlayfs and as a flat directory. What is beside the directory must stay
//! as it is, and what was unpacked must come back from its own archive.
#![no_main]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use stead_image::unpack::{
    Devices, Form, Limits, Owners, UnpackOptions, XattrSpace, check_archive, pack_diff, unpack_layer,
};

/// A place for this process, made for each input: libFuzzer leaves without a chance to tidy up.
static WORLD: LazyLock<PathBuf> =
    LazyLock::new(|| std::env::temp_dir().join(format!("layer-{}", std::process::id())));

fn limits() -> Limits {
    Limits {
        bytes: 1 << 20,
        entries: 50,
        file_bytes: 1 << 16,
        name_bytes: 300,
        depth: 10,
        extension_bytes: 1 << 12,
    }
}

fuzz_target!(init: stead_fuzz::seeds::plant("layer"), |bytes: &[u8]| {
    let mut archive = bytes.to_vec();
    mend(&mut archive);
    if check_archive(archive.as_slice(), &limits()).is_err() {
        return;
    }
    fs::create_dir_all(WORLD.join("outside")).expect("it can be made");
    fs::write(WORLD.join("outside/precious"), "untouched").expect("it can be written");
    let user = UnpackOptions {
        devices: Devices::Skip,
        owners: Owners::KeepOrOwn,
        limits: limits(),
        ..UnpackOptions::rootless()
    };
    let flat = UnpackOptions { form: Form::Flat, ..user.clone() };
    fresh("flat", |into| {
        let _ = unpack_layer(archive.as_slice(), into, &flat);
    });
    fresh("upper", |into| {
        if unpack_layer(archive.as_slice(), into, &user).is_ok() {
            comes_back(into, &user);
        }
    });
    let outside = WORLD.join("outside");
    assert_eq!(fs::read_dir(&outside).expect("it is there").count(), 1);
    assert_eq!(fs::read(outside.join("precious")).expect("it is there"), b"untouched");
    let around: Vec<_> = fs::read_dir(&*WORLD).expect("it is there").collect();
    assert_eq!(around.len(), 1, "{around:?}");
    fs::remove_dir_all(&*WORLD).expect("it can be removed");
});

fn comes_back(upper: &Path, options: &UnpackOptions) {
    let mut packed = Vec::new();
    // An upper directory that refers to others is refused.
    pack_diff(upper, XattrSpace::User, &mut packed).expect("what we unpack can be packed");
    fresh("again", |into| {
        let generous = UnpackOptions { limits: Limits::default(), ..options.clone() };
        let unpacked = unpack_layer(packed.as_slice(), into, &generous).expect("what we pack is lawful");
        assert!(unpacked.is_standalone);
        let mut again = Vec::new();
        pack_diff(into, XattrSpace::User, &mut again).expect("it was packed before");
        assert!(again == packed);
    });
}

fn fresh(name: &str, with: impl FnOnce(&Path)) {
    let place = WORLD.join(name);
    fs::create_dir(&place).expect("it can be made");
    with(&place);
    fs::remove_dir_all(&place).expect("it can be removed");
}

/// Puts the checksums in, which no chance would find.
fn mend(archive: &mut [u8]) {
    for block in archive.chunks_exact_mut(512).filter(|block| block[257..].starts_with(b"ustar")) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
}
