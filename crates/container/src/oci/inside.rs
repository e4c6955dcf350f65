//! Making a container of a bundle: from inside, in the process that becomes its first one.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::net::{
    RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, acceptfrom_with, recv,
    sendmsg,
};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::UnshareFlags;

use super::check::{Plan, Refused};
use super::hooks;
use super::mounts::{Asked, PRIVATE, SHARED, SLAVE};
use super::place::{Sources, fix, furnish, hide, mount_root};
use super::process::{People, Program};
use super::program::{become_it, settle};
use super::state::{Record, Status};
use crate::cgroup::Cgroup;
use crate::cgroup::layout::Layout;
use crate::channel::Channel;
use crate::mounts::attach::onto;
use crate::mounts::confined::{self, Make};
use crate::mounts::prepare::clone;
use crate::mounts::root::{enter_open, leave};
use crate::place::{CODE_OURS, Failure};
use crate::process::{self, Terminal};
use crate::sys::{self, Fork, MountAttributes, Parent, mount_setattr};

/// The exit code that says a hook failed: never that of a program, as none has run.
pub(crate) const CODE_HOOK: u8 = 124;

/// All that the first process needs to know.
pub(crate) struct Inside<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) layout: &'a Layout,
    pub(crate) cgroup: &'a Cgroup,
    /// Whether whoever makes it is in a user namespace.
    pub(crate) is_mapped: bool,
    pub(crate) console: Option<&'a OwnedFd>,
    pub(crate) preserve_fds: u32,
    pub(crate) record: &'a Record,
    /// The directory in which that is.
    pub(crate) room: &'a Path,
    pub(crate) listener: OwnedFd,
}

impl Inside<'_> {
    /// Whether device nodes cannot be made.
    pub(crate) fn is_in_user_namespace(&self) -> bool {
        self.is_mapped || self.plan.namespaces.has("user")
    }
}

/// Makes the first process in its namespaces, and ends.
pub(crate) fn go_between(inside: Inside<'_>, channel: Channel) -> ! {
    let done = arrange(&inside, &channel).and_then(|sources| {
        let made = sys::fork(inside.plan.namespaces.flags(), None, Parent::Grandparent);
        Ok((sources, made.context("cannot make namespaces")?))
    });
    match done {
        Ok((_, Fork::Parent(child))) => {
            // If nobody hears it, the first process notices, too.
            let _ = channel.ready(None, child.pid);
            sys::exit(0)
        }
        Ok((sources, Fork::Child)) => first(inside, sources, channel),
        Err(error) => {
            channel.fail(&error.into());
            sys::exit(1)
        }
    }
}

/// All that is done before there is a first process.
fn arrange(inside: &Inside<'_>, channel: &Channel) -> Result<Sources> {
    let spaces = &inside.plan.namespaces;
    for (_, directory) in &inside.cgroup.legacy {
        crate::cgroup::write(&directory.join("cgroup.procs"), "0").context("cannot join the cgroup")?;
    }
    let sources = Sources::open(inside)?;
    spaces.join()?;
    if spaces.makes("user") {
        sys::unshare(UnshareFlags::NEWUSER).context("cannot make a user namespace")?;
        channel.ready(None, 0)?;
        if !channel.wait_go()? {
            bail!("whoever made us is gone");
        }
    }
    if spaces.has("user") {
        super::program::become_root()?;
    }
    if let Some(program) = inside.plan.program.as_ref().filter(|_| spaces.joins("user")) {
        let mut bad = Vec::new();
        // In a joined namespace of mounts there may be none to be seen; then it shows when the program starts.
        if let Ok(people) = People::of("self") {
            people.refuse(program, &mut bad);
        }
        if !bad.is_empty() {
            return Err(Refused(bad).into());
        }
    }
    if spaces.makes("time") {
        sys::unshare(UnshareFlags::NEWTIME).context("cannot make a time namespace")?;
        let lines = inside.plan.time_offsets.iter();
        let lines = lines.map(|(clock, offset)| format!("{clock} {} {}\n", offset.secs, offset.nanosecs));
        let text = lines.collect::<String>();
        if !text.is_empty() {
            fs::write("/proc/self/timens_offsets", text).context("cannot set the clocks' offsets")?;
        }
    }
    Ok(sources)
}

