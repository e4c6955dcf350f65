//! A real registry on a world's loopback, with an image made of busybox.

use std::os::unix::fs::symlink;

use super::{Place, Running, World};

/// The image's name.
pub const BUSYBOX: &str = "127.0.0.1:5000/lab/busybox";

/// Makes the image, whose only layer is busybox with a name for each of its programs.
const IMAGE: &str = r#"
    d=$1
    mkdir -p $d/root/etc $d/root/tmp $d/root/data $d/root/srv $d/oci/blobs/sha256
    cp "$(command -v busybox)" $d/root/bin/busybox
    printf 'root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home:/bin/sh\n' > $d/root/etc/passwd
    printf 'root:x:0:\napp:x:1000:\n' > $d/root/etc/group
    echo from-the-image > $d/root/data/seed
    echo from-the-image > $d/root/srv/page
    chmod 1777 $d/root/tmp
    tar -C $d/root --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf $d/layer .
    put() { sum=$(sha256sum < $1 | cut -d' ' -f1); size=$(stat -c %s $1); cp $1 $d/oci/blobs/sha256/$sum; }
    put $d/layer; layer=$sum; layer_size=$size
    printf '{"architecture":"amd64","os":"linux","config":{"Cmd":["sh"],"Env":["PATH=/bin","FROM=image"],"Volumes":{"/data":{}}},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{"created_by":"busybox"}]}' $layer > $d/config
    put $d/config
    printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:%s","size":%s}]}' $sum $size $layer $layer_size > $d/manifest
    put $d/manifest
    printf '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%s,"annotations":{"org.opencontainers.image.ref.name":"latest"}}]}' $sum $size > $d/oci/index.json
    printf '{"imageLayoutVersion":"1.0.0"}' > $d/oci/oci-layout
"#;

const SETTINGS: &str = "version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: DATA}}\nhttp: {addr: '127.0.0.1:5000'}\n";

/// Starts the registry, which has the image as soon as this is back.
pub fn registry(world: &World) -> Running {
    let directory = world.path().join("registry");
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.display().to_string();
    let settings = directory.join("settings.yml");
    std::fs::write(&settings, SETTINGS.replace("DATA", &format!("{path}/data"))).unwrap();
    std::fs::write(directory.join("image.sh"), IMAGE).unwrap();
    // By `ln`, a process each, they took longer than all the rest.
    std::fs::create_dir_all(directory.join("root/bin")).unwrap();
    for name in world.sh(Place::Computer, "busybox --list").lines().filter(|name| *name != "busybox") {
        symlink("busybox", directory.join("root/bin").join(name)).unwrap();
    }
    world.sh(Place::Computer, &format!("sh -e {path}/image.sh {path}"));
    // It tells of every question that it could not answer, also of those that are only asked to see.
    let line = format!("exec docker-registry serve {} 2> {path}/log", settings.display());
    let registry = world.spawn(Place::Computer, &["sh", "-c", &line]);
    let push = format!(
        "skopeo --insecure-policy --tmpdir {path} copy -q --dest-tls-verify=false oci:{path}/oci:latest docker://{BUSYBOX}:latest"
    );
    world.until("the registry has the image", || {
        (world.sh_said(Place::Computer, &push).code == 0).then_some(())
    });
    registry
}

/// What `secret` becomes in a registry's file of passwords.
const HASH: &str = "$2b$04$loAnlJb687Bq2XcqDM.BVO62A6FzAOjSUsxND6mdiRGFCI71cgIUe";

/// Starts a registry that lets nobody in but `me`.
pub fn closed_registry(world: &World) -> Running {
    let directory = world.path().join("closed");
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.display().to_string();
    std::fs::write(directory.join("passwords"), format!("me:{HASH}\n")).unwrap();
    let settings = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {path}/data}}}}\n\
         http: {{addr: '127.0.0.1:5001'}}\nauth: {{htpasswd: {{realm: lab, path: {path}/passwords}}}}\n"
    );
    std::fs::write(directory.join("settings.yml"), settings).unwrap();
    let line = format!("exec docker-registry serve {path}/settings.yml 2> {path}/log");
    let registry = world.spawn(Place::Computer, &["sh", "-c", &line]);
    world.until("the registry answers", || {
        let line = "curl -s -o /dev/null -m 2 http://127.0.0.1:5001/v2/";
        (world.sh_said(Place::Computer, line).code == 0).then_some(())
    });
    registry
}
