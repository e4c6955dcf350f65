//! The unit of systemd that starts machines with the computer, as text. Pure.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use stead_model::address::digest;

/// Before the digest of all that follows that line.
const FIRST: &str =
    "# Written by `stead autostart enable`, which leaves it alone once anything below is changed: ";

/// What a unit is made of.
pub(super) struct Unit {
    /// Whether it is one of the system's systemd, or of a user's.
    pub(super) is_systems: bool,
    /// This program.
    pub(super) program: PathBuf,
    /// What of the environment says where the home is.
    pub(super) variables: Vec<(&'static str, PathBuf)>,
    /// The directory without which nothing can be started.
    pub(super) state: PathBuf,
}

impl Unit {
    /// The whole file.
    pub(super) fn text(&self) -> Result<String> {
        let body = self.body()?;
        Ok(format!("{FIRST}{}\n{body}", mark(&body)))
    }

    fn body(&self) -> Result<String> {
        let program = plain(&self.program)?;
        ensure!(
            !program.contains(['"', '\\', '\'']),
            "systemd runs no program at {program}; hint: one without quotes and `\\` in its path"
        );
        let program = word(&format!("-{program}"));
        let mut lines = vec![
            "[Unit]".to_owned(),
            "Description=Machines of stead that run whenever the computer does".to_owned(),
        ];
        if self.is_systems {
            let state = word(plain(&self.state)?);
            lines.push("Wants=network-online.target".to_owned());
            lines.push("After=network-online.target remote-fs.target".to_owned());
            lines.push(format!("RequiresMountsFor={state}"));
        }
        lines.extend(["", "[Service]", "Type=oneshot", "RemainAfterExit=yes"].map(str::to_owned));
        for (name, value) in &self.variables {
            lines.push(format!("Environment={}", word(&format!("{name}={}", plain(value)?))));
        }
        lines.push(format!("ExecStart={program} autostart start --wait-online 30"));
        // Also if the computer goes off while machines are still started.
        lines.push(format!("ExecStopPost={program} autostart stop"));
        lines.push(
            "# Machines are ended by the line above, and by nothing else: also what serves them stays."
                .to_owned(),
        );
        lines.extend(["KillMode=process", "OOMPolicy=continue", "TasksMax=infinity"].map(str::to_owned));
        lines.extend(["TimeoutStartSec=infinity", "TimeoutStopSec=100", "", "[Install]"].map(str::to_owned));
        lines.push(format!("WantedBy={}", self.target()));
        Ok(lines.join("\n") + "\n")
    }

    /// What starts it.
    pub(super) fn target(&self) -> &'static str {
        if self.is_systems { "multi-user.target" } else { "default.target" }
    }
}

/// Whether a unit is as we wrote it, in whichever version.
pub(super) fn is_ours(text: &str) -> bool {
    let Some((first, body)) = text.split_once('\n') else { return false };
    first.strip_prefix(FIRST).is_some_and(|written| written == mark(body))
}

fn mark(body: &str) -> String {
    digest(&[body]).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn plain(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is no text, which units of systemd are", path.display()))
}

/// A word of a unit that means just these characters: systemd replaces what follows `%`, and reads quotes and `\`
/// (systemd.syntax(7)). Of a command line the first word has no variables, and ours have no other that could.
fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@".contains(c);
    if text.chars().all(is_plain) {
        return text.to_owned();
    }
    let escaped = |c: char| match c {
        '%' => "%%".to_owned(),
        '"' | '\\' => format!("\\{c}"),
        c if c.is_control() => c.to_string().bytes().map(|byte| format!("\\x{byte:02x}")).collect(),
        c => c.to_string(),
    };
    format!("\"{}\"", text.chars().map(escaped).collect::<String>())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(unit: &Unit, expected: &Expect) {
        let text = unit.text().unwrap();
        expected.assert_eq(&text);
        assert!(is_ours(&text));
        assert!(!is_ours(&text.replace("TimeoutStopSec=100", "TimeoutStopSec=10")));
        assert!(!is_ours(&format!("{text}# mine\n")) && !is_ours(&text.replace("# Written", "# written")));
    }

    #[test]
    fn roots_unit_is_the_systems() {
        let unit = Unit {
            is_systems: true,
            program: "/usr/bin/stead".into(),
            variables: Vec::new(),
            state: "/var/lib/stead".into(),
        };
        check(
            &unit,
            &expect![[r#"
            # Written by `stead autostart enable`, which leaves it alone once anything below is changed: 667540d5b2d982f7dd875d8335235126
            [Unit]
            Description=Machines of stead that run whenever the computer does
            Wants=network-online.target
            After=network-online.target remote-fs.target
            RequiresMountsFor=/var/lib/stead

            [Service]
            Type=oneshot
            RemainAfterExit=yes
            ExecStart=-/usr/bin/stead autostart start --wait-online 30
            ExecStopPost=-/usr/bin/stead autostart stop
            # Machines are ended by the line above, and by nothing else: also what serves them stays.
            KillMode=process
            OOMPolicy=continue
            TasksMax=infinity
            TimeoutStartSec=infinity
            TimeoutStopSec=100

            [Install]
            WantedBy=multi-user.target
        "#]],
        );
    }

    #[test]
    fn a_users_unit_says_where_the_home_is_whatever_is_in_its_name() {
        let unit = Unit {
            is_systems: false,
            program: "/home/joe/my 100%/stead".into(),
            variables: vec![("STEAD_HOME", "/srv/a b\\c%d\ne$f".into())],
            state: "/srv/a".into(),
        };
        check(
            &unit,
            &expect![[r##"
            # Written by `stead autostart enable`, which leaves it alone once anything below is changed: cf07add5f4e4497ffd733c98b34b6207
            [Unit]
            Description=Machines of stead that run whenever the computer does

            [Service]
            Type=oneshot
            RemainAfterExit=yes
            Environment="STEAD_HOME=/srv/a b\\c%%d\x0ae$f"
            ExecStart="-/home/joe/my 100%%/stead" autostart start --wait-online 30
            ExecStopPost="-/home/joe/my 100%%/stead" autostart stop
            # Machines are ended by the line above, and by nothing else: also what serves them stays.
            KillMode=process
            OOMPolicy=continue
            TasksMax=infinity
            TimeoutStartSec=infinity
            TimeoutStopSec=100

            [Install]
            WantedBy=default.target
        "##]],
        );
    }

    #[test]
    fn what_somebody_else_wrote_is_not_ours() {
        assert!(!is_ours("") && !is_ours("[Unit]\n") && !is_ours(FIRST));
    }
}
