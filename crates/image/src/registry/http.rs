//! One HTTP exchange: over TLS or, where that is allowed, in plain text; along redirects; with a limit on every wait.
//!
//! TLS and the roots that we trust are set up when the first `https` address is asked, not before.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use ureq::http::request::Builder;
use ureq::http::{Method, Request, Response, StatusCode, Uri, header};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body, SendBody};

use super::auth::Authorization;

/// Registries send a blob's address on to where it is stored; nobody needs more hops.
const REDIRECTS_MAX: usize = 5;
/// Of a refusal this much is read, to say why.
const REFUSAL_MAX_BYTES: u64 = 16 << 10;

/// How long one is waited for where there is somebody else to ask.
const HASTE: Duration = Duration::from_secs(8);

/// How long is waited for others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// For the first line of an answer.
    pub answer: Duration,
    /// For the next byte.
    pub stall: Duration,
    /// How often something is tried before it has failed.
    pub attempts: u32,
    /// Before the second attempt; twice as long before each further one.
    pub first_wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            answer: Duration::from_secs(60),
            stall: Duration::from_secs(30),
            attempts: 6,
            first_wait: Duration::from_millis(200),
        }
    }
}

/// What is sent.
#[derive(Clone, Copy)]
pub(crate) enum Payload<'a> {
    /// Nothing.
    None,
    /// These bytes, of this type.
    Bytes(&'a [u8], &'a str),
    /// A whole file of this size; told is how much of it is gone.
    File(&'a File, u64, &'a dyn Fn(u64)),
}

/// A question.
#[derive(Clone)]
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) accept: Option<String>,
    /// From which byte on.
    pub(crate) from_byte: u64,
    pub(crate) payload: Payload<'a>,
    /// Whether somebody else can be asked instead, so that it is not waited for long.
    pub(crate) in_haste: bool,
}

impl<'a> Call<'a> {
    pub(crate) fn new(method: Method, uri: Uri) -> Self {
        Self { method, uri, accept: None, from_byte: 0, payload: Payload::None, in_haste: false }
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It may work another time; perhaps only after so long.
    Again(anyhow::Error, Option<Duration>),
    /// It will not.
    Final(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Final(error)
    }
}

/// Sends and receives.
#[derive(Debug)]
pub(crate) struct Http {
    limits: Limits,
    plain_hosts: Vec<String>,
    plain: OnceLock<Agent>,
    tls: OnceLock<Agent>,
}

impl Http {
    /// `plain_hosts` may be spoken with without TLS.
    pub(crate) fn new(limits: Limits, plain_hosts: Vec<String>) -> Self {
        Self { limits, plain_hosts, plain: OnceLock::new(), tls: OnceLock::new() }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether somebody asked for plain text with this host, `host[:port]`.
    pub(crate) fn is_plain_host(&self, authority: &str) -> bool {
        self.plain_hosts.iter().any(|plain| plain == authority)
    }

    /// Asks, and follows where it is sent if nothing is uploaded. The authorization goes only to where the question goes
    /// first. Whatever the final answer is, it is the caller's.
    pub(crate) fn send(
        &self,
        call: &Call<'_>,
        authorization: Option<&Authorization>,
    ) -> Result<Response<Body>, Failure> {
        let mut uri = call.uri.clone();
        for _ in 0..=REDIRECTS_MAX {
            let authorization = authorization.filter(|_| is_same_place(&uri, &call.uri));
            let answer = self.send_once(call, &uri, authorization)?;
            let follows = matches!(call.method, Method::GET | Method::HEAD)
                && matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            if !follows {
                return Ok(answer);
            }
            let location = answer.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            let next = resolve(&uri, location.context("a redirect without a location")?)?;
            if uri.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
                return Err(anyhow!("{} redirects to plain HTTP", place(&uri)).into());
            }
            uri = next;
        }
        Err(anyhow!("{} redirects in a circle", place(&call.uri)).into())
    }