fn first(inside: Inside<'_>, sources: Sources, channel: Channel) -> ! {
    match set_up(&inside, sources, &channel) {
        Ok(true) => {
            drop(channel);
            wait_and_start(inside)
        }
        // Whoever made us is gone.
        Ok(false) => sys::exit(1),
        Err(error) => {
            channel.fail(&error.into());
            sys::exit(1)
        }
    }
}

/// Makes all but the program. False if whoever made us is gone.
fn set_up(inside: &Inside<'_>, sources: Sources, channel: &Channel) -> Result<bool> {
    let plan = inside.plan;
    if !channel.wait_go()? {
        return Ok(false);
    }
    process::session()?;
    if plan.namespaces.joins("pid") {
        // Others are in it, and must not look into us: we have descriptors of this computer's open.
        set_dumpable_behavior(DumpableBehavior::NotDumpable).context("cannot hide from other processes")?;
    }
    let rest = Unspread::of(plan);
    if plan.namespaces.makes("mount") {
        mount_change("/", rest.flags).context("cannot cut our mounts off from this computer's")?;
    }
    name(plan)?;
    let root = mount_root(plan, &sources, inside.room)?;
    furnish(inside, root.as_fd(), &sources)?;
    channel.ready(None, 0)?;
    if !channel.wait_go()? {
        return Ok(false);
    }
    let state = inside.record.state(Status::Created, std::process::id());
    hooks::run("createContainer", &plan.hooks.create_container, &state).map_err(hook_failure)?;
    if plan.namespaces.has("mount") {
        let old = enter_open(&root)?;
        leave(old, &root)?;
    } else {
        rustix::process::fchdir(&root)?;
        rustix::process::chroot(".").context("cannot change the root")?;
    }
    for (path, value) in &plan.sysctls {
        fs::write(path, value).with_context(|| format!("cannot write `{value}` to `{path}`"))?;
    }
    show_console(inside, &root)?;
    guard(plan, &root, &sources)?;
    drop(sources);
    if let Some(program) = &plan.program {
        settle(program)?;
    }
    channel.ready(None, 0)?;
    channel.wait_go()
}

fn hook_failure(error: anyhow::Error) -> anyhow::Error {
    Failure { code: CODE_HOOK, text: format!("{error:#}") }.into()
}

/// How this computer's mounts are to reach ours, before the bundle's own wishes: received, as runc has it, unless the
/// root is to be cut off, too.
pub(crate) struct Unspread {
    flags: MountPropagationFlags,
    /// For a tree that was copied; 0: as it is.
    pub(crate) tree: u64,
}

impl Unspread {
    pub(crate) fn of(plan: &Plan) -> Self {
        let flag = plan.root_propagation.map_or(SLAVE, |propagation| propagation.flag);
        let (flags, tree) = match flag {
            SHARED => (MountPropagationFlags::SHARED, 0),
            SLAVE => (MountPropagationFlags::DOWNSTREAM, SLAVE),
            // What is mounted of them is cut off on its own, unless it is to receive.
            _ => (MountPropagationFlags::DOWNSTREAM, PRIVATE),
        };
        Self { flags: flags | MountPropagationFlags::REC, tree }
    }

    /// For the tree of a mount: one that is to receive does so whatever becomes of the root.
    pub(crate) fn of_mount(plan: &Plan, asked: &Asked) -> u64 {
        let receives = asked.propagation.iter().any(|wish| matches!(wish.flag, SLAVE | SHARED));
        let tree = Self::of(plan).tree;
        if tree == PRIVATE && receives { SLAVE } else { tree }
    }
}

fn name(plan: &Plan) -> Result<()> {
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.as_bytes()).with_context(|| format!("cannot be called `{name}`"))?;
    }
    if let Some(name) = &plan.domainname {
        rustix::system::setdomainname(name.as_bytes())
            .with_context(|| format!("cannot have the domain name `{name}`"))?;
    }
    Ok(())
}

