//! What is recorded because it cannot be observed: where projects are, the leases, the machines that exist
//! only as a promise. SQLite with a write-ahead log: several commands at once, and safe at any moment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use stead_model::name::{MachineId, Name, NicId};
use stead_model::observed::{Lease, MachineState, PortLease};
use stead_model::project::{Bind, ProjectFiles};

/// How long a command waits for another one's transaction, which takes milliseconds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
const BUSY_LOOK_EVERY: Duration = Duration::from_millis(20);

/// A log that nobody waited for may get so large; then one command does.
const HURRIED_LOG_MAX_BYTES: u64 = 256 << 10;

/// The form of the tables; a later version of stead moves older ones up.
const VERSION: i64 = 2;

const TABLES: &str = "
    CREATE TABLE home (id TEXT NOT NULL);
    CREATE TABLE projects (name TEXT PRIMARY KEY, directory TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE leases (nic TEXT PRIMARY KEY, lease TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE machines (id TEXT PRIMARY KEY, state TEXT NOT NULL) WITHOUT ROWID;
";

/// A table that is made with its first row: earlier steads have none, and read what else is recorded all the same.
struct Later {
    name: &'static str,
    key: &'static str,
    value: &'static str,
}

/// The files that a project is made by, where somebody named them.
const FILES: Later = Later { name: "files", key: "project", value: "named" };

/// What machines of a project depend on, where they do.
const ORDERS: Later = Later { name: "orders", key: "project", value: "depends_on" };

/// The ports that were chosen.
const PORTS: Later = Later { name: "ports", key: "bind", value: "lease" };

impl Later {
    fn is_in(&self, connection: &Connection) -> rusqlite::Result<bool> {
        let query = "SELECT 1 FROM sqlite_master WHERE name = ?1";
        Ok(connection.query_row(query, [self.name], |_| Ok(())).optional()?.is_some())
    }

    /// The query for all rows.
    fn all(&self) -> String {
        format!("SELECT {}, {} FROM {}", self.key, self.value, self.name)
    }

    /// Puts a row where that of its key is; or has none there.
    fn put(
        &self,
        transaction: &Transaction<'_>,
        key: String,
        value: Option<String>,
    ) -> rusqlite::Result<usize> {
        let Self { name, key: keys, value: values } = self;
        if let Some(value) = value {
            transaction.execute_batch(&format!(
                "CREATE TABLE IF NOT EXISTS {name} ({keys} TEXT PRIMARY KEY, {values} TEXT NOT NULL) WITHOUT ROWID;"
            ))?;
            let put = format!("INSERT OR REPLACE INTO {name} VALUES (?1, ?2)");
            return transaction.prepare_cached(&put)?.execute(params![key, value]);
        }
        if self.is_in(transaction)? {
            return transaction
                .prepare_cached(&format!("DELETE FROM {name} WHERE {keys} = ?1"))?
                .execute([key]);
        }
        Ok(0)
    }
}

/// The records of a home.
#[derive(Debug)]
pub struct State {
    connection: Connection,
    path: PathBuf,
}

/// All that is on record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// Where the projects' files are.
    pub projects: BTreeMap<Name, ProjectFiles>,
    /// The addresses of nics.
    pub leases: BTreeMap<NicId, Lease>,
    /// The ports that were chosen.
    pub port_leases: BTreeMap<Bind, PortLease>,
    /// The machines.
    pub machines: BTreeMap<MachineId, MachineState>,
}

/// One change to the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A project is there.
    Project(Name, ProjectFiles),
    /// A project is gone.
    NoProject(Name),
    /// A nic has these addresses.
    Lease(NicId, Lease),
    /// A nic has no addresses.
    NoLease(NicId),
    /// A port was chosen.
    PortLease(Bind, PortLease),
    /// A port is nobody's.
    NoPortLease(Bind),
    /// A machine exists.
    Machine(MachineId, MachineState),
    /// A machine is gone.
    NoMachine(MachineId),
}

impl State {
    /// Opens the records, making them if there are none. `new_id` is the home's mark if it is new.
    pub fn open(path: &Path, new_id: &str) -> Result<Self> {
        let attempt = || {
            let mut connection = connect(path, OpenFlags::default())?;
            if version(&connection)? == 0 {
                create(&mut connection, new_id)?;
            }
            Ok(connection)
        };
        Self::checked(path, patiently(attempt))
    }

