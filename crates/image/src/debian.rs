//! Images built from Debian's packages, by `mmdebstrap`: for computers that reach a Debian mirror and no registry.
//!
//! `apt` verifies what comes from the mirror, by the keys of Debian that this computer has.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use sha2::{Digest as _, Sha256};
use stead_model::image::{Digest, Image, Platform};

use crate::catalogue::{Packages, Suite};
use crate::event::Event;
use crate::import::{Import, Layer, record_layer};
use crate::manifest::media;
use crate::obtain::Wanted;
use crate::store::{NewBlob, Store, digest_of, finish_digest};

/// How images are built.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DebianSettings {
    /// From where: `http://…/debian`. As this computer's own apt is told where absent.
    pub mirror: Option<String>,
    /// From where fixes of security come: `http://…/debian-security`. From nowhere where only a mirror is said.
    pub security: Option<String>,
    /// A file of keys by which that may be signed: in place of `/etc/apt/trusted.gpg`, beside `/etc/apt/trusted.gpg.d`.
    pub keyring: Option<PathBuf>,
    /// The program; found in `PATH` where absent.
    pub program: Option<PathBuf>,
    /// What starts it: a program and its first words; the program, `--` and its own words come after them.
    pub starter: Vec<OsString>,
}

/// A build says something every few seconds; mirrors may be slow.
const QUIET_LIMIT: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_millis(20);
/// Of what it says the end is shown when it fails. Below what `apt` finds wrong with a file there are a dozen lines of sums.
const LINES_KEPT: usize = 24;
/// A base system has some hundred megabytes.
const ARCHIVE_MAX_BYTES: u64 = 16 << 30;
/// Debian's own, where nobody says another one.
const MIRROR: &str = "http://deb.debian.org/debian";
const SECURITY: &str = "http://deb.debian.org/debian-security";
/// Packages of these releases have their security fixes elsewhere.
const WITHOUT_SECURITY: [&str; 4] = ["sid", "unstable", "testing", "experimental"];

impl Store {
    /// Builds an image of a release of Debian. If another process builds it at this moment, that one's is taken.
    pub fn build_debian(
        &self,
        packages: &Packages,
        wanted: &Wanted,
        settings: &DebianSettings,
        on: &(dyn Fn(Event) + Sync),
    ) -> Result<Image> {
        let Packages { suite, .. } = packages;
        let Wanted { name, platform, .. } = wanted;
        let adding = self.adding()?;
        let before = self.find(name, platform)?.map(|image| image.digest);
        // A list of packages may be longer than a file's name.
        let work = digest_of(format!("{packages} {}", platform.architecture).as_bytes());
        let _one = self.alone(&format!("debian-{}", work.short()))?;
        // Somebody may have built it while we waited for our turn.
        if let Some(image) = self.find(name, platform)?.filter(|image| Some(&image.digest) != before.as_ref())
        {
            return Ok(image);
        }
        settings.check()?;
        settings.keyring.as_deref().map_or(Ok(()), check_keyring)?;
        let sources = sources(settings, &read_apt(), suite);
        let program = settings.program.clone().unwrap_or_else(|| "mmdebstrap".into());
        let arguments = arguments(packages, &architecture(platform)?, settings.keyring.as_deref());
        let layer = run(self, command(&settings.starter, &program, &arguments), &sources, on)
            .with_context(|| format!("cannot build Debian {suite} from its packages"))?;
        let import = Import {
            name: name.clone(),
            platform: platform.clone(),
            command: vec!["bash".to_owned()],
            created_by: format!("mmdebstrap {}", arguments.join(" ")),
        };
        record_layer(self, &adding, layer, &import)
    }
}

/// The arguments of `mmdebstrap`; it reads from where on its standard input, and writes an archive. Pure.
fn arguments(packages: &Packages, architecture: &str, keyring: Option<&Path>) -> Vec<String> {
    // `minbase` and what people expect of a base image; caches and lists of packages are left out by default.
    let mut arguments = vec!["--variant=minbase".to_owned(), "--format=tar".to_owned()];
    // Nobody starts this system after a crash of the computer that builds it. The setting stays in the image, as in
    // Docker's of Debian.
    arguments.push("--dpkgopt=force-unsafe-io".to_owned());
    arguments.push(format!("--architectures={architecture}"));
    arguments.extend(keyring.map(|keyring| format!("--keyring={}", keyring.display())));
    let more: Vec<String> = packages.more.iter().map(ToString::to_string).collect();
    if !more.is_empty() {
        arguments.push(format!("--include={}", more.join(",")));
    }
    arguments.extend([packages.suite.to_string(), "-".to_owned(), "-".to_owned()]);
    arguments
}

