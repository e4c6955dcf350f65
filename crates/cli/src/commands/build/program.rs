//! The programs that build images, and what they are called with. Pure but for the look at which of them is here.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use stead_image::digest_of;
use stead_model::file::Build;
use stead_model::image::Platform;

use super::bases::Base;
use crate::failure::Failure;

/// A program that builds images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Builder {
    /// buildah, which needs nobody else.
    Buildah(PathBuf),
    /// BuildKit's client, with the daemon that it asks.
    Buildctl(PathBuf, Daemon),
}

/// A daemon of BuildKit's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Daemon {
    /// The one that `BUILDKIT_HOST` names, which buildctl reads itself.
    Named,
    /// The one that answers at this socket. buildctl alone would look for the computer's only.
    At(PathBuf),
}

/// What of the computer says who can build.
#[derive(Clone, Debug, Default)]
pub(super) struct Here {
    pub(super) buildah: Option<PathBuf>,
    pub(super) buildctl: Option<PathBuf>,
    pub(super) daemon: Option<Daemon>,
}

impl Here {
    pub(super) fn observe() -> Self {
        let directories: Vec<PathBuf> =
            std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
        let find =
            |name: &str| directories.iter().map(|directory| directory.join(name)).find(|path| path.is_file());
        let is_named = std::env::var_os("BUILDKIT_HOST").is_some_and(|host| !host.is_empty());
        let daemon = if is_named { Some(Daemon::Named) } else { listening().map(Daemon::At) };
        Self { buildah: find("buildah"), buildctl: find("buildctl"), daemon }
    }

    /// Who builds: BuildKit where it runs already, else buildah.
    pub(super) fn builder(&self) -> Result<Builder, Failure> {
        match (&self.buildctl, &self.daemon, &self.buildah) {
            (Some(buildctl), Some(daemon), _) => Ok(Builder::Buildctl(buildctl.clone(), daemon.clone())),
            (_, _, Some(buildah)) => Ok(Builder::Buildah(buildah.clone())),
            (Some(_), None, None) => Err(Failure::request(
                "images are built by BuildKit or buildah: `buildctl` is here, but no `buildkitd` answers you",
                "start `buildkitd`, name one that you may ask in `BUILDKIT_HOST`, or install buildah",
            )),
            (None, _, None) => Err(Failure::request(
                "images are built by BuildKit or buildah, and neither is here",
                "install buildah (Debian: `apt install buildah`), or BuildKit",
            )),
        }
    }
}

/// The socket at which a daemon answers this user: the user's own, or the computer's. One that ended leaves its socket.
fn listening() -> Option<PathBuf> {
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|run| run.is_absolute());
    let mut sockets =
        own.into_iter().chain([PathBuf::from("/run")]).map(|run| run.join("buildkit/buildkitd.sock"));
    sockets.find(|socket| UnixStream::connect(socket).is_ok())
}

/// One build, with every choice made.
#[derive(Clone, Debug)]
pub(super) struct Job<'a> {
    pub(super) build: &'a Build,
    pub(super) platform: Option<&'a Platform>,
    /// The file of instructions.
    pub(super) dockerfile: &'a Path,
    /// Where the archive is to be written, and the builder's own notes.
    pub(super) scratch: &'a Path,
    /// Whether it tells what it does.
    pub(super) tells: bool,
}

/// Where buildah keeps what it knows of earlier builds.
#[derive(Clone, Debug)]
pub(super) struct Storage {
    pub(super) root: PathBuf,
    pub(super) run: PathBuf,
    /// Where its usual way of storing cannot work.
    pub(super) driver: Option<&'static str>,
    /// What it takes of images that it starts from, where the computer does not say.
    pub(super) policy: Option<PathBuf>,
}

/// The archive's name in the build's own directory, which builders are started in: where commas and colons part words, as
/// here, a whole path could have some of its own.
const ARCHIVE: &str = "image.tar";

impl Job<'_> {
    /// The archive that it makes.
    pub(super) fn archive(&self) -> PathBuf {
        self.scratch.join(ARCHIVE)
    }

    /// Where buildah writes which image it made.
    pub(super) fn id_file(&self) -> PathBuf {
        self.scratch.join("id")
    }
}

