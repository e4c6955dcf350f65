//! What the tests need: images made by hand, Debian's registry, skopeo, and a server that misbehaves as told.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use stead_image::registry::{Limits, Settings};
use stead_image::{Client, Event, digest_of};

/// Runs a program that has to succeed, and gives what it writes.
#[track_caller]
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("`{program}` is needed (`cargo xtask setup`): {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// An image made by hand, as files named by their digests.
#[derive(Default)]
pub struct Layout {
    pub blobs: BTreeMap<String, Vec<u8>>,
    pub entries: Vec<Value>,
}

impl Layout {
    /// Keeps a content, and says what it is called.
    pub fn add(&mut self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = digest_of(bytes).to_string();
        self.blobs.insert(digest.clone(), bytes.to_vec());
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    /// Adds an image of these layers, each an archive and how it is to be compressed, and names it in the index.
    pub fn image(&mut self, architecture: &str, layers: &[(Vec<u8>, &str)]) -> Value {
        let diff_ids: Vec<String> = layers.iter().map(|(tar, _)| digest_of(tar).to_string()).collect();
        let config = json!({
            "architecture": architecture, "os": "linux", "created": "2026-01-02T03:04:05Z",
            "config": {"Cmd": ["/bin/hello"], "Env": ["A=1"], "Labels": {"made": "by hand"}},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": layers.iter().map(|_| json!({"created_by": "hand"})).collect::<Vec<_>>(),
        });
        let config = self.add("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
        let layers: Vec<Value> = layers
            .iter()
            .map(|(tar, compression)| {
                let (suffix, bytes) = match *compression {
                    "" => ("", tar.clone()),
                    "gzip" => ("+gzip", pipe("gzip", &["-n"], tar)),
                    "zstd" => ("+zstd", pipe("zstd", &["-q"], tar)),
                    other => panic!("{other}"),
                };
                self.add(&format!("application/vnd.oci.image.layer.v1.tar{suffix}"), &bytes)
            })
            .collect();
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers});
        let mut entry = self.add(kind, manifest.to_string().as_bytes());
        entry["platform"] = json!({"os": "linux", "architecture": architecture});
        self.entries.push(entry.clone());
        entry
    }

    /// Adds an index of these entries.
    pub fn index(&mut self, entries: &[Value]) -> Value {
        let kind = "application/vnd.oci.image.index.v1+json";
        let index = json!({"schemaVersion": 2, "mediaType": kind, "manifests": entries});
        self.add(kind, index.to_string().as_bytes())
    }

    /// Writes an OCI layout in which `entry` is called `latest`.
    pub fn write(&self, dir: &Path, entry: &Value) {
        fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        for (digest, bytes) in &self.blobs {
            fs::write(dir.join("blobs/sha256").join(&digest[7..]), bytes).unwrap();
        }
        let mut entry = entry.clone();
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": "latest"});
        let index = json!({"schemaVersion": 2, "manifests": [entry]});
        fs::write(dir.join("index.json"), index.to_string()).unwrap();
    }
}

/// A tar archive of one file.
pub fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(name), content).unwrap();
    // Files of ours: anybody may unpack them.
    let output = Command::new("tar")
        .args(["--sort=name", "--mtime=@0", "--numeric-owner", "-C"])
        .arg(dir.path())
        .args(["-cf", "-", name])
        .output()
        .unwrap();
    assert!(output.status.success());
    output.stdout
}

/// Bytes that no compression makes smaller, always the same.
pub fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..bytes)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

pub fn pipe(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("`{program}` is needed (`cargo xtask setup`): {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    output.stdout
}

/// Debian's registry, on a port of its own.
pub struct Registry {
    child: Child,
    pub at: String,
    _dir: tempfile::TempDir,
}

impl Registry {
    /// Starts one without TLS; `more` is added to its configuration.
    pub fn start(more: &str) -> Self {
        Self::start_with(&format!("http: {{addr: '127.0.0.1:0'}}\n{more}"))
    }

    /// Starts one that is spoken with as this says.
    pub fn start_with(http: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().display();
        let config = dir.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {root}/data}}, delete: {{enabled: true}}}}\n{http}"
        );
        fs::write(&config, text).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("`docker-registry` is needed (`cargo xtask setup`)");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let at = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                let (_, rest) = line.split_once("listening on ")?;
                Some(rest.split(['"', ',', ' ']).next()?.to_owned())
            })
            .expect("docker-registry says where it listens");
        // Its log is not to fill up the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, at, _dir: dir }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A client that does not wait long before it tries again.
pub fn client(change: impl FnOnce(&mut Settings)) -> Client {
    let limits = Limits {
        connect: Duration::from_secs(5),
        answer: Duration::from_secs(5),
        stall: Duration::from_secs(2),
        attempts: 4,
        first_wait: Duration::from_millis(5),
    };
    let mut settings = Settings { limits, ..Settings::default() };
    change(&mut settings);
    Client::new(settings)
}

/// What a client is told to expect of nobody.
pub fn silent(_: Event) {}

/// A question that the server got.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

