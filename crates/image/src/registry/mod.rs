//! Registries: other people's computers. No byte from them is trusted before its digest is verified.

mod auth;
mod credentials;
mod endpoint;
mod helper;
mod http;
mod login;
mod pull;
mod push;
mod session;

use std::collections::{BTreeMap, BTreeSet};

pub use auth::{Credentials, Secret};
pub use credentials::{AuthEnvironment, AuthFiles};
pub use http::Limits;
pub use login::Kept;
pub use pull::{Pull, Pulled};

use anyhow::{Result, anyhow};
use stead_model::image::Reference;

use self::http::{Failure, Http};
use self::session::Session;

/// What the user set about registries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Who is asked before a registry, by the registry's name: `host[:port][/path]`, with `http://` before it for plain
    /// text.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// With whom to speak without TLS: `host[:port]`. With this computer itself that is always allowed.
    pub plain_http: BTreeSet<String>,
    /// Where credentials are kept.
    pub auth: AuthFiles,
    /// How long is waited for others.
    pub limits: Limits,
    /// How many layers are moved at once; 0 for our default.
    pub parallel: usize,
}

/// Three streams at once fill most lines; registries count more against their users.
const PARALLEL: usize = 4;

/// Speaks with registries.
#[derive(Debug)]
pub struct Client {
    settings: Settings,
    http: Http,
}

impl Client {
    /// A client by these settings. Nothing is set up before a registry is asked.
    pub fn new(settings: Settings) -> Self {
        let mirrors = settings.mirrors.values().flatten();
        let plain_mirrors = mirrors.filter_map(|mirror| endpoint::plain_authority(mirror));
        let plain = settings.plain_http.iter().cloned().chain(plain_mirrors).collect();
        let http = Http::new(settings.limits.clone(), plain);
        Self { settings, http }
    }

    /// Whether the registry of this image, or one of its mirrors, can be reached at this moment.
    pub fn reach(&self, source: &Reference) -> Result<()> {
        let endpoints = endpoint::endpoints(source, &self.settings).unwrap_or_default();
        let mut answer = Err(anyhow!("`{source}` does not say from which registry"));
        for endpoint in endpoints {
            answer = match Session::new(self, endpoint, "pull", &|_| {}).reach() {
                Ok(()) => return Ok(()),
                Err(Failure::Again(error, _) | Failure::Final(error)) => Err(error),
            };
        }
        answer
    }

    fn parallel(&self) -> usize {
        if self.settings.parallel == 0 { PARALLEL } else { self.settings.parallel }
    }
}
