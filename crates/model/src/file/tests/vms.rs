//! Whole computers: what they have in common with others, what they have alone, and what says nothing of them.

use expect_test::{Expect, expect};

use super::containers::shown;

#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "reads better at every call")]
fn check(text: &str, others: &[(&str, &str)], expected: Expect) {
    let shown = shown("stead.yaml", text, others, &[]);
    let machines = shown.find("machines:").filter(|_| shown.starts_with("name:"));
    expected.assert_eq(machines.map_or(&*shown, |at| &shown[at..]));
}

#[test]
fn a_vm_is_made_from_a_file_and_told_what_to_do() {
    check(
        "defaults: { restart: always }
volumes: [data]
machines:
  a: { kind: vm, image: ./debian.qcow2, networks: [] }
  b:
    kind: vm
    image: ../b.img
    disk: 20g
    cpus: 1.5
    mem_limit: 2g
    hostname: b1
    volumes: [data:/srv/data, ./site:/srv/site:ro]
    labels: { team: shop }
    networks: []
    stop_grace_period: 2m
    restart: \"no\"
    healthcheck: { test: 'true' }
    cloud_init:
      user_data: ./user.yaml
      ssh_authorized_keys: [ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB me@home]
  c: { extends: a, cloud_init: off }
  d: { kind: vm, image: /d.img, networks: [], cloud_init: { user_data: \"#!/bin/sh\\nreboot\\n\" } }
",
        &[("/srv/shop/user.yaml", "#cloud-config\npackages: [curl]\n")],
        expect![[r##"
            machines:
              a:
                kind: vm
                driver: qemu
                networks: []
                image: "/srv/shop/debian.qcow2"
                restart: "always"
              b:
                kind: vm
                driver: qemu
                networks: []
                image: "/srv/b.img"
                disk: 21474836480
                cpus: 2
                mem_limit: 2048m
                hostname: "b1"
                labels:
                  - "team=shop"
                volumes:
                  - { type: volume, source: data, target: "/srv/data" }
                  - { type: bind, source: "/srv/shop/site", bind: { propagation: private, create_host_path: true }, target: "/srv/site", read_only: true }
                cloud_init: { user_data: "#cloud-config\npackages: [curl]\n", ssh_authorized_keys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB me@home"] }
                stop_grace_period: 120000ms
                healthcheck: { test: [CMD-SHELL, "true"] }
              c:
                kind: vm
                driver: qemu
                networks: []
                image: "/srv/shop/debian.qcow2"
                cloud_init: off
                restart: "always"
              d:
                kind: vm
                driver: qemu
                networks: []
                image: "/d.img"
                cloud_init: { user_data: "#!/bin/sh\nreboot\n" }
                restart: "always"
            volumes: [data]
        "##]],
    );
}

#[test]
fn files_that_a_vm_cannot_have_are_refused() {
    check(
        "machines:
  j: { kind: vm, image: ./j.img, cloud_init: off, volumes: [/a:/b:rshared, x:/x], tmpfs: [/run/x] }
  k: { kind: vm, image: ./k.img, volumes: [{ type: tmpfs, target: /t }] }
",
        &[],
        expect![[r#"
            stead.yaml:2:3: machine `j` is a `vm`, which has mounts of its own, which do not travel
              2 |   j: { kind: vm, image: ./j.img, cloud_init: off, volumes: [/a:/b:rshared, x:/x], tmpfs: [/run/x] }
                |   ^
              hint: leave the propagation out

            stead.yaml:2:3: machine `j` is a `vm`, which is told nothing (`cloud_init: off`), so nobody would mount its volumes in it
              2 |   j: { kind: vm, image: ./j.img, cloud_init: off, volumes: [/a:/b:rshared, x:/x], tmpfs: [/run/x] }
                |   ^
              hint: leave one of the two out

            stead.yaml:2:3: machine `j` is a `vm`, which mounts what is in memory by itself
              2 |   j: { kind: vm, image: ./j.img, cloud_init: off, volumes: [/a:/b:rshared, x:/x], tmpfs: [/run/x] }
                |   ^
              hint: leave it out, or write `mounts` in `cloud_init: { user_data: … }`

            stead.yaml:2:76: there is no volume `x`
              2 |   j: { kind: vm, image: ./j.img, cloud_init: off, volumes: [/a:/b:rshared, x:/x], tmpfs: [/run/x] }
                |                                                                            ^^^^
              hint: the file has no volumes

            stead.yaml:2:83: machine `j` is a `vm`, which cannot have `tmpfs`
              2 |   j: { kind: vm, image: ./j.img, cloud_init: off, volumes: [/a:/b:rshared, x:/x], tmpfs: [/run/x] }
                |                                                                                   ^^^^^
              hint: leave it out, or write another `kind`

            stead.yaml:3:3: machine `k` is a `vm`, which mounts what is in memory by itself
              3 |   k: { kind: vm, image: ./k.img, volumes: [{ type: tmpfs, target: /t }] }
                |   ^
              hint: leave it out, or write `mounts` in `cloud_init: { user_data: … }`
        "#]],
    );
}

#[test]
fn what_says_nothing_of_a_vm_is_refused() {
    check(
        "machines:
  a: { kind: vm, image: debian:12 }
  b: { kind: vm, image: ./b.img, command: sleep 1, volumes: [/data], privileged: true }
  c: { image: ./c.img }
  d: { image: debian:12, disk: 1g, cloud_init: on }
  e: { kind: vm, driver: native, image: ./e.img }
  f: { kind: container, driver: qemu, image: f }
  g: { kind: vm, driver: qemu }
  h: { kind: vm, image: ./h.img, mem_limit: 64m, cpus: 300 }
  i: { kind: vm, image: ./i.img, depends_on: { a: { condition: service_healthy } } }
",
        &[],
        expect![[r#"
            stead.yaml:2:25: a vm is made from a file yet, and `debian:12` is an image's name
              2 |   a: { kind: vm, image: debian:12 }
                |                         ^^^^^^^^^
              hint: write the path of a disk image, like `./debian-12.qcow2`

            stead.yaml:3:3: machine `b` is a `vm`, all of whose own files are on its disk
              3 |   b: { kind: vm, image: ./b.img, command: sleep 1, volumes: [/data], privileged: true }
                |   ^
              hint: leave `/data` out, or name a volume for it: `data:/data`

            stead.yaml:3:34: machine `b` is a `vm`, which cannot have `command`
              3 |   b: { kind: vm, image: ./b.img, command: sleep 1, volumes: [/data], privileged: true }
                |                                  ^^^^^^^
              hint: its image's init starts its programs: write `cloud_init: { user_data: … }`

            stead.yaml:3:70: machine `b` is a `vm`, which cannot have `privileged`
              3 |   b: { kind: vm, image: ./b.img, command: sleep 1, volumes: [/data], privileged: true }
                |                                                                      ^^^^^^^^^^
              hint: leave it out, or write another `kind`

            stead.yaml:4:15: `./c.img` is a file, and only a vm is made from one
              4 |   c: { image: ./c.img }
                |               ^^^^^^^
              hint: write the image's name, `debian:12`; or `kind: vm`

            stead.yaml:5:26: machine `d` is a `container`, which has no `disk`
              5 |   d: { image: debian:12, disk: 1g, cloud_init: on }
                |                          ^^^^
              hint: leave it out, or write `kind: vm`

            stead.yaml:5:36: machine `d` is a `container`, which has no `cloud_init`
              5 |   d: { image: debian:12, disk: 1g, cloud_init: on }
                |                                    ^^^^^^^^^^
              hint: leave it out, or write `kind: vm`

            stead.yaml:6:3: driver `native` runs only containers, and machine `e` is a `vm`
              6 |   e: { kind: vm, driver: native, image: ./e.img }
                |   ^
              hint: write `kind: container`, or `driver: qemu`

            stead.yaml:7:3: driver `qemu` runs only microVMs and vms, and machine `f` is a `container`
              7 |   f: { kind: container, driver: qemu, image: f }
                |   ^
              hint: write `kind: microvm`, or leave `driver` out

            stead.yaml:8:3: machine `g` has no image
              8 |   g: { kind: vm, driver: qemu }
                |   ^
              hint: write the path of a disk image, `image: ./debian-12.qcow2`

            stead.yaml:9:3: machine `h` is a `vm`, which cannot have so many processors
              9 |   h: { kind: vm, image: ./h.img, mem_limit: 64m, cpus: 300 }
                |   ^
              hint: give it 255 or fewer

            stead.yaml:9:3: machine `h` is a `vm`, which does not come up with so little memory
              9 |   h: { kind: vm, image: ./h.img, mem_limit: 64m, cpus: 300 }
                |   ^
              hint: give it 128 MiB or more
        "#]],
    );
}

#[test]
fn user_data_is_read_before_anybody_boots() {
    check(
        "machines:
  a: { kind: vm, image: ./a.img, cloud_init: { user_data: ./none.yaml } }
  b: { kind: vm, image: ./b.img, cloud_init: { user_data: ./bad.yaml } }
  c: { kind: vm, image: ./c.img, cloud_init: { user_data: ./plain.yaml } }
  d: { kind: vm, image: ./d.img, cloud_init: { ssh_authorized_keys: [me] } }
",
        &[("/srv/shop/bad.yaml", "#cloud-config\na: b: c\n"), ("/srv/shop/plain.yaml", "packages: [a]\n")],
        expect![[r#"
            stead.yaml:2:59: there is no file `./none.yaml`
              2 |   a: { kind: vm, image: ./a.img, cloud_init: { user_data: ./none.yaml } }
                |                                                           ^^^^^^^^^^^
              hint: it is relative to this file; or write the text itself, with `|`

            stead.yaml:3:59: its line 2, column 5 is not YAML: mapping values are not allowed in this context
              3 |   b: { kind: vm, image: ./b.img, cloud_init: { user_data: ./bad.yaml } }
                |                                                           ^^^^^^^^^^
              hint: cloud-init would leave all of it out

            stead.yaml:4:59: cloud-init does not know what begins with `packages: [a]`
              4 |   c: { kind: vm, image: ./c.img, cloud_init: { user_data: ./plain.yaml } }
                |                                                           ^^^^^^^^^^^^
              hint: the first line is `#cloud-config`, or `#!/bin/sh` for a program

            stead.yaml:5:70: `me` is not a public key
              5 |   d: { kind: vm, image: ./d.img, cloud_init: { ssh_authorized_keys: [me] } }
                |                                                                      ^^
              hint: it is the line in a file like `~/.ssh/id_ed25519.pub`
        "#]],
    );
}
