//! Where the images of a registry are to be had: at its mirrors, then at itself. Pure.

use stead_model::image::Reference;

use super::Settings;

/// A place that is asked for an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Whom we talk to: `host[:port]`.
    pub(crate) authority: String,
    /// Whose credentials count there.
    pub(crate) account: String,
    /// The path of the image there.
    pub(crate) repository: String,
    /// How we talk.
    pub(crate) scheme: Scheme,
}

/// How a registry is talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// In plain text: somebody said so.
    Plain,
    /// Over TLS.
    Tls,
    /// It is on this computer: in plain text if it answers that, else over TLS.
    Local,
}

/// What people call the registry whose own name is another one.
const HUB: &str = "docker.io";
const HUB_AUTHORITY: &str = "registry-1.docker.io";

/// Whom to ask, in this order. None if the reference does not say a registry.
pub(crate) fn endpoints(reference: &Reference, settings: &Settings) -> Option<Vec<Endpoint>> {
    let registry = match reference.registry.as_deref()? {
        "index.docker.io" | "registry-1.docker.io" => HUB,
        other => other,
    };
    let repository = match (registry, &reference.repository) {
        (HUB, repository) if !repository.contains('/') => format!("library/{repository}"),
        (_, repository) => repository.clone(),
    };
    let mirrors = settings.mirrors.get(registry).into_iter().flatten();
    let mut found: Vec<Endpoint> =
        mirrors.map(|mirror| mirror_endpoint(mirror, &repository, settings)).collect();
    let authority = if registry == HUB { HUB_AUTHORITY } else { registry };
    found.push(Endpoint {
        authority: authority.to_owned(),
        account: registry.to_owned(),
        repository,
        scheme: scheme(authority, settings),
    });
    Some(found)
}

/// Where a registry itself is asked, about no image in particular.
pub(crate) fn account_endpoint(registry: &str, settings: &Settings) -> Endpoint {
    let authority = if registry == HUB { HUB_AUTHORITY } else { registry };
    Endpoint {
        authority: authority.to_owned(),
        account: registry.to_owned(),
        repository: String::new(),
        scheme: scheme(authority, settings),
    }
}

fn mirror_endpoint(mirror: &str, repository: &str, settings: &Settings) -> Endpoint {
    let (said, rest) = split_scheme(mirror);
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = path.trim_matches('/');
    Endpoint {
        authority: authority.to_owned(),
        account: authority.to_owned(),
        repository: if path.is_empty() { repository.to_owned() } else { format!("{path}/{repository}") },
        scheme: said.unwrap_or_else(|| scheme(authority, settings)),
    }
}

/// The host of a mirror that is to be talked to in plain text.
pub(crate) fn plain_authority(mirror: &str) -> Option<String> {
    let (scheme, rest) = split_scheme(mirror);
    (scheme == Some(Scheme::Plain)).then(|| rest.split('/').next().unwrap_or_default().to_owned())
}

fn split_scheme(mirror: &str) -> (Option<Scheme>, &str) {
    match (mirror.strip_prefix("http://"), mirror.strip_prefix("https://")) {
        (Some(rest), _) => (Some(Scheme::Plain), rest),
        (None, Some(rest)) => (Some(Scheme::Tls), rest),
        (None, None) => (None, mirror),
    }
}

pub(crate) fn scheme(authority: &str, settings: &Settings) -> Scheme {
    if settings.plain_http.contains(authority) {
        return Scheme::Plain;
    }
    let uri = format!("http://{authority}/").parse();
    if uri.is_ok_and(|uri| super::http::is_loopback(&uri)) { Scheme::Local } else { Scheme::Tls }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(reference: &str, expected: &[&str]) {
        let settings = Settings {
            mirrors: [
                (
                    "docker.io".to_owned(),
                    vec!["https://m.example/hub/".to_owned(), "http://n.example:5".to_owned()],
                ),
                ("a.example".to_owned(), vec!["127.0.0.1:5000".to_owned()]),
            ]
            .into(),
            plain_http: ["lab.example:5000".to_owned()].into(),
            ..Settings::default()
        };
        let found = endpoints(&reference.parse().unwrap(), &settings).unwrap_or_default();
        let found: Vec<String> = found
            .iter()
            .map(|at| format!("{:?} {} {} as {}", at.scheme, at.authority, at.repository, at.account))
            .collect();
        assert_eq!(found, expected, "{reference}");
    }

    #[test]
    fn mirrors_are_asked_before_the_registry() {
        check("b.example/x/y:1", &["Tls b.example x/y as b.example"]);
        check("a.example/x", &["Local 127.0.0.1:5000 x as 127.0.0.1:5000", "Tls a.example x as a.example"]);
        check(
            "docker.io/debian",
            &[
                "Tls m.example hub/library/debian as m.example",
                "Plain n.example:5 library/debian as n.example:5",
                "Tls registry-1.docker.io library/debian as docker.io",
            ],
        );
        check("debian", &[]);
    }

    #[test]
    fn plain_text_is_for_this_computer_or_when_asked_for() {
        check("lab.example:5000/x", &["Plain lab.example:5000 x as lab.example:5000"]);
        check("lab.example/x", &["Tls lab.example x as lab.example"]);
        check("localhost:5000/x", &["Local localhost:5000 x as localhost:5000"]);
        check("[::1]:5000/x", &["Local [::1]:5000 x as [::1]:5000"]);
        check("10.0.0.1:5000/x", &["Tls 10.0.0.1:5000 x as 10.0.0.1:5000"]);
        assert_eq!(plain_authority("http://n.example:5/x").as_deref(), Some("n.example:5"));
        assert_eq!(plain_authority("https://n.example"), None);
    }
}
