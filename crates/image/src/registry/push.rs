//! Pushing: what the registry does not have goes there, each blob in one piece, and then the manifest under its name.

use std::collections::BTreeSet;
use std::fs::{self, File};

use anyhow::{Context, Result, anyhow, bail};
use stead_model::image::{Digest, Reference};
use ureq::http::{Method, header};

use super::Client;
use super::endpoint::endpoints;
use super::http::{self, Call, Failure, Payload};
use super::session::Session;
use crate::event::{Event, LayerState};
use crate::manifest::Descriptor;
use crate::parallel;
use crate::store::Store;

impl Store {
    /// Pushes an image to where `target` says: a registry, a path, and a tag.
    pub fn push(
        &self,
        client: &Client,
        image: &Digest,
        target: &Reference,
        on: &(dyn Fn(Event) + Sync),
    ) -> Result<()> {
        let (Some(_), Some(tag), None) = (&target.registry, &target.tag, &target.digest) else {
            bail!("`{target}` is not `registry/path:tag`");
        };
        let _adding = self.adding()?;
        let Some((manifest, ..)) = self.documents(image)? else {
            bail!("there is no image {}", image.short());
        };
        // Mirrors are read from only: the last one is the registry itself.
        let endpoint = endpoints(target, &client.settings).and_then(|mut found| found.pop());
        let session = Session::new(client, endpoint.context("no registry")?, "pull,push", on);
        let mut seen = BTreeSet::new();
        let mut blobs: Vec<&Descriptor> = manifest.layers.iter().collect();
        blobs.push(&manifest.config);
        blobs.retain(|blob| seen.insert(&blob.digest));
        if let Some(blob) = blobs.iter().find(|blob| !self.has_blob(blob)) {
            bail!("image {} lacks {}; hint: pull it again", image.short(), blob.digest.short());
        }
        let state = |blob: &Descriptor| LayerState {
            blob: blob.digest.clone(),
            size_bytes: blob.size_bytes,
            present: false,
        };
        let layers = blobs.iter().map(|blob| state(blob)).collect();
        on(Event::Resolved { image: image.clone(), layers });
        parallel::each(blobs, session.parallel(), |blob| {
            upload(self, &session, blob, on)
                .with_context(|| format!("cannot send {}", blob.digest.short()))?;
            on(Event::Done { blob: blob.digest.clone() });
            Ok(())
        })
        .and_then(|()| name(self, &session, image, tag, &manifest.media_type))
        .with_context(|| format!("cannot push `{target}`"))
    }
}

fn upload(
    store: &Store,
    session: &Session<'_>,
    blob: &Descriptor,
    on: &(dyn Fn(Event) + Sync),
) -> Result<()> {
    let path = store.blob_path(&blob.digest);
    let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let told = |done_bytes| {
        on(Event::Progress { blob: blob.digest.clone(), done_bytes, total_bytes: blob.size_bytes });
    };
    session.persist(|| {
        let there = session.uri(&format!("blobs/{}", blob.digest))?;
        if session.ask_once(&Call::new(Method::HEAD, there))?.status() == 200 {
            return Ok(());
        }
        let begun = session.ask_once(&Call::new(Method::POST, session.uri("blobs/uploads/")?))?;
        if begun.status() != 202 {
            let mut begun = begun;
            return Err(session.denied(&mut begun).into());
        }
        let location = begun.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let location = session.follow(location.context("the registry does not say where to send it")?)?;
        let uri = http::with_query(&location, &format!("digest={}", blob.digest))?;
        let mut call = Call::new(Method::PUT, uri);
        call.payload = Payload::File(&file, blob.size_bytes, &told);
        let mut answer = session.ask_once(&call)?;
        match answer.status().as_u16() {
            201 | 204 => Ok(()),
            // The place has expired, or an attempt of ours was seen in part: a new one may do.
            404 | 416 => Err(Failure::Again(session.denied(&mut answer), None)),
            _ => Err(session.denied(&mut answer).into()),
        }
    })
}

fn name(store: &Store, session: &Session<'_>, image: &Digest, tag: &str, media_type: &str) -> Result<()> {
    let path = store.blob_path(image);
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    session.persist(|| {
        let mut call = Call::new(Method::PUT, session.uri(&format!("manifests/{tag}"))?);
        call.payload = Payload::Bytes(&bytes, media_type);
        let mut answer = session.ask_once(&call)?;
        if !matches!(answer.status().as_u16(), 200 | 201 | 204) {
            return Err(session.denied(&mut answer).into());
        }
        let said = answer.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
        if said.is_some_and(|said| said != image.as_str()) {
            return Err(anyhow!("the registry took the manifest for another one").into());
        }
        Ok(())
    })
}
