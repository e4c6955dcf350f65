//! Files as a stream of bytes, for a root that is in another computer: a guest's. One end packs, the other unpacks; what
//! is said of [`crate::transfer`] holds for both together.
//!
//! Whoever unpacks does not trust whoever packed. There are no paths in a parcel, only names, each of an entry of the
//! directory that was entered last; nothing is followed.
//!
//! ```text
//! form (1: what has a name, 2: what is in a directory) │ records, each with a kind:
//!   D name meta … U     a directory, and the way up out of it
//!   F name meta size bytes   L name meta target   N name meta device
//!   E                   the end          X text   it could not be packed on
//! ```

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, bail};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, chownat, fstat, lgetxattr,
    llistxattr, lsetxattr, mkdirat, mknodat, openat, readlinkat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};

use crate::copy::{names, set_mode};
use crate::transfer::{End, Nothing, Owners, Source, Target};

/// What is in a directory.
const FORM_CONTENT: u8 = 2;
/// What has a name.
const FORM_NAMED: u8 = 1;

/// How deep a tree may be: each level holds a descriptor open at either end.
const DEPTH_MAX: usize = 1000;
/// The kernel's own limits, and with them what a peer can have us keep.
const NAME_MAX_BYTES: usize = 255;
const LINK_MAX_BYTES: usize = 4096;
const ATTRIBUTES_MAX: usize = 64;
const VALUE_MAX_BYTES: usize = 64 << 10;
const WORDS_MAX_BYTES: usize = 4096;

/// What is known of an entry beside its content.
struct Meta {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: (i64, u64),
    attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Packs a file, or a directory with all that is in it.
pub fn pack(from: &End<'_>, to: &mut impl Write) -> Result<()> {
    let mut packer = Packer { to, depth: 0 };
    let done = from.source().and_then(|source| match source {
        Source::Content(directory) => {
            packer.to.write_all(&[FORM_CONTENT])?;
            packer.entries(directory.as_fd())
        }
        Source::Named(directory, name, _) => {
            packer.to.write_all(&[FORM_NAMED])?;
            packer.entry(directory.as_fd(), &name)
        }
    });
    match &done {
        Ok(()) => packer.to.write_all(b"E")?,
        Err(error) => {
            let text = format!("{error:#}");
            packer.to.write_all(b"X")?;
            packer.text(text.get(..WORDS_MAX_BYTES).unwrap_or(&text).as_bytes())?;
        }
    }
    packer.to.flush()?;
    // What is not there says it all.
    let is_all = |error: &anyhow::Error| error.is::<Nothing>();
    done.map_err(
        |error| if is_all(&error) { error } else { error.context(format!("cannot take `{}`", from.path)) },
    )
}

struct Packer<'a, W> {
    to: &'a mut W,
    depth: usize,
}