/// The arguments of `buildah` for building.
pub(super) fn buildah_build(job: &Job<'_>, storage: &Storage) -> Vec<OsString> {
    let mut words = buildah_common(storage);
    // Docker's form of a configuration has the health check; OCI's has not. In `chroot` no program but buildah is needed,
    // and nothing of this computer's network is changed.
    words.extend(["build", "--format", "docker", "--isolation", "chroot", "--layers"].map(OsString::from));
    words.extend(policy(storage));
    words.extend(["--iidfile".into(), job.id_file().into(), "--file".into(), job.dockerfile.into()]);
    if !job.tells {
        words.push("--quiet".into());
    }
    let Build { context, args, target, labels, secrets, no_cache, pull, .. } = job.build;
    for (name, value) in args {
        words.extend(["--build-arg".into(), format!("{name}={value}").into()]);
    }
    for (name, value) in labels {
        words.extend(["--label".into(), format!("{name}={value}").into()]);
    }
    for (name, path) in secrets {
        words.extend(["--secret".into(), secret(name, path)]);
    }
    if let Some(target) = target {
        words.extend(["--target".into(), target.into()]);
    }
    if let Some(platform) = job.platform {
        words.extend(["--platform".into(), platform.to_string().into()]);
    }
    if *no_cache {
        words.push("--no-cache".into());
    }
    if *pull {
        words.push("--pull-always".into());
    }
    words.push(context.into());
    words
}

/// The arguments of `buildah` for the archive of an image.
pub(super) fn buildah_push(storage: &Storage, id: &str) -> Vec<OsString> {
    let mut words = buildah_common(storage);
    words.extend(["push".into(), "--quiet".into()]);
    words.extend(policy(storage));
    words.extend([id.into(), format!("docker-archive:{ARCHIVE}").into()]);
    words
}

/// The arguments of `buildah` for taking an image that a build may start from, in the build's own directory.
pub(super) fn buildah_take(base: &Base, storage: &Storage) -> Vec<OsString> {
    let mut words = buildah_common(storage);
    words.extend(["pull".into(), "--quiet".into()]);
    words.extend(policy(storage));
    words.push(format!("oci:{}", base.layout).into());
    words
}

/// The arguments of `buildah` for calling it what it is called.
pub(super) fn buildah_call(base: &Base, storage: &Storage, id: &str) -> Vec<OsString> {
    let mut words = buildah_common(storage);
    words.extend(["tag".into(), id.into()]);
    words.extend(base.names.iter().map(OsString::from));
    words
}

/// The arguments of `buildah` for saying which images it has, and how they are called.
pub(super) fn buildah_images(storage: &Storage) -> Vec<OsString> {
    let mut words = buildah_common(storage);
    words.extend(["images", "--json"].map(OsString::from));
    words
}

/// Whether a name is among those that it said.
pub(super) fn is_called(images: &str, name: &str) -> Result<bool> {
    #[derive(Deserialize)]
    struct Called {
        names: Option<Vec<String>>,
    }
    let images: Vec<Called> =
        serde_json::from_str(images).context("buildah says something else than its images")?;
    Ok(images.into_iter().filter_map(|image| image.names).flatten().any(|called| called == name))
}

/// The arguments of `buildah` for taking a name from an image, which stays under one that nobody looks up: what was built
/// on it may still use it, and without any name it would be deleted.
pub(super) fn buildah_uncall(name: &str, storage: &Storage) -> [Vec<OsString>; 2] {
    let former = format!("stead.invalid/former:{}", digest_of(name.as_bytes()).hex());
    let words = |more: &[&str]| {
        let mut words = buildah_common(storage);
        words.extend(more.iter().map(OsString::from));
        words
    };
    [words(&["tag", name, &former]), words(&["rmi", name])]
}

fn buildah_common(storage: &Storage) -> Vec<OsString> {
    let mut words = vec!["--root".into(), storage.root.clone().into(), "--runroot".into()];
    words.push(storage.run.clone().into());
    if let Some(driver) = storage.driver {
        words.extend(["--storage-driver".into(), driver.into()]);
    }
    words
}

fn policy(storage: &Storage) -> Vec<OsString> {
    let words =
        storage.policy.as_ref().map(|policy| vec!["--signature-policy".into(), policy.clone().into()]);
    words.unwrap_or_default()
}

fn secret(name: &str, path: &Path) -> OsString {
    let mut word = OsString::from(format!("id={name},src="));
    word.push(path);
    word
}