    fn send_once(
        &self,
        call: &Call<'_>,
        uri: &Uri,
        authorization: Option<&Authorization>,
    ) -> Result<Response<Body>, Failure> {
        let agent = self.agent(uri)?;
        let mut request = Request::builder().method(call.method.clone()).uri(uri.clone());
        if let Some(accept) = &call.accept {
            request = request.header(header::ACCEPT, accept);
        }
        if call.from_byte > 0 {
            request = request.header(header::RANGE, format!("bytes={}-", call.from_byte));
        }
        if let Some(Authorization(secret)) = authorization {
            request = request.header(header::AUTHORIZATION, &secret.0);
        }
        match call.payload {
            Payload::None => {
                if matches!(call.method, Method::POST | Method::PUT) {
                    request = request.header(header::CONTENT_LENGTH, 0);
                }
                run(agent, request, SendBody::none(), call, uri)
            }
            Payload::Bytes(mut bytes, kind) => {
                let request =
                    request.header(header::CONTENT_TYPE, kind).header(header::CONTENT_LENGTH, bytes.len());
                run(agent, request, SendBody::from_reader(&mut bytes), call, uri)
            }
            Payload::File(mut file, size_bytes, told) => {
                file.seek(SeekFrom::Start(0)).context("cannot read a blob")?;
                let request = request
                    .header(header::CONTENT_TYPE, "application/octet-stream")
                    .header(header::CONTENT_LENGTH, size_bytes);
                let mut counted = Counted { file, done_bytes: 0, told };
                run(agent, request, SendBody::from_reader(&mut counted), call, uri)
            }
        }
    }

    fn agent(&self, uri: &Uri) -> Result<&Agent> {
        match uri.scheme_str() {
            Some("https") => {
                if self.tls.get().is_none() {
                    // Two threads may both make one; then one of the two is dropped.
                    self.tls.set(self.new_agent(Some(tls()?))).ok();
                }
                self.tls.get().context("no TLS")
            }
            Some("http") if is_loopback(uri) || self.is_plain_host(&authority(uri)) => {
                Ok(self.plain.get_or_init(|| self.new_agent(None)))
            }
            Some("http") => bail!(
                "{} is to be asked in plain text; hint: name it in the setting for plain HTTP if that is meant",
                place(uri)
            ),
            _ => bail!("`{}` is no web address", place(uri)),
        }
    }

    fn new_agent(&self, tls: Option<TlsConfig>) -> Agent {
        let limits = &self.limits;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("stead/", env!("CARGO_PKG_VERSION")))
            // What is compressed is to stay so: digests are of the bytes as stored.
            .accept_encoding("identity")
            .max_idle_connections_per_host(8)
            .timeout_resolve(Some(limits.connect))
            .timeout_connect(Some(limits.connect))
            .timeout_send_request(Some(limits.answer))
            .timeout_recv_response(Some(limits.answer))
            .timeout_per_read(Some(limits.stall))
            .timeout_per_write(Some(limits.stall));
        let config = match tls {
            Some(tls) => config.tls_config(tls),
            None => config,
        };
        config.build().new_agent()
    }
}

/// A file that tells how much of it was read.
struct Counted<'a> {
    file: &'a File,
    done_bytes: u64,
    told: &'a dyn Fn(u64),
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.done_bytes += read as u64;
        (self.told)(self.done_bytes);
        Ok(read)
    }
}

fn run(
    agent: &Agent,
    request: Builder,
    body: SendBody<'_>,
    call: &Call<'_>,
    uri: &Uri,
) -> Result<Response<Body>, Failure> {
    let request = request.body(body).context("cannot ask")?;
    let mut configured = agent.configure_request(request);
    if is_loopback(uri) {
        // Who is on this computer is not behind a proxy.
        configured = configured.proxy(None);
    }
    if call.in_haste {
        configured = configured.timeout_global(Some(HASTE));
    }
    agent.run(configured.build()).map_err(|error| judge(error, uri))
}

fn tls() -> Result<TlsConfig> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let why: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        bail!(
            "this computer trusts no certificate authority ({}); hint: install `ca-certificates`",
            why.join(", ")
        );
    }
    let roots: Vec<Certificate<'static>> =
        found.certs.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&roots))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build())
}