    /// Opens the records; nothing if there are none, or none yet. Makes no file and no directory.
    pub fn find(path: &Path) -> Result<Option<Self>> {
        if !path.exists() {
            return Ok(None);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = patiently(|| {
            let connection = connect(path, flags)?;
            Ok((version(&connection)?, connection))
        });
        match opened {
            Ok((0, _)) => Ok(None),
            Err(_) if !path.exists() => Ok(None),
            opened => Self::checked(path, opened.map(|(_, connection)| connection)).map(Some),
        }
    }

    /// The records, if they are whole and of a form that we know.
    fn checked(path: &Path, opened: rusqlite::Result<Connection>) -> Result<Self> {
        let doing = || format!("cannot open the records in {}", path.display());
        let whole = opened.and_then(|connection| {
            let check = || connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
            let (problem, version) = (patiently(check)?, version(&connection)?);
            Ok((version, problem, connection))
        });
        let (version, problem, connection) =
            whole.map_err(|error| explained(path, error)).with_context(doing)?;
        if problem != "ok" {
            return Err(anyhow!("{problem}; hint: {DAMAGED_HINT}")).with_context(doing);
        }
        if version != VERSION {
            bail!(
                "the records in {} are of version {version}, this stead knows version {VERSION}; \
                 hint: use the stead that wrote them",
                path.display()
            );
        }
        Ok(Self { connection, path: path.to_owned() })
    }

    /// From now on nothing waits for the disk: what is recorded is of a machine that no loss of power outlives.
    /// Killed at any moment, all that was stored is there; when the power goes, the changes since somebody last
    /// waited are missing, and never half there: what is appended to the log has checksums, and the tables
    /// themselves are left to the next command, which waits first.
    pub fn hurry(&self) -> Result<()> {
        let mut log = self.path.clone().into_os_string();
        log.push("-wal");
        if std::fs::metadata(log).is_ok_and(|log| log.len() > HURRIED_LOG_MAX_BYTES) {
            return Ok(());
        }
        let hurried = self.connection.pragma_update(None, "synchronous", "off").and_then(|()| {
            self.connection
                .set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            self.connection.pragma_update(None, "wal_autocheckpoint", 0)
        });
        hurried.with_context(|| format!("cannot use the records in {}", self.path.display()))
    }

    /// The home's mark.
    pub fn home_id(&self) -> Result<String> {
        self.connection
            .query_row("SELECT id FROM home", [], |row| row.get(0))
            .map_err(|error| explained(&self.path, error))
            .with_context(|| format!("the records in {} do not name their home", self.path.display()))
    }

    /// Reads everything.
    pub fn load(&self) -> Result<Records> {
        let read = || -> Result<Records> {
            Ok(Records {
                projects: self.projects()?,
                leases: parsed(self.rows("SELECT nic, lease FROM leases")?)?,
                port_leases: self.later(&PORTS)?,
                machines: parsed(self.rows("SELECT id, state FROM machines")?)?,
            })
        };
        read().with_context(|| format!("cannot read the records in {}", self.path.display()))
    }

    /// Makes these changes, all or none.
    pub fn store(&mut self, entries: &[Entry]) -> Result<()> {
        let path = self.path.clone();
        let doing = || format!("cannot write the records in {}", path.display());
        let transaction = self.connection.transaction().map_err(|error| explained(&path, error));
        let transaction = transaction.with_context(doing)?;
        for entry in entries {
            store_entry(&transaction, entry).map_err(|error| told(&path, error)).with_context(doing)?;
        }
        transaction.commit().map_err(|error| explained(&path, error)).with_context(doing)
    }

    fn projects(&self) -> Result<BTreeMap<Name, ProjectFiles>> {
        let directories = self.rows("SELECT name, directory FROM projects")?.into_iter();
        let mut projects: BTreeMap<Name, ProjectFiles> = directories
            .map(|(name, directory)| Ok((name.parse()?, directory.into())))
            .collect::<Result<_>>()?;
        // An earlier stead may have taken a project away, and left what it does not know.
        for (name, named) in self.later::<Name, Vec<PathBuf>>(&FILES)? {
            projects.entry(name).and_modify(|files| files.named = named);
        }
        for (name, order) in self.later(&ORDERS)? {
            projects.entry(name).and_modify(|files| files.order = order);
        }
        Ok(projects)
    }

    /// What is in a table, if that is there.
    fn later<K, V>(&self, table: &Later) -> Result<BTreeMap<K, V>>
    where
        K: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static> + Ord,
        V: DeserializeOwned,
    {
        let is_there = table.is_in(&self.connection).map_err(|error| explained(&self.path, error))?;
        if is_there { parsed(self.rows(&table.all())?) } else { Ok(BTreeMap::new()) }
    }

    fn rows(&self, query: &str) -> Result<Vec<(String, String)>> {
        let read = || -> rusqlite::Result<Vec<(String, String)>> {
            let mut statement = self.connection.prepare(query)?;
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        };
        read().map_err(|error| explained(&self.path, error))
    }
}

/// Tries again while the file is somebody else's. Who changes the mode of a new file, or looks at one that is being
/// made, is not always made to wait by SQLite: two who could wait for each other are both turned away.
fn patiently<T>(attempt: impl Fn() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    let start = Instant::now();
    loop {
        match attempt() {
            Err(error) if is_busy(&error) && start.elapsed() < BUSY_TIMEOUT => {
                std::thread::sleep(BUSY_LOOK_EVERY);
            }
            result => return result,
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked)
    )
}

/// What to do about records that cannot be read. The rest of a home does not hang on them.
const DAMAGED_HINT: &str = "restore the file, or move it away with those beside it (`-wal`, `-shm`): then \
    `stead up` in each project records it anew, with the addresses of its stead.lock; volumes stay";

/// An error of the database, with what can be done about it.
fn explained(path: &Path, error: rusqlite::Error) -> anyhow::Error {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    let disk = rustix::fs::statvfs(path.parent().unwrap_or(path));
    let is_read_only = disk.is_ok_and(|disk| disk.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    // SQLite's own cause says the same in other words.
    let told = anyhow!("{error}");
    match error.sqlite_error_code() {
        Some(DatabaseCorrupt | NotADatabase) => anyhow!("{error}; hint: {DAMAGED_HINT}"),
        Some(_) if is_full(path) => {
            told.context("the disk is full; hint: free some space, then run the command again")
        }
        Some(_) if is_read_only => told.context("the disk is mounted read-only"),
        Some(_) | None => told,
    }
}

/// The same for an error that may be of another kind.
fn told(path: &Path, error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<rusqlite::Error>() {
        Ok(error) => explained(path, error),
        Err(other) => other,
    }
}

/// Connects, if need be without what SQLite keeps beside the file while it is open: a disk that is full has no room for
/// that, and whoever is to make room looks first.
fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    match connect_as(path, flags, "normal") {
        Err(error) if !is_busy(&error) && path.exists() && is_full(path) => {
            connect_as(path, flags, "exclusive")
        }
        connected => connected,
    }
}

/// `exclusive`: for one connection at a time, which has the index of the log in its own memory.
fn connect_as(path: &Path, flags: OpenFlags, locking: &str) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags)?;
    check_begun(path)?;
    // Before anything is read.
    connection.pragma_update(None, "locking_mode", locking)?;
    prepare(&connection)?;
    version(&connection)?;
    Ok(connection)
}

