//! Uploads under way: `uploads/<id>/data` and, beside it, the repository they belong to.
//!
//! An upload outlives its connection and the server: what counts is the file. The digest of what has
//! come is kept in memory as a convenience, and computed from the file after a restart.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use oci::{Algorithm, Digest, DigestWriter, Hasher, Repository, Store};
use tokio::sync::OwnedMutexGuard;

use crate::Limits;
use crate::error::{RegistryError, io_failed};

/// How long a request waits for another one that uses the same upload. After a broken connection
/// the old request may need a moment to notice.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// The name of an upload: a random UUID, which nobody guesses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct UploadId(String);

impl UploadId {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let shape = |(index, byte): (usize, u8)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
        };
        let holds = text.len() == 36 && text.bytes().enumerate().all(shape);
        holds.then(|| Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Version 4, as RFC 9562 lays it out.
    fn random() -> Result<Self, RegistryError> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| {
            tracing::error!(error = %error, "cannot get random bytes");
            RegistryError::Internal
        })?;
        let number = u128::from_be_bytes(bytes);
        let number = number & !(0xf << 76) | 0x4 << 76;
        let number = number & !(0x3 << 62) | 0x2 << 62;
        let hex = format!("{number:032x}");
        let (a, b, c) = (&hex[..8], &hex[8..12], &hex[12..16]);
        Ok(Self(format!("{a}-{b}-{c}-{}-{}", &hex[16..20], &hex[20..])))
    }
}

/// All uploads under way.
pub(crate) struct Sessions {
    root: PathBuf,
    limits: Limits,
    open: Mutex<HashMap<UploadId, Arc<tokio::sync::Mutex<Session>>>>,
    beginning: Mutex<()>,
}

impl Sessions {
    /// Finds the uploads of earlier runs and throws away the stale ones.
    pub(crate) fn open(store_root: &Path, limits: Limits) -> Self {
        let sessions = Self {
            root: store_root.join("uploads"),
            limits,
            open: Mutex::new(HashMap::new()),
            beginning: Mutex::new(()),
        };
        let left = sessions.sweep();
        tracing::debug!(uploads = left, "uploads of earlier runs can go on");
        sessions
    }

    /// Begins an upload, which will probably be addressed by this algorithm. Blocks.
    pub(crate) fn begin(
        &self,
        repository: &Repository,
        algorithm: Algorithm,
    ) -> Result<UploadId, RegistryError> {
        // One after the other: none is counted before it is there.
        let _alone = self
            .beginning
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        fs::create_dir_all(&self.root).map_err(io_failed("create the folder of uploads"))?;
        let mut folders = self.folders();
        self.make_room(repository, &mut folders)?;
        if folders.len() >= self.limits.uploads && self.sweep() >= self.limits.uploads {
            return Err(RegistryError::TooManyRequests);
        }
        let id = UploadId::random()?;
        let folder = self.root.join(id.as_str());
        let created = fs::create_dir(&folder)
            .and_then(|()| File::create_new(folder.join("data")).map(drop))
            .and_then(|()| fs::write(folder.join("repository"), repository.as_str()));
        created.map_err(io_failed("begin an upload"))?;
        let session = Session::fresh(folder, repository.clone(), algorithm);
        self.remember(&id, session);
        Ok(id)
    }

    /// Where a repository has as many uploads as it may have, the oldest goes of which nothing has come.
    fn make_room(
        &self,
        repository: &Repository,
        folders: &mut Vec<(UploadId, PathBuf)>,
    ) -> Result<(), RegistryError> {
        let is_own = |folder: &Path| {
            let owner = fs::read_to_string(folder.join("repository"));
            owner.is_ok_and(|owner| owner == repository.as_str())
        };
        let own = folders.iter().filter(|(_, folder)| is_own(folder));
        let mut own: Vec<_> = own.cloned().collect();
        if own.len() < self.limits.uploads_of_repository {
            return Ok(());
        }
        let begun = |folder: &Path| fs::metadata(folder.join("data"))?.modified();
        own.sort_by_cached_key(|(_, folder)| begun(folder).ok());
        for (id, _) in own {
            // One that a request has in its hands is about to get something.
            let session = self
                .find(&id)
                .and_then(|session| session.try_lock_owned().ok());
            if let Some(mut session) = session.filter(|session| session.received == 0) {
                session.discard();
                self.forget(&id);
                folders.retain(|(other, _)| *other != id);
                return Ok(());
            }
        }
        Err(RegistryError::TooManyRequests)
    }

