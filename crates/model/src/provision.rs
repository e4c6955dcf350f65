//! What is done in a machine once it runs, and before it counts as ready: scripts, each of them once.
//!
//! A script is known by what it says, to whom and with which environment. So one that changes is another one, which has
//! not been run yet, and those around it have.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::address::digest;
use crate::dev::Account;

/// A script to be run in a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// What it says. Its first line may name what is to read it, `#!/usr/bin/python3`; else `/bin/sh` does.
    pub text: String,
    /// As whom: `user[:group]`; as root where absent.
    pub user: Option<String>,
    /// More environment.
    pub environment: BTreeMap<String, String>,
}

/// What scripts are known by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ScriptId(String);

impl ScriptId {
    /// Whom it makes sure of, if it is the script of somebody to work as: a machine in which it was run has them.
    pub fn user(&self) -> Option<&str> {
        self.0.strip_prefix(OF_USER)?.split_once(':').map(|(user, _)| user)
    }
}

/// What such a script is known by begins so; the others are known by digests alone.
const OF_USER: &str = "user:";

/// What a script is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// It makes sure of this user to work as.
    User(String),
    /// It makes the home of this user one to work in.
    Home(String),
    /// It is the project's own, at this place among those, from 0.
    Own {
        /// The place.
        place: usize,
        /// How many there are.
        of: usize,
    },
}

/// A script in its place among those of its machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provision {
    /// What it is known by when it has been run.
    pub id: ScriptId,
    /// What it is for.
    pub part: Part,
    /// The script.
    pub script: Script,
    /// All that are wanted of its machine.
    pub all: BTreeSet<ScriptId>,
}

impl Provision {
    /// It was run: those that are not wanted any more were replaced, and count as run no longer.
    pub fn take_place(&self, done: &mut BTreeSet<ScriptId>) {
        let stays = keeps_user(self.all.iter());
        done.retain(|id| self.all.contains(id) || stays && id.user().is_some());
        done.insert(self.id.clone());
    }
}

/// Whether a user who was made sure of is still the one to work as: they are there as long as no other is wanted.
fn keeps_user<'a>(mut wanted: impl Iterator<Item = &'a ScriptId>) -> bool {
    !wanted.any(|id| id.user().is_some())
}

/// Those that are yet to be run, in their order, with whether others were run in their stead before.
pub fn missing<'a>(
    wanted: &'a [Provision],
    done: Option<&'a BTreeSet<ScriptId>>,
) -> impl Iterator<Item = (&'a Provision, bool)> {
    let is_done = move |id: &ScriptId| done.is_some_and(|done| done.contains(id));
    let stays = keeps_user(wanted.iter().map(|one| &one.id));
    let is_kept = |id: &ScriptId| wanted.iter().any(|w| w.id == *id) || stays && id.user().is_some();
    let is_changed = done.is_some_and(|done| !done.iter().all(is_kept));
    wanted.iter().filter(move |one| !is_done(&one.id)).map(move |one| (one, is_changed))
}

/// Scripts in their places, behind those that make sure of the user to work as. The same one twice is run twice.
pub fn in_places(user: Option<&Account>, scripts: &[Script]) -> Vec<Provision> {
    let of_user = user.into_iter().flat_map(|account| {
        let (make, furnish) = (account.make(), account.furnish());
        let id = ScriptId(format!("{OF_USER}{}:{}", account.user, known_by(&make, 0)));
        let home = ScriptId(known_by(&furnish, 0));
        [(id, Part::User(account.user.clone()), make), (home, Part::Home(account.user.clone()), furnish)]
    });
    let own = scripts.iter().enumerate().map(|(place, script)| {
        let before = scripts.iter().take(place).filter(|other| *other == script).count();
        (ScriptId(known_by(script, before)), Part::Own { place, of: scripts.len() }, script.clone())
    });
    let placed: Vec<(ScriptId, Part, Script)> = of_user.chain(own).collect();
    let all: BTreeSet<ScriptId> = placed.iter().map(|(id, ..)| id.clone()).collect();
    placed.into_iter().map(|(id, part, script)| Provision { id, part, script, all: all.clone() }).collect()
}