impl<W: Write> Packer<'_, W> {
    fn text(&mut self, bytes: &[u8]) -> Result<()> {
        self.to.write_all(&u32::try_from(bytes.len())?.to_be_bytes())?;
        Ok(self.to.write_all(bytes)?)
    }

    fn head(
        &mut self,
        kind: u8,
        name: &CStr,
        stat: &Stat,
        attributes: Vec<(Vec<u8>, Vec<u8>)>,
    ) -> Result<()> {
        self.to.write_all(&[kind])?;
        self.text(name.to_bytes())?;
        for number in [stat.st_mode, stat.st_uid, stat.st_gid] {
            self.to.write_all(&number.to_be_bytes())?;
        }
        self.to.write_all(&stat.st_mtime.to_be_bytes())?;
        self.to.write_all(&stat.st_mtime_nsec.to_be_bytes())?;
        self.to.write_all(&u32::try_from(attributes.len())?.to_be_bytes())?;
        for (name, value) in attributes {
            self.text(&name)?;
            self.text(&value)?;
        }
        Ok(())
    }

    fn entries(&mut self, directory: BorrowedFd<'_>) -> Result<()> {
        names(directory)?.iter().try_for_each(|name| self.entry(directory, name))
    }

    fn entry(&mut self, directory: BorrowedFd<'_>, name: &CStr) -> Result<()> {
        self.entry_at(directory, name).with_context(|| format!("`{}`", name.to_string_lossy()))
    }

    fn entry_at(&mut self, directory: BorrowedFd<'_>, name: &CStr) -> Result<()> {
        let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        // Those who run in the machine may put a pipe in the place of a file meanwhile: then nobody waits for it.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                self.depth += 1;
                if self.depth > DEPTH_MAX {
                    bail!("directories are nested too deeply");
                }
                let inner = openat(directory, name, flags | OFlags::DIRECTORY, Mode::empty())?;
                self.head(b'D', name, &fstat(&inner)?, attributes(directory, name)?)?;
                self.entries(inner.as_fd())?;
                self.depth -= 1;
                self.to.write_all(b"U")?;
            }
            FileType::RegularFile => {
                let file = File::from(openat(directory, name, flags, Mode::empty())?);
                let stat = fstat(&file)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                    bail!("it changed while it was read");
                }
                self.head(b'F', name, &stat, attributes(directory, name)?)?;
                self.content(file, u64::try_from(stat.st_size)?)?;
            }
            FileType::Symlink => {
                let target = readlinkat(directory, name, Vec::new())?;
                self.head(b'L', name, &stat, Vec::new())?;
                self.text(target.to_bytes())?;
            }
            FileType::Fifo | FileType::Socket | FileType::CharacterDevice | FileType::BlockDevice => {
                self.head(b'N', name, &stat, Vec::new())?;
                self.to.write_all(&stat.st_rdev.to_be_bytes())?;
            }
            FileType::Unknown => bail!("it is of no known kind"),
        }
        Ok(())
    }

    /// So many bytes, whatever the file's length is by now.
    fn content(&mut self, file: File, length: u64) -> Result<()> {
        self.to.write_all(&length.to_be_bytes())?;
        let copied = std::io::copy(&mut (&file).take(length), self.to)?;
        std::io::copy(&mut std::io::repeat(0).take(length - copied), self.to)?;
        Ok(())
    }
}

/// Extended attributes, but those that only the file system below understands.
fn attributes(directory: BorrowedFd<'_>, name: &CStr) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = by_fd(directory, name)?;
    let mut list = vec![0; VALUE_MAX_BYTES];
    let length = match llistxattr(&path, &mut list) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(errno) => return Err(errno).context("cannot list extended attributes"),
    };
    let mut found = Vec::new();
    for name in list.get(..length).unwrap_or_default().split(|byte| *byte == 0) {
        if name.is_empty() || name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        let mut value = vec![0; VALUE_MAX_BYTES];
        let length = lgetxattr(&path, name, value.as_mut_slice())?;
        value.truncate(length);
        found.push((name.to_owned(), value));
    }
    found.truncate(ATTRIBUTES_MAX);
    Ok(found)
}

fn by_fd(directory: BorrowedFd<'_>, name: &CStr) -> Result<CString> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend(name.to_bytes());
    Ok(CString::new(path)?)
}

/// Unpacks what [`pack`] made, as [`crate::transfer`] would put it there.
pub fn unpack(from: &mut impl Read, to: &End<'_>, owners: Owners) -> Result<()> {
    let doing = || format!("cannot put anything at `{}`", to.path);
    let form = byte(from).context("nothing came")?;
    let mut unpacker = Unpacker { from, owners, open: Vec::new() };
    if form == b'X' {
        return Err(unpacker.words()).with_context(doing);
    }
    let target = to.target()?;
    // The name of what stands alone may be another one here.
    let renamed = match (form, target) {
        (FORM_CONTENT | FORM_NAMED, Target::Into(directory)) => {
            unpacker.open.push(Open { directory, done: None });
            None
        }
        (FORM_CONTENT, Target::At(directory, name)) => {
            let inner = make_directory(&directory, &name).with_context(doing)?;
            unpacker.open.push(Open { directory: inner, done: None });
            None
        }
        (FORM_NAMED, Target::At(directory, name)) => {
            let is_directory_only = to.path.ends_with('/');
            unpacker.open.push(Open { directory, done: None });
            Some(Renamed { name, is_file_only: false, is_directory_only })
        }
        (FORM_NAMED, Target::Over(directory, name)) => {
            unpacker.open.push(Open { directory, done: None });
            Some(Renamed { name, is_file_only: true, is_directory_only: false })
        }
        (FORM_CONTENT, Target::Over(..)) => {
            bail!("`{}` is a file, and a directory cannot take its place", to.path)
        }
        _ => bail!("this is no parcel"),
    };
    unpacker.run(renamed).with_context(doing)
}