/// Debian's word for a platform.
fn architecture(platform: &Platform) -> Result<String> {
    Ok(match (platform.architecture.as_str(), platform.variant.as_deref()) {
        ("amd64", _) => "amd64",
        ("386", _) => "i386",
        ("arm64", _) => "arm64",
        ("arm", Some("v5" | "v6")) => "armel",
        ("arm", _) => "armhf",
        ("ppc64le", _) => "ppc64el",
        ("riscv64", _) => "riscv64",
        ("s390x", _) => "s390x",
        _ => bail!("Debian has no packages for {platform}"),
    }
    .to_owned())
}

impl DebianSettings {
    /// Whether all that is said of mirrors is an address and nothing else.
    pub fn check(&self) -> Result<()> {
        let wrong = [&self.mirror, &self.security].into_iter().flatten().find(|place| !is_place(place));
        match (wrong, &self.keyring) {
            (Some(wrong), _) => bail!("`{}` is no mirror, such as `{MIRROR}`", wrong.escape_debug()),
            (None, Some(keyring)) if !keyring.is_absolute() => {
                bail!("`{}` does not say where the keyring is: the path begins with `/`", keyring.display())
            }
            (None, Some(_) | None) => Ok(()),
        }
    }
}

/// Whether keys can be read there. A directory would go in place of all that apt trusts; and of what it cannot read apt says no more
/// than that a key is missing.
fn check_keyring(path: &Path) -> Result<()> {
    let cannot = || {
        let path = path.display();
        format!(
            "cannot read the keyring `{path}`; hint: `keyring` under `debian` in images.json is a file of keys"
        )
    };
    if !std::fs::metadata(path).with_context(cannot)?.is_file() {
        return Err(anyhow!("it is no regular file")).with_context(cannot);
    }
    File::open(path).map(drop).with_context(cannot)
}

/// Whether a line of a list of sources may have this for an address.
fn is_place(text: &str) -> bool {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"[]#".contains(&byte));
    is_plain && ["http://", "https://", "file:/", "copy:/"].iter().any(|scheme| text.starts_with(scheme))
}

/// The texts of apt's lists of sources on this computer.
fn read_apt() -> Vec<String> {
    let mut paths = vec![PathBuf::from("/etc/apt/sources.list")];
    let more = std::fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
    let mut more: Vec<PathBuf> = more.map(|entry| entry.path()).collect();
    more.retain(|path| path.extension().is_some_and(|end| end == "list" || end == "sources"));
    more.sort();
    paths.extend(more);
    // What cannot be read does not count: then it is Debian's own mirror.
    paths.iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect()
}

/// Where packages of a release come from: where the user says, else this computer's own mirrors of Debian, else Debian's. Pure.
fn sources(settings: &DebianSettings, texts: &[String], suite: &Suite) -> Vec<String> {
    let places: Vec<String> = match &settings.mirror {
        Some(_) => Vec::new(),
        None => texts.iter().flat_map(|text| places(text)).collect(),
    };
    let is_security = |place: &&String| place.trim_end_matches('/').ends_with("debian-security");
    let is_debian = |place: &&String| place.trim_end_matches('/').ends_with("/debian");
    let main = settings.mirror.as_ref().or_else(|| places.iter().find(is_debian));
    let main = main.map_or(MIRROR, String::as_str);
    // A computer with a mirror of its own may reach nothing else.
    let default = if main == MIRROR { Some(SECURITY) } else { None };
    let security = settings.security.as_ref().or_else(|| places.iter().find(is_security));
    let security = security.map(String::as_str).or(default);
    let mut lines = vec![format!("deb {main} {suite} main")];
    if !WITHOUT_SECURITY.contains(&suite.to_string().as_str()) {
        lines.push(format!("deb {main} {suite}-updates main"));
        lines.extend(security.map(|security| format!("deb {security} {suite}-security main")));
    }
    lines
}

/// The addresses in a list of sources, in either of its forms.
fn places(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("deb") => found.extend(words.find(|word| word.contains(":/")).map(str::to_owned)),
            Some("URIs:") => found.extend(words.map(str::to_owned)),
            Some(_) | None => {}
        }
    }
    found.retain(|place| is_place(place));
    found
}

/// How the program is run.
fn command(starter: &[OsString], program: &Path, arguments: &[String]) -> Command {
    let Some((first, words)) = starter.split_first() else {
        let mut command = Command::new(program);
        command.args(arguments);
        return command;
    };
    let mut command = Command::new(first);
    command.args(words).arg(program).arg("--").args(arguments);
    command
}

