//! The keys that only whole computers have.

use super::container::leaf;
use super::{Form, Key, key};
use crate::file::leaf::Leaf;
use crate::file::leaf::container::ANY;
use crate::file::leaf::quantity::BYTES;
use crate::file::leaf::vm::SSH_KEY;

pub(crate) const VM: &[Key] = &[
    key(
        "disk",
        &[leaf(BYTES)],
        "",
        "20g",
        "How large the disk of a `vm` is. Left out: as large as its image. It can be made larger at any time, and never \
         smaller.",
    ),
    key(
        "firmware",
        &[Form::Leaf(Leaf::Choice(&[
            ("bios", "the boot loader in the first sector of its disk"),
            ("uefi", "the boot loader in the EFI system partition of its disk, without secure boot"),
        ]))],
        "bios",
        "uefi",
        "What starts the boot loader of a `vm`.",
    ),
    key(
        "cloud_init",
        &[
            Form::Leaf(Leaf::Choice(&[
                ("on", "the `vm` is told its name and its addresses, and runs stead's agent"),
                ("off", "it is told nothing: what is in its image has to do"),
            ])),
            Form::Keys(&[CLOUD_INIT]),
        ],
        "on",
        "{ user_data: ./user-data.yaml }",
        "What a `vm` is told at its start, by a disk as cloud-init looks for (NoCloud).",
    ),
];

const CLOUD_INIT: &[Key] = &[
    key(
        "user_data",
        &[leaf(ANY)],
        "",
        "./user-data.yaml",
        "What is to be done in it, in any form that cloud-init knows: the text itself, or in one line the path of a file \
         with it.",
    ),
    key(
        "ssh_authorized_keys",
        &[Form::List(&[leaf(SSH_KEY)])],
        "",
        "[ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB me@home]",
        "The public keys by which people may log in as the image's usual user.",
    ),
];