/// Whether there is no room left for us beside a file.
fn is_full(path: &Path) -> bool {
    rustix::fs::statvfs(path.parent().unwrap_or(path)).is_ok_and(|disk| disk.f_bavail == 0)
}

/// SQLite takes a file of less than a page for one that is yet to be written, and would write over what was
/// left of ours; it never leaves such a file itself, but for an empty one.
fn check_begun(path: &Path) -> rusqlite::Result<()> {
    const PAGE_BYTES: u64 = 4096;
    let length = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    if (1..PAGE_BYTES).contains(&length) {
        let damaged = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_NOTADB);
        return Err(rusqlite::Error::SqliteFailure(damaged, Some(format!("it has but {length} bytes"))));
    }
    Ok(())
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Only a change of the mode needs the file for itself alone.
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    if mode != "wal" {
        connection.pragma_update(None, "journal_mode", "wal")?;
    }
    // With a write-ahead log NORMAL keeps the records whole at a loss of power; at worst the last changes are
    // missing, and what they recorded is then observed as not there.
    connection.pragma_update(None, "synchronous", "normal")
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Makes the tables, unless another command was quicker.
fn create(connection: &mut Connection, id: &str) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let exists: Option<i64> = transaction
        .query_row("SELECT 1 FROM sqlite_master WHERE name = 'home'", [], |row| row.get(0))
        .optional()?;
    if exists.is_none() {
        transaction.execute_batch(TABLES)?;
        transaction.execute("INSERT INTO home (id) VALUES (?1)", [id])?;
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    transaction.commit()
}

