//! Which of the common options mean something to which command.

use super::{Command, ImageCommand, KernelCommand, NetworkCommand};

/// What a command can be told by options that all share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Takes {
    /// Which project it is about.
    pub(crate) file: bool,
    /// In which form it prints data.
    pub(crate) format: bool,
}

impl Command {
    /// Which of the common options mean something to it; one that means nothing is refused, not passed over.
    pub(crate) fn takes(&self) -> Takes {
        let takes = |file, format| Takes { file, format };
        match self {
            Self::Plan(_)
            | Self::Up(_)
            | Self::Down(_)
            | Self::Config(_)
            | Self::Build(_)
            | Self::Pull(_)
            | Self::Ps(_) => takes(true, true),
            Self::Start(_)
            | Self::Stop(_)
            | Self::Restart(_)
            | Self::Kill(_)
            | Self::Pause(_)
            | Self::Unpause(_)
            | Self::Rm(_)
            | Self::Wait(_)
            | Self::Rename(_)
            | Self::Publish(_)
            | Self::Snapshot(_)
            | Self::Reset(_)
            | Self::Inspect(_)
            | Self::Port(_)
            | Self::Diff(_)
            | Self::Top(_)
            | Self::Events(_)
            | Self::Volume(_)
            | Self::Stats(_) => takes(true, true),
            Self::Attach(_)
            | Self::Clone(_)
            | Self::Console(_)
            | Self::Exec(_)
            | Self::Shell(_)
            | Self::Ssh(_)
            | Self::Logs(_)
            | Self::Cp(_) => takes(true, false),
            Self::Network(network) => match network {
                NetworkCommand::Inspect { .. } => takes(true, true),
                NetworkCommand::Enter(_) => takes(true, false),
                NetworkCommand::Ls
                | NetworkCommand::Create(_)
                | NetworkCommand::Rm { .. }
                | NetworkCommand::Connect(_)
                | NetworkCommand::Disconnect { .. } => takes(false, true),
            },
            Self::Image(image) => takes(false, has_format(image)),
            Self::Kernel(kernel) => takes(false, matches!(kernel, KernelCommand::Ls)),
            Self::Ls | Self::Doctor | Self::Version | Self::Login(_) | Self::Logout(_) => takes(false, true),
            Self::Purge(_)
            | Self::Schema
            | Self::Completion { .. }
            | Self::Man { .. }
            | Self::Unpack { .. }
            | Self::Forget { .. }
            | Self::PublishHere { .. }
            | Self::Tree(_)
            | Self::Copy { .. }
            | Self::ExportHere { .. }
            | Self::Detached { .. }
            | Self::DiffHere { .. }
            | Self::Reap { .. }
            | Self::Run(_)
            | Self::Create(_)
            | Self::Oci { .. }
            | Self::SshConfig(_)
            | Self::SshProxy { .. }
            | Self::Enter(_) => takes(false, false),
        }
    }
}

/// Whether a command about images prints data.
fn has_format(image: &ImageCommand) -> bool {
    match image {
        ImageCommand::Save(_) | ImageCommand::Export(_) => false,
        ImageCommand::Ls { .. }
        | ImageCommand::Pull(_)
        | ImageCommand::Push(_)
        | ImageCommand::Inspect(_)
        | ImageCommand::History(_)
        | ImageCommand::Tag { .. }
        | ImageCommand::Rm { .. }
        | ImageCommand::Prune { .. }
        | ImageCommand::Import(_)
        | ImageCommand::Build(_)
        | ImageCommand::Load(_) => true,
    }
}