/// What stands alone gets this name.
struct Renamed {
    name: CString,
    is_file_only: bool,
    is_directory_only: bool,
}

/// A directory that was entered, with what is still to be done to it on the way out.
struct Open {
    directory: OwnedFd,
    done: Option<(CString, Meta)>,
}

struct Unpacker<'a, R> {
    from: &'a mut R,
    owners: Owners,
    open: Vec<Open>,
}

impl<R: Read> Unpacker<'_, R> {
    fn run(&mut self, mut renamed: Option<Renamed>) -> Result<()> {
        loop {
            match byte(self.from).context("the parcel ends too early")? {
                b'E' if self.open.len() == 1 => return Ok(()),
                b'X' => return Err(self.words()),
                b'U' if self.open.len() > 1 => self.leave()?,
                kind @ (b'D' | b'F' | b'L' | b'N') => {
                    let (mut name, meta) = self.head()?;
                    if let Some(other) = renamed.take() {
                        if kind == b'D' && other.is_file_only {
                            bail!("it is a file, and a directory cannot take its place");
                        }
                        if kind != b'D' && other.is_directory_only {
                            bail!("it is no directory");
                        }
                        name = other.name;
                    }
                    let doing = || format!("`{}`", name.to_string_lossy());
                    self.entry(kind, &name, meta).with_context(doing)?;
                }
                _ => bail!("this is no parcel"),
            }
        }
    }

    fn text(&mut self, most: usize) -> Result<Vec<u8>> {
        let length = usize::try_from(u32::from_be_bytes(self.array()?))?;
        if length > most {
            bail!("a text in the parcel is too long");
        }
        let mut text = vec![0; length];
        self.from.read_exact(&mut text)?;
        Ok(text)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.from.read_exact(&mut bytes).context("the parcel ends too early")?;
        Ok(bytes)
    }

    /// Why it could not be packed.
    fn words(&mut self) -> anyhow::Error {
        match self.text(WORDS_MAX_BYTES) {
            Ok(text) => anyhow::anyhow!("{}", String::from_utf8_lossy(&text)),
            Err(error) => error,
        }
    }

    fn head(&mut self) -> Result<(CString, Meta)> {
        let name = self.text(NAME_MAX_BYTES)?;
        if matches!(&*name, b"" | b"." | b"..") || name.contains(&b'/') {
            bail!("the parcel names what no entry of a directory can be called");
        }
        let name = CString::new(name).context("a name holds a zero byte")?;
        let [mode, uid, gid] = [self.array()?, self.array()?, self.array()?].map(u32::from_be_bytes);
        let mtime = (i64::from_be_bytes(self.array()?), u64::from_be_bytes(self.array()?));
        let count = usize::try_from(u32::from_be_bytes(self.array()?))?;
        if count > ATTRIBUTES_MAX {
            bail!("an entry of the parcel has too many attributes");
        }
        let attributes = (0..count).map(|_| Ok((self.text(NAME_MAX_BYTES)?, self.text(VALUE_MAX_BYTES)?)));
        let attributes = attributes.collect::<Result<_>>()?;
        Ok((name, Meta { mode, uid, gid, mtime, attributes }))
    }

    fn here(&self) -> Result<BorrowedFd<'_>> {
        Ok(self.open.last().context("there is no directory")?.directory.as_fd())
    }

    fn entry(&mut self, kind: u8, name: &CStr, meta: Meta) -> Result<()> {
        let directory = self.here()?;
        if kind == b'D' {
            if self.open.len() > DEPTH_MAX {
                bail!("directories are nested too deeply");
            }
            let inner = make_directory(directory, name)?;
            self.open.push(Open { directory: inner, done: Some((name.to_owned(), meta)) });
            return Ok(());
        }
        match unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => bail!("there is a directory in its place"),
            Err(errno) => return Err(errno).context("cannot take away what is in its place"),
        }
        let mode = Mode::from_raw_mode(0o600);
        match kind {
            b'F' => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let mut file = File::from(openat(directory, name, flags, mode)?);
                let length = u64::from_be_bytes(self.array()?);
                let copied = std::io::copy(&mut self.from.by_ref().take(length), &mut file)?;
                if copied < length {
                    bail!("the parcel ends too early");
                }
            }
            b'L' => {
                let target = self.text(LINK_MAX_BYTES)?;
                symlinkat(&*target, self.here()?, name)?;
            }
            _ => {
                let device = u64::from_be_bytes(self.array()?);
                let kind = FileType::from_raw_mode(meta.mode);
                let is_device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
                if is_device && self.owners == Owners::Ours {
                    bail!("it is a device, which is copied only with its owner and rights");
                }
                if !is_device && !matches!(kind, FileType::Fifo | FileType::Socket) {
                    bail!("this is no parcel");
                }
                mknodat(self.here()?, name, kind, mode, device)?;
            }
        }
        dress(self.here()?, name, &meta, self.owners)
    }

    fn leave(&mut self) -> Result<()> {
        let left = self.open.pop().context("there is no directory")?;
        let (name, meta) = left.done.context("there is no way up")?;
        dress(self.here()?, &name, &meta, self.owners)
    }
}

