//! The keys of what a keeper does for its container: its log, and Compose's `deploy`.

use super::container::leaf;
use super::machine::REPLICAS;
use super::{Form, Key, key};
use crate::file::leaf::Leaf;
use crate::file::leaf::quantity::{BYTES_OR_ALL, COUNT_OR_ALL, CPUS, LOG_BYTES, TIME};

pub(crate) const DEPLOY: &[Key] = &[
    key("replicas", REPLICAS, "1", "3", "As `replicas`."),
    key("resources", &[Form::Keys(&[RESOURCES])], "", "{ limits: { cpus: 0.5 } }", "Limits."),
    key(
        "restart_policy",
        &[Form::Keys(&[RESTART_POLICY])],
        "",
        "{ condition: on-failure, max_attempts: 3 }",
        "Instead of `restart`, with more to say.",
    ),
];

const RESTART_POLICY: &[Key] = &[
    key(
        "condition",
        &[Form::Leaf(Leaf::Choice(&[
            ("any", "as `restart: always`"),
            ("on-failure", "as `restart: on-failure`"),
            ("none", "as `restart: no`"),
        ]))],
        "any",
        "on-failure",
        "When it is started again.",
    ),
    key(
        "max_attempts",
        &[Form::Leaf(Leaf::Whole { min: 0, max: u16::MAX })],
        "",
        "3",
        "How often, for `on-failure`. 0 or left out: without end.",
    ),
    key(
        "delay",
        &[leaf(TIME)],
        "",
        "5s",
        "How long is waited before each start anew. Left out: 100 ms, then each time twice as long, up to a minute.",
    ),
    key(
        "window",
        &[leaf(TIME)],
        "",
        "2m",
        "When it ran for so long it has recovered, and `max_attempts` counts anew. Left out: it never does.",
    ),
];

pub(crate) const LOGGING: &[Key] = &[
    key(
        "driver",
        &[Form::Leaf(Leaf::Choice(&[
            ("json-file", "stead's own files, which `stead logs` reads"),
            ("local", "the same"),
        ]))],
        "json-file",
        "local",
        "Where it is kept.",
    ),
    key("options", &[Form::Keys(&[LOG_OPTIONS])], "", "{ max-size: 1m }", "How much."),
];

pub(crate) const LOG_OPTIONS: &[Key] = &[
    key("max-size", &[leaf(LOG_BYTES)], "10m", "1m", "A file that has grown so large is set aside."),
    key(
        "max-file",
        &[Form::Leaf(Leaf::Whole { min: 1, max: 1000 })],
        "3",
        "5",
        "How many files are kept, with the one that is written.",
    ),
];

pub(crate) const RESOURCES: &[Key] = &[
    key("limits", &[Form::Keys(&[RESOURCE_LIMITS])], "", "{ memory: 512m }", "What it may use at most."),
    key(
        "reservations",
        &[Form::Keys(&[RESERVATIONS])],
        "",
        "{ memory: 256m }",
        "What it should get by with.",
    ),
];

pub(crate) const RESOURCE_LIMITS: &[Key] = &[
    key("cpus", &[leaf(CPUS)], "", "0.5", "As `cpus`."),
    key("memory", &[leaf(BYTES_OR_ALL)], "", "512m", "As `mem_limit`."),
    key("pids", &[leaf(COUNT_OR_ALL)], "", "100", "As `pids_limit`."),
];

pub(crate) const RESERVATIONS: &[Key] =
    &[key("memory", &[leaf(BYTES_OR_ALL)], "", "256m", "As `mem_reservation`.")];