/// The arguments of `buildctl`, started in the build's own directory.
pub(super) fn buildctl(job: &Job<'_>, daemon: &Daemon, platform: &Platform, bases: &[Base]) -> Vec<OsString> {
    let mut words = Vec::new();
    let option = |words: &mut Vec<OsString>, option: &str, name: &str, value: &OsStr| {
        let mut word = OsString::from(format!("{name}="));
        word.push(value);
        words.extend([option.into(), word]);
    };
    if let Daemon::At(socket) = daemon {
        let mut address = OsString::from("unix://");
        address.push(socket);
        words.extend(["--addr".into(), address]);
    }
    words.extend(["build", "--frontend", "dockerfile.v0", "--progress"].map(OsString::from));
    words.push(if job.tells { "plain" } else { "quiet" }.into());
    let Build { context, args, target, labels, secrets, no_cache, pull, .. } = job.build;
    let directory = job.dockerfile.parent().unwrap_or(Path::new("/"));
    option(&mut words, "--local", "context", context.as_os_str());
    option(&mut words, "--local", "dockerfile", directory.as_os_str());
    option(&mut words, "--opt", "filename", job.dockerfile.file_name().unwrap_or_default());
    for (name, value) in args {
        option(&mut words, "--opt", &format!("build-arg:{name}"), value.as_ref());
    }
    for (name, value) in labels {
        option(&mut words, "--opt", &format!("label:{name}"), value.as_ref());
    }
    if let Some(target) = target {
        option(&mut words, "--opt", "target", target.as_ref());
    }
    // Said in any case: the daemon may be on a computer of another kind.
    option(&mut words, "--opt", "platform", platform.to_string().as_ref());
    if *pull {
        option(&mut words, "--opt", "image-resolve-mode", "pull".as_ref());
    }
    for Base { layout, digest, names } in bases {
        option(&mut words, "--oci-layout", layout, layout.as_ref());
        for name in names {
            let place = format!("oci-layout://{layout}@{}", digest.as_str());
            option(&mut words, "--opt", &format!("context:{name}"), place.as_ref());
        }
    }
    for (name, path) in secrets {
        words.extend(["--secret".into(), secret(name, path)]);
    }
    if *no_cache {
        words.push("--no-cache".into());
    }
    words.extend(["--output".into(), format!("type=docker,dest={ARCHIVE}").into()]);
    words
}

