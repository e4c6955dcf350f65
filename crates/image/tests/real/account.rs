//! Who we are: challenges, tokens, files, helpers, and where secrets must not go.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use stead_image::registry::{AuthFiles, Kept, Pull, Secret};
use stead_image::{Client, Store};

use crate::support::*;

/// `hunter2` as Apache keeps it.
const HTPASSWD: &str = "me:$2y$05$abcdefghijklmnopqrstuuoXuKqgZXLiJqzfmMXDDhSFPIvxV7t8.\n";

fn files(dir: &Path) -> AuthFiles {
    let file = dir.join("config.json");
    AuthFiles { read: vec![file.clone()], write: vec![file], helpers: Some(dir.join("bin").into()) }
}

fn client_in(dir: &Path) -> Client {
    client(|settings| {
        settings.auth = files(dir);
        // The tokens of these tests end after some questions, for all who ask.
        settings.parallel = 1;
    })
}

fn pull(dir: &Path, source: &str) -> anyhow::Result<()> {
    let store = Store::open(&dir.join("store"))?;
    let pull = Pull {
        source: source.parse().unwrap(),
        name: "web:1".parse().unwrap(),
        platform: "linux/amd64".parse().unwrap(),
    };
    store.pull(&client_in(dir), &pull, &silent).map(drop)
}

fn image() -> (Layout, serde_json::Value) {
    let mut layout = Layout::default();
    let entry = layout.image("amd64", &[(tar("a", b"one"), "gzip")]);
    (layout, entry)
}

#[test]
fn a_registry_with_passwords_is_used_after_a_login() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("htpasswd"), HTPASSWD).unwrap();
    let path = dir.path().join("htpasswd");
    let registry = Registry::start(&format!("auth: {{htpasswd: {{realm: x, path: {}}}}}\n", path.display()));
    let at = &registry.at;
    let (layout, entry) = image();
    layout.write(&dir.path().join("oci"), &entry);
    let from = format!("oci:{}:latest", dir.path().join("oci").display());
    let to = format!("docker://{at}/lab/web:1");
    run("skopeo", &["copy", "-q", "--dest-tls-verify=false", "--dest-creds=me:hunter2", &from, &to]);

    let source = format!("{at}/lab/web:1");
    let error = format!("{:#}", pull(dir.path(), &source).unwrap_err());
    assert!(error.contains(&format!("`stead login {at}`")), "{error}");
    let client = client_in(dir.path());
    let error = client.login(at, "me", &Secret("wrong".into())).unwrap_err();
    assert!(format!("{error:#}").contains("does not take"), "{error:#}");
    assert!(!dir.path().join("config.json").exists(), "what is wrong is not kept");
    let kept = client.login(at, "me", &Secret("hunter2".into())).unwrap();
    let file = dir.path().join("config.json");
    assert_eq!(kept, Kept::File(file.clone()));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    pull(dir.path(), &source).unwrap();
    // Skopeo reads the same file.
    let authfile = format!("--authfile={}", file.display());
    run("skopeo", &["inspect", "--tls-verify=false", &authfile, &to]);
    assert!(client.logout(at).unwrap());
    assert!(!client.logout(at).unwrap());
    assert!(!fs::read_to_string(&file).unwrap().contains(at.as_str()));
    pull(dir.path(), &source).unwrap_err();
}

#[test]
fn other_parts_of_a_file_stay_and_a_link_stays_one() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(|_| Reply::new(200, "{}"));
    fs::write(
        dir.path().join("real.json"),
        r#"{"auths":{"other.example":{"auth":"eDp5"}},"HttpHeaders":{"A":"b"}}"#,
    )
    .unwrap();
    std::os::unix::fs::symlink("real.json", dir.path().join("config.json")).unwrap();
    client_in(dir.path()).login(&server.at, "me", &Secret("x".into())).unwrap();
    assert!(dir.path().join("config.json").is_symlink());
    let text = fs::read_to_string(dir.path().join("real.json")).unwrap();
    for part in ["other.example", "eDp5", "HttpHeaders", &server.at] {
        assert!(text.contains(part), "{text}");
    }
}

/// A helper that keeps one secret in a file, and writes down how it was called.
fn helper(dir: &Path, name: &str) {
    let bin = dir.join("bin");
    fs::create_dir_all(&bin).unwrap();
    let kept = dir.join("kept").display().to_string();
    let calls = dir.join("calls").display().to_string();
    let script = format!(
        "#!/bin/sh\necho \"$0 $*\" >> {calls}\ncase $1 in\nget) read key || true; [ -s {kept} ] && grep -q \"$key\" {kept} || {{ echo 'credentials not found in native keychain'; exit 1; }}; cat {kept};;\nstore) cat > {kept};;\nerase) : > {kept};;\nlist) echo '{{}}';;\nesac\n"
    );
    let path = bin.join(format!("docker-credential-{name}"));
    executable(&path, script.as_bytes());
}

