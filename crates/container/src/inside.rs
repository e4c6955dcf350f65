//! Making a container: from inside, in the process that becomes its first one.

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};
use rustix::fs::fstat;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use stead_model::container::{Launch, Mode};

use crate::capability::Allowed;
use crate::cgroup::Cgroup;
use crate::channel::Channel;
use crate::mounts::attach::{attach, guard, onto};
use crate::mounts::confined::{self, Make};
use crate::mounts::device::{self, Node};
use crate::mounts::plan::{Kind, Planned, READ_ONLY, What, guarded};
use crate::mounts::prepare::{clone, prepare};
use crate::mounts::root::{enter, leave, mount_root};
use crate::place::{Place, Stdio};
use crate::process::{
    self, Streams, Terminal, Wanted, become_program, connect, connect_terminal, environment, terminal,
};
use crate::sys::{self, Instruction, MountAttributes, mount_setattr};
use crate::{init, sysctl};

/// All that the first process needs to know.
pub(crate) struct Inside<'a> {
    pub(crate) launch: &'a Launch,
    pub(crate) place: &'a Place,
    pub(crate) stdio: Stdio<'a>,
    pub(crate) streams: Option<Streams>,
    pub(crate) is_mapped: bool,
    pub(crate) allowed: Allowed,
    pub(crate) filter: Option<Vec<Instruction>>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) cgroup: Cgroup,
    pub(crate) mounts: Vec<Planned>,
}

/// Becomes the container's first process; ends this one if that fails.
pub(crate) fn become_init(inside: Inside<'_>, channel: Channel) -> ! {
    match set_up(inside, &channel) {
        Ok(Some(ready)) => match ready.run(channel) {},
        // Whoever made us is gone.
        Ok(None) => sys::exit(1),
        Err(error) => {
            channel.fail(&error.into());
            sys::exit(1)
        }
    }
}

/// What is left to do when told to go.
struct Ready<'a> {
    wanted: Wanted<'a>,
    has_init: bool,
}

impl Ready<'_> {
    fn run(self, channel: Channel) -> std::convert::Infallible {
        let Self { wanted, has_init } = self;
        let start = |channel: Channel| -> std::convert::Infallible {
            let failure = become_program(&wanted, &channel);
            channel.fail(&failure);
            sys::exit(i32::from(failure.code))
        };
        if !has_init {
            return start(channel);
        }
        if let Err(error) = process::die_with_maker() {
            channel.fail(&error.into());
            sys::exit(i32::from(crate::place::CODE_OURS));
        }
        init::run(channel, start)
    }
}

fn set_up<'a>(inside: Inside<'a>, channel: &Channel) -> Result<Option<Ready<'a>>> {
    let Inside { launch, place, .. } = inside;
    let belonging = Belonging::begin(&inside.cgroup)?;
    process::session()?;
    process::limit(&launch.limits.ulimits)?;
    if let Some(score) = launch.limits.oom_score {
        fs::write("/proc/self/oom_score_adj", score.to_string())
            .with_context(|| format!("cannot set the out-of-memory score to {score}"))?;
    }
    let is_own_network = join_network(&place.netns)? && launch.network.is_own();
    rustix::system::sethostname(launch.hostname.as_bytes())
        .with_context(|| format!("cannot be called `{}`", launch.hostname))?;
    let made =
        inside.mounts.iter().map(|planned| (!shows_cgroups(planned)).then(|| prepare(planned)).transpose());
    let mut made = made.collect::<Result<Vec<_>>>()?;
    let bound = device::bound(&inside.nodes, &launch.rights, inside.is_mapped)?;
    mount_root(place, inside.is_mapped)?;
    let (root, old) = enter(&place.root)?;
    furnish(&inside, &root, (&mut made, &bound), belonging)?;
    sysctl::set(&launch.rights.sysctls, launch.mode, is_own_network)?;
    guard(root.as_fd(), &guarded(launch))?;
    leave(old, &root)?;
    // They are of this computer, or could be mounted once more.
    drop((made, bound));
    if launch.mode == Mode::System {
        share()?;
    }
    let user = process::user(&launch.user, &launch.groups)?;
    let terminal = streams(&inside, &root)?;
    process::directory(&launch.cwd, !launch.rights.read_only)?;
    if launch.rights.read_only {
        let attributes = MountAttributes { set: READ_ONLY, ..MountAttributes::default() };
        mount_setattr(root.as_fd(), attributes, false).context("cannot make the root read-only")?;
    }
    channel.ready(terminal.as_ref().map(|terminal| &terminal.own), 0)?;
    if !channel.wait_go()? {
        return Ok(None);
    }
    match (&terminal, &inside.streams) {
        (Some(terminal), _) => connect_terminal(&terminal.theirs, &user)?,
        (None, Some(streams)) => connect(streams, &user)?,
        (None, None) => {}
    }
    let wanted = Wanted {
        args: launch.args.as_slice().into(),
        is_login: false,
        env: environment(&launch.env, &user),
        user,
        allowed: inside.allowed,
        no_new_privileges: launch.rights.no_new_privileges,
        filter: inside.filter,
        dies_with_maker: !launch.init,
    };
    Ok(Some(Ready { wanted, has_init: launch.init }))
}

