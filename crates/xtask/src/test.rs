//! `cargo xtask test`: builds everything, then runs each test program in namespaces of its own, the tests of
//! `stead` twice (as root and as an ordinary user), and fuzzes.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::inside::{self, Role};
use crate::programs::{GUEST, cargo, output, root};
use crate::setup::{self, Chore};
use crate::{Outcome, check, disk, fuzz, system};

/// One test program that takes longer hangs.
const PROGRAM_LIMIT: Duration = Duration::from_secs(20 * 60);
/// Packages whose integration tests also run as an ordinary user.
const AS_USER_TOO: [&str; 2] = ["stead", "xtask"];

/// Tests of `stead-net` that also run as an ordinary user who is root in namespaces of their own: what an engine of
/// theirs can do. The other tests become other users, for which it takes root.
const AS_MAPPED_USER_TOO: [&str; 7] =
    ["anchor", "forward", "kernel_nft", "kernel_route", "kernel_tap", "kernel_traffic", "serve"];
/// Runs the rest of the arguments as such a user.
const MAPPED: [&str; 6] =
    ["unshare", "--map-root-user", "--net", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""];

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    check: bool,
    filter: Option<String>,
}

impl Options {
    /// Reads `[--no-check] [FILTER]`.
    pub(crate) fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Self { check: true, filter: None };
        for argument in arguments {
            match argument.as_str() {
                "--no-check" => options.check = false,
                text if text.starts_with('-') => bail!("`test` has no option `{text}`"),
                text if options.filter.is_none() => options.filter = Some(text.to_owned()),
                text => bail!("`test` takes one filter, and `{text}` is a second"),
            }
        }
        Ok(options)
    }
}

/// Sums of all `test result:` lines, and what failed, by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    failed: u64,
    skipped: u64,
    /// Tests that said that they cannot run here.
    untested: u64,
    failures: Vec<String>,
    /// The image that scenes of systems boot.
    system: Option<PathBuf>,
    /// The image of a disk that scenes of whole computers boot.
    disk: Option<PathBuf>,
}

/// A program full of tests.
struct TestProgram {
    package: String,
    name: String,
    is_integration: bool,
    file: PathBuf,
    directory: PathBuf,
}

/// The chore.
pub(crate) fn run(options: &Options) -> Result<Outcome> {
    let everything = options.filter.is_none();
    let check = everything && options.check;
    let needs: &[Chore] = if check { &[Chore::Check, Chore::Test] } else { &[Chore::Test] };
    if !setup::ensure(needs)? {
        return Ok(Outcome::Refused);
    }
    let mut tally = Tally::default();
    if check && check::run()? != Outcome::Good {
        tally.fail("check");
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!(
            "note: not root: no veth uplink into a host's namespace is tested, and tun only if its mode allows"
        );
    }
    let programs = build()?;
    tally.prepare(&programs, options)?;
    for program in &programs {
        let filter = options.filter.as_deref();
        tally.run(program, Role::Root, &[], filter)?;
        if program.is_integration && AS_USER_TOO.contains(&program.package.as_str()) {
            tally.run(program, Role::User, &[], filter)?;
        }
        if program.package == "stead-net" && AS_MAPPED_USER_TOO.contains(&program.name.as_str()) {
            tally.run(program, Role::User, &MAPPED, filter)?;
        }
    }
    if everything {
        tally.documentation()?;
        fuzz::add_to(&mut tally, &fuzz::Options::default())?;
    }
    Ok(tally.close())
}

/// Builds all tests, with the network if need be, and lists their programs.
fn build() -> Result<Vec<TestProgram>> {
    println!("building the tests");
    let arguments =
        ["test", "--workspace", "--features", GUEST, "--no-run", "--message-format=json-render-diagnostics"];
    let messages = output(cargo(&arguments).stderr(Stdio::inherit()))?;
    let mut programs: Vec<TestProgram> = messages.lines().filter_map(test_program).collect();
    programs.sort_by(|a, b| (&a.package, &a.name, &a.file).cmp(&(&b.package, &b.name, &b.file)));
    if programs.is_empty() {
        bail!("cargo built no tests");
    }
    Ok(programs)
}