    /// Takes hold of an upload; other requests for it wait. One of another repository is not found.
    pub(crate) async fn hold(
        &self,
        id: &UploadId,
        repository: &Repository,
    ) -> Result<Held, RegistryError> {
        let session = self.find(id).ok_or(RegistryError::BlobUploadUnknown)?;
        let held = tokio::time::timeout(BUSY_WAIT, session.lock_owned());
        let held = held.await.map_err(|_| RegistryError::TooManyRequests)?;
        if held.repository == *repository && !held.closed {
            Ok(Held(held))
        } else {
            Err(RegistryError::BlobUploadUnknown)
        }
    }

    /// Forgets an upload that is finished or cancelled.
    pub(crate) fn forget(&self, id: &UploadId) {
        self.lock().remove(id);
    }

    fn find(&self, id: &UploadId) -> Option<Arc<tokio::sync::Mutex<Session>>> {
        if let Some(session) = self.lock().get(id) {
            return Some(Arc::clone(session));
        }
        // A few bytes after a restart: not worth a thread of their own.
        let session = Session::load(self.root.join(id.as_str()))?;
        Some(self.remember(id, session))
    }

    /// Of two that find the same upload, both get the first one's session.
    fn remember(&self, id: &UploadId, session: Session) -> Arc<tokio::sync::Mutex<Session>> {
        let mut open = self.lock();
        let fresh = || Arc::new(tokio::sync::Mutex::new(session));
        Arc::clone(open.entry(id.clone()).or_insert_with(fresh))
    }

    /// Removes what nobody has touched for long; returns how many uploads remain.
    fn sweep(&self) -> usize {
        let mut left = 0;
        for (id, folder) in self.folders() {
            if !is_stale(&folder, self.limits.upload_life) {
                left += 1;
                continue;
            }
            self.forget(&id);
            if let Err(error) = fs::remove_dir_all(&folder) {
                tracing::warn!(error = %error, upload = id.as_str(), "cannot remove a stale upload");
            }
        }
        left
    }

    fn folders(&self) -> Vec<(UploadId, PathBuf)> {
        let Ok(entries) = fs::read_dir(&self.root) else {
            return Vec::new();
        };
        let names = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok());
        let ids = names.filter_map(|name| UploadId::parse(&name));
        ids.map(|id| (id.clone(), self.root.join(id.as_str())))
            .collect()
    }

    fn lock(
        &self,
    ) -> std::sync::MutexGuard<'_, HashMap<UploadId, Arc<tokio::sync::Mutex<Session>>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An upload in one request's hands.
pub(crate) struct Held(OwnedMutexGuard<Session>);

impl Held {
    pub(crate) fn received(&self) -> u64 {
        self.0.received
    }

    /// Learns how the content will be addressed. Where something has come by another algorithm, the file is read again
    /// at the end.
    pub(crate) fn expect(&mut self, algorithm: Algorithm) {
        if self.0.received == 0 {
            self.0.hasher = Some(Hasher::by(algorithm));
        }
    }

    /// Runs something on the upload's file. The hold goes along: when the request is dropped, the
    /// next one still waits until the disk is quiet.
    pub(crate) async fn blocking<T, F>(mut self, work: F) -> Result<(Self, T), RegistryError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Session) -> Result<T, RegistryError> + Send + 'static,
    {
        let done = tokio::task::spawn_blocking(move || {
            let result = work(&mut self.0);
            (self, result)
        });
        let (held, result) = done.await?;
        Ok((held, result?))
    }
}

/// One upload.
pub(crate) struct Session {
    folder: PathBuf,
    repository: Repository,
    received: u64,
    /// Of what has come, by the algorithm that was expected. None after a restart: the file has to be read again.
    hasher: Option<Hasher>,
    closed: bool,
}

