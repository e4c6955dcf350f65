//! The keys of how a container uses disks, as Compose has them.

use super::container::leaf;
use super::{Form, Key, Shape, key, required};
use crate::file::leaf::Leaf;
use crate::file::leaf::container::DISK;
use crate::file::leaf::quantity::{BYTE_RATE, RATE};

pub(crate) const BLKIO: &[Key] = &[
    key(
        "weight",
        &[Form::Leaf(Leaf::Whole { min: 10, max: 1000 })],
        "",
        "500",
        "10 to 1000; 100 is the usual one.",
    ),
    key(
        "device_read_bps",
        BYTE_RATES,
        "",
        "[{ path: /dev/sda, rate: 10mb }]",
        "How much it may read a second, of each of these disks of this computer.",
    ),
    key(
        "device_write_bps",
        BYTE_RATES,
        "",
        "[{ path: /dev/sda, rate: 10mb }]",
        "How much it may write a second.",
    ),
    key("device_read_iops", RATES, "", "[{ path: /dev/sda, rate: 100 }]", "How often it may read a second."),
    key(
        "device_write_iops",
        RATES,
        "",
        "[{ path: /dev/sda, rate: 100 }]",
        "How often it may write a second.",
    ),
];

const BYTE_RATES: Shape = &[Form::List(&[Form::Keys(&[DISK_PATH, BYTES_A_SECOND])])];
const RATES: Shape = &[Form::List(&[Form::Keys(&[DISK_PATH, TIMES_A_SECOND])])];
const DISK_PATH: &[Key] = &[required("path", &[leaf(DISK)], "/dev/sda", "The disk, as a whole.")];
const BYTES_A_SECOND: &[Key] = &[required("rate", &[leaf(BYTE_RATE)], "10mb", "So much.")];
const TIMES_A_SECOND: &[Key] = &[required("rate", &[leaf(RATE)], "100", "So often.")];