fn byte(from: &mut impl Read) -> Result<u8> {
    let mut byte = [0];
    from.read_exact(&mut byte)?;
    let [byte] = byte;
    Ok(byte)
}

/// Makes a directory, unless it is there, and opens it.
fn make_directory(directory: impl AsFd, name: &CStr) -> Result<OwnedFd> {
    match mkdirat(&directory, name, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(&directory, name, flags, Mode::empty())?)
}

/// Gives an entry its owner, extended attributes, mode and times; in this order, as a change of owner clears parts of the
/// mode and a file's capabilities.
fn dress(directory: BorrowedFd<'_>, name: &CStr, meta: &Meta, owners: Owners) -> Result<()> {
    let (uid, gid, mode) = match owners {
        Owners::Keep => (meta.uid, meta.gid, meta.mode & 0o7777),
        Owners::Ours => (geteuid().as_raw(), getegid().as_raw(), meta.mode & 0o1777),
    };
    let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    chownat(directory, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)
        .context("cannot give it its owner")?;
    let path = by_fd(directory, name)?;
    for (attribute, value) in &meta.attributes {
        // The others are rights, and labels of who has them.
        if owners == Owners::Ours && !attribute.starts_with(b"user.") {
            continue;
        }
        match lsetxattr(&path, attribute.as_slice(), value, rustix::fs::XattrFlags::empty()) {
            // Labels of security modules and file systems without attributes are this computer's matter.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(errno) => return Err(errno).context("cannot set an extended attribute"),
        }
    }
    set_mode(directory, name, mode)?;
    let (seconds, nanoseconds) = meta.mtime;
    let time = Timespec { tv_sec: seconds, tv_nsec: i64::try_from(nanoseconds).unwrap_or_default() };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::Path;

    use super::*;
    use crate::transfer::Root;

    fn root(path: &Path) -> Root {
        Root::Container(fs::File::open(path).unwrap().into())
    }

    /// Carries what is at a path of one root to a path of another one, and lists what is there then.
    #[track_caller]
    fn check(from: &str, to: &str, expected: &str) {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path();
        for name in ["from/d/inner", "from/empty", "to/etc", "secret"] {
            fs::create_dir_all(base.join(name)).unwrap();
        }
        fs::write(base.join("from/file"), "text").unwrap();
        fs::write(base.join("from/d/inner/x"), vec![b'x'; 100_000]).unwrap();
        fs::set_permissions(base.join("from/file"), fs::Permissions::from_mode(0o4755)).unwrap();
        symlink("/secret", base.join("from/d/link")).unwrap();
        symlink(base.join("secret"), base.join("to/out")).unwrap();
        symlink("/etc", base.join("to/inside")).unwrap();
        fs::write(base.join("to/there"), "old").unwrap();
        let before = list(base);
        let mut parcel = Vec::new();
        let packed = pack(&End { root: &root(&base.join("from")), path: from }, &mut parcel);
        let to = End { root: &root(&base.join("to")), path: to };
        let unpacked = unpack(&mut parcel.as_slice(), &to, Owners::Ours);
        // Both ends know why it failed.
        if let (Err(one), Err(other)) = (&packed, &unpacked) {
            let (one, other) = (one.root_cause().to_string(), format!("{other:#}"));
            assert!(other.contains(&one), "{one} is not in {other}");
        }
        let after = list(base);
        let said = match unpacked {
            Ok(()) => after.into_iter().filter(|line| !before.contains(line)).collect::<Vec<_>>().join(" "),
            Err(error) => {
                assert_eq!(after, before);
                error.root_cause().to_string()
            }
        };
        assert_eq!(said, expected);
    }

    fn list(base: &Path) -> Vec<String> {
        let (mut found, mut open) = (Vec::new(), vec![base.to_owned()]);
        while let Some(path) = open.pop() {
            let stat = fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(base).unwrap().display().to_string();
            if stat.is_dir() {
                open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                found.push(format!("{name}/"));
            } else if stat.is_symlink() {
                found.push(format!("{name}@"));
            } else {
                found.push(format!("{name}:{}:{:o}", stat.len(), stat.mode() & 0o7777));
            }
        }
        found.sort();
        found
    }

    #[test]
    fn a_parcel_arrives_as_a_copy_would_and_stays_within_the_root() {
        check("/file", "/new", "to/new:4:755");
        check("/file", "/etc", "to/etc/file:4:755");
        check("/file", "/inside", "to/etc/file:4:755");
        check("/file", "/inside/other", "to/etc/other:4:755");
        check("/file", "/there", "to/there:4:755");
        check("/d", "/etc", "to/etc/d/ to/etc/d/inner/ to/etc/d/inner/x:100000:644 to/etc/d/link@");
        check("/d", "/new", "to/new/ to/new/inner/ to/new/inner/x:100000:644 to/new/link@");
        check("/d/.", "/new", "to/new/ to/new/inner/ to/new/inner/x:100000:644 to/new/link@");
        check("/d/.", "/etc", "to/etc/inner/ to/etc/inner/x:100000:644 to/etc/link@");
        // The link leads out of the root, where nothing is; so it is replaced.
        check("/file", "/out", "to/out:4:755");
        check("/file", "/out/x", "there is no directory `/out`");
        check("/d", "/there", "it is a file, and a directory cannot take its place");
        check("/file", "/none/", "it is no directory");
        check("/none", "/new", "there is no `/none`");
        check("/file/", "/new", "`/file/` is no directory");
    }

    #[track_caller]
    fn check_hostile(parcel: &[u8], expected: &str) {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("to")).unwrap();
        symlink("..", directory.path().join("to/up")).unwrap();
        let to = End { root: &root(&directory.path().join("to")), path: "/" };
        let error = unpack(&mut { parcel }, &to, Owners::Ours).unwrap_err();
        assert_eq!(error.root_cause().to_string(), expected);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "something is outside");
    }

    fn record(kind: u8, name: &[u8], mode: u32) -> Vec<u8> {
        let length = u32::try_from(name.len()).unwrap().to_be_bytes();
        [&[kind], &length[..], name, &mode.to_be_bytes(), &[0; 8 + 16 + 4]].concat()
    }

    #[test]
    fn a_hostile_parcel_is_refused() {
        let named = |record: Vec<u8>| [&[FORM_NAMED][..], &record].concat();
        check_hostile(b"", "failed to fill whole buffer");
        check_hostile(b"\x09", "this is no parcel");
        check_hostile(b"\x01U", "this is no parcel");
        for name in [&b".."[..], b".", b"", b"a/b", b"../x"] {
            let expected = "the parcel names what no entry of a directory can be called";
            check_hostile(&named(record(b'F', name, 0o100_644)), expected);
        }
        check_hostile(&named(record(b'F', &[b'x'; 256], 0o100_644)), "a text in the parcel is too long");
        // Not through a link that is there.
        let through = [record(b'D', b"up", 0o40_755), record(b'F', b"x", 0o100_644)].concat();
        check_hostile(&named(through), "Not a directory (os error 20)");
        let device = [record(b'N', b"null", 0o20_666), vec![0; 8]].concat();
        check_hostile(&named(device), "it is a device, which is copied only with its owner and rights");
        let mut many = record(b'F', b"x", 0o100_644);
        let end = many.len();
        many[end - 4..].copy_from_slice(&u32::MAX.to_be_bytes());
        check_hostile(&named(many), "an entry of the parcel has too many attributes");
        let deep = (0..1100).flat_map(|_| record(b'D', b"d", 0o40_755)).collect();
        check_hostile(&named(deep), "directories are nested too deeply");
        let long = [record(b'F', b"x", 0o100_644), u64::MAX.to_be_bytes().to_vec(), vec![b'x'; 10]].concat();
        check_hostile(&named(long), "the parcel ends too early");
    }
}