impl Session {
    fn fresh(folder: PathBuf, repository: Repository, algorithm: Algorithm) -> Self {
        Self {
            folder,
            repository,
            received: 0,
            hasher: Some(Hasher::by(algorithm)),
            closed: false,
        }
    }

    fn load(folder: PathBuf) -> Option<Self> {
        let repository = fs::read_to_string(folder.join("repository"))
            .ok()?
            .parse()
            .ok()?;
        let received = fs::metadata(folder.join("data")).ok()?.len();
        let hasher = (received == 0).then(Hasher::new);
        Some(Self {
            folder,
            repository,
            received,
            hasher,
            closed: false,
        })
    }

    /// Adds to the file. What fails half-way is written over by the next try.
    pub(crate) fn append(&mut self, parts: &[Bytes]) -> Result<(), RegistryError> {
        let written = self.write(parts).map_err(io_failed("write to an upload"))?;
        if let Some(hasher) = &mut self.hasher {
            for part in parts {
                hasher.update(part);
            }
        }
        self.received += written;
        Ok(())
    }

    /// Moves the file into the store, if it is what was promised. On a wrong digest the upload is gone.
    pub(crate) fn finish(&mut self, store: &Store, expected: &Digest) -> Result<(), RegistryError> {
        let actual = self
            .digest(expected.algorithm())
            .map_err(io_failed("read an upload"))?;
        if actual != *expected {
            self.discard();
            let detail = format!("the content has digest {actual}, expected {expected}");
            return Err(RegistryError::DigestInvalid { detail });
        }
        // Linked only after it is there: a link without content would claim too much.
        store.adopt(&self.folder.join("data"), expected)?;
        store.link(&self.repository, expected)?;
        self.discard();
        Ok(())
    }

    /// Throws the upload away.
    pub(crate) fn discard(&mut self) {
        self.closed = true;
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            tracing::warn!(error = %error, "cannot remove an upload, it is swept when stale");
        }
    }

    fn write(&self, parts: &[Bytes]) -> io::Result<u64> {
        let mut file = OpenOptions::new()
            .write(true)
            .open(self.folder.join("data"))?;
        file.seek(SeekFrom::Start(self.received))?;
        let mut written = 0;
        for part in parts {
            file.write_all(part)?;
            written += part.len() as u64;
        }
        Ok(written)
    }

    fn digest(&self, algorithm: Algorithm) -> io::Result<Digest> {
        let path = self.folder.join("data");
        // A failed write may have left bytes that nobody counts.
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        file.set_len(self.received)?;
        let hasher = self.hasher.as_ref();
        if let Some(hasher) = hasher.filter(|hasher| hasher.algorithm() == algorithm) {
            return Ok(hasher.clone().finish());
        }
        let mut writer = DigestWriter::by(algorithm, io::sink());
        io::copy(&mut &file, &mut writer)?;
        Ok(writer.finish().0)
    }
}

