//! Which machines are started when the computer has started, by their restart policies as Docker documents them: `always`
//! whatever was before, `unless-stopped` unless somebody stopped them, `on-failure` and `no` never. What never ran is started
//! by whoever made it.

use serde::Serialize;

use crate::container::Restart;
use crate::observed::{Body, MachineState};

/// What is known of a machine's last run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    /// It never ran.
    New,
    /// It runs, or ended by itself, or with the computer.
    Ran,
    /// Somebody told it to end.
    Stopped,
}

/// Whether a machine is started with the computer, or why it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It is.
    Starts,
    /// Its policy does not have it started.
    Policy,
    /// Somebody stopped it, and its policy heeds that.
    Stopped,
    /// It never ran.
    New,
}

impl Verdict {
    /// What is decided of a machine with this policy.
    pub fn new(policy: Restart, past: Past) -> Self {
        match (policy, past) {
            (Restart::No | Restart::OnFailure(_), _) => Self::Policy,
            (Restart::Always | Restart::UnlessStopped, Past::New) => Self::New,
            (Restart::UnlessStopped, Past::Stopped) => Self::Stopped,
            (Restart::Always, Past::Ran | Past::Stopped) | (Restart::UnlessStopped, Past::Ran) => {
                Self::Starts
            }
        }
    }
}

impl MachineState {
    /// Whether it is started again when it ended, if we run it.
    pub fn restart(&self) -> Option<Restart> {
        match &self.body {
            Body::External => None,
            Body::Container(made) | Body::Microvm(made) => Some(made.wish.restart),
            Body::Vm(made) => Some(made.wish.restart),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_as_docker_documents_them() {
        let check = |policy: &str, expected: [Verdict; 3]| {
            let policy: Restart = policy.parse().unwrap();
            let decided = [Past::New, Past::Ran, Past::Stopped].map(|past| Verdict::new(policy, past));
            assert_eq!(decided, expected, "{policy}");
        };
        use Verdict::{New, Policy, Starts, Stopped};
        check("no", [Policy; 3]);
        check("on-failure", [Policy; 3]);
        check("on-failure:3", [Policy; 3]);
        check("always", [New, Starts, Starts]);
        check("unless-stopped", [New, Starts, Stopped]);
    }
}
