//! Questions to one place about one image: who we are is proved when it is asked for, and what may work another
//! time is tried again.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use ureq::Body;
use ureq::http::{Method, Response, Uri, header};

use super::auth::{self, Authorization, Challenge, Credentials};
use super::endpoint::{Endpoint, Scheme};
use super::http::{self, Call, Failure, Payload};
use super::{Client, credentials};
use crate::event::Event;

/// A registry that says "in an hour" is not waited for.
const AFTER_MAX: Duration = Duration::from_secs(60);
/// Tokens are some kilobytes.
const TOKEN_MAX_BYTES: u64 = 1 << 20;

/// Questions to one place about one image.
pub(crate) struct Session<'a> {
    client: &'a Client,
    endpoint: Endpoint,
    scope: String,
    given: Option<Credentials>,
    scheme: OnceLock<&'static str>,
    authorization: Mutex<Option<Authorization>>,
    on: &'a (dyn Fn(Event) + Sync),
}

/// How often something was tried, and how long to wait before the next time.
pub(crate) struct Attempts {
    left: u32,
    wait: Duration,
}

impl<'a> Session<'a> {
    /// For these actions, `pull` or `pull,push`.
    pub(crate) fn new(
        client: &'a Client,
        endpoint: Endpoint,
        actions: &str,
        on: &'a (dyn Fn(Event) + Sync),
    ) -> Self {
        let scope = match endpoint.repository.as_str() {
            "" => String::new(),
            repository => format!("repository:{repository}:{actions}"),
        };
        Self {
            client,
            endpoint,
            scope,
            given: None,
            scheme: OnceLock::new(),
            authorization: Mutex::new(None),
            on,
        }
    }

    /// With these credentials instead of those on record.
    pub(crate) fn with(self, credentials: Credentials) -> Self {
        Self { given: Some(credentials), ..self }
    }

    /// How many blobs are moved at once.
    pub(crate) fn parallel(&self) -> usize {
        self.client.parallel()
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The address of something of this image, such as `manifests/latest`.
    pub(crate) fn uri(&self, what: &str) -> Result<Uri, Failure> {
        let Endpoint { authority, repository, .. } = &self.endpoint;
        let path = if repository.is_empty() { String::new() } else { format!("{repository}/{what}") };
        let text = format!("{}://{authority}/v2/{path}", self.scheme()?);
        Ok(text.parse().with_context(|| format!("`{text}` is no web address"))?)
    }

    /// Whether anybody answers, whatever it is.
    pub(crate) fn reach(&self) -> Result<(), Failure> {
        let mut call = Call::new(Method::GET, self.uri("")?);
        call.in_haste = true;
        self.client.http.send(&call, None).map(drop)
    }

    /// Where the registry sends us.
    pub(crate) fn follow(&self, location: &str) -> Result<Uri, Failure> {
        let base = self.uri("")?;
        let next = http::resolve(&base, location)?;
        if base.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
            return Err(anyhow!("{} sends us on to plain HTTP", self.endpoint.account).into());
        }
        Ok(next)
    }

    /// Does something that may fail for now, as often as the settings say.
    pub(crate) fn persist<T>(&self, mut work: impl FnMut() -> Result<T, Failure>) -> Result<T> {
        let mut attempts = self.attempts();
        loop {
            match work() {
                Ok(answer) => return Ok(answer),
                Err(failure) => self.wait(&mut attempts, failure)?,
            }
        }
    }

    pub(crate) fn attempts(&self) -> Attempts {
        let limits = self.client.http.limits();
        Attempts { left: limits.attempts.saturating_sub(1), wait: limits.first_wait }
    }

    /// Waits before the next attempt, if there is to be one.
    pub(crate) fn wait(&self, attempts: &mut Attempts, failure: Failure) -> Result<()> {
        let (error, after) = match failure {
            Failure::Final(error) => return Err(error),
            Failure::Again(error, after) => (error, after),
        };
        if attempts.left == 0 || after.is_some_and(|after| after > AFTER_MAX) {
            return Err(error);
        }
        let after = after.unwrap_or_default().max(attempts.wait);
        attempts.left -= 1;
        attempts.wait *= 2;
        (self.on)(Event::Retry { why: format!("{error:#}"), after });
        std::thread::sleep(after);
        Ok(())
    }

    /// Asks once, or twice where who we are has to be proved.
    pub(crate) fn ask_once(&self, call: &Call<'_>) -> Result<Response<Body>, Failure> {
        if !http::is_same_place(&call.uri, &self.uri("")?) {
            // A place to upload to elsewhere: its address is all that it needs.
            return http::expect_now(self.client.http.send(call, None)?);
        }
        let known = self.known();
        let answer = self.client.http.send(call, known.as_ref())?;
        if answer.status() != 401 {
            return http::expect_now(answer);
        }
        let fresh = self.authorize(&answer, known)?;
        let mut answer = http::expect_now(self.client.http.send(call, Some(&fresh))?)?;
        if answer.status() == 401 {
            return Err(self.denied(&mut answer).into());
        }
        Ok(answer)
    }