fn is_stale(folder: &Path, life: Duration) -> bool {
    let touched = fs::metadata(folder.join("data")).or_else(|_| fs::metadata(folder));
    let touched = touched.and_then(|metadata| metadata.modified());
    touched.is_ok_and(|at| {
        SystemTime::now()
            .duration_since(at)
            .is_ok_and(|age| age > life)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions(limits: Limits) -> (tempfile::TempDir, Sessions) {
        let folder = tempfile::tempdir().unwrap();
        let sessions = Sessions::open(folder.path(), limits);
        (folder, sessions)
    }

    fn begin(sessions: &Sessions, repository: &Repository) -> Result<UploadId, RegistryError> {
        sessions.begin(repository, Algorithm::Sha256)
    }

    fn repository() -> Repository {
        "app".parse().unwrap()
    }

    #[test]
    fn ids_are_random_and_checked() {
        let id = UploadId::random().unwrap();
        assert_eq!(UploadId::parse(id.as_str()), Some(id.clone()));
        assert_eq!(&id.as_str()[14..15], "4");
        assert!("89ab".contains(&id.as_str()[19..20]));
        assert_ne!(id, UploadId::random().unwrap());
        for text in [
            "",
            "..",
            "0000000000000000000000000000000000-0",
            &"/".repeat(36),
        ] {
            assert_eq!(UploadId::parse(text), None, "{text}");
        }
    }

    #[tokio::test]
    async fn an_upload_survives_a_restart() {
        let (folder, sessions) = sessions(Limits::default());
        let id = begin(&sessions, &repository()).unwrap();
        let held = sessions.hold(&id, &repository()).await.unwrap();
        let append = |session: &mut Session| session.append(&[Bytes::from_static(b"hello ")]);
        held.blocking(append).await.unwrap();

        let store = Store::open(folder.path()).unwrap();
        let again = Sessions::open(folder.path(), Limits::default());
        let held = again.hold(&id, &repository()).await.unwrap();
        assert_eq!(held.received(), 6);
        let finish = move |session: &mut Session| {
            session.append(&[Bytes::from_static(b"world")])?;
            session.finish(&store, &Digest::of(b"hello world"))?;
            Ok(store.linked(&repository(), &Digest::of(b"hello world")))
        };
        assert!(held.blocking(finish).await.unwrap().1);
        assert!(again.hold(&id, &repository()).await.is_err());
        assert!(again.folders().is_empty());
    }

    #[tokio::test]
    async fn another_repository_does_not_find_it() {
        let (_folder, sessions) = sessions(Limits::default());
        let id = begin(&sessions, &repository()).unwrap();
        assert!(sessions.hold(&id, &"other".parse().unwrap()).await.is_err());
        assert!(sessions.hold(&id, &repository()).await.is_ok());
    }

    #[test]
    fn uploads_are_bounded_and_stale_ones_make_room() {
        let limits = Limits {
            uploads: 2,
            upload_life: Duration::from_hours(1),
            ..Limits::default()
        };
        let (_folder, sessions) = sessions(limits);
        let old = begin(&sessions, &repository()).unwrap();
        begin(&sessions, &repository()).unwrap();
        let refused = begin(&sessions, &repository()).unwrap_err();
        assert!(matches!(refused, RegistryError::TooManyRequests));
        let data = OpenOptions::new()
            .write(true)
            .open(sessions.root.join(old.as_str()).join("data"));
        data.unwrap()
            .set_modified(SystemTime::now() - Duration::from_hours(2))
            .unwrap();
        begin(&sessions, &repository()).unwrap();
        assert!(!sessions.root.join(old.as_str()).exists());
    }

    #[tokio::test]
    async fn a_repository_has_its_own_bound_and_loses_the_oldest_that_is_empty() {
        let (_folder, sessions) = sessions(Limits {
            uploads_of_repository: 3,
            ..Limits::default()
        });
        let other: Repository = "other".parse().unwrap();
        let elsewhere = begin(&sessions, &other).unwrap();
        let [full, oldest, held] = [(); 3].map(|()| begin(&sessions, &repository()).unwrap());
        let append = |session: &mut Session| session.append(&[Bytes::from_static(b"x")]);
        let filled = sessions.hold(&full, &repository()).await.unwrap();
        drop(filled.blocking(append).await.unwrap());
        for (id, age) in [(&full, 3), (&oldest, 2), (&held, 1)] {
            let data = File::open(sessions.root.join(id.as_str()).join("data")).unwrap();
            let then = SystemTime::now() - Duration::from_mins(age);
            data.set_modified(then).unwrap();
        }
        let in_hand = sessions.hold(&held, &repository()).await.unwrap();
        let new = begin(&sessions, &repository()).unwrap();
        let gone = sessions.hold(&oldest, &repository()).await.err().unwrap();
        assert!(matches!(gone, RegistryError::BlobUploadUnknown));
        let newest = sessions.hold(&new, &repository()).await.unwrap();
        // Each of them has something, or is about to.
        let refused = begin(&sessions, &repository()).unwrap_err();
        assert!(matches!(refused, RegistryError::TooManyRequests));
        drop((in_hand, newest));
        begin(&sessions, &repository()).unwrap();
        assert!(sessions.hold(&full, &repository()).await.is_ok());
        assert!(sessions.hold(&elsewhere, &other).await.is_ok());
        assert!(begin(&sessions, &other).is_ok(), "others go on");
    }
}
