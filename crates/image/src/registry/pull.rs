//! Pulling: from a name to an image in the store.
//!
//! Name → index → manifest → configuration and layers. All but the name is asked for by digest and verified, several
//! layers at once; a blob that was cut off goes on where it ended, now or with the next pull.

use std::collections::BTreeSet;
use std::io::Read;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use stead_model::image::{Digest, Image, Platform, Reference};
use ureq::Body;
use ureq::http::{Method, Response, header};

use super::Client;
use super::endpoint::endpoints;
use super::http::{self, Call, Failure};
use super::session::Session;
use crate::choose;
use crate::event::{Event, LayerState};
use crate::manifest::{CONFIG_MAX_BYTES, Config, DOCUMENT_MAX_BYTES, Descriptor, Document, Manifest, media};
use crate::parallel;
use crate::store::{Adding, Arrival, Claim, Partial, Store, digest_of};

/// How deep indexes may be within indexes.
const DEPTH_MAX: usize = 3;
/// So many indexes and manifests are looked at for one image.
const DOCUMENTS_MAX: usize = 16;
/// A blob is begun or gone on with so often, whatever progress there is: else a byte at a time could go on for years.
const BLOB_ATTEMPTS_MAX: u32 = 100;
/// Progress is told in steps of this size.
const PROGRESS_STEP_BYTES: u64 = 256 << 10;
/// Slower than this for [`SLOW_AFTER`] counts as a cut.
const SLOW_BYTES_PER_S: u64 = 512;
const SLOW_AFTER: Duration = Duration::from_secs(60);

/// What is to be pulled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pull {
    /// From where: with a registry.
    pub source: Reference,
    /// What it is to be called here.
    pub name: Reference,
    /// For which platform.
    pub platform: Platform,
}

/// What was pulled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The image.
    pub image: Image,
    /// Which of its layers are not unpacked yet, the lowest first.
    pub missing: Vec<Digest>,
}

/// What a name turned out to mean.
struct Resolved {
    digest: Digest,
    bytes: Vec<u8>,
    manifest: Manifest,
    indexes: Vec<Digest>,
}

impl Store {
    /// Pulls an image. What is here already is not fetched again.
    pub fn pull(&self, client: &Client, pull: &Pull, on: &(dyn Fn(Event) + Sync)) -> Result<Pulled> {
        let adding = self.adding()?;
        let source = &pull.source;
        let endpoints = endpoints(source, &client.settings)
            .with_context(|| format!("`{source}` does not say from which registry"))?;
        let mut failures = Vec::new();
        for endpoint in endpoints {
            let session = Session::new(client, endpoint, "pull", on);
            let place = session.endpoint().authority.clone();
            match self.pull_from(&adding, &session, pull, on) {
                Ok(image) => {
                    let missing = self.missing_layers(&image);
                    return Ok(Pulled { image, missing });
                }
                Err(error) => failures.push((place, error)),
            }
        }
        let Some((_, last)) = failures.pop() else { bail!("`{source}` is nowhere to be had") };
        let others = failures.iter().map(|(place, error)| format!("{place}: {error:#}"));
        let others: Vec<String> = others.collect();
        let last = if others.is_empty() {
            last
        } else {
            last.context(format!("mirrors failed: {}", others.join("; ")))
        };
        Err(last.context(format!("cannot pull `{source}`")))
    }

    fn pull_from(
        &self,
        adding: &Adding,
        session: &Session<'_>,
        pull: &Pull,
        on: &(dyn Fn(Event) + Sync),
    ) -> Result<Image> {
        let resolved = resolve(self, session, &pull.source, &pull.platform)?;
        let Resolved { digest, bytes, manifest, indexes } = resolved;
        fetch(self, session, &manifest.config, on)?;
        let config = self.read_blob(&manifest.config.digest, CONFIG_MAX_BYTES)?;
        let config = config.context("its configuration is gone again")?;
        let config = Config::parse(&config, manifest.layers.len()).context("its configuration")?;
        if !choose::suits(&config.platform(), &pull.platform) {
            bail!("it is for {}, not for {}", config.platform(), pull.platform);
        }
        let mut seen = BTreeSet::new();
        let layers: Vec<&Descriptor> =
            manifest.layers.iter().filter(|layer| seen.insert(&layer.digest)).collect();
        let state = |layer: &&Descriptor| LayerState {
            blob: layer.digest.clone(),
            size_bytes: layer.size_bytes,
            present: self.has_blob(layer),
        };
        on(Event::Resolved { image: digest.clone(), layers: layers.iter().map(state).collect() });
        parallel::each(layers, session.parallel(), |layer| fetch(self, session, layer, on))?;
        self.keep(&manifest.media_type, &bytes)?;
        let Reference { registry, repository, .. } = &pull.source;
        let source = registry.iter().map(|registry| format!("{registry}/{repository}")).next();
        self.record(adding, &Arrival { digest, names: vec![pull.name.clone()], indexes, source })
    }
}

