//! The project's own chores: `cargo xtask check | test | fuzz | suite | demo | bench | dist | setup`.
//!
//! Each chore first sees to the Debian packages it needs ([`setup`]), builds with the network as it is, and then
//! runs whatever touches networks in namespaces of its own ([`inside`]).
// The chores talk to a person at a terminal, and nothing else here does.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod bench;
mod check;
mod demo;
mod disk;
mod dist;
mod documents;
mod fuzz;
mod inside;
mod leftovers;
mod load;
mod programs;
mod setup;
mod source;
mod suite;
mod sys;
mod system;
mod test;

use std::process::ExitCode;

use anyhow::{Result, bail};

const HELP: &str = "\
The project's own chores

usage: cargo xtask <chore>

  check               format, lints, documentation, dependencies, house rules, documents
  test [--no-check] [FILTER]
                      `check`, then all tests in namespaces of their own, then fuzzing for two minutes;
                      with a filter only the tests whose name holds it, and neither check nor fuzzing
  fuzz [--seconds N] [TARGET]
                      only the fuzzing, or one target of it
  suite CHECKOUT      the OCI runtime specification's own validation suite (a checkout of runtime-tools; takes `go`),
                      compared with what docs/oci.md says of it
  demo                the tour of the README, for real
  bench [--rounds N] [--format json] [NAME…]
                      comparisons with other programs, as ratios of one run
  dist                static binary, completions, man pages, .deb and .tar.gz in target/dist
  setup [check|test|demo|bench|dist]
                      only install what the chores (or one of them) need

exit codes: 0 done, 1 something failed, 2 the request is wrong or packages are missing
";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// All is well.
    Good,
    /// It found failures and has reported them.
    Bad,
    /// Somebody has to do something first; it has said what.
    Refused,
    /// What a program run on somebody's behalf said.
    Code(u8),
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match chore(&arguments) {
        Ok(Outcome::Good) => ExitCode::SUCCESS,
        Ok(Outcome::Bad) => ExitCode::from(1),
        Ok(Outcome::Refused) => ExitCode::from(2),
        Ok(Outcome::Code(code)) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error}");
            error.chain().skip(1).for_each(|cause| eprintln!("  cause: {cause}"));
            ExitCode::from(1)
        }
    }
}

fn chore(arguments: &[String]) -> Result<Outcome> {
    let Some((name, rest)) = arguments.split_first() else {
        eprint!("{HELP}");
        return Ok(Outcome::Refused);
    };
    match (name.as_str(), rest) {
        ("-h" | "--help" | "help", _) => {
            print!("{HELP}");
            Ok(Outcome::Good)
        }
        ("check", []) => check::run(),
        ("test", rest) => test::run(&test::Options::parse(rest)?),
        ("fuzz", rest) => fuzz::run(&fuzz::Options::parse(rest)?),
        ("suite", [checkout]) => suite::run(checkout.as_ref()),
        ("demo", []) => demo::run(),
        ("bench", rest) => bench::run(&bench::Options::parse(rest)?),
        ("dist", []) => dist::run(),
        ("setup", rest) => setup_only(rest),
        (inside::STAGE_ENTER, rest) => inside::enter(rest),
        (inside::STAGE_INIT, rest) => inside::init(rest),
        (inside::STAGE_DROP, rest) => inside::drop_rights(rest),
        (bench::STAGE, rest) => bench::inside(&bench::Options::parse(rest)?),
        (bench::LOAD_STAGE, rest) => bench::put_load(rest),
        (demo::STAGE, [directory]) => demo::inside(directory.as_ref()),
        _ => {
            eprintln!("error: no chore `{}`\n", arguments.join(" "));
            eprint!("{HELP}");
            Ok(Outcome::Refused)
        }
    }
}

fn setup_only(rest: &[String]) -> Result<Outcome> {
    let chores = match rest {
        [] => setup::Chore::ALL.to_vec(),
        [name] => match setup::Chore::ALL.iter().find(|chore| chore.name() == name) {
            Some(chore) => vec![*chore],
            None => bail!("no chore `{name}` to set up"),
        },
        _ => bail!("`setup` takes at most one chore"),
    };
    setup::ensure(&chores).map(|ready| if ready { Outcome::Good } else { Outcome::Refused })
}
