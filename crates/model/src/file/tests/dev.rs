//! Users that people work as in machines.

use expect_test::{Expect, expect};

use super::containers::shown;

#[track_caller]
fn check(text: &str, expected: Expect) {
    let others = [
        (
            "keys.pub",
            "# mine\nssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB a\nssh-rsa AAAAB3NzaC1yc2EAAAADAQAB b\n",
        ),
        ("private", "-----BEGIN OPENSSH PRIVATE KEY-----\n"),
        ("empty.pub", "\n"),
        (
            "base/stead.yaml",
            "machines: { base: { image: web, dev: { keys: [./own.pub], groups: [audio] } } }\n",
        ),
        ("base/own.pub", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIC own\n"),
    ];
    let shown = shown("stead.yaml", text, &others, &[]);
    let dev = shown.lines().filter(|line| line.contains("dev:") && shown.starts_with("name:"));
    let dev: String = dev.map(|line| format!("{}\n", line.trim())).collect();
    expected.assert_eq(if dev.is_empty() { &shown } else { &dev });
}

#[test]
fn keys_stand_in_the_file_or_in_others() {
    check(
        "machines: { a: { image: web, dev: true }, b: { image: web, dev: { sudo: false, keys: ./keys.pub } } }\n",
        expect![[r#"
                dev: { sudo: true }
                dev: { sudo: false, keys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB a", "ssh-rsa AAAAB3NzaC1yc2EAAAADAQAB b"] }
        "#]],
    );
    check(
        "machines:
  a:
    image: web
    dev: { user: joe, uid: 1001, shell: /bin/zsh, groups: [docker, audio], keys: [./keys.pub, ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAID], password_hash: $$6$$a$$b }
  b: { extends: { machine: base, file: base/stead.yaml }, dev: { groups: [web], uid: 7 } }
  c: { extends: { machine: base, file: base/stead.yaml }, dev: false }
  d: { extends: { machine: base, file: base/stead.yaml }, dev: true }
",
        expect![[r#"
                dev: { user: "joe", uid: 1001, shell: "/bin/zsh", groups: ["audio", "docker"], sudo: true, keys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB a", "ssh-rsa AAAAB3NzaC1yc2EAAAADAQAB b", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAID"], password_hash: "$$6$$a$$b" }
                dev: { uid: 7, groups: ["audio", "web"], sudo: true, keys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIC own"] }
                dev: { sudo: true }
        "#]],
    );
}

#[test]
fn what_cannot_be_somebody_is_told() {
    check(
        "machines:
  a: { image: web, dev: { user: root, uid: 0, shell: zsh, groups: [A B], keys: [x, ./none.pub, ./private, ./empty.pub], password_hash: secret } }
  b: { kind: vm, driver: external, dev: true }
  c: { kind: vm, image: ./c.img, cloud_init: off, dev: true }
  d: { kind: vm, image: ./c.img, cloud_init: off, dev: false }
  e: { image: web, dev: joe }
  f: { image: web, dev: { name: joe } }
",
        expect![[r#"
            stead.yaml:2:33: `root` is there anyway, and is nobody to work as
              2 |   a: { image: web, dev: { user: root, uid: 0, shell: zsh, groups: [A B], keys: [x, ./none.pub, ./pri…
                |                                 ^^^^
              hint: name another one, or leave `dev` out

            stead.yaml:2:44: `0` is not the id of a user who is not root
              2 | …: { image: web, dev: { user: root, uid: 0, shell: zsh, groups: [A B], keys: [x, ./none.pub, ./privat…
                |                                          ^
              hint: write a whole number from 1 to 4294967293, or leave it out

            stead.yaml:2:54: `zsh` is not the path of a shell in the machine
              2 | … web, dev: { user: root, uid: 0, shell: zsh, groups: [A B], keys: [x, ./none.pub, ./private, ./empty…
                |                                          ^^^
              hint: it is absolute, like `/bin/bash`

            stead.yaml:2:68: `A B` is not a group's name
              2 | …ser: root, uid: 0, shell: zsh, groups: [A B], keys: [x, ./none.pub, ./private, ./empty.pub], passwor…
                |                                          ^^^
              hint: a small letter or `_`, then small letters, digits, `_`, `-` and `.`, 32 at most

            stead.yaml:2:81: `x` is neither a public key nor a file with one
              2 | …d: 0, shell: zsh, groups: [A B], keys: [x, ./none.pub, ./private, ./empty.pub], password_hash: secre…
                |                                          ^
              hint: write the line of a file like `~/.ssh/id_ed25519.pub`, or its path, which begins with `.`, `/` or `~`

            stead.yaml:2:84: there is no file `./none.pub`
              2 | …0, shell: zsh, groups: [A B], keys: [x, ./none.pub, ./private, ./empty.pub], password_hash: secret }…
                |                                          ^^^^^^^^^^
              hint: name a file like `~/.ssh/id_ed25519.pub`; a path is relative to this file

            stead.yaml:2:96: line 1 of `./private` is not a public key
              2 | …h, groups: [A B], keys: [x, ./none.pub, ./private, ./empty.pub], password_hash: secret } }
                |                                          ^^^^^^^^^
              hint: name a file like `~/.ssh/id_ed25519.pub`; a path is relative to this file

            stead.yaml:2:107: there is no key in `./empty.pub`
              2 | …[A B], keys: [x, ./none.pub, ./private, ./empty.pub], password_hash: secret } }
                |                                          ^^^^^^^^^^^
              hint: name a file like `~/.ssh/id_ed25519.pub`; a path is relative to this file

            stead.yaml:2:136: this is not the hash of a password
              2 | …./private, ./empty.pub], password_hash: secret } }
                |                                          ^^^^^^
              hint: `openssl passwd -6` makes one; each `$` of it is `$$` in this file

            stead.yaml:3:36: `dev` says what stead is to run, but somebody else runs machine `b`
              3 |   b: { kind: vm, driver: external, dev: true }
                |                                    ^^^
              hint: leave it out, or write `driver: native`

            stead.yaml:4:51: machine `c` has no agent of stead to run scripts
              4 |   c: { kind: vm, image: ./c.img, cloud_init: off, dev: true }
                |                                                   ^^^
              hint: leave `cloud_init: off` out

            stead.yaml:6:25: `joe` is not `true` or `false`
              6 |   e: { image: web, dev: joe }
                |                         ^^^
              hint: write one of these two words, without quotes

            stead.yaml:7:27: there is no key `name` here
              7 |   f: { image: web, dev: { name: joe } }
                |                           ^^^^
              hint: there are user, uid, shell, groups, sudo, keys, password_hash
        "#]],
    );
}
