//! Labels of files.

use expect_test::expect;

use super::{check_with, shown};

const FILES: [(&str, &str); 2] = [
    ("one.labels", "# said\na.b=0\nteam=one # not\nexport x/y-z=1\nwho=$TOKEN\n"),
    ("two.labels", "team='two'\n"),
];

#[test]
fn labels_go_over_those_of_files_and_later_files_over_earlier_ones() {
    check_with(
        "machines:\n  web: {image: x, label_file: [one.labels, ./two.labels], labels: [a.b=1, bare]}\n  db: {image: x, label_file: two.labels}\n  off: {image: x, profiles: [off], label_file: none}\n",
        &FILES,
        &[],
        expect![[r#"
            machines:
              db:
                kind: container
                driver: native
                networks:
                  default: {}
                image: "x:latest"
                labels:
                  - "team=two"
              web:
                kind: container
                driver: native
                networks:
                  default: {}
                image: "x:latest"
                labels:
                  - "a.b=1"
                  - "bare="
                  - "team=two"
                  - "who=t$$1"
                  - "x/y-z=1"
        "#]],
    );
    check_with(
        "machines: {web: {kind: vm, image: ./x.qcow2, label_file: two.labels, labels: {a: }}}\n",
        &FILES,
        &[],
        expect![[r#"
            machines:
              web:
                kind: vm
                driver: qemu
                networks:
                  default: {}
                image: "/srv/shop/x.qcow2"
                labels:
                  - "a="
                  - "team=two"
        "#]],
    );
}

#[test]
fn so_they_do_in_files_of_compose_and_files_are_where_they_were_named() {
    let text =
        "services: {a: {extends: {service: b, file: sub/c.yaml}, label_file: two.labels, labels: {n: 1}}}\n";
    let others = [
        ("sub/c.yaml", "services: {b: {image: x, label_file: [b.labels], labels: [n=0, m=0]}}\n"),
        ("sub/b.labels", "team=b\nof=b\n"),
        FILES[1],
    ];
    expect![[r#"
        name: shop
        networks:
          default:
            subnet: auto
            subnet6: auto
            addressing: managed
            reach: "nat"
            mtu: 1500
            dhcp: { pool: auto, lease: 3600s, slaac: false }
        machines:
          a:
            kind: container
            driver: native
            networks:
              default: {}
            image: "x:latest"
            labels:
              - "m=0"
              - "n=1"
              - "of=b"
              - "team=two"
    "#]]
    .assert_eq(&shown("compose.yaml", text, &others, &[]));
}

#[test]
fn a_file_of_labels_that_cannot_be_read_is_told() {
    let text = "services: {a: {image: x, label_file: [none, bad]}}\n";
    expect![[r#"
        compose.yaml:1:39: there is no file `none`
          1 | services: {a: {image: x, label_file: [none, bad]}}
            |                                       ^^^^
          hint: write it, or name another; a path is relative to the file that names it

        compose.yaml:1:45: in `bad`, line 1, column 1: not `NAME=value`
          1 | services: {a: {image: x, label_file: [none, bad]}}
            |                                             ^^^
          hint: start the line with `#` if it is a comment

        compose.yaml:1:45: in `bad`, line 2, column 1: `a$` cannot name a label
          1 | services: {a: {image: x, label_file: [none, bad]}}
            |                                             ^^^
          hint: a name has letters, digits, `.`, `-`, `_` and `/`
    "#]]
    .assert_eq(&shown("compose.yaml", text, &[("bad", "a b\na$=1\n")], &[]));
}