fn store_entry(transaction: &Transaction<'_>, entry: &Entry) -> Result<()> {
    let put = |query: &str, key: String, value: String| {
        transaction.prepare_cached(query)?.execute(params![key, value])
    };
    let take = |query: &str, key: String| transaction.prepare_cached(query)?.execute(params![key]);
    match entry {
        Entry::Project(name, ProjectFiles { directory, named, order }) => {
            let paths = [directory].into_iter().chain(named);
            if let Some(path) = paths.into_iter().find(|path| path.to_str().is_none()) {
                bail!("the path {} is not UTF-8", path.display());
            }
            let is_said =
                |is_empty: bool, value: &dyn Fn() -> Result<String>| (!is_empty).then(value).transpose();
            FILES.put(transaction, name.to_string(), is_said(named.is_empty(), &|| text(named))?)?;
            ORDERS.put(transaction, name.to_string(), is_said(order.is_empty(), &|| text(order))?)?;
            let directory = directory.to_string_lossy().into_owned();
            put("INSERT OR REPLACE INTO projects VALUES (?1, ?2)", name.to_string(), directory)
        }
        Entry::NoProject(name) => {
            FILES.put(transaction, name.to_string(), None)?;
            ORDERS.put(transaction, name.to_string(), None)?;
            take("DELETE FROM projects WHERE name = ?1", name.to_string())
        }
        Entry::Lease(nic, lease) => {
            put("INSERT OR REPLACE INTO leases VALUES (?1, ?2)", nic.to_string(), text(lease)?)
        }
        Entry::PortLease(bind, lease) => PORTS.put(transaction, bind.to_string(), Some(text(lease)?)),
        Entry::NoPortLease(bind) => PORTS.put(transaction, bind.to_string(), None),
        Entry::NoLease(nic) => take("DELETE FROM leases WHERE nic = ?1", nic.to_string()),
        Entry::Machine(id, state) => {
            put("INSERT OR REPLACE INTO machines VALUES (?1, ?2)", id.to_string(), text(state)?)
        }
        Entry::NoMachine(id) => take("DELETE FROM machines WHERE id = ?1", id.to_string()),
    }?;
    Ok(())
}

fn text(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).context("cannot write a record as JSON")
}

