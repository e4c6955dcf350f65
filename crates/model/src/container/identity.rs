//! Files by which a system tells itself from all others. What is made like another machine does not have that one's.

/// What becomes of such a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// It is there and empty, which tells systemd to give the machine an id, and not that it starts for the first time.
    Emptied,
    /// It is left out: another is made of it, or with it.
    LeftOut,
    /// It is left out, and is a secret: whoever has it can pass for the machine.
    Secret,
}

/// What becomes of the file at a path from the root, if it is one of them.
pub fn identity(path: &[u8]) -> Option<Identity> {
    match path {
        b"etc/machine-id" => Some(Identity::Emptied),
        b"var/lib/dbus/machine-id" => Some(Identity::LeftOut),
        // The one that `stead ssh` gave it; it is given another at the next login.
        b"run/stead-ssh/host-key" => Some(Identity::LeftOut),
        path => {
            let name = path.strip_prefix(b"etc/ssh/ssh_host_")?;
            let is_key = name.windows(4).any(|part| part == b"_key") && !name.contains(&b'/');
            is_key.then_some(Identity::Secret)
        }
    }
}

/// The directories in which they are, from the root.
pub const IDENTITY_DIRECTORIES: [&str; 4] = ["etc", "etc/ssh", "run/stead-ssh", "var/lib/dbus"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_known_by_their_paths() {
        for (path, expected) in [
            ("etc/machine-id", Some(Identity::Emptied)),
            ("var/lib/dbus/machine-id", Some(Identity::LeftOut)),
            ("etc/ssh/ssh_host_ed25519_key", Some(Identity::Secret)),
            ("etc/ssh/ssh_host_rsa_key.pub", Some(Identity::Secret)),
            ("etc/ssh/ssh_host_config", None),
            ("etc/ssh/ssh_host_a/b_key", None),
            ("etc/ssh/sshd_config", None),
            ("run/stead-ssh/host-key", Some(Identity::LeftOut)),
            ("home/etc/machine-id", None),
        ] {
            assert_eq!(identity(path.as_bytes()), expected, "{path}");
        }
    }
}