/// Hides and fixes what is not to be seen or changed, and the root itself.
fn guard(plan: &Plan, root: &OwnedFd, sources: &Sources) -> Result<()> {
    let mut nothing = sources.nothing()?;
    for path in &plan.read_only {
        fix(root.as_fd(), path).with_context(|| format!("cannot make `{path}` read-only"))?;
    }
    for path in &plan.masked {
        hide(root.as_fd(), path, &mut nothing).with_context(|| format!("cannot hide `{path}`"))?;
    }
    if plan.is_root_read_only {
        let attributes =
            MountAttributes { set: crate::mounts::plan::READ_ONLY, ..MountAttributes::default() };
        mount_setattr(root.as_fd(), attributes, false).context("cannot make the root read-only")?;
    }
    if let Some(propagation) = plan.root_propagation {
        let attributes = MountAttributes { propagation: propagation.flag, ..MountAttributes::default() };
        mount_setattr(root.as_fd(), attributes, propagation.recursive)
            .context("cannot set how the root's mounts spread")?;
    }
    Ok(())
}

/// The container's terminal, if it is to have one: its own streams, its console, and who asked for it has the other end.
fn show_console(inside: &Inside<'_>, root: &OwnedFd) -> Result<()> {
    let program = inside.plan.program.as_ref();
    let (Some(size), Some(console)) = (program.and_then(|program| program.terminal), inside.console) else {
        return Ok(());
    };
    let terminal = process::terminal(size)?;
    let number = rustix::pty::ptsname(&terminal.own, Vec::new()).context("the terminal has no name")?;
    let tree = clone(Path::new(&number.to_string_lossy().into_owned())).context("cannot show the console")?;
    let place = confined::place(root.as_fd(), "/dev/console", Make::File).context("cannot make a console")?;
    onto(tree, place).context("cannot show the console")?;
    hand_over(console, &terminal)?;
    take(&terminal, program)
}

/// Gives whoever asked for it the terminal, as runc does: one descriptor, with a name.
pub(crate) fn hand_over(console: &OwnedFd, terminal: &Terminal) -> Result<()> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut more = SendAncillaryBuffer::new(&mut space);
    let fds = [terminal.own.as_fd()];
    more.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(console, &[std::io::IoSlice::new(b"/dev/ptmx")], &mut more, SendFlags::NOSIGNAL)
        .context("nobody takes the terminal")?;
    Ok(())
}

/// Has the terminal as our own streams.
pub(crate) fn take(terminal: &Terminal, program: Option<&Program>) -> Result<()> {
    let uid = program.map_or(0, |program| program.uid);
    let user = crate::user::User {
        uid,
        gid: 0,
        groups: std::collections::BTreeSet::new(),
        home: String::new(),
        name: String::new(),
        shell: String::new(),
    };
    process::connect_terminal(&terminal.theirs, &user)
}

/// Waits for `start`, and becomes the program.
fn wait_and_start(inside: Inside<'_>) -> ! {
    let plan = inside.plan;
    let channel = match wait_start(&inside.listener) {
        Ok(channel) => channel,
        Err(_) => sys::exit(i32::from(CODE_OURS)),
    };
    let Some(program) = &plan.program else {
        channel.fail(&Failure { code: CODE_OURS, text: "its bundle has no `process`".to_owned() });
        sys::exit(i32::from(CODE_OURS))
    };
    let state = inside.record.state(Status::Created, std::process::id());
    let failure = match hooks::run("startContainer", &plan.hooks.start_container, &state) {
        Ok(()) => become_it(program, inside.preserve_fds, &channel),
        Err(error) => Failure { code: CODE_HOOK, text: format!("{error:#}") },
    };
    channel.fail(&failure);
    sys::exit(i32::from(failure.code))
}

/// The connection over which we were told to start. Others that only look whether we are there say nothing.
fn wait_start(listener: &OwnedFd) -> rustix::io::Result<Channel> {
    loop {
        let connection = match acceptfrom_with(listener, SocketFlags::CLOEXEC) {
            Ok((connection, _)) => connection,
            Err(rustix::io::Errno::INTR) => continue,
            Err(errno) => return Err(errno),
        };
        let mut word = [0; 1];
        if let Ok((_, 1)) = recv(&connection, &mut word[..], RecvFlags::empty()) {
            return Ok(Channel::over(connection));
        }
    }
}