const NOT_THERE: &str = "; hint: install the package `mmdebstrap`";

/// Runs it, and keeps what it writes as a layer.
fn run(
    store: &Store,
    mut command: Command,
    sources: &[String],
    on: &(dyn Fn(Event) + Sync),
) -> Result<Layer> {
    let program = command.get_program().to_owned();
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().with_context(
            || {
                let hint = if Path::new(&program).ends_with("mmdebstrap") { NOT_THERE } else { "" };
                format!("cannot run `{}`{hint}", program.display())
            },
        )?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) else {
        bail!("a process without its pipes")
    };
    // One that does not read them says why it fails.
    stdin.write_all(format!("{}\n", sources.join("\n")).as_bytes()).ok();
    drop(stdin);
    let heard = Mutex::new(Instant::now());
    let hear = || *heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    let said: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());
    let (layer, ended) = std::thread::scope(|scope| {
        scope.spawn(|| {
            // Its progress bars have no line ends for long.
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                hear();
                let line: String = line.chars().take(300).flat_map(char::escape_debug).collect();
                on(Event::Building { line: line.clone() });
                let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                said.push_back(line);
                if said.len() > LINES_KEPT {
                    said.pop_front();
                }
            }
        });
        let layer = scope.spawn(|| keep(store, stdout, &hear));
        let ended = wait(&mut child, &heard);
        let layer = layer.join().unwrap_or_else(|_| Err(anyhow!("a thread of ours stopped, which is a bug")));
        (layer, ended)
    });
    let said: Vec<String> = said.into_inner().unwrap_or_else(PoisonError::into_inner).into();
    let (blob, diff_id) = layer?;
    if !ended? {
        bail!("`mmdebstrap` failed: {}{}", said.join("\n"), hint(&said));
    }
    Ok(Layer { blob, media_type: media::LAYER_GZIP, diff_id })
}

/// What can be done about what it said. Pure.
fn hint(said: &[String]) -> &'static str {
    let says = |words: &[&str]| said.iter().any(|line| words.iter().any(|word| line.contains(word)));
    if says(&["error: cannot start `"]) {
        NOT_THERE
    } else if says(&["chroot mode"]) {
        "; hint: without root this takes sub-ids, see `stead doctor`"
    } else if says(&["is not signed", "NO_PUBKEY", "BADSIG", "EXPKEYSIG"]) {
        "; hint: the mirror is not signed by a key that this computer trusts: use another one, or say its `keyring` under `debian` in images.json"
    } else if says(&["Hash Sum mismatch", "unexpected size"]) {
        "; hint: the mirror serves something else than was signed: use another one, or try later if it is being updated"
    } else {
        ""
    }
}

/// Keeps an archive, compressed.
fn keep(store: &Store, archive: ChildStdout, hear: &(dyn Fn() + Sync)) -> Result<(NewBlob, Digest)> {
    let mut hash = Sha256::new();
    let mut encoder = flate2::write::GzEncoder::new(store.new_blob()?, flate2::Compression::fast());
    let mut archive = archive.take(ARCHIVE_MAX_BYTES);
    let mut buffer = vec![0; 128 << 10];
    loop {
        let read = archive.read(&mut buffer).context("cannot read what it writes")?;
        hear();
        let bytes = buffer.get(..read).unwrap_or_default();
        if bytes.is_empty() {
            break;
        }
        hash.update(bytes);
        encoder.write_all(bytes).context("cannot write a blob")?;
    }
    if archive.limit() == 0 {
        bail!("it is larger than {ARCHIVE_MAX_BYTES} bytes");
    }
    Ok((encoder.finish().context("cannot write a blob")?, finish_digest(hash)))
}

