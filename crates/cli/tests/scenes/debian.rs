//! Debian's images are made of what a mirror has signed, or not at all.

use std::fs;

use crate::support::{Place, Role, Said, World, role, untested};

/// Mirrors with one package, each with what is wrong with it. `$1` is the world's directory.
const MIRRORS: &str = r#"
    cd "$1"
    export GNUPGHOME="$1"/keys
    mkdir -m 700 keys
    for name in lab stranger; do
        gpg --batch --quiet --passphrase '' --quick-generate-key $name ed25519 sign never
    done
    gpg --batch --export lab > lab.gpg
    mirror() {
        d=mirrors/$1/dists/sid
        mkdir -p $d/main/binary-amd64
        printf 'Package: lab\nVersion: 1\nArchitecture: all\nMaintainer: lab\nFilename: lab.deb\nSize: 4\nSHA256: %064d\nDescription: lab\n\n' 0 > $d/main/binary-amd64/Packages
        sum=$(sha256sum < $d/main/binary-amd64/Packages | cut -d' ' -f1)
        size=$(stat -c %s $d/main/binary-amd64/Packages)
        printf 'Origin: Debian\nSuite: unstable\nCodename: sid\nDate: %s\nArchitectures: amd64\nComponents: main\nSHA256:\n %s %s main/binary-amd64/Packages\n' \
            "$(date -Ru | sed s/+0000/UTC/)" $sum $size > $d/Release
    }
    sign() { gpg --batch --quiet -u $1 --clear-sign -o $d/InRelease $d/Release; rm $d/Release; }
    mirror whole; sign lab
    mirror strange; sign stranger
    mirror detached; gpg --batch --quiet -u stranger --armor --detach-sign -o $d/Release.gpg $d/Release
    mirror unsigned
    mirror forged; sign lab; sed -i s/unstable/unstabel/ $d/InRelease
    mirror changed; sign lab; sed -i 's/Maintainer: lab/Maintainer: bad/' $d/main/binary-amd64/Packages
    mirror longer; sign lab; echo 'Package: more' >> $d/main/binary-amd64/Packages
    gpgconf --kill gpg-agent
"#;

/// `debian-lab:1` is built from there.
fn set_mirror(world: &World, mirror: &str) {
    let keyring = world.path().join("lab.gpg").display().to_string();
    let settings = serde_json::json!({
        // Nobody answers there, which is found out first.
        "catalogue": {"debian-lab:1": ["127.0.0.1:9/lab/debian:1", "debian-packages:sid"]},
        "debian": {"mirror": mirror, "keyring": keyring},
    });
    let directory = world.path().join("nobody/.config/stead");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("images.json"), settings.to_string()).unwrap();
}

/// Has it built from the mirror of this name.
fn pull(world: &World, mirror: &str) -> Said {
    set_mirror(world, &format!("http://127.0.0.1:8000/{mirror}"));
    world.stead("image pull debian-lab:1")
}

/// The same from one that is not to be believed.
#[track_caller]
fn refused(world: &World, mirror: &str) -> String {
    let said = pull(world, mirror).code(1).says("cannot build Debian sid from its packages");
    assert_eq!(world.stead("image ls --format json").json(), serde_json::json!([]));
    let images = world.path().join("home/state/images");
    for part in ["layers", "blobs/sha256", "partial"] {
        assert_eq!(fs::read_dir(images.join(part)).unwrap().count(), 0, "{part}");
    }
    said.err
}

/// Whose the mounts of `mmdebstrap`'s processes are, a line each.
fn builders(world: &World) -> String {
    let line = "for p in $(pgrep -f '[m]mdebstrap --variant'); do m=$(readlink /proc/$p/ns/mnt) || continue; [ $m = $(readlink /proc/self/ns/mnt) ] && echo ours || echo own; done";
    world.sh_said(Place::Computer, line).out
}

/// One who is killed while it builds leaves neither the builder nor mounts.
fn a_builder_ends_with_who_asked_for_it(world: &World) {
    let _silent = world.spawn(Place::Computer, &["busybox", "nc", "-ll", "-p", "8001", "-e", "sleep", "100"]);
    set_mirror(world, "http://127.0.0.1:8001/none");
    let mut pull =
        world.stead_command("home", world.path(), &["image", "pull", "debian-lab:1"]).spawn().unwrap();
    world.until("the builder has mounts of its own", || {
        let builders = builders(world);
        (builders.contains("own") && !builders.contains("ours")).then_some(())
    });
    pull.kill().unwrap();
    pull.wait().unwrap();
    world.until("the builder is gone", || builders(world).is_empty().then_some(()));
}

#[test]
fn what_a_mirror_has_not_signed_is_refused() {
    if role() == Role::User {
        return untested("mmdebstrap needs more than one user id, which the tests' ordinary user has not");
    }
    let mut world = World::offline();
    // Whoever mounts something makes this, and mmdebstrap does.
    world.sh(Place::Computer, "mkdir -p /run/mount");
    world.settle();
    let path = world.path().display();
    fs::write(world.path().join("mirrors.sh"), MIRRORS).unwrap();
    world.sh(Place::Computer, &format!("sh -e {path}/mirrors.sh {path}"));
    let line = format!("exec busybox httpd -f -p 127.0.0.1:8000 -h {path}/mirrors");
    let _server = world.spawn(Place::Computer, &["sh", "-c", &line]);
    world.until("the mirrors answer", || {
        let line = "curl -s -f -o /dev/null http://127.0.0.1:8000/whole/dists/sid/InRelease";
        (world.sh_said(Place::Computer, line).code == 0).then_some(())
    });
    let ring = world.path().join("lab.gpg");
    fs::rename(&ring, world.path().join("away.gpg")).unwrap();
    pull(&world, "whole").code(1).says("cannot read the keyring").says("No such file");
    fs::rename(world.path().join("away.gpg"), &ring).unwrap();
    // Nothing of it has to be there for a system, so nothing is in the image; but it is believed.
    pull(&world, "whole").ok();
    world.stead("image rm debian-lab:1").ok();
    for (mirror, why, hint) in [
        ("strange", "NO_PUBKEY", "is not signed by a key"),
        ("detached", "NO_PUBKEY", "is not signed by a key"),
        ("unsigned", "is not signed", "is not signed by a key"),
        ("forged", "BADSIG", "is not signed by a key"),
        ("changed", "Hash Sum mismatch", "something else than was signed"),
        ("longer", "unexpected size", "something else than was signed"),
    ] {
        let said = refused(&world, mirror);
        let told = said.rsplit_once("hint: ").map(|(_, hint)| hint);
        assert!(said.contains(why) && told.is_some_and(|told| told.contains(hint)), "{mirror}: {said}");
    }
    a_builder_ends_with_who_asked_for_it(&world);
}