/// What the server is to answer.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The connection ends after so many bytes of the body.
    pub cut_after: Option<usize>,
    /// The body never ends: it is sent again and again, without its length having been said.
    pub endless: bool,
    /// The connection stays open after what is sent, and nothing comes.
    pub stalls: bool,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }

    pub fn header(mut self, key: &str, value: impl Into<String>) -> Self {
        self.headers.push((key.to_owned(), value.into()));
        self
    }
}

/// A server that answers as told, and remembers what it was asked.
pub struct Server {
    pub at: String,
    pub asked: Arc<Mutex<Vec<Asked>>>,
    ends: Arc<AtomicBool>,
}

impl Server {
    pub fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let ends = Arc::new(AtomicBool::new(false));
        let answer = Arc::new(answer);
        std::thread::spawn({
            let (asked, ends) = (asked.clone(), ends.clone());
            move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    if ends.load(Ordering::Relaxed) {
                        return;
                    }
                    let (asked, ends, answer) = (asked.clone(), ends.clone(), answer.clone());
                    std::thread::spawn(move || serve(&stream, &asked, &ends, &*answer));
                }
            }
        });
        Self { at, asked, ends }
    }

    /// What was asked so far, as `GET /v2/…`.
    pub fn lines(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|asked| format!("{} {}", asked.method, asked.path)).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        TcpStream::connect(&self.at).ok();
    }
}

fn serve(
    stream: &TcpStream,
    asked: &Mutex<Vec<Asked>>,
    ends: &AtomicBool,
    answer: &(dyn Fn(&Asked) -> Reply + Send + Sync),
) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let mut words = line.split_whitespace().map(str::to_owned);
        let (method, path) = (words.next()?, words.next()?);
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((key, value)) = line.trim_end().split_once(':') else { break };
            headers.insert(key.to_ascii_lowercase(), value.trim().to_owned());
        }
        let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let question = Asked { method, path, headers, body };
        asked.lock().unwrap().push(question.clone());
        let reply = answer(&question);
        send(stream, &question, &reply, ends)?;
    }
}

/// None if the connection is not to be gone on with.
fn send(mut stream: &TcpStream, question: &Asked, reply: &Reply, ends: &AtomicBool) -> Option<()> {
    let mut head = format!("HTTP/1.1 {} Answer\r\n", reply.status);
    for (key, value) in &reply.headers {
        head.push_str(&format!("{key}: {value}\r\n"));
    }
    if !reply.endless {
        head.push_str(&format!("Content-Length: {}\r\n", reply.body.len()));
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
    if question.method == "HEAD" {
        return Some(());
    }
    while reply.endless && !ends.load(Ordering::Relaxed) {
        stream.write_all(&reply.body).ok()?;
    }
    let end = reply.cut_after.unwrap_or(reply.body.len());
    stream.write_all(&reply.body[..end]).ok()?;
    if reply.stalls {
        // Until the client gives up.
        stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
        stream.read_exact(&mut [0]).ok();
    }
    (reply.cut_after.is_none() && !reply.endless && !reply.stalls).then_some(())
}

/// A server that holds an image as a registry does.
pub fn hold(layout: &Layout, name: &str, entry: &Value) -> impl Fn(&Asked) -> Reply + Send + Sync + use<> {
    let blobs = layout.blobs.clone();
    let (prefix, tagged) = (format!("/v2/{name}/"), entry["digest"].as_str().unwrap().to_owned());
    move |asked| {
        if asked.path == "/v2/" {
            return Reply::new(200, "{}");
        }
        let Some((kind, what)) = asked.path.strip_prefix(&prefix).and_then(|rest| rest.split_once('/'))
        else {
            return Reply::new(404, r#"{"errors":[{"code":"NAME_UNKNOWN","message":"no such repository"}]}"#);
        };
        let digest = if what == "latest" { &tagged } else { what };
        let Some(bytes) = blobs.get(digest) else {
            return Reply::new(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#);
        };
        let media_type = serde_json::from_slice::<Value>(bytes)
            .ok()
            .and_then(|value| Some(value["mediaType"].as_str()?.to_owned()))
            .unwrap_or_default();
        let range = asked.headers.get("range").and_then(|range| range.strip_prefix("bytes="));
        let start = range.and_then(|range| range.trim_end_matches('-').parse::<usize>().ok());
        match start.filter(|_| kind == "blobs") {
            Some(start) if start < bytes.len() => Reply::new(206, &bytes[start..])
                .header("Content-Range", format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len())),
            Some(_) => Reply::new(416, ""),
            None => Reply::new(200, bytes.clone()).header("Content-Type", media_type),
        }
    }
}

/// All files below a directory that are not of the store's own book-keeping.
pub fn leftovers(store: &Path) -> Vec<PathBuf> {
    ["partial", "unpacking"]
        .iter()
        .flat_map(|part| fs::read_dir(store.join(part)).unwrap())
        .map(|entry| entry.unwrap().path())
        .collect()
}

/// A program with this content. Another process writes it: while this one held it open for writing, what another
/// thread starts could hold it too, and nobody could run it.
pub fn executable(path: &Path, content: &[u8]) {
    let mut from = tempfile::tempfile().unwrap();
    from.write_all(content).unwrap();
    from.rewind().unwrap();
    let install = Command::new("install").args(["-m755", "/dev/stdin"]).arg(path).stdin(from).status();
    assert!(install.unwrap().success());
}