/// Whether it succeeded.
fn wait(child: &mut Child, heard: &Mutex<Instant>) -> Result<bool> {
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for it")? {
            return Ok(status.success());
        }
        if heard.lock().unwrap_or_else(PoisonError::into_inner).elapsed() > QUIET_LIMIT {
            child.kill().context("cannot stop it")?;
            child.wait().context("cannot wait for it")?;
            bail!("it said nothing for {} seconds", QUIET_LIMIT.as_secs());
        }
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(texts: &[&str], suite: &str, expected: &[&str]) {
        check_with(&DebianSettings::default(), texts, suite, expected);
    }

    #[track_caller]
    fn check_with(settings: &DebianSettings, texts: &[&str], suite: &str, expected: &[&str]) {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        assert_eq!(sources(settings, &texts, &suite.parse().unwrap()), expected);
    }

    #[test]
    fn the_user_goes_before_this_computers_apt() {
        let apt = ["deb http://m.example/debian x main\ndeb http://m.example/debian-security x main\n"];
        let mirror = Some("http://lab.example/any/path".to_owned());
        let mut settings = DebianSettings { mirror, ..DebianSettings::default() };
        let [main, updates] = ["bookworm", "bookworm-updates"]
            .map(|suite| format!("deb http://lab.example/any/path {suite} main"));
        check_with(&settings, &apt, "bookworm", &[&main, &updates]);
        settings.security = Some("http://lab.example/security".to_owned());
        let security = "deb http://lab.example/security bookworm-security main";
        check_with(&settings, &apt, "bookworm", &[&main, &updates, security]);
        check_with(&settings, &apt, "sid", &["deb http://lab.example/any/path sid main"]);
        let keyring = Some(Path::new("/etc/lab.gpg"));
        let packages = Packages { suite: "sid".parse().unwrap(), more: Vec::new() };
        assert!(arguments(&packages, "amd64", keyring).contains(&"--keyring=/etc/lab.gpg".to_owned()));
    }

    #[test]
    fn this_computers_mirrors_are_asked() {
        let deb822 = "Types: deb\n# URIs: http://old.example/debian\nURIs: http://m.example/debian\nSuites: bookworm\n\nTypes: deb\nURIs: http://m.example/debian-security/\n";
        check(
            &[deb822],
            "bookworm",
            &[
                "deb http://m.example/debian bookworm main",
                "deb http://m.example/debian bookworm-updates main",
                "deb http://m.example/debian-security/ bookworm-security main",
            ],
        );
        check(&[deb822], "sid", &["deb http://m.example/debian sid main"]);
        let lines = "deb-src http://src.example/debian x main\n#deb http://no.example/debian x\ndeb [arch=amd64 signed-by=/x] https://m.example/debian/ trixie main\ndeb http://other.example/apt x main\n";
        check(
            &[lines],
            "trixie",
            &[
                "deb https://m.example/debian/ trixie main",
                "deb https://m.example/debian/ trixie-updates main",
            ],
        );
    }

    #[test]
    fn other_computers_ask_debian() {
        for texts in [&[][..], &["deb http://archive.example/ubuntu noble main\n"]] {
            check(
                texts,
                "bookworm",
                &[
                    "deb http://deb.debian.org/debian bookworm main",
                    "deb http://deb.debian.org/debian bookworm-updates main",
                    "deb http://deb.debian.org/debian-security bookworm-security main",
                ],
            );
        }
    }

    #[test]
    fn a_mirror_is_an_address_and_nothing_else() {
        let check = |text: &str| {
            let place = Some(text.to_owned());
            DebianSettings { mirror: place.clone(), ..DebianSettings::default() }.check()?;
            DebianSettings { security: place, ..DebianSettings::default() }.check()
        };
        check("file:/srv/debian").unwrap();
        for text in
            ["", "debian", "http://a b", "http://a\ndeb x", "http://a#b", "[trusted=yes] http://a/debian"]
        {
            check(text).unwrap_err();
        }
        let keyring =
            |path: &str| DebianSettings { keyring: Some(path.into()), ..DebianSettings::default() }.check();
        keyring("/etc/lab.gpg").unwrap();
        keyring("lab.gpg").unwrap_err();
    }

    #[test]
    fn a_keyring_is_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link, gone) =
            (dir.path().join("lab.gpg"), dir.path().join("link.gpg"), dir.path().join("gone"));
        std::fs::write(&file, "keys").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        check_keyring(&file).unwrap();
        check_keyring(&link).unwrap();
        for (path, why) in [
            (dir.path(), "it is no regular file"),
            (Path::new("/dev/null"), "it is no regular file"),
            (&gone, "No such file"),
            (&file.join("below"), "Not a directory"),
        ] {
            let told = format!("{:#}", check_keyring(path).unwrap_err());
            assert!(told.contains(why) && told.contains(&path.display().to_string()), "{told}");
        }
    }

    #[test]
    fn platforms_have_debians_words() {
        for (platform, expected) in
            [("amd64", "amd64"), ("arm64/v8", "arm64"), ("arm/v7", "armhf"), ("386", "i386")]
        {
            assert_eq!(architecture(&platform.parse().unwrap()).unwrap(), expected);
        }
        architecture(&"mips64".parse().unwrap()).unwrap_err();
    }

    #[test]
    fn what_is_missing_is_named_by_whoever_was_to_start_it() {
        let said = ["error: cannot start `mmdebstrap`", "cause: No such file or directory"];
        assert_eq!(hint(&said.map(str::to_owned)), NOT_THERE);
        assert_eq!(hint(&["E: something else".to_owned()]), "");
    }
}