fn parsed<K, V>(rows: Vec<(String, String)>) -> Result<BTreeMap<K, V>>
where
    K: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static> + Ord,
    V: DeserializeOwned,
{
    let parse = |(key, value): (String, String)| -> Result<(K, V)> {
        let parsed = serde_json::from_str(&value)
            .with_context(|| format!("record `{key}` cannot be read; hint: {DAMAGED_HINT}"))?;
        Ok((
            key.parse().with_context(|| format!("record `{key}` cannot be read; hint: {DAMAGED_HINT}"))?,
            parsed,
        ))
    };
    rows.into_iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use stead_model::address::Mac;

    #[test]
    fn what_is_stored_is_loaded_and_all_or_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        let mut state = State::open(&path, "ab12").unwrap();
        let nic: NicId = "web/lan.shop".parse().unwrap();
        let lease = Lease { mac: Mac::derived(&["x"]), address: Some([10, 0, 5, 2].into()), address6: None };
        let entries = [
            Entry::Project("shop".parse().unwrap(), "/srv/shop".into()),
            Entry::Lease(nic.clone(), lease.clone()),
        ];
        assert_eq!(state.load().unwrap(), Records::default());
        state.store(&entries).unwrap();
        let again = State::open(&path, "zzzz").unwrap();
        assert_eq!(again.home_id().unwrap(), "ab12");
        let records = again.load().unwrap();
        assert_eq!(records.leases, [(nic.clone(), lease)].into());
        let bind: Bind = "127.0.0.1:61000/tcp".parse().unwrap();
        let chosen = PortLease { machine: "web.shop".parse().unwrap(), target: 80 };
        state.store(&[Entry::PortLease(bind, chosen.clone())]).unwrap();
        assert_eq!(state.load().unwrap().port_leases, [(bind, chosen)].into());
        state.store(&[Entry::NoPortLease(bind)]).unwrap();
        assert_eq!(state.load().unwrap(), records);
        assert_eq!(records.projects, [("shop".parse().unwrap(), ProjectFiles::from("/srv/shop"))].into());
        let bad = PathBuf::from(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"/\xff"));
        state.store(&[Entry::NoLease(nic), Entry::Project("b".parse().unwrap(), bad.into())]).unwrap_err();
        assert_eq!(state.load().unwrap(), records);
    }

    #[test]
    fn what_was_recorded_in_a_hurry_is_there_for_the_next_command_which_waits() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        let log = directory.path().join("state.db-wal");
        drop(State::open(&path, "ab12").unwrap());
        assert!(!log.exists());
        let mut state = State::find(&path).unwrap().unwrap();
        state.hurry().unwrap();
        state.store(&[Entry::Project("shop".parse().unwrap(), "/srv/shop".into())]).unwrap();
        drop(state);
        assert!(log.exists());
        let state = State::find(&path).unwrap().unwrap();
        assert_eq!(state.load().unwrap().projects.len(), 1);
        drop(state);
        assert!(!log.exists());
        assert_eq!(State::find(&path).unwrap().unwrap().load().unwrap().projects.len(), 1);
    }

    #[test]
    fn a_long_log_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        drop(State::open(&path, "ab12").unwrap());
        let log = directory.path().join("state.db-wal");
        let lengths = (0..200).map(|round| {
            let mut state = State::open(&path, "ab12").unwrap();
            state.hurry().unwrap();
            let name = format!("p{round}").parse().unwrap();
            state.store(&[Entry::Project(name, "/srv/shop".into())]).unwrap();
            drop(state);
            std::fs::metadata(&log).map_or(0, |log| log.len())
        });
        let lengths: Vec<u64> = lengths.collect();
        assert!(lengths.contains(&0), "{lengths:?}");
        assert!(lengths.iter().all(|length| *length < 2 * HURRIED_LOG_MAX_BYTES), "{lengths:?}");
    }

    #[test]
    fn files_that_were_named_are_recorded_beside_what_earlier_steads_know() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        let mut state = State::open(&path, "ab12").unwrap();
        let name: Name = "shop".parse().unwrap();
        let has_table = |state: &State| FILES.is_in(&state.connection).unwrap();
        let usual = ProjectFiles::from("/srv/shop");
        state.store(&[Entry::Project(name.clone(), usual.clone())]).unwrap();
        assert!(!has_table(&state));
        let named = ProjectFiles { named: vec!["/srv/shop/a.yaml".into(), "/b".into()], ..usual.clone() };
        let order = [("web".parse().unwrap(), ["db".parse().unwrap()].into())].into();
        let ordered = ProjectFiles { order, ..usual.clone() };
        for files in [&named, &usual, &ordered, &usual, &named] {
            state.store(&[Entry::Project(name.clone(), files.clone())]).unwrap();
            let again = State::find(&path).unwrap().unwrap().load().unwrap();
            assert_eq!(again.projects, [(name.clone(), files.clone())].into());
        }
        // What an earlier stead leaves is not the next one's.
        Connection::open(&path).unwrap().execute("DELETE FROM projects", []).unwrap();
        assert!(state.load().unwrap().projects.is_empty());
        state.store(&[Entry::Project(name.clone(), usual.clone())]).unwrap();
        assert_eq!(state.load().unwrap().projects, [(name.clone(), usual)].into());
        state.store(&[Entry::Project(name.clone(), named), Entry::NoProject(name)]).unwrap();
        assert!(state.rows("SELECT project, named FROM files").unwrap().is_empty());
    }

    #[test]
    fn records_of_a_newer_stead_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        drop(State::open(&path, "ab12").unwrap());
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 7).unwrap();
        let error = State::open(&path, "ab12").unwrap_err().to_string();
        assert!(error.contains("version 7"), "{error}");
    }

    #[test]
    fn damaged_records_are_an_error_not_a_panic() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        std::fs::write(&path, vec![0x5a; 5000]).unwrap();
        State::open(&path, "ab12").unwrap_err();
    }
}