/// The search for the manifest that is meant, through as many indexes as need be.
struct Search<'a> {
    store: &'a Store,
    session: &'a Session<'a>,
    platform: &'a Platform,
    /// On the way to where it is now.
    indexes: Vec<Digest>,
    documents: usize,
}

fn resolve(
    store: &Store,
    session: &Session<'_>,
    source: &Reference,
    platform: &Platform,
) -> Result<Resolved> {
    let first = match (&source.digest, &source.tag) {
        (Some(digest), _) => digest.to_string(),
        (None, Some(tag)) => tag.clone(),
        (None, None) => "latest".to_owned(),
    };
    let mut search = Search { store, session, platform, indexes: Vec::new(), documents: 0 };
    search.descend(&first)?.with_context(|| format!("it is not to be had for {platform}"))
}

impl Search<'_> {
    /// What is behind a tag or a digest, or none if nothing there suits the platform.
    fn descend(&mut self, name: &str) -> Result<Option<Resolved>> {
        self.documents += 1;
        if self.documents > DOCUMENTS_MAX {
            bail!("it has too many manifests to choose from");
        }
        let (digest, bytes, content_type) = document(self.store, self.session, name)?;
        let parsed = Document::parse(&bytes, content_type.as_deref());
        let entries = match parsed.with_context(|| format!("manifest {}", digest.short()))? {
            Document::Manifest(manifest) => {
                return Ok(Some(Resolved { digest, bytes, manifest, indexes: self.indexes.clone() }));
            }
            Document::Index(entries) => entries,
        };
        if self.indexes.len() >= DEPTH_MAX {
            bail!("its indexes are within indexes more than {DEPTH_MAX} deep");
        }
        self.indexes.push(digest);
        for entry in choose::candidates(&entries, self.platform) {
            if let Some(found) = self.descend(entry.digest.as_str())?
                && self.is_meant(entry, &found)?
            {
                return Ok(Some(found));
            }
        }
        self.indexes.pop();
        Ok(None)
    }

    /// Where an index does not say what its entry is for, the image's own configuration does.
    fn is_meant(&self, entry: &Descriptor, found: &Resolved) -> Result<bool> {
        if entry.platform.is_some() {
            return Ok(true);
        }
        let Descriptor { digest, .. } = &found.manifest.config;
        fetch(self.store, self.session, &found.manifest.config, &|_| {})?;
        let config = self.store.read_blob(digest, CONFIG_MAX_BYTES)?.unwrap_or_default();
        let config = Config::parse(&config, found.manifest.layers.len());
        Ok(config.is_ok_and(|config| choose::suits(&config.platform(), self.platform)))
    }
}

/// An index or a manifest, by tag or digest, with its type as announced.
fn document(store: &Store, session: &Session<'_>, name: &str) -> Result<(Digest, Vec<u8>, Option<String>)> {
    let wanted: Option<Digest> = name.parse().ok();
    if let Some(digest) = &wanted
        && let Some(bytes) = store.read_blob(digest, DOCUMENT_MAX_BYTES)?
    {
        return Ok((digest.clone(), bytes, None));
    }
    session.persist(|| {
        let mut call = Call::new(Method::GET, session.uri(&format!("manifests/{name}"))?);
        call.accept = Some([media::INDEXES, media::MANIFESTS].concat().join(", "));
        let mut answer = session.ask_once(&call)?;
        if answer.status() == 404 {
            return Err(http::refusal(&mut answer).context(format!("there is no `{name}`")).into());
        }
        if answer.status() != 200 {
            return Err(session.denied(&mut answer).into());
        }
        let content_type = text_header(&answer, header::CONTENT_TYPE.as_str());
        let said: Option<Digest> =
            text_header(&answer, "docker-content-digest").and_then(|text| text.parse().ok());
        let bytes = http::read_all(&mut answer, DOCUMENT_MAX_BYTES)?;
        let digest = digest_of(&bytes);
        if let Some(wanted) = wanted.as_ref().or(said.as_ref()).filter(|wanted| **wanted != digest) {
            return Err(anyhow!("got manifest {digest} instead of {wanted}").into());
        }
        Ok((digest, bytes, content_type))
    })
}

