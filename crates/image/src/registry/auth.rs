//! How a registry wants to know who asks: challenges, and where tokens are to be had. Pure.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// With what somebody proves who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// A name and a password, or what the registry gave out instead of one.
    Password {
        /// The name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// A token for getting tokens.
    Identity(Secret),
}

/// The value of an `Authorization` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Authorization(pub(crate) Secret);

impl Authorization {
    /// By name and password.
    pub(crate) fn basic(username: &str, password: &Secret) -> Self {
        Self(Secret(format!("Basic {}", STANDARD.encode(format!("{username}:{}", password.0)))))
    }

    /// By a token.
    pub(crate) fn bearer(token: &str) -> Self {
        Self(Secret(format!("Bearer {token}")))
    }
}

/// What a registry wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// Name and password.
    Basic,
    /// A token, which is to be had elsewhere.
    Bearer {
        /// Where.
        realm: String,
        /// For what, in its own words.
        service: Option<String>,
        /// For what of that.
        scope: Option<String>,
    },
}

/// A challenge has a handful of parameters.
const PARAMETERS_MAX: usize = 32;

/// What the values of `WWW-Authenticate` headers ask for. Schemes that we do not know are passed over.
pub(crate) fn parse_challenges<'a>(headers: impl IntoIterator<Item = &'a str>) -> Vec<Challenge> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    for header in headers {
        let mut rest = header;
        while let Some(item) = next_item(&mut rest) {
            match item {
                Item::Scheme(scheme) => found.push((scheme.to_ascii_lowercase(), Vec::new())),
                Item::Parameter(key, value) => {
                    if let Some((_, parameters)) = found.last_mut()
                        && parameters.len() < PARAMETERS_MAX
                    {
                        parameters.push((key.to_ascii_lowercase(), value));
                    }
                }
            }
        }
    }
    found.iter().filter_map(|(scheme, parameters)| challenge(scheme, parameters)).collect()
}

fn challenge(scheme: &str, parameters: &[(String, String)]) -> Option<Challenge> {
    let value =
        |wanted: &str| parameters.iter().find(|(key, _)| key == wanted).map(|(_, value)| value.clone());
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer {
            realm: value("realm")?,
            service: value("service"),
            scope: value("scope"),
        }),
        _ => None,
    }
}

enum Item {
    Scheme(String),
    Parameter(String, String),
}

/// Takes the next scheme or parameter off a header: `Bearer realm="https://…",service=x, Basic realm="y"`.
fn next_item(rest: &mut &str) -> Option<Item> {
    *rest = rest.trim_start_matches([' ', '\t', ',']);
    let end = rest.find(|c: char| !is_token(c)).unwrap_or(rest.len());
    let (word, after) = rest.split_at_checked(end)?;
    if word.is_empty() {
        // Something that is no word: the rest cannot be understood.
        return None;
    }
    let value = after.trim_start_matches([' ', '\t']);
    match value.strip_prefix('=') {
        Some(value) => {
            let (value, after) = take_value(value.trim_start_matches([' ', '\t']))?;
            *rest = after;
            Some(Item::Parameter(word.to_owned(), value))
        }
        None => {
            *rest = after;
            Some(Item::Scheme(word.to_owned()))
        }
    }
}

fn take_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|c: char| !is_token(c)).unwrap_or(text.len());
        let (value, after) = text.split_at_checked(end)?;
        return Some((value.to_owned(), after));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, quoted.get(at + 1..)?)),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

/// RFC 9110's `token`, and what careless servers leave unquoted in values.
fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/:".contains(c)
}

/// The query by which a token is asked for.
pub(crate) fn token_query(service: Option<&str>, scope: &str, account: Option<&str>) -> String {
    let pairs = [
        ("account", account),
        ("scope", Some(scope).filter(|scope| !scope.is_empty())),
        ("service", service),
    ];
    form(pairs.into_iter().filter_map(|(key, value)| Some((key, value?))))
}

/// Pairs as in a form: `a=b&c=d`.
pub(crate) fn form<'a>(pairs: impl Iterator<Item = (&'static str, &'a str)>) -> String {
    let pairs: Vec<String> = pairs.map(|(key, value)| format!("{key}={}", percent(value))).collect();
    pairs.join("&")
}