/// The digest of a script, behind so many that are the same.
fn known_by(script: &Script, before: usize) -> String {
    let before = before.to_string();
    let pairs = script.environment.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]);
    let parts = [script.text.as_str(), script.user.as_deref().unwrap_or_default(), &before];
    let parts: Vec<&str> = parts.into_iter().chain(pairs).collect();
    digest(&parts).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Waits until a system is up: what a script does to services fails before that, and while others make users and install
/// packages, like cloud-init, only one can. The manager answers nobody when it has hardly begun. For one that never
/// answers, or is never up, nobody waits for ever, and once.
const UP: &str = r#"case $(readlink /proc/1/exe) in */systemd) ;; *) exit 0 ;; esac
given_up=/run/stead-not-up
{ command -v systemctl && command -v timeout && [ ! -e "$given_up" ]; } >/dev/null || exit 0
now() { read -r up rest </proc/uptime && echo "${up%%.*}"; }
begun=$(now) told=
heard=$begun
while :; do
    state=$(timeout 10 systemctl is-system-running 2>/dev/null)
    case $state in
        running | degraded | maintenance | stopping) exit 0 ;;
        initializing | starting) heard=$(now) ;;
        *) state='no answer' ;;
    esac
    waited=$(($(now) - begun)) silent=$(($(now) - heard))
    if [ "$waited" -ge 600 ] || [ "$silent" -ge 120 ]; then
        : >"$given_up"
        echo "systemd is not up after $waited s ($state); going on all the same"
        exit 0
    fi
    if [ "$waited" -ge 10 ] && [ -z "$told" ]; then
        told=yes
        echo "waiting for systemd to be up ($state)"
        timeout 10 systemctl --no-legend --no-pager list-jobs 2>/dev/null
    fi
    sleep 0.3
done"#;

/// Reads a script whole, of so many bytes, and runs it with what is named behind. One that was cut off is not begun. Its
/// file has no name when it begins, so nothing is left of it. It is a shell's ordinary child, as those that a shell does
/// not wait for ignore SIGINT. What waits beside it learns of the shell's end by the end of a pipe, and if that comes
/// before the script's, tells all that the script has started to end.
const RUNNER: &str = r#"length=$1; shift
at=$(mktemp -d -p /dev/shm 2>/dev/null || mktemp -d) || exit 125
trap 'rm -rf "$at"; exit 143' HUP INT TERM
cat >"$at/text" && mkfifo "$at/end" && came=$(wc -c <"$at/text") || { rm -rf "$at"; exit 125; }
exec 3<"$at/text" 4<>"$at/end" 5<"$at/end" 6>"$at/end" 4>&-
rm -rf "$at"
[ "$came" -eq "$length" ] || { echo "the script did not come whole: $came of $length bytes" >&2; exit 125; }
(exec <&5 3<&- 5<&- 6>&-; read -r over || kill -TERM 0) &
trap - HUP INT TERM
"$@" /proc/self/fd/3 </dev/null 5<&- 6>&-
code=$?
echo over >&6
wait $!
exit $code"#;

impl Script {
    /// What is run as root before any other: it waits until the machine's systemd is up, if it has one.
    pub fn that_waits() -> Self {
        Self { text: UP.to_owned(), user: None, environment: BTreeMap::new() }
    }