/// Whether it makes sense to try again.
fn judge(error: ureq::Error, uri: &Uri) -> Failure {
    use ureq::Error;
    let again = match &error {
        Error::Io(io) if speaks_plainly(io) => {
            let place = place(uri);
            return Failure::Final(anyhow!(
                "{place} answers without TLS; hint: if that is meant, name it under `plain-http` in images.json"
            ));
        }
        Error::Io(io) => !is_unknown_host(io),
        Error::Timeout(_) | Error::ConnectionFailed => true,
        _ => false,
    };
    let error = anyhow::Error::new(error).context(format!("cannot ask {}", place(uri)));
    if again { Failure::Again(error, None) } else { Failure::Final(error) }
}

/// Whether what came is no TLS.
fn speaks_plainly(error: &std::io::Error) -> bool {
    use rustls::{Error, InvalidMessage};
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(inner, Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)))
}

/// Whether there is no such host, as opposed to a name server that did not answer.
fn is_unknown_host(error: &std::io::Error) -> bool {
    let text = error.to_string();
    text.contains("failed to lookup") && !text.contains("emporary failure")
}

/// Turns an answer that says "another time" into a failure.
pub(crate) fn expect_now(mut answer: Response<Body>) -> Result<Response<Body>, Failure> {
    if !matches!(answer.status().as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504) {
        return Ok(answer);
    }
    let after = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let after = after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
    Err(Failure::Again(refusal(&mut answer), after))
}

/// What a registry says of why it does not do what it was asked for, in words that a terminal can be shown.
pub(crate) fn refusal(answer: &mut Response<Body>) -> anyhow::Error {
    let mut bytes = Vec::new();
    // The status alone says enough if the rest cannot be had.
    answer.body_mut().as_reader().take(REFUSAL_MAX_BYTES).read_to_end(&mut bytes).ok();
    let status = answer.status();
    match reason(&bytes) {
        Some(reason) => anyhow!("the registry answers {}: {reason}", status.as_u16()),
        None => anyhow!("the registry answers {}", shown_status(status)),
    }
}