/// A server that wants `me:hunter2`.
fn guarded() -> Server {
    let (layout, entry) = image();
    let holds = hold(&layout, "x", &entry);
    Server::start(move |asked| {
        // base64 of `me:hunter2`
        if asked.headers.get("authorization").map(String::as_str) == Some("Basic bWU6aHVudGVyMg==") {
            return holds(asked);
        }
        Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\"")
    })
}

#[test]
fn helpers_keep_secrets_where_there_are_any() {
    for (config, name) in [("", "pass"), (r#"{"credsStore":"own"}"#, "own")] {
        let dir = tempfile::tempdir().unwrap();
        let server = guarded();
        helper(dir.path(), name);
        fs::write(dir.path().join("config.json"), config).unwrap();
        let client = client_in(dir.path());
        let kept = client.login(&server.at, "me", &Secret("hunter2".into())).unwrap();
        assert_eq!(kept, Kept::Helper(name.into()));
        pull(dir.path(), &format!("{}/x", server.at)).unwrap();
        let text = fs::read_to_string(dir.path().join("config.json")).unwrap();
        assert!(!text.contains("hunter2") && !text.contains("bWU6"), "{text}");
        let calls = fs::read_to_string(dir.path().join("calls")).unwrap();
        assert!(!calls.contains("hunter2") && calls.contains(" store\n"), "{calls}");
        assert!(client.logout(&server.at).unwrap());
        assert_eq!(fs::read_to_string(dir.path().join("kept")).unwrap(), "");
        assert!(!client.logout(&server.at).unwrap());
    }
}

#[test]
fn a_helper_that_is_missing_keeps_nobody_from_what_is_free() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), r#"{"credsStore":"desktop"}"#).unwrap();
    let (layout, entry) = image();
    let holds = hold(&layout, "x", &entry);
    let server = Server::start(move |asked| match asked.headers.get("authorization").map(String::as_str) {
        Some("Bearer free") => holds(asked),
        _ if asked.path.starts_with("/token") => Reply::new(200, r#"{"token":"free"}"#),
        _ => Reply::new(401, "").header("WWW-Authenticate", "Bearer realm=\"/token\""),
    });
    pull(dir.path(), &format!("{}/x", server.at)).unwrap();
}