    fn known(&self) -> Option<Authorization> {
        self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gets what the answer asks for, unless another thread has just got it.
    fn authorize(
        &self,
        answer: &Response<Body>,
        known: Option<Authorization>,
    ) -> Result<Authorization, Failure> {
        let mut current = self.authorization.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fresh) = current.clone().filter(|fresh| Some(fresh) != known.as_ref()) {
            return Ok(fresh);
        }
        let headers = answer.headers().get_all(header::WWW_AUTHENTICATE);
        let challenges = auth::parse_challenges(headers.iter().filter_map(|value| value.to_str().ok()));
        let Endpoint { account, repository, .. } = &self.endpoint;
        let credentials = match &self.given {
            Some(given) => Some(given.clone()),
            None => credentials::find(&self.client.settings.auth, account, repository)?,
        };
        let fresh = self.prove(&challenges, credentials.as_ref())?;
        *current = Some(fresh.clone());
        Ok(fresh)
    }

    fn prove(
        &self,
        challenges: &[Challenge],
        credentials: Option<&Credentials>,
    ) -> Result<Authorization, Failure> {
        let bearer = challenges.iter().find_map(|challenge| match challenge {
            Challenge::Bearer { realm, service, scope } => Some((realm, service, scope)),
            Challenge::Basic => None,
        });
        if let Some((realm, service, scope)) = bearer {
            let scope = scope.as_deref().unwrap_or(&self.scope);
            return self.token(realm, service.as_deref(), scope, credentials);
        }
        let account = &self.endpoint.account;
        match (challenges.contains(&Challenge::Basic), credentials) {
            (true, Some(Credentials::Password { username, password })) => {
                Ok(Authorization::basic(username, password))
            }
            (true, _) => {
                Err(anyhow!("{account} wants to know who asks; hint: `stead login {account}`").into())
            }
            (false, _) => Err(anyhow!("{account} wants proof of a kind that we do not know").into()),
        }
    }

    /// Gets a token. Where, the registry says: it decides whom its users' credentials are told.
    fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: &str,
        credentials: Option<&Credentials>,
    ) -> Result<Authorization, Failure> {
        let realm = self.follow(realm)?;
        let mut answer = match credentials {
            Some(Credentials::Identity(token)) => {
                let pairs = [
                    ("grant_type", "refresh_token"),
                    ("service", service.unwrap_or_default()),
                    ("scope", scope),
                    ("client_id", "stead"),
                    ("refresh_token", token.0.as_str()),
                ];
                let form = auth::form(pairs.into_iter());
                let mut call = Call::new(Method::POST, realm);
                call.payload = Payload::Bytes(form.as_bytes(), "application/x-www-form-urlencoded");
                self.client.http.send(&call, None)?
            }
            Some(Credentials::Password { username, password }) => {
                let query = auth::token_query(service, scope, Some(username));
                let basic = Authorization::basic(username, password);
                self.client
                    .http
                    .send(&Call::new(Method::GET, http::with_query(&realm, &query)?), Some(&basic))?
            }
            None => {
                let query = auth::token_query(service, scope, None);
                self.client.http.send(&Call::new(Method::GET, http::with_query(&realm, &query)?), None)?
            }
        };
        answer = http::expect_now(answer)?;
        if !answer.status().is_success() {
            return Err(self.denied(&mut answer).into());
        }
        let bytes = http::read_all(&mut answer, TOKEN_MAX_BYTES)?;
        let token = auth::parse_token(&bytes).context("the place for tokens gives none")?;
        Ok(Authorization::bearer(&token.0))
    }

    /// An error for an answer that refuses.
    pub(crate) fn denied(&self, answer: &mut Response<Body>) -> anyhow::Error {
        let account = &self.endpoint.account;
        let error = http::refusal(answer);
        match answer.status().as_u16() {
            401 | 403 => error.context(format!("{account} refuses; hint: `stead login {account}`")),
            _ => error,
        }
    }

    /// How this registry is talked to; one on this computer is asked first.
    fn scheme(&self) -> Result<&'static str, Failure> {
        if let Some(scheme) = self.scheme.get() {
            return Ok(scheme);
        }
        let scheme = match self.endpoint.scheme {
            Scheme::Plain => "http",
            Scheme::Tls => "https",
            Scheme::Local => {
                let text = format!("http://{}/v2/", self.endpoint.authority);
                let uri = text.parse().with_context(|| format!("`{text}` is no web address"))?;
                let mut call = Call::new(Method::GET, uri);
                call.in_haste = true;
                match self.client.http.send(&call, None) {
                    // A server that expects TLS answers 400, or does not speak HTTP at all.
                    Ok(answer) if answer.status() == 400 => "https",
                    Ok(_) => "http",
                    Err(Failure::Final(error)) => {
                        tracing::debug!("no plain HTTP at {}: {error:#}", self.endpoint.authority);
                        "https"
                    }
                    Err(again) => return Err(again),
                }
            }
        };
        Ok(self.scheme.get_or_init(|| scheme))
    }
}

impl Attempts {
    /// Begins to count anew: there was progress.
    pub(crate) fn renew(&mut self, session: &Session<'_>) {
        *self = session.attempts();
    }
}