fn shown_status(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(words) => format!("{} {words}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

/// The message in the body of an error.
fn reason(bytes: &[u8]) -> Option<String> {
    let answer: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    let first = answer.get("errors")?.get(0)?;
    let text = |key| first.get(key).and_then(serde_json::Value::as_str).unwrap_or_default();
    let message = if text("message").is_empty() { text("code") } else { text("message") };
    let shown: String = message.chars().take(200).flat_map(char::escape_debug).collect();
    (!shown.is_empty()).then_some(shown)
}

/// Reads a whole body that is to have at most so many bytes.
pub(crate) fn read_all(answer: &mut Response<Body>, max_bytes: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = answer.body_mut().as_reader().take(max_bytes + 1).read_to_end(&mut bytes);
    read.map_err(|error| Failure::Again(anyhow::Error::new(error).context("the answer was cut"), None))?;
    if bytes.len() as u64 > max_bytes {
        return Err(anyhow!("the answer has more than {max_bytes} bytes").into());
    }
    Ok(bytes)
}

/// The address that a `Location` means, seen from `base`.
pub(crate) fn resolve(base: &Uri, location: &str) -> Result<Uri> {
    let cannot = || format!("`{}` is no address", location.escape_debug());
    let (scheme, authority) = (base.scheme_str().unwrap_or_default(), authority(base));
    let text = if location.contains("://") {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let directory = base.path().rsplit_once('/').map_or("", |(directory, _)| directory);
        format!("{scheme}://{authority}{directory}/{location}")
    };
    let uri: Uri = text.parse().with_context(cannot)?;
    if uri.host().is_none_or(str::is_empty) || !matches!(uri.scheme_str(), Some("http" | "https")) {
        bail!(cannot());
    }
    Ok(uri)
}

/// An address with one more query.
pub(crate) fn with_query(uri: &Uri, query: &str) -> Result<Uri> {
    if query.is_empty() {
        return Ok(uri.clone());
    }
    let join = if uri.query().is_some() { '&' } else { '?' };
    format!("{uri}{join}{query}").parse().with_context(|| format!("{} cannot be asked", place(uri)))
}

/// Host and port as they are written, without user names.
pub(crate) fn authority(uri: &Uri) -> String {
    let text = uri.authority().map_or("", |authority| authority.as_str());
    text.rsplit_once('@').map_or(text, |(_, host)| host).to_owned()
}

/// An address as it may be shown: queries carry signatures.
fn place(uri: &Uri) -> String {
    format!("{}://{}{}", uri.scheme_str().unwrap_or_default(), authority(uri), uri.path())
}

/// Whether secrets for the one may be told to the other.
pub(crate) fn is_same_place(one: &Uri, other: &Uri) -> bool {
    let port =
        |uri: &Uri| uri.port_u16().or((uri.scheme_str() == Some("https")).then_some(443)).unwrap_or(80);
    one.scheme() == other.scheme()
        && one.host().map(str::to_ascii_lowercase) == other.host().map(str::to_ascii_lowercase)
        && port(one) == port(other)
}

/// Whether this is an address of this computer that others cannot reach.
pub(crate) fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().unwrap()
    }

    #[test]
    fn locations_are_resolved_against_where_they_came_from() {
        let base = uri("https://a.example:5000/v2/x/blobs/y?z=1");
        for (location, expected) in [
            ("https://b.example/c?d=e", "https://b.example/c?d=e"),
            ("/v2/u?state=1", "https://a.example:5000/v2/u?state=1"),
            ("//b.example/c", "https://b.example/c"),
            ("other", "https://a.example:5000/v2/x/blobs/other"),
        ] {
            assert_eq!(resolve(&base, location).unwrap().to_string(), expected);
        }
        for location in ["ftp://a.example/", "file:///etc/passwd", "https://", "http:///x", "a b"] {
            resolve(&base, location).unwrap_err();
        }
    }

    proptest::proptest! {
        #[test]
        fn a_location_is_an_address_of_the_web_or_an_error(location in ".*", likely in "(https?:)?//?[a-z@:\\[\\]/?#.0-9]*") {
            for text in [location, likely] {
                if let Ok(found) = resolve(&uri("https://a.example/v2/"), &text) {
                    assert!(matches!(found.scheme_str(), Some("http" | "https")) && found.host().is_some());
                    place(&found);
                    is_loopback(&found);
                }
            }
        }
    }

    #[test]
    fn secrets_stay_at_their_place() {
        let first = uri("https://a.example/x");
        for (other, same) in [
            ("https://a.example/y", true),
            ("https://A.example:443/y", true),
            ("https://a.example:8443/y", false),
            ("http://a.example/y", false),
            ("https://b.a.example/y", false),
        ] {
            assert_eq!(is_same_place(&first, &uri(other)), same, "{other}");
        }
        assert_eq!(place(&uri("https://me:secret@a.example/x?signature=abc")), "https://a.example/x");
    }

    #[test]
    fn plain_text_is_for_loopback_or_when_asked_for() {
        let http = Http::new(Limits::default(), vec!["lab.example:5000".into()]);
        for text in
            ["http://127.0.0.1:5000/", "http://[::1]:1/", "http://localhost/", "http://lab.example:5000/"]
        {
            http.agent(&uri(text)).unwrap();
        }
        for text in
            ["http://lab.example/", "http://localhost.example/", "http://10.0.0.1/", "ftp://127.0.0.1/"]
        {
            http.agent(&uri(text)).unwrap_err();
        }
    }

    #[test]
    fn reasons_are_short_and_harmless() {
        let text = r#"{"errors":[{"code":"DENIED","message":"no \u001b[31m way"}]}"#;
        assert_eq!(reason(text.as_bytes()).unwrap(), r"no \u{1b}[31m way");
        assert_eq!(reason(br#"{"errors":[{"code":"DENIED"}]}"#).unwrap(), "DENIED");
        assert_eq!(reason(b"<html>"), None);
        assert_eq!(reason(br#"{"errors":[]}"#), None);
    }
}