/// Our way into the cgroups of version 1; of version 2 we are already. The kernel waits for all processors before it moves
/// a process, so that is done beside the rest.
struct Belonging(Option<JoinHandle<Result<()>>>);

impl Belonging {
    fn begin(cgroup: &Cgroup) -> Result<Self> {
        let doing = "cannot join the cgroup";
        let paths = cgroup.legacy.iter().map(|(_, directory)| directory.join("cgroup.procs"));
        // Now: by these paths nothing is found when the root is the container's.
        let open = |path: PathBuf| match fs::OpenOptions::new().write(true).open(&path) {
            Ok(file) => Ok((file, path)),
            Err(error) => Err(error).with_context(|| format!("cannot open `{}`", path.display())),
        };
        let files = paths.map(open).collect::<Result<Vec<_>>>().context(doing)?;
        if files.is_empty() {
            return Ok(Self(None));
        }
        let files = Arc::new(files);
        let join = |files: &[(fs::File, PathBuf)]| {
            files.iter().try_for_each(|(file, path)| {
                let mut file = file;
                file.write_all(b"0").with_context(|| format!("cannot write `0` to `{}`", path.display()))
            })
        };
        let theirs = Arc::clone(&files);
        match std::thread::Builder::new().spawn(move || join(&theirs)) {
            Ok(joining) => Ok(Self(Some(joining))),
            // Where there may be but one process there may be but one thread.
            Err(_) => join(&files).context(doing).map(|()| Self(None)),
        }
    }

    /// Has them be the uppermost that are seen from here.
    fn settle(self) -> Result<()> {
        let joined = self.0.map_or(Ok(Ok(())), JoinHandle::join);
        joined
            .map_err(|_| anyhow!("the thread that was to do it died"))?
            .context("cannot join the cgroup")?;
        sys::unshare(UnshareFlags::NEWCGROUP).context("cannot make a namespace of cgroups")
    }
}

/// Whether a mount depends on the cgroups in which whoever makes it is.
fn shows_cgroups(planned: &Planned) -> bool {
    matches!(planned.what, What::Kernel { kind: Kind::Cgroup1 | Kind::Cgroup2, .. })
}

/// Has mounts that are made later reach the namespaces that the system makes for its services and containers, as on a
/// computer; this computer's are in none of them.
fn share() -> Result<()> {
    let all = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    mount_change("/", all).context("cannot share mounts within the system")
}

/// Whether the network namespace that we join is another than that of whoever made us.
fn join_network(netns: &OwnedFd) -> Result<bool> {
    let own = rustix::fs::stat("/proc/self/ns/net").context("cannot see our network namespace")?;
    let theirs = fstat(netns).context("cannot see the network namespace")?;
    if (own.st_dev, own.st_ino) == (theirs.st_dev, theirs.st_ino) {
        return Ok(false);
    }
    move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
        .context("cannot join the network namespace")?;
    Ok(true)
}

/// Mounts everything at its place: what is made already, and what shows cgroups. Our root is the container's.
fn furnish(
    inside: &Inside<'_>,
    root: &OwnedFd,
    (made, bound): (&mut [Option<OwnedFd>], &device::Bound),
    belonging: Belonging,
) -> Result<()> {
    let mut belonging = Some(belonging);
    for (planned, made) in inside.mounts.iter().zip(made.iter_mut()) {
        let tree = match made.take() {
            Some(tree) => tree,
            None => {
                belonging.take().map_or(Ok(()), Belonging::settle)?;
                prepare(planned)?
            }
        };
        attach(root.as_fd(), planned, &tree)?;
        *made = Some(tree);
        if planned.target == "/dev" && matches!(&planned.what, What::Kernel { kind: Kind::Tmpfs, .. }) {
            device::fill(root.as_fd(), &inside.nodes, bound)?;
        }
    }
    belonging.take().map_or(Ok(()), Belonging::settle)?;
    // Now that all hierarchies have their places in it.
    let is_shelf = |planned: &Planned| {
        planned.target == "/sys/fs/cgroup"
            && matches!(&planned.what, What::Kernel { kind: Kind::Tmpfs, .. })
            && !inside.launch.rights.privileged
    };
    let mut shelves = inside.mounts.iter().zip(made).filter(|(planned, _)| is_shelf(planned));
    let attributes = MountAttributes { set: READ_ONLY, ..MountAttributes::default() };
    shelves
        .try_for_each(|(_, made)| {
            made.as_ref().map_or(Ok(()), |made| mount_setattr(made.as_fd(), attributes, false))
        })
        .context("cannot make `/sys/fs/cgroup` read-only")
}

/// The container's terminal, if it is to have one; it is its console, too.
fn streams(inside: &Inside<'_>, root: &OwnedFd) -> Result<Option<Terminal>> {
    let Stdio::Terminal(size) = inside.stdio else { return Ok(None) };
    let terminal = terminal(size)?;
    let number = rustix::pty::ptsname(&terminal.own, Vec::new()).context("the terminal has no name")?;
    let tree = clone(Path::new(&number.to_string_lossy().into_owned())).context("cannot show the console")?;
    let console =
        confined::place(root.as_fd(), "/dev/console", Make::File).context("cannot make a console")?;
    onto(tree, console).context("cannot show the console")?;
    Ok(Some(terminal))
}
