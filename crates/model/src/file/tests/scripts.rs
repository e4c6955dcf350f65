//! Scripts that are run in machines.

use expect_test::{Expect, expect};

use super::containers::shown;

#[track_caller]
fn check(text: &str, expected: Expect) {
    let others = [
        ("setup.sh", "#!/bin/sh\necho $HOME\n"),
        ("base/stead.yaml", "machines: { base: { image: web, provision: [{ path: own.sh }] } }\n"),
        ("base/own.sh", "own\n"),
        ("nul.sh", "a\0b"),
    ];
    let shown = shown("stead.yaml", text, &others, &[]);
    let scripts = shown.find("provision:\n").filter(|_| shown.starts_with("name:"));
    expected.assert_eq(scripts.map_or(&*shown, |at| &shown[at..]));
}

#[test]
fn scripts_stand_in_the_file_or_in_others() {
    check(
        "machines:
  a:
    image: web
    provision:
      - date
      - { run: \"echo $$HOME\\n\", user: web, environment: { A: 1, TOKEN: } }
      - { path: ./setup.sh, environment: [B=2] }
",
        expect![[r##"
            provision:
                  - { run: "date", environment: [] }
                  - { run: "echo $$HOME\n", user: "web", environment: ["A=1", "TOKEN=t$$1"] }
                  - { run: "#!/bin/sh\necho $$HOME\n", environment: ["B=2"] }
        "##]],
    );
    check(
        "machines: { a: { extends: { machine: base, file: base/stead.yaml }, provision: [last] } }\n",
        expect![[r#"
            provision:
                  - { run: "own\n", environment: [] }
                  - { run: "last", environment: [] }
        "#]],
    );
}

#[test]
fn what_cannot_be_run_is_told() {
    check(
        "machines:
  a: { image: web, provision: [{ user: web }, { run: a, path: ./setup.sh }, { path: ./none.sh }, { path: nul.sh }] }
  b: { kind: vm, driver: external, provision: [date] }
  c: { kind: vm, image: ./c.img, cloud_init: off, provision: [date] }
  d: { image: web, provision: [{ run: date, environment: [NOBODY] }] }
",
        expect![[r#"
            stead.yaml:2:32: nothing says what is run
              2 |   a: { image: web, provision: [{ user: web }, { run: a, path: ./setup.sh }, { path: ./none.sh }, { p…
                |                                ^^
              hint: write `run:` or `path:`

            stead.yaml:2:47: `run` and `path` both say what is run
              2 | … image: web, provision: [{ user: web }, { run: a, path: ./setup.sh }, { path: ./none.sh }, { path: n…
                |                                          ^^
              hint: leave one of them out

            stead.yaml:2:77: there is no file `./none.sh`
              2 | …r: web }, { run: a, path: ./setup.sh }, { path: ./none.sh }, { path: nul.sh }] }
                |                                          ^^
              hint: it is relative to this file; or write the script itself, as `run: |`

            stead.yaml:2:98: `nul.sh` is no text
              2 | …ath: ./setup.sh }, { path: ./none.sh }, { path: nul.sh }] }
                |                                          ^^
              hint: it is relative to this file; or write the script itself, as `run: |`

            stead.yaml:3:36: `provision` says what stead is to run, but somebody else runs machine `b`
              3 |   b: { kind: vm, driver: external, provision: [date] }
                |                                    ^^^^^^^^^
              hint: leave it out, or write `driver: native`

            stead.yaml:4:51: machine `c` has no agent of stead to run scripts
              4 |   c: { kind: vm, image: ./c.img, cloud_init: off, provision: [date] }
                |                                                   ^^^^^^^^^
              hint: leave `cloud_init: off` out

            stead.yaml:5:59: the variable `NOBODY` is not set
              5 |   d: { image: web, provision: [{ run: date, environment: [NOBODY] }] }
                |                                                           ^^^^^^
              hint: set it, or give it a value here; `""` is an empty one
        "#]],
    );
}
