//! What the reference page says of Compose's files; what is refused comes from the table.

use std::fmt::Write as _;

use super::table::ROOT;
use crate::file::shape::{Form, Shape};

const WORDS: &str = "
## Files of Compose

A file of the [Compose specification](https://github.com/compose-spec/compose-spec) is read as it is: one with `services` and without
`machines`, whatever it is called, or one with Compose's own name (`compose.yaml` and so on). A service is a machine of kind
`container`; keys mean what they mean there. In such a file, unlike in our own:

- a variable that is not set and has no default is an empty text, with a warning; a name alone under `environment` that is
  not set is left out;
- ports without an address are published on `0.0.0.0`; where none of this computer is said (`80`, `80-82`, no `published`), it chooses one for each target, as for `0:80`;
- names of networks and volumes are made lawful (`db_data` is `db-data`); a service, an alias and a `container_name` are in lower case
  and have `-` for `_` (`My_App` is `my-app`), and are found by both, in DNS and by the commands for machines; an alias and a
  `container_name` may have parts with `.` between;
- `container_name` is one more name on all networks, `links` say what comes before; the name that a link gives is one of the other
  on the networks that both are on, for all machines of these, and is refused where another machine has it; `version`, `expose`, the
  names of ports, and what a network's `name` calls it outside of the project, where nothing calls it anything, are documentation;
- `network_mode` is `none`, `host`, `service:NAME`, `container:NAME` with a `container_name` or a service of the same file, or `bridge`,
  which is the default network; beside `host` a warning says that `ports` change nothing; the options `z`, `Z`, `cached`, `consistent` and
  `delegated` of volumes say what holds anyway;
- a volume with the `driver_opts` `type: none`, `o: bind` and `device` is that path, wherever it is mounted: it has to be there, and nothing of the image
  is copied into it;
- `mac_address` of a service is that of its only nic; `cpu_quota` of each `cpu_period` is so much of `cpus`; `attach` says nothing, for
  `stead up` shows no output, and `stead logs` that of whom it is asked for;
- networks are in the order of their `gw_priority`, then of their `priority`: the first one has the default route; `cpus` under
  `deploy.resources.reservations` are a weight, 1024 for each and at least the usual 1024, unless `cpu_shares` says one; `depends_on.restart` holds for
  `stead up`, not for `stead restart`;
- flags may be `yes`, `no`, `on`, `off`, `y` and `n`, with a warning;
- files under `env_file` with `format: raw` are taken as they stand;
- what Compose itself leaves alone is left alone: `develop`, which is for its `watch`; of `deploy` what is for clusters: `labels`, `endpoint_mode`,
  `placement`, `rollback_config`, `update_config`;
- what stands in a `compose.override.yaml` (`.yml`, `docker-compose.override.…`) beside it goes over it where no file is named by
  `-f`: mappings key by key, lists one after the other; what is mounted, devices, secrets and configs are there once at each place, ports
  once for each address, port, target and protocol, in whichever form they are written; commands and tests are replaced. So do
  several files over each other: `-f a.yaml -f b.yaml`, or `COMPOSE_FILE=a.yaml:b.yaml` in the environment or in `.env`, where
  `COMPOSE_PATH_SEPARATOR` may say what stands between them. The first says where the project is and where all paths start.
  `!reset` before a value takes away what is below it, `!override` replaces it whole;
- `x-…` keys may stand where Compose lets them; `COMPOSE_PROJECT_NAME` and `COMPOSE_PROFILES` hold;
- services that no profile brings, and no other one extends, are not held against what can be had here until somebody asks for
  them, unless another file has them;
- a missing path of this computer is made as a directory when it is bound, but for one that ends in `.sock`;
- `${COMPOSE_PROJECT_NAME}` stands for the project's name.

What cannot be honoured is refused, with its place and the reason; values other than these, too. What would change nothing is told in a warning:

| key | why | instead |
|---|---|---|
";

/// Adds the section to the page.
pub(in crate::file) fn reference(page: &mut String) {
    page.push_str(WORDS);
    shape(page, "", ROOT);
}

fn shape(page: &mut String, path: &str, forms: Shape) {
    for form in forms {
        match form {
            Form::Keys(groups) => {
                // Where a key stands twice, the first one holds.
                let mut known = Vec::new();
                for key in groups.iter().copied().flatten() {
                    if known.contains(&key.name) {
                        continue;
                    }
                    known.push(key.name);
                    let path =
                        if path.is_empty() { key.name.to_owned() } else { format!("{path}.{}", key.name) };
                    shape(page, &path, key.shape);
                }
            }
            Form::Map(_, of) => shape(page, &format!("{path}.<name>"), of),
            Form::List(of) | Form::Set(of) => shape(page, &format!("{path}[]"), of),
            Form::Refused(why, hint) => {
                let _ = writeln!(page, "| `{path}` | {why} | {hint} |");
            }
            Form::Leaf(crate::file::leaf::Leaf::Only { word, hint }) => {
                let _ = writeln!(page, "| `{path}` | only `{word}` | {hint} |");
            }
            Form::Inert(why) => {
                let _ = writeln!(page, "| `{path}` | a warning: {why} | leave it out |");
            }
            Form::Leaf(_) | Form::Nothing | Form::Ignored => {}
        }
    }
}