/// What buildah is to know of registries: those without TLS, and where short names are.
pub(super) fn registries(mirrors: &[(String, Vec<String>)], plain: &BTreeSet<String>) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut text =
        "unqualified-search-registries = [\"docker.io\"]\nshort-name-mode = \"permissive\"\n".to_owned();
    let own = ["127.0.0.1", "localhost", "[::1]"].map(str::to_owned);
    for registry in own.iter().chain(plain) {
        text += &format!("\n[[registry]]\nlocation = {}\ninsecure = true\n", quoted(registry));
    }
    for (registry, mirrors) in mirrors {
        text += &format!("\n[[registry]]\nlocation = {}\n", quoted(registry));
        for mirror in mirrors {
            text += &format!("\n[[registry.mirror]]\nlocation = {}\n", quoted(mirror));
            if plain.contains(mirror) {
                text += "insecure = true\n";
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    use stead_model::file::Dockerfile;
    use stead_model::image::Digest;

    fn build() -> Build {
        Build {
            context: "/srv/web".into(),
            dockerfile: Dockerfile::File("/srv/web/Dockerfile".into()),
            args: [("VERSION".to_owned(), "1 2".to_owned())].into(),
            target: Some("small".to_owned()),
            labels: [("team".to_owned(), "shop".to_owned())].into(),
            tags: Vec::new(),
            secrets: [("key".to_owned(), "/srv/key.txt".into())].into(),
            no_cache: true,
            pull: true,
        }
    }

    #[track_caller]
    fn check(words: &[OsString], expected: &str) {
        let words: Vec<&str> = words.iter().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(words.join("|"), expected);
    }

    #[test]
    fn builders_are_told_all_that_the_file_says() {
        let (build, platform) = (build(), "linux/arm64".parse().unwrap());
        let job = Job {
            build: &build,
            platform: Some(&platform),
            dockerfile: Path::new("/srv/web/Dockerfile"),
            scratch: Path::new("/run/s"),
            tells: true,
        };
        let storage = Storage {
            root: "/var/b".into(),
            run: "/run/b".into(),
            driver: Some("vfs"),
            policy: Some("/run/s/policy.json".into()),
        };
        check(
            &buildah_build(&job, &storage),
            "--root|/var/b|--runroot|/run/b|--storage-driver|vfs|build|--format|docker|--isolation|chroot|--layers|\
             --signature-policy|/run/s/policy.json|--iidfile|/run/s/id|--file|/srv/web/Dockerfile|\
             --build-arg|VERSION=1 2|--label|team=shop|--secret|id=key,src=/srv/key.txt|--target|small|\
             --platform|linux/arm64|--no-cache|--pull-always|/srv/web",
        );
        let digest: Digest = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
        let names = vec!["localhost/a:1".into(), "b/a:1".into()];
        let base = Base { layout: "base-0".to_owned(), digest, names };
        check(
            &buildah_take(&base, &storage),
            "--root|/var/b|--runroot|/run/b|--storage-driver|vfs|pull|--quiet|--signature-policy|/run/s/policy.json|\
             oci:base-0",
        );
        check(
            &buildah_call(&base, &storage, "0123abcd"),
            "--root|/var/b|--runroot|/run/b|--storage-driver|vfs|tag|0123abcd|localhost/a:1|b/a:1",
        );
        check(
            &buildah_push(&Storage { driver: None, policy: None, ..storage }, "sha256:1"),
            "--root|/var/b|--runroot|/run/b|push|--quiet|sha256:1|docker-archive:image.tar",
        );
        check(
            &buildctl(&job, &Daemon::At("/run/b.sock".into()), &platform, &[]),
            "--addr|unix:///run/b.sock|build|--frontend|dockerfile.v0|--progress|plain|--local|context=/srv/web|\
             --local|dockerfile=/srv/web|--opt|filename=Dockerfile|--opt|build-arg:VERSION=1 2|--opt|label:team=shop|\
             --opt|target=small|--opt|platform=linux/arm64|--opt|image-resolve-mode=pull|\
             --secret|id=key,src=/srv/key.txt|--no-cache|--output|type=docker,dest=image.tar",
        );
        let small = Build {
            args: [].into(),
            labels: [].into(),
            secrets: [].into(),
            target: None,
            no_cache: false,
            pull: false,
            ..build.clone()
        };
        check(
            &buildctl(
                &Job { build: &small, tells: false, ..job },
                &Daemon::Named,
                &platform,
                &[Base { names: vec!["a:1".into()], ..base }],
            ),
            &format!(
                "build|--frontend|dockerfile.v0|--progress|quiet|--local|context=/srv/web|--local|dockerfile=/srv/web|\
             --opt|filename=Dockerfile|--opt|platform=linux/arm64|--oci-layout|base-0=base-0|\
             --opt|context:a:1=oci-layout://base-0@sha256:{}|--output|type=docker,dest=image.tar",
                "0".repeat(64)
            ),
        );
    }

    #[test]
    fn buildkit_builds_where_it_runs_else_buildah_else_nobody() {
        let (buildah, buildctl) = (Some(PathBuf::from("/b/buildah")), Some(PathBuf::from("/b/buildctl")));
        let here = |buildah: &Option<PathBuf>, buildctl: &Option<PathBuf>, daemon: Option<Daemon>| {
            let (buildah, buildctl) = (buildah.clone(), buildctl.clone());
            Here { buildah, buildctl, daemon }.builder().map_err(|failure| failure.text())
        };
        let none = None;
        let daemon = Daemon::At("/run/b.sock".into());
        let asked = Builder::Buildctl("/b/buildctl".into(), daemon.clone());
        assert_eq!(here(&buildah, &buildctl, Some(daemon)), Ok(asked));
        assert_eq!(here(&buildah, &buildctl, None), Ok(Builder::Buildah("/b/buildah".into())));
        assert!(here(&none, &buildctl, None).unwrap_err().contains("no `buildkitd`"));
        assert!(here(&none, &none, Some(Daemon::Named)).unwrap_err().contains("apt install buildah"));
    }

    #[test]
    fn an_image_that_loses_a_name_keeps_another() {
        let storage = Storage { root: "/var/b".into(), run: "/run/b".into(), driver: None, policy: None };
        let [keep, take] = buildah_uncall("b/a:1", &storage);
        let former = format!("stead.invalid/former:{}", digest_of(b"b/a:1").hex());
        check(&keep, &format!("--root|/var/b|--runroot|/run/b|tag|b/a:1|{former}"));
        check(&take, "--root|/var/b|--runroot|/run/b|rmi|b/a:1");
    }

    #[test]
    fn a_name_is_seen_among_images() {
        let images = r#"[{"id": "1", "names": ["localhost/a:1", "b/a:1"], "size": "4 KB"}, {"names": null}]"#;
        assert!(is_called(images, "b/a:1").unwrap());
        assert!(!is_called(images, "a:1").unwrap());
        assert!(!is_called("[]\n", "a:1").unwrap());
        assert!(is_called("no images", "a:1").is_err());
    }

    #[test]
    fn registries_without_tls_and_mirrors_are_passed_on() {
        let mirrors = [("docker.io".to_owned(), vec!["mirror.lab:5000".to_owned()])];
        let text = registries(&mirrors, &["mirror.lab:5000".to_owned()].into());
        assert!(text.contains("location = \"127.0.0.1\"\ninsecure = true\n"), "{text}");
        assert!(text.ends_with(
            "[[registry]]\nlocation = \"docker.io\"\n\n[[registry.mirror]]\nlocation = \"mirror.lab:5000\"\ninsecure = true\n"
        ), "{text}");
    }
}
