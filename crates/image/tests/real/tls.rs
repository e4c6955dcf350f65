//! Registries over TLS. Which authorities are trusted is read from the environment, so each pull is a process.

use std::fs;
use std::path::Path;
use std::process::Command;

use stead_image::Store;

use crate::support::*;

/// An authority, and a registry with a certificate by it for `localhost`.
fn registry(dir: &Path) -> Registry {
    let at = |name: &str| dir.join(name).display().to_string();
    let key = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    let quiet = |arguments: &[&str]| run("openssl", arguments);
    quiet(
        &[&key[..], &["-x509", "-subj", "/CN=authority", "-keyout", &at("ca.key"), "-out", &at("ca.pem")]]
            .concat(),
    );
    quiet(
        &[&key[..], &["-subj", "/CN=localhost", "-keyout", &at("key.pem"), "-out", &at("request")]].concat(),
    );
    fs::write(dir.join("names"), "subjectAltName=DNS:localhost\n").unwrap();
    let sign = ["x509", "-req", "-CAcreateserial", "-days", "2"];
    let files = [
        "-in",
        &at("request"),
        "-CA",
        &at("ca.pem"),
        "-CAkey",
        &at("ca.key"),
        "-extfile",
        &at("names"),
        "-out",
        &at("cert.pem"),
    ];
    quiet(&[&sign[..], &files[..]].concat());
    Registry::start_with(&format!(
        "http: {{addr: '127.0.0.1:0', tls: {{certificate: {}, key: {}}}}}\n",
        at("cert.pem"),
        at("key.pem")
    ))
}

/// A pull by a process that trusts this authority; what it says if it fails.
fn pull(source: &str, store: &Path, authority: &Path) -> Result<(), String> {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "kill::worker", "--test-threads=1", "--nocapture"])
        .env("STEAD_TEST_SOURCE", source)
        .env("STEAD_TEST_STORE", store)
        .env("SSL_CERT_FILE", authority)
        .env_remove("SSL_CERT_DIR")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() { Ok(()) } else { Err(said) }
}

#[test]
fn a_registry_is_trusted_by_the_authorities_of_this_computer_and_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let registry = registry(dir.path());
    let port = registry.at.rsplit_once(':').unwrap().1;
    let mut layout = Layout::default();
    let entry = layout.image("amd64", &[(tar("a", &noise(100_000)), "gzip")]);
    layout.write(&dir.path().join("oci"), &entry);
    let from = format!("oci:{}:latest", dir.path().join("oci").display());
    let to = format!("docker://localhost:{port}/x:1");
    run("skopeo", &["copy", "-q", "--dest-tls-verify=false", &from, &to]);

    let ca = dir.path().join("ca.pem");
    let source = format!("localhost:{port}/x:1");
    let store = dir.path().join("store");
    let other = tempfile::tempdir().unwrap();
    let stranger = other.path().join("ca.pem");
    run(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-subj",
            "/CN=x",
            "-keyout",
            &other.path().join("key").display().to_string(),
            "-out",
            &stranger.display().to_string(),
        ],
    );
    let said = pull(&source, &store, &stranger).unwrap_err();
    assert!(said.contains("certificate"), "{said}");
    let said = pull(&format!("127.0.0.1:{port}/x:1"), &store, &ca).unwrap_err();
    assert!(said.contains("certificate"), "{said}");
    assert!(Store::open(&store).unwrap().list().unwrap().is_empty());
    pull(&source, &store, &ca).unwrap();
    assert_eq!(Store::open(&store).unwrap().list().unwrap().len(), 1);
}