fn test_program(line: &str) -> Option<TestProgram> {
    let message: Value = serde_json::from_str(line).ok()?;
    if !message.pointer("/profile/test")?.as_bool()? {
        return None;
    }
    let text = |pointer| message.pointer(pointer).and_then(Value::as_str);
    let directory = Path::new(text("/manifest_path")?).parent()?.to_path_buf();
    let kinds = message.pointer("/target/kind")?.as_array()?;
    Some(TestProgram {
        // `path+file:///…/crates/cli#stead@0.1.0`, or without a name if it is the directory's.
        package: package_name(text("/package_id")?)?.to_owned(),
        name: text("/target/name")?.to_owned(),
        is_integration: kinds.iter().any(|kind| kind == "test"),
        file: text("/executable")?.into(),
        directory,
    })
}

fn package_name(id: &str) -> Option<&str> {
    let (path, rest) = id.rsplit_once('#')?;
    match rest.split_once('@') {
        Some((name, _)) => Some(name),
        None => path.rsplit('/').next(),
    }
}

impl Tally {
    /// Makes what tests need and cannot get in namespaces of their own.
    fn prepare(&mut self, programs: &[TestProgram], options: &Options) -> Result<()> {
        let is_wanted = |word: &str| options.filter.as_ref().is_none_or(|filter| filter.contains(word));
        let scenes = programs.iter().find(|program| program.name == "scenes");
        // `…/target/debug/deps/scenes-…`
        let Some(built) = scenes.and_then(|scenes| scenes.file.ancestors().nth(2)) else { return Ok(()) };
        let target = built.parent().unwrap_or(built);
        if is_wanted("system") {
            let made = system::image(target, &built.join("stead"));
            self.system = self.made("the image of a system", made);
        }
        if is_wanted("vm") {
            self.disk = self.made("the image of a disk", disk::image(target));
        }
        Ok(())
    }

    fn made(&mut self, what: &str, made: Result<PathBuf>) -> Option<PathBuf> {
        if let Err(error) = &made {
            eprintln!("error: {error:#}");
            self.fail(what);
        }
        made.ok()
    }

    /// What another counted.
    pub(crate) fn add_all(&mut self, more: Self) {
        self.passed += more.passed;
        self.failed += more.failed;
        self.skipped += more.skipped;
        self.untested += more.untested;
        self.failures.extend(more.failures);
    }

    /// Says what failed, and the sums in the last line.
    pub(crate) fn close(&self) -> Outcome {
        println!();
        self.failures.iter().for_each(|failure| println!("FAILED {failure}"));
        println!("{}", self.sums());
        if self.failed == 0 { Outcome::Good } else { Outcome::Bad }
    }

    fn sums(&self) -> String {
        let passed = self.passed.saturating_sub(self.untested);
        format!("{passed} passed, {} failed, {} skipped", self.failed, self.skipped + self.untested)
    }

    fn fail(&mut self, what: &str) {
        self.failed += 1;
        self.failures.push(what.to_owned());
    }

    /// `by` are words before the program's own: what runs it.
    fn run(&mut self, program: &TestProgram, role: Role, by: &[&str], filter: Option<&str>) -> Result<()> {
        let kind = if program.is_integration { "tests" } else { "unit tests" };
        let title = format!("{kind} of {} ({}) as {}", program.package, program.name, role.name());
        let scratch = inside::scratch()?;
        let mut command = inside::command(role, scratch.path())?;
        command.args(by).arg(&program.file).args(filter).current_dir(&program.directory);
        if program.is_integration {
            // These wait for other programs half of their time.
            command.arg(format!("--test-threads={}", available_parallelism()?.get() + 1));
        }
        // Tests that rewrite what they expect find their source with it.
        command.env("CARGO_MANIFEST_DIR", &program.directory);
        let docker = Some(root().join(setup::DOCKER)).filter(|docker| docker.is_dir());
        for (name, file) in [
            ("STEAD_TEST_SYSTEM", &self.system),
            ("STEAD_TEST_DISK", &self.disk),
            ("STEAD_TEST_DOCKER", &docker),
        ] {
            command.envs(file.iter().map(|file| (name, file)));
        }
        self.watch(&title, &mut command, PROGRAM_LIMIT)?;
        Ok(())
    }