    /// The program that runs it in a machine, and finds its text on standard input.
    pub fn program(&self) -> Vec<String> {
        let named = self.text.lines().next().and_then(|first| first.strip_prefix("#!"));
        // As the kernel reads it: a program, and all the rest is one argument.
        let mut reader: Vec<&str> =
            named.map(|line| line.trim().splitn(2, [' ', '\t']).collect()).unwrap_or_default();
        reader.retain(|word| !word.is_empty());
        if reader.is_empty() {
            reader.push("/bin/sh");
        }
        let length = self.text.len().to_string();
        let runner = ["/bin/sh", "-c", RUNNER, "provision", &length];
        runner.into_iter().chain(reader.into_iter().map(str::trim)).map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dev::{Dev, Person, account};
    use crate::project::Kind;

    fn script(text: &str) -> Script {
        Script { text: text.to_owned(), user: None, environment: BTreeMap::new() }
    }

    #[test]
    fn a_script_says_in_its_first_line_what_reads_it() {
        let reader = |text: &str| script(text).program().split_off(5);
        assert_eq!(reader("echo a"), ["/bin/sh"]);
        assert_eq!(reader(""), ["/bin/sh"]);
        assert_eq!(reader("#!\n"), ["/bin/sh"]);
        assert_eq!(reader("#! /bin/bash  -e \nfalse\n"), ["/bin/bash", "-e"]);
        assert_eq!(reader("#!/usr/bin/env -S python3 -u\n"), ["/usr/bin/env", "-S python3 -u"]);
    }

    #[test]
    fn a_script_is_known_by_all_that_it_is() {
        let as_web = Script { user: Some("web".to_owned()), ..script("a") };
        let with = Script { environment: [("A".to_owned(), "1".to_owned())].into(), ..script("a") };
        let ids: BTreeSet<ScriptId> = in_places(None, &[script("a"), script("b"), script("a"), as_web, with])
            .into_iter()
            .map(|p| p.id)
            .collect();
        assert_eq!(ids.len(), 5, "{ids:?}");
        assert_eq!(
            in_places(None, &[script("b"), script("a")]).pop().map(|p| p.id),
            in_places(None, &[script("a")]).pop().map(|p| p.id)
        );
    }

    fn place(one: &Provision) -> usize {
        match one.part {
            Part::Own { place, .. } => place,
            Part::User(_) | Part::Home(_) => usize::MAX,
        }
    }

    #[test]
    fn a_script_of_a_user_says_whose_it_is() {
        let account = |name: &str| {
            let dev = Dev { user: Some(name.to_owned()), ..Dev::default() };
            account(&dev, &Person::default(), Kind::Vm, BTreeSet::new()).unwrap()
        };
        let ids: Vec<ScriptId> =
            in_places(Some(&account("joe")), &[script("a")]).into_iter().map(|one| one.id).collect();
        assert_eq!(ids.iter().map(ScriptId::user).collect::<Vec<_>>(), [Some("joe"), None, None]);
        // The others are known by what they were.
        assert_eq!(ids[2], in_places(None, &[script("a")])[0].id);
        let ann = in_places(Some(&account("ann")), &[]);
        assert_ne!(ids[0], ann[0].id);
        // Who is wanted no more is there all the same, until somebody else is.
        let mut done: BTreeSet<ScriptId> = ids.iter().cloned().collect();
        let none = in_places(None, &[script("b")]);
        assert!(missing(&in_places(None, &[script("a")]), Some(&done)).next().is_none());
        none[0].take_place(&mut done);
        assert_eq!(done, [ids[0].clone(), none[0].id.clone()].into());
        ann[0].take_place(&mut done);
        assert_eq!(done, [ann[0].id.clone()].into());
    }

    #[test]
    fn what_was_done_is_done_and_what_replaces_it_is_changed() {
        let (old, new) =
            (in_places(None, &[script("a"), script("b")]), in_places(None, &[script("a"), script("c")]));
        let done: BTreeSet<ScriptId> = old.iter().map(|one| one.id.clone()).collect();
        let told = |wanted: &[Provision], done: Option<&BTreeSet<ScriptId>>| -> Vec<(usize, bool)> {
            missing(wanted, done).map(|(one, changed)| (place(one), changed)).collect()
        };
        assert_eq!(told(&old, None), [(0, false), (1, false)]);
        assert_eq!(told(&old, Some(&done)), []);
        assert_eq!(told(&new, Some(&done)), [(1, true)]);
        let first: BTreeSet<ScriptId> = done.iter().filter(|id| old[0].id == **id).cloned().collect();
        assert_eq!(told(&old, Some(&first)), [(1, false)]);
        // What was replaced and comes back is run again.
        let mut replaced = done;
        new[1].take_place(&mut replaced);
        assert_eq!((told(&new, Some(&replaced)), told(&old, Some(&replaced))), (vec![], vec![(1, true)]));
    }
}