fn text_header(answer: &Response<Body>, name: &str) -> Option<String> {
    answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// Sees to it that a blob is in the store.
fn fetch(store: &Store, session: &Session<'_>, blob: &Descriptor, on: &(dyn Fn(Event) + Sync)) -> Result<()> {
    let waiting = || on(Event::Waiting { blob: blob.digest.clone() });
    if let Claim::Receive(mut partial) = store.claim(blob, waiting)? {
        let resumed = partial.have_bytes() > 0;
        receive(session, &mut partial, on)
            .with_context(|| format!("cannot fetch {}", blob.digest.short()))?;
        if let Err(error) = partial.finish() {
            // What an earlier process left may be what is wrong.
            let Claim::Receive(mut partial) = store.claim(blob, waiting)? else { return Ok(()) };
            if !resumed {
                return Err(error);
            }
            receive(session, &mut partial, on)?;
            partial.finish()?;
        }
    }
    on(Event::Done { blob: blob.digest.clone() });
    Ok(())
}

/// Receives what is missing of a blob, in as many pieces as it takes.
fn receive(session: &Session<'_>, partial: &mut Partial, on: &(dyn Fn(Event) + Sync)) -> Result<()> {
    let mut attempts = session.attempts();
    for _ in 0..BLOB_ATTEMPTS_MAX {
        if partial.is_whole() {
            return Ok(());
        }
        let before = partial.have_bytes();
        if let Err(failure) = receive_piece(session, partial, on) {
            if partial.have_bytes() > before {
                attempts.renew(session);
            }
            session.wait(&mut attempts, failure)?;
        }
    }
    bail!("it was cut off {BLOB_ATTEMPTS_MAX} times")
}

fn receive_piece(
    session: &Session<'_>,
    partial: &mut Partial,
    on: &(dyn Fn(Event) + Sync),
) -> Result<(), Failure> {
    let wanted = partial.wanted().clone();
    let mut call = Call::new(Method::GET, session.uri(&format!("blobs/{}", wanted.digest))?);
    call.from_byte = partial.have_bytes();
    let mut answer = session.ask_once(&call)?;
    match answer.status().as_u16() {
        200 => partial.restart()?,
        206 if starts_at(&answer, call.from_byte) => {}
        // What we have is more than there is, or the server does not know what it says.
        206 | 416 => {
            partial.restart()?;
            return Err(Failure::Again(
                anyhow!("the registry cannot go on at byte {}", call.from_byte),
                None,
            ));
        }
        404 => return Err(http::refusal(&mut answer).context("it is not there").into()),
        _ => return Err(session.denied(&mut answer).into()),
    }
    let mut body = answer.into_body();
    copy(&mut body.as_reader(), partial, on)
}

/// Whether the piece that comes is the one that was asked for.
fn starts_at(answer: &Response<Body>, from_byte: u64) -> bool {
    let range = text_header(answer, header::CONTENT_RANGE.as_str());
    let start = range.as_deref().and_then(|range| range.strip_prefix("bytes "));
    let start = start.and_then(|range| range.split('-').next()).and_then(|start| start.parse().ok());
    start == Some(from_byte)
}

fn copy(body: &mut impl Read, partial: &mut Partial, on: &(dyn Fn(Event) + Sync)) -> Result<(), Failure> {
    let wanted = partial.wanted().clone();
    let (begun, mut told, first) = (Instant::now(), 0, partial.have_bytes());
    let mut buffer = vec![0; 128 << 10];
    loop {
        let read = body
            .read(&mut buffer)
            .map_err(|error| Failure::Again(anyhow::Error::new(error).context("it was cut off"), None))?;
        let have = partial.have_bytes();
        let is_end = read == 0;
        if is_end || have >= told + PROGRESS_STEP_BYTES {
            told = have;
            let (done_bytes, total_bytes) = (have, wanted.size_bytes);
            on(Event::Progress { blob: wanted.digest.clone(), done_bytes, total_bytes });
        }
        if is_end {
            return if partial.is_whole() {
                Ok(())
            } else {
                Err(Failure::Again(anyhow!("it was cut off after {have} bytes"), None))
            };
        }
        partial.add(buffer.get(..read).unwrap_or_default())?;
        let waited = begun.elapsed();
        if waited > SLOW_AFTER && (have - first) / waited.as_secs().max(1) < SLOW_BYTES_PER_S {
            return Err(Failure::Again(
                anyhow!("it comes at less than {SLOW_BYTES_PER_S} bytes a second"),
                None,
            ));
        }
    }
}
