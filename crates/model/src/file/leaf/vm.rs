//! What only whole computers have.

use super::container::{REFERENCE, image};
use super::mount::{FILE, source};
use super::{Numbers, TextForm, Wrong};
use crate::file::problem::quote;
use crate::image::Reference;

/// A kind, the key in base64, and whose it is.
pub(crate) const KEY: &str = " *(ssh-|ecdsa-|sk-)[^ ]* +[A-Za-z0-9+/=]{17,}( .*)?";
/// The name of an image, or a file with one.
pub(crate) const ANY_IMAGE: &TextForm = &TextForm {
    check: |text| any_image(text).map(drop),
    pattern: &[FILE, "|", REFERENCE],
    numbers: Numbers::No,
};
/// A public key, in a line as `ssh-keygen` writes it.
pub(crate) const SSH_KEY: &TextForm =
    &TextForm { check: |text| ssh_key(text).map(drop), pattern: &[KEY], numbers: Numbers::No };

/// What a machine is made from, as written.
#[derive(Clone, Debug)]
pub(crate) enum AnyImage {
    /// Of a registry, or of this computer's store.
    Named(Reference),
    /// A file: absolute, relative to the project file, or from `~`.
    File(String),
}

pub(crate) fn any_image(text: &str) -> Result<AnyImage, Wrong> {
    if text.starts_with(['.', '/', '~']) {
        return source(text).map(AnyImage::File);
    }
    image(text).map(AnyImage::Named)
}

pub(crate) fn ssh_key(text: &str) -> Result<String, Wrong> {
    let mut words = text.split(' ').filter(|word| !word.is_empty());
    let (kind, key) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let is_kind = ["ssh-", "ecdsa-", "sk-"].iter().any(|start| kind.starts_with(start));
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
    if is_kind && key.len() > 16 && key.bytes().all(is_base64) && !text.contains(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(Wrong::found(format!("{} is not a public key", quote(text)))
        .hint("it is the line in a file like `~/.ssh/id_ed25519.pub`"))
}

/// What the first line of user-data begins with: cloud-init leaves anything else out.
const USER_DATA_STARTS: [&str; 8] = [
    "#cloud-config",
    "#!",
    "#include",
    "#cloud-boothook",
    "#part-handler",
    "## template: jinja",
    "Content-Type:",
    "MIME-Version:",
];

pub(crate) fn user_data(text: &str) -> Result<String, Wrong> {
    let first = text.lines().next().unwrap_or_default();
    if !USER_DATA_STARTS.iter().any(|start| first.starts_with(start)) {
        return Err(Wrong::found(format!("cloud-init does not know what begins with {}", quote(first)))
            .hint("the first line is `#cloud-config`, or `#!/bin/sh` for a program"));
    }
    if first.starts_with("#cloud-config") && !first.starts_with("#cloud-config-archive") {
        is_yaml(text)?;
    }
    Ok(text.to_owned())
}

/// Whether a text can be read as YAML at all; what it means is for cloud-init to say.
fn is_yaml(text: &str) -> Result<(), Wrong> {
    for event in saphyr_parser::Parser::new_from_str(text) {
        if let Err(error) = event {
            let (line, column) = (error.marker().line(), error.marker().col() + 1);
            let message = format!("its line {line}, column {column} is not YAML: {}", error.info());
            return Err(Wrong::found(message).hint("cloud-init would leave all of it out"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let said = user_data(text).map_or_else(|wrong| wrong.message, |_| "fine".to_owned());
        assert_eq!(said, expected, "{text}");
    }

    #[test]
    fn user_data_is_what_cloud_init_knows() {
        check("#cloud-config\nruncmd: [[touch, /a]]\n", "fine");
        check("#!/bin/sh\n{{\n", "fine");
        check("#cloud-config-archive\n- [\n", "fine");
        check("packages: [a]\n", "cloud-init does not know what begins with `packages: [a]`");
        check(
            "#cloud-config\na: b: c\n",
            "its line 2, column 5 is not YAML: mapping values are not allowed in this context",
        );
    }

    #[test]
    fn a_public_key_is_a_line_of_its_file() {
        ssh_key("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB user@home").unwrap();
        for text in ["", "ssh-ed25519", "AAAAC3NzaC1lZDI1NTE5AAAAIB", "-----BEGIN OPENSSH PRIVATE KEY-----"] {
            ssh_key(text).unwrap_err();
        }
    }
}
