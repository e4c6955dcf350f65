//! From a name to an image, wherever it is to be had: here, in a registry, or built from packages.

use anyhow::{Context, Result, bail};
use stead_model::image::{Platform, Reference};

use crate::catalogue::{Catalogue, Source};
use crate::debian::DebianSettings;
use crate::event::Event;
use crate::registry::{Client, Pull, Pulled};
use crate::store::Store;

/// Which image is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What it is called.
    pub name: Reference,
    /// For which platform.
    pub platform: Platform,
    /// Whether it is looked for elsewhere.
    pub fetch: Fetch,
}

/// When an image is looked for elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fetch {
    /// Where it is not here.
    #[default]
    Missing,
    /// Always: it may have changed. What is here and has not is not fetched again.
    Always,
    /// Never.
    Never,
}

/// Where images come from.
#[derive(Clone, Copy, Debug)]
pub struct Origins<'a> {
    /// Who asks registries.
    pub client: &'a Client,
    /// Where short names are to be had.
    pub catalogue: &'a Catalogue,
    /// How Debian's images are built.
    pub debian: &'a DebianSettings,
}

impl Store {
    /// Sees to it that an image is here: its sources are asked in their order, the first that has it counts. What was not
    /// unpacked yet is named.
    pub fn obtain(
        &self,
        wanted: &Wanted,
        origins: Origins<'_>,
        on: &(dyn Fn(Event) + Sync),
    ) -> Result<Pulled> {
        let Wanted { name, platform, fetch } = wanted;
        if *fetch != Fetch::Always
            && let Some(image) = self.find(name, platform)?
        {
            let missing = self.missing_layers(&image);
            return Ok(Pulled { image, missing });
        }
        if *fetch == Fetch::Never {
            bail!("there is no image `{name}` for {platform} here");
        }
        let mut sources = origins.catalogue.sources(name)?.into_iter().peekable();
        let mut passed: Vec<String> = Vec::new();
        while let Some(source) = sources.next() {
            let is_last = sources.peek().is_none();
            // Where there is somebody else to ask, one that cannot be reached is not tried for minutes.
            let reached = if is_last { Ok(()) } else { reach(&source, origins.client) };
            let found = reached.and_then(|()| self.take_from(&source, wanted, origins, on));
            match found {
                Ok(pulled) => return Ok(pulled),
                Err(error) if is_last && passed.is_empty() => return Err(error),
                Err(error) => {
                    let why = format!("{error:#}");
                    on(Event::Passed { from: source.to_string(), why: why.clone() });
                    passed.push(format!("{source}: {why}"));
                }
            }
        }
        match passed.as_slice() {
            [] => bail!("the catalogue has no source for `{name}`"),
            passed => bail!("`{name}` is nowhere to be had: {}", passed.join("; ")),
        }
    }

    fn take_from(
        &self,
        source: &Source,
        wanted: &Wanted,
        origins: Origins<'_>,
        on: &(dyn Fn(Event) + Sync),
    ) -> Result<Pulled> {
        let Wanted { name, platform, .. } = wanted.clone();
        match source {
            Source::Registry(source) => {
                self.pull(origins.client, &Pull { source: source.clone(), name, platform }, on)
            }
            Source::DebianPackages(packages) => {
                let image = self.build_debian(packages, wanted, origins.debian, on)?;
                let missing = self.missing_layers(&image);
                Ok(Pulled { image, missing })
            }
        }
    }
}

fn reach(source: &Source, client: &Client) -> Result<()> {
    match source {
        Source::Registry(source) => {
            client.reach(source).with_context(|| format!("nobody answers for `{source}`"))
        }
        Source::DebianPackages(_) => Ok(()),
    }
}
