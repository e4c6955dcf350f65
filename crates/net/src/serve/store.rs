//! Where the leases of strangers are kept: in memory, and in one file that is written a moment after a change,
//! whole, and put in the place of the old one. A power cut loses at most that moment; a client then asks for the
//! address it had and gets it, as long as it is free.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use stead_model::name::NetworkId;
use tokio::sync::Notify;

use super::leases::{Book, Lease};

/// How long changes are gathered before the file is written: a write for each of a thousand machines that boot
/// at once would cost more than all their answers.
const GATHER: Duration = Duration::from_millis(500);

/// The books of all networks.
#[derive(Debug)]
pub(crate) struct Store {
    file: PathBuf,
    books: Mutex<BTreeMap<NetworkId, Arc<Mutex<Book>>>>,
    changed: Notify,
}

#[derive(Default, Serialize, Deserialize)]
struct File {
    networks: BTreeMap<NetworkId, Vec<Lease>>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Store {
    /// Opens the file. One that is damaged is left aside: clients keep what they have by asking for it.
    pub(crate) fn open(file: PathBuf) -> Self {
        let loaded = load(&file).unwrap_or_else(|error| {
            tracing::warn!("leases of strangers are forgotten: {error:#}");
            File::default()
        });
        let books = loaded.networks.into_iter();
        let books = books.map(|(id, leases)| (id, Arc::new(Mutex::new(Book::restore(&leases))))).collect();
        Self { file, books: Mutex::new(books), changed: Notify::new() }
    }

    pub(crate) fn book(&self, network: &NetworkId) -> Arc<Mutex<Book>> {
        Arc::clone(lock(&self.books).entry(network.clone()).or_default())
    }

    /// Forgets the networks that are not wanted any more.
    pub(crate) fn retain(&self, wanted: impl Fn(&NetworkId) -> bool) {
        let mut books = lock(&self.books);
        let before = books.len();
        books.retain(|id, _| wanted(id));
        if books.len() != before {
            self.changed.notify_one();
        }
    }

    pub(crate) fn list(&self) -> BTreeMap<NetworkId, Vec<Lease>> {
        lock(&self.books).iter().map(|(id, book)| (id.clone(), lock(book).list())).collect()
    }

    /// Says that a book has changed.
    pub(crate) fn touch(&self) {
        self.changed.notify_one();
    }

    /// Writes the file after every change, for ever.
    pub(crate) async fn keep(self: Arc<Self>) {
        loop {
            self.changed.notified().await;
            tokio::time::sleep(GATHER).await;
            let store = Arc::clone(&self);
            let stored = tokio::task::spawn_blocking(move || store.write()).await;
            if let Ok(Err(error)) = stored {
                tracing::warn!("leases of strangers are not stored: {error:#}");
            }
        }
    }

    /// Writes the file.
    pub(crate) fn write(&self) -> Result<()> {
        for book in lock(&self.books).values() {
            lock(book).take_changed();
        }
        let networks = self.list().into_iter().filter(|(_, leases)| !leases.is_empty()).collect();
        store(&self.file, &File { networks })
    }

    /// Whether there is something to write.
    pub(crate) fn is_changed(&self) -> bool {
        lock(&self.books).values().any(|book| lock(book).is_changed())
    }
}

fn load(path: &Path) -> Result<File> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(File::default()),
        Err(error) => return Err(error).with_context(|| format!("cannot read `{}`", path.display())),
    };
    serde_json::from_slice(&text).with_context(|| format!("cannot understand `{}`", path.display()))
}

fn store(path: &Path, file: &File) -> Result<()> {
    let new = path.with_extension("new");
    let write = || -> Result<()> {
        let mut to = std::fs::File::create(&new)?;
        to.write_all(&serde_json::to_vec(file)?)?;
        to.sync_all()?;
        Ok(std::fs::rename(&new, path)?)
    };
    write().with_context(|| format!("cannot write `{}`", path.display()))
}