fn percent(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// The token in the answer of a token server.
pub(crate) fn parse_token(bytes: &[u8]) -> Option<Secret> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        token: Option<String>,
        #[serde(default)]
        access_token: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(bytes).ok()?;
    // Some send both, and one of them empty.
    let given = [answer.token, answer.access_token].into_iter().flatten();
    given.map(Secret).find(|token| !token.0.is_empty() && token.0.bytes().all(|byte| byte.is_ascii_graphic()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(header: &str, expected: &str) {
        let shown: Vec<String> = parse_challenges([header])
            .into_iter()
            .map(|challenge| match challenge {
                Challenge::Basic => "basic".to_owned(),
                Challenge::Bearer { realm, service, scope } => {
                    format!("bearer {realm} {} {}", service.unwrap_or_default(), scope.unwrap_or_default())
                }
            })
            .collect();
        assert_eq!(shown.join("; "), expected, "{header}");
    }

    #[test]
    fn challenges_are_read_in_every_lawful_form() {
        check(r#"Basic realm="x""#, "basic");
        check("Basic", "basic");
        check("basic realm=x, charset=\"UTF-8\"", "basic");
        check(
            r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push""#,
            "bearer https://auth.example/token registry.example repository:a/b:pull,push",
        );
        check(r#"BEARER Realm = "a" , Scope=b"#, "bearer a  b");
        check(r#"Negotiate abc, Bearer realm="a", Basic realm="b""#, "bearer a  ; basic");
        check(r#"Bearer realm="a \"quoted\" \\ one""#, r#"bearer a "quoted" \ one  "#);
        check("Bearer realm=https://a.example/token", "bearer https://a.example/token  ");
    }

    #[test]
    fn what_cannot_be_understood_asks_for_nothing() {
        check("", "");
        check("Bearer", "");
        check(r#"Bearer service="x""#, "");
        check(r#"Bearer realm="open"#, "");
        check("\"\"", "");
        check("Bearer é", "");
        check(&format!("Bearer {}realm=x", "a=b,".repeat(100_000)), "");
    }

    proptest::proptest! {
        #[test]
        fn no_header_is_too_much(header in r#"([a-zA-Z]+|=|"|,| |\\|é){0,40}"#, any in ".*") {
            parse_challenges([header.as_str(), any.as_str()]);
        }
    }

    #[test]
    fn several_headers_are_one_list() {
        let found = parse_challenges([r#"Negotiate"#, r#"Basic realm="x""#]);
        assert_eq!(found, [Challenge::Basic]);
    }

    #[test]
    fn a_query_for_a_token_hides_nothing_in_its_values() {
        assert_eq!(
            token_query(Some("a&b=c"), "repository:lab/web:pull,push", Some("me@x")),
            "account=me%40x&scope=repository%3Alab%2Fweb%3Apull%2Cpush&service=a%26b%3Dc"
        );
        assert_eq!(token_query(None, "", None), "");
    }

    #[test]
    fn tokens_are_found_under_both_names_and_must_fit_a_header() {
        for (text, expected) in [
            (r#"{"token":"a"}"#, Some("a")),
            (r#"{"access_token":"b","token":""}"#, Some("b")),
            (r#"{"access_token":null,"token":"c"}"#, Some("c")),
            (r#"{"token":"a\r\nX: y"}"#, None),
            ("{}", None),
            ("[]", None),
        ] {
            assert_eq!(parse_token(text.as_bytes()).map(|token| token.0).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn secrets_are_never_shown() {
        let password = Secret("hunter2".into());
        let basic = Authorization::basic("me", &password);
        assert_eq!(basic.0.0, "Basic bWU6aHVudGVyMg==");
        let shown = format!(
            "{basic:?} {:?} {:?}",
            Credentials::Password { username: "me".into(), password: password.clone() },
            Credentials::Identity(password)
        );
        assert!(!shown.contains("hunter2") && !shown.contains("bWU6"), "{shown}");
    }
}