    fn documentation(&mut self) -> Result<()> {
        let scratch = inside::scratch()?;
        let mut command = inside::command(Role::Root, scratch.path())?;
        command.arg(cargo(&[]).get_program()).args(["test", "--workspace", "--doc", "--offline", "--quiet"]);
        self.watch("examples in the documentation", &mut command, PROGRAM_LIMIT)?;
        Ok(())
    }

    /// Runs a test program, shows what it says and adds up its results. False if anything was not as it should be.
    pub(crate) fn watch(&mut self, title: &str, command: &mut Command, limit: Duration) -> Result<bool> {
        println!("\n=== {title}");
        let start = Instant::now();
        let mut child =
            command.stdout(Stdio::piped()).spawn().with_context(|| format!("could not start {title}"))?;
        let lines = BufReader::new(child.stdout.take().context("no output to read")?).lines();
        let (sender, receiver) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| {
                // Nobody listens any more only if the limit was reached.
                let _ = sender.send(line);
            });
        });
        let failed_before = self.failed;
        loop {
            match receiver.recv_timeout(limit.saturating_sub(start.elapsed())) {
                Ok(line) => {
                    println!("{line}");
                    self.add(&line);
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    // It is the first stage; the rest dies with it.
                    child.kill()?;
                    self.fail(&format!("{title}: not done after {} s", limit.as_secs()));
                    break;
                }
            }
        }
        let status = child.wait()?;
        drop(receiver);
        if reader.join().is_err() {
            bail!("the reader of the output broke down");
        }
        if self.failed > failed_before {
            self.failures.push(format!("in {title}"));
        } else if status.code() == Some(i32::from(inside::LEFTOVERS)) {
            self.fail(&format!("{title}: something was left behind"));
        } else if !status.success() {
            self.fail(&format!("{title}: {status}"));
        }
        println!("took {:.1} s", start.elapsed().as_secs_f64());
        Ok(self.failed == failed_before)
    }

    /// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`, and
    /// `test tests::a_name ... FAILED`.
    fn add(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("test ").and_then(|line| line.strip_suffix(" ... FAILED")) {
            self.failures.push(format!("  {name}"));
        }
        // It is counted among those that passed.
        if line.contains("NOT TESTED HERE: ") {
            self.untested += 1;
        }
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let counts = result.split(['.', ';']).map(str::trim).filter_map(|part| part.split_once(' '));
        for (count, word) in counts {
            let count = count.parse().unwrap_or(0);
            match word {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.skipped += count,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_add_up() {
        let mut tally = Tally::default();
        tally.add(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        );
        tally.add("test result: FAILED. 2 passed; 4 failed; 0 ignored; 0 measured; 9 filtered out; finished in 1.10s");
        tally.add("NOT TESTED HERE: it takes root");
        tally.add("test x ... ok");
        tally.add("test y ... FAILED");
        assert_eq!((tally.passed, tally.failed, tally.skipped), (5, 4, 1));
        assert_eq!(tally.failures, ["  y"]);
        assert_eq!(tally.sums(), "4 passed, 4 failed, 2 skipped");
    }

    #[test]
    fn a_package_is_known_by_its_name_wherever_it_is() {
        assert_eq!(package_name("path+file:///x/crates/cli#stead@0.1.0"), Some("stead"));
        assert_eq!(package_name("path+file:///x/crates/xtask#0.1.0"), Some("xtask"));
    }

    #[test]
    fn a_word_is_the_filter_and_an_unknown_option_is_refused() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let options = Options::parse(&words("--no-check dhcp")).unwrap();
        assert_eq!(options, Options { check: false, filter: Some("dhcp".to_owned()) });
        assert!(Options::parse(&words("--quick")).is_err());
        assert!(Options::parse(&words("a b")).is_err());
    }
}