/// A server of tokens and images in which tokens end after some questions.
fn tokens(answer_token: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Server {
    let mut layout = Layout::default();
    let layers: Vec<_> = (0..6).map(|at| (tar("a", &[at]), "gzip")).collect();
    let entry = layout.image("amd64", &layers);
    let holds = hold(&layout, "lab/x", &entry);
    let state = Arc::new(std::sync::Mutex::new((0, 0)));
    Server::start(move |asked| {
        let mut state = state.lock().unwrap();
        if asked.path.starts_with("/token") {
            *state = (state.0 + 1, 3);
            let mut reply = answer_token(asked);
            let token = format!("token-{}", state.0);
            reply.body = String::from_utf8(reply.body).unwrap().replace("TOKEN", &token).into();
            return reply;
        }
        let good = format!("Bearer token-{}", state.0);
        if asked.headers.get("authorization") == Some(&good) && state.1 > 0 {
            state.1 -= 1;
            return holds(asked);
        }
        let challenge = "Bearer realm=\"/token?a=b\",service=\"s\",scope=\"repository:lab/x:pull\"";
        Reply::new(401, "").header("WWW-Authenticate", challenge)
    })
}

#[test]
fn tokens_are_had_anew_when_they_end() {
    let dir = tempfile::tempdir().unwrap();
    let server = tokens(|_| Reply::new(200, r#"{"access_token":"TOKEN","expires_in":1}"#));
    pull(dir.path(), &format!("{}/lab/x", server.at)).unwrap();
    let asked: Vec<String> = server.lines().into_iter().filter(|line| line.contains("token")).collect();
    assert!(asked.len() >= 2, "{asked:?}");
    assert!(
        asked.iter().all(|line| line == "GET /token?a=b&scope=repository%3Alab%2Fx%3Apull&service=s"),
        "{asked:?}"
    );
}

#[test]
fn a_token_is_had_for_a_password_or_for_a_token() {
    let dir = tempfile::tempdir().unwrap();
    let server = tokens(|asked| match asked.headers.get("authorization").map(String::as_str) {
        Some("Basic bWU6aHVudGVyMg==") if asked.path.contains("account=me&") => {
            Reply::new(200, r#"{"token":"TOKEN"}"#)
        }
        _ => Reply::new(401, r#"{"errors":[{"message":"who?"}]}"#),
    });
    let error = pull(dir.path(), &format!("{}/lab/x", server.at)).unwrap_err();
    assert!(format!("{error:#}").contains("who?"), "{error:#}");
    let auths = format!(r#"{{"auths":{{"{}/lab":{{"auth":"bWU6aHVudGVyMg=="}}}}}}"#, server.at);
    fs::write(dir.path().join("config.json"), auths).unwrap();
    pull(dir.path(), &format!("{}/lab/x", server.at)).unwrap();

    let dir = tempfile::tempdir().unwrap();
    let server = tokens(|asked| {
        let body = String::from_utf8_lossy(&asked.body).into_owned();
        let good = asked.method == "POST"
            && body.contains("refresh_token=identity")
            && body.contains("grant_type=refresh_token");
        if good { Reply::new(200, r#"{"access_token":"TOKEN"}"#) } else { Reply::new(400, "") }
    });
    let auths = format!(r#"{{"auths":{{"{}":{{"auth":"eDo=","identitytoken":"identity"}}}}}}"#, server.at);
    fs::write(dir.path().join("config.json"), auths).unwrap();
    pull(dir.path(), &format!("{}/lab/x", server.at)).unwrap();
}

#[test]
fn a_redirect_is_followed_without_what_proves_who_we_are() {
    let (layout, entry) = image();
    let holds = hold(&layout, "x", &entry);
    let elsewhere = Server::start(move |asked| {
        let mut asked = asked.clone();
        asked.path = asked.path.replace("/signed/", "/v2/x/blobs/").split('?').next().unwrap().to_owned();
        holds(&asked)
    });
    let holds = hold(&layout, "x", &entry);
    let target = elsewhere.at.clone();
    let server = Server::start(move |asked| {
        if asked.headers.get("authorization").map(String::as_str) != Some("Basic bWU6aHVudGVyMg==") {
            return Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\"");
        }
        match asked.path.strip_prefix("/v2/x/blobs/") {
            Some(digest) => {
                Reply::new(307, "").header("Location", format!("http://{target}/signed/{digest}?signature=s"))
            }
            None => holds(asked),
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let auths = format!(r#"{{"auths":{{"{}":{{"auth":"bWU6aHVudGVyMg=="}}}}}}"#, server.at);
    fs::write(dir.path().join("config.json"), auths).unwrap();
    pull(dir.path(), &format!("{}/x", server.at)).unwrap();
    let asked = elsewhere.asked.lock().unwrap();
    assert_eq!(asked.len(), 2);
    assert!(asked.iter().all(|asked| !asked.headers.contains_key("authorization")), "{asked:?}");
}

#[test]
fn redirects_to_plain_text_elsewhere_or_in_a_circle_are_refused() {
    for (location, expected) in [
        ("/v2/x/manifests/latest", "in a circle"),
        ("http://192.0.2.1/x", "plain"),
        ("ftp://127.0.0.1/x", "no address"),
        ("", "no address"),
    ] {
        let server = Server::start(move |asked| match asked.path.as_str() {
            "/v2/" => Reply::new(200, ""),
            _ => Reply::new(302, "").header("Location", location),
        });
        let dir = tempfile::tempdir().unwrap();
        let error = format!("{:#}", pull(dir.path(), &format!("{}/x", server.at)).unwrap_err());
        // An empty location is the place itself, or none.
        assert!(error.contains(expected) || (location.is_empty() && error.contains("circle")), "{error}");
    }
}

#[test]
fn a_mirror_is_asked_first_with_its_own_credentials_and_the_registry_when_it_fails() {
    let (layout, entry) = image();
    let dir = tempfile::tempdir().unwrap();
    let mirror = Server::start(hold(&layout, "hub/lab/x", &entry));
    let registry = Server::start(hold(&layout, "lab/x", &entry));
    let source = format!("{}/lab/x", registry.at);
    let pull = |mirrors: Vec<String>| {
        let store = Store::open(&dir.path().join(format!("store-{}", mirrors.len()))).unwrap();
        let client = client(|settings| {
            settings.mirrors.insert(registry.at.clone(), mirrors);
        });
        let pull = Pull {
            source: source.parse().unwrap(),
            name: "web:1".parse().unwrap(),
            platform: "linux/amd64".parse().unwrap(),
        };
        store.pull(&client, &pull, &silent)
    };
    pull(vec![format!("http://{}/hub", mirror.at)]).unwrap();
    assert!(registry.lines().is_empty() && !mirror.lines().is_empty());
    let dead = Server::start(|_| Reply::new(404, ""));
    pull(vec![format!("http://{}/hub", dead.at), format!("http://{}/nothing", mirror.at)]).unwrap();
    assert!(!registry.lines().is_empty() && !dead.lines().is_empty());
}
