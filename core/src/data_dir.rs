//! The folder that holds everything a server keeps, and the lock that gives it to one server.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use engines::FolderId;
use serde::Serialize;

use crate::hex;

/// Where a restoration puts things together within the new folder, until everything is there. Its database has the same name
/// with `db` while it goes to another server.
pub(crate) const RESTORE_PART: &str = "restore.part";

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    /// The disk or its permissions.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Another server works on it.
    #[error(
        "another server (process {holder}) works on {}; stop it first, or use another --data folder",
        path.display()
    )]
    InUse {
        /// The folder.
        path: PathBuf,
        /// Its process id.
        holder: String,
    },
    /// What the folder holds belongs to a state that is not in it: an empty one would take it for rubbish.
    #[error("{} {what}", path.display())]
    StateElsewhere {
        /// The folder, or what is missing.
        path: PathBuf,
        /// What is known, and what to do.
        what: &'static str,
    },
}

/// The folder, held for as long as this value lives.
pub(crate) struct DataDir {
    root: PathBuf,
    /// What several servers of one database have in common; the folder itself where there is one server.
    shared: PathBuf,
    /// The lock goes with the file; the kernel frees it whatever way the process ends.
    _lock: File,
}

/// Content of `server.json`: how the commands of this machine find the server.
#[derive(Debug, Serialize)]
pub(crate) struct ServerFile {
    pub(crate) pid: u32,
    pub(crate) address: SocketAddr,
    pub(crate) url: String,
    pub(crate) version: &'static str,
    pub(crate) started_at: DateTime<Utc>,
    /// Field 22 of `/proc/PID/stat`: tells this process from a later one with the same id.
    pub(crate) start_time_ticks: u64,
    /// The data folder: a copy of it is not this server's.
    pub(crate) folder: FolderId,
    /// Where images are kept: whoever may write there need not send them.
    pub(crate) registry_store: StorePlace,
}

/// A store of images, and the layout that it has.
#[derive(Debug, Serialize)]
pub(crate) struct StorePlace {
    pub(crate) path: PathBuf,
    pub(crate) layout: u32,
}

impl DataDir {
    /// Makes the folder where it is missing, and locks it.
    pub(crate) fn open(root: &Path) -> Result<Self, DataDirError> {
        create(root)?;
        // Absolute, so that it stays right whatever the working directory becomes.
        let root = fs::canonicalize(root).map_err(failed("find", root))?;
        let lock = lock(&root)?;
        Ok(Self {
            shared: root.clone(),
            root,
            _lock: lock,
        })
    }

    /// Keeps images, keys and the operator's token in a folder that other servers have too; makes it where it is missing.
    pub(crate) fn sharing(mut self, shared: &Path) -> Result<Self, DataDirError> {
        create(shared)?;
        self.shared = fs::canonicalize(shared).map_err(failed("find", shared))?;
        Ok(self)
    }

    /// What no other folder of a server is called; made where it is missing. It goes with the folder, so that whoever holds
    /// the folder's lock knows that the server with this name before it is dead.
    pub(crate) fn server_id(&self) -> Result<String, DataDirError> {
        let path = self.root.join("server.id");
        match fs::read_to_string(&path) {
            Ok(id) if !id.trim().is_empty() => return Ok(id.trim().to_owned()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("read", &path)(error)),
        }
        let mut id = [0; 16];
        getrandom::fill(&mut id)
            .map_err(|_| io::Error::other("the operating system gives no random bytes"))
            .map_err(failed("make", &path))?;
        let id = hex::encode(&id);
        self.write_private(&path, &format!("{id}\n"))?;
        Ok(id)
    }

    pub(crate) fn database(&self) -> PathBuf {
        database(&self.root)
    }

    /// The key of secrets, where no other is named.
    pub(crate) fn secrets_key(&self) -> PathBuf {
        secrets_key(&self.shared)
    }

    /// The key that registry tokens are signed with.
    pub(crate) fn registry_key(&self) -> PathBuf {
        self.shared.join("registry.key")
    }

    pub(crate) fn token(&self) -> PathBuf {
        self.shared.join("token")
    }

    pub(crate) fn registry(&self) -> PathBuf {
        registry(&self.shared)
    }

    pub(crate) fn registry_place(&self) -> StorePlace {
        StorePlace {
            path: self.registry(),
            layout: oci::STORE_LAYOUT,
        }
    }

    pub(crate) fn id(&self) -> Result<FolderId, DataDirError> {
        FolderId::of(&self.root).map_err(failed("look at", &self.root))
    }

    pub(crate) fn engine(&self) -> PathBuf {
        self.root.join("engine")
    }

    /// The volumes of instances.
    pub(crate) fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// Folder of a tenant's logs.
    pub(crate) fn logs(&self, tenant: &str) -> PathBuf {
        self.root.join("logs").join(tenant)
    }

    /// Makes the database file readable for its owner only, before SQLite makes it otherwise. A new one is made in a new folder
    /// only.
    pub(crate) fn prepare_database(&self) -> Result<(), DataDirError> {
        let path = self.database();
        let there = fs::metadata(&path).is_ok_and(|found| found.len() > 0);
        if !there {
            self.check_new()?;
        }
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("create", &path))?;
        Ok(())
    }

    /// Whether nothing here is of a server that has a state already.
    fn check_new(&self) -> Result<(), DataDirError> {
        let refused = |path: &Path, what| {
            let path = path.to_owned();
            Err(DataDirError::StateElsewhere { path, what })
        };
        if self.root.join("server.id").exists() {
            return refused(
                &self.root,
                "is of a server whose state is in PostgreSQL: start it with DATABASE_URL or --database-url-file, or name another --data \
                 folder",
            );
        }
        self.check_no_restoration()?;
        if self.has_images() {
            return refused(
                &self.database(),
                "is missing or empty, and the images beside it are those of the server that it was the state of: put it back from a \
                 backup (`systemprompt restore`, into a new folder), or name a new --data folder to begin anew",
            );
        }
        Ok(())
    }

    /// The same for a new database that is not in the folder.
    pub(crate) fn check_new_database(&self) -> Result<(), DataDirError> {
        self.check_no_restoration()?;
        if !self.has_images() {
            return Ok(());
        }
        Err(DataDirError::StateElsewhere {
            path: self.shared.clone(),
            what: "holds images of a server whose state is not in this database: name the database that it was in, with DATABASE_URL or \
                   --database-url-file, restore a backup (`systemprompt restore`, into a new folder and an empty database), or name a new \
                   --shared folder to begin anew",
        })
    }

    /// Whether nothing here is half a state.
    fn check_no_restoration(&self) -> Result<(), DataDirError> {
        let part = self.shared.join(RESTORE_PART);
        for path in [part.with_extension("db"), part] {
            if path.exists() {
                let what = "is what a restoration that was cut short has left: empty the folder that it is in, and run \
                            `systemprompt restore` again";
                return Err(DataDirError::StateElsewhere { path, what });
            }
        }
        Ok(())
    }

    fn has_images(&self) -> bool {
        let images = fs::read_dir(self.registry().join("repositories"));
        images.is_ok_and(|mut entries| entries.next().is_some())
    }

    /// Writes a file for its owner only, whole or not at all.
    pub(crate) fn write_private(&self, path: &Path, content: &str) -> Result<(), DataDirError> {
        let temporary = path.with_extension("tmp");
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new()
                .create(true)
                .write(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(content.as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, path)?;
            File::open(path.parent().unwrap_or(&self.root))?.sync_all()
        };
        write().map_err(failed("write", path))
    }

    /// Announces the server.
    pub(crate) fn announce(&self, server: &ServerFile) -> Result<(), DataDirError> {
        let text = serde_json::json!(server).to_string();
        self.write_private(&self.server_file(), &text)
    }

    /// Takes the announcement back.
    pub(crate) fn withdraw(&self) {
        if let Err(error) = fs::remove_file(self.server_file())
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "server.json stays behind");
        }
    }

    fn server_file(&self) -> PathBuf {
        self.root.join("server.json")
    }
}

/// The database within a folder, whoever works on it.
pub(crate) fn database(root: &Path) -> PathBuf {
    root.join("state.db")
}

/// The images within a folder, whoever works on it.
pub(crate) fn registry(root: &Path) -> PathBuf {
    root.join("registry")
}

/// The key of secrets within a folder, where no other is named.
pub(crate) fn secrets_key(root: &Path) -> PathBuf {
    root.join("secrets.key")
}

/// Field 22 of `/proc/self/stat`. The program's name, field 2, may hold spaces and parentheses.
pub(crate) fn start_time_ticks() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = after_name.split_whitespace().nth(19);
    field.and_then(|ticks| ticks.parse().ok()).unwrap_or(0)
}

fn create(root: &Path) -> Result<(), DataDirError> {
    if !root.is_dir() {
        return DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)
            .map_err(failed("create", root));
    }
    let metadata = fs::metadata(root).map_err(failed("look at", root))?;
    if metadata.permissions().mode() & 0o077 != 0 {
        // It may be a volume or a folder with other uses: what is in it is private all the same.
        tracing::warn!(path = %root.display(), "the data folder is open to other users: chmod 700 it");
    }
    Ok(())
}

fn lock(root: &Path) -> Result<File, DataDirError> {
    let path = root.join("lock");
    let mut file = OpenOptions::new()
        .create(true)
        .read(true)
        .write(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Without its number the message is still right.
            let _ = file.read_to_string(&mut holder);
            let holder = match holder.trim() {
                "" => "unknown".to_owned(),
                pid => pid.to_owned(),
            };
            return Err(DataDirError::InUse {
                path: root.to_owned(),
                holder,
            });
        }
        Err(TryLockError::Error(source)) => return Err(failed("lock", &path)(source)),
    }
    let record = |file: &mut File| -> io::Result<()> {
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        writeln!(file, "{}", std::process::id())
    };
    record(&mut file).map_err(failed("write", &path))?;
    Ok(file)
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataDirError {
    let path = path.to_owned();
    move |source| DataDirError::Io {
        action,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_server_is_told_who_holds_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("data");
        let held = DataDir::open(&root).unwrap();
        let Err(refused) = DataDir::open(&root) else {
            panic!("the folder was given out twice");
        };
        let pid = std::process::id().to_string();
        assert!(refused.to_string().contains(&pid), "{refused}");
        drop(held);
        DataDir::open(&root).unwrap();
    }

    #[test]
    fn the_folder_and_its_files_are_private() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(&folder.path().join("data")).unwrap();
        data.write_private(&data.token(), "secret").unwrap();
        data.prepare_database().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&data.root), 0o700);
        assert_eq!(mode(&data.token()), 0o600);
        assert_eq!(mode(&data.database()), 0o600);
    }

    #[test]
    fn no_empty_state_is_put_beside_what_another_one_knows_of() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(folder.path()).unwrap();
        data.prepare_database().unwrap();
        // A first start that was cut short has left nothing else.
        data.prepare_database().unwrap();
        fs::create_dir_all(data.registry().join("repositories/shop")).unwrap();
        let refused = data.prepare_database().unwrap_err().to_string();
        assert!(
            refused.contains("state.db is missing or empty"),
            "{refused}"
        );
        fs::write(data.database(), "a state").unwrap();
        data.prepare_database().unwrap();
        fs::remove_dir_all(data.registry()).unwrap();
        fs::remove_file(data.database()).unwrap();
        data.server_id().unwrap();
        let refused = data.prepare_database().unwrap_err().to_string();
        assert!(refused.contains("DATABASE_URL"), "{refused}");
        assert!(!data.database().exists());
        fs::remove_file(data.root.join("server.id")).unwrap();
        for left in ["restore.part", "restore.db"] {
            let left = data.root.join(left);
            fs::create_dir(&left).unwrap();
            for check in [DataDir::prepare_database, DataDir::check_new_database] {
                let refused = check(&data).unwrap_err().to_string();
                assert!(refused.contains("restoration"), "{refused}");
            }
            fs::remove_dir(left).unwrap();
        }
        data.check_new_database().unwrap();
        assert!(!data.database().exists());
    }

    #[test]
    fn a_folder_keeps_its_name_and_shares_what_it_is_told_to() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("data");
        let data = DataDir::open(&root).unwrap();
        let id = data.server_id().unwrap();
        assert_eq!(data.server_id().unwrap(), id);
        let shared = folder.path().join("shared");
        let data = data.sharing(&shared).unwrap();
        assert_eq!(data.server_id().unwrap(), id);
        for path in [
            data.registry(),
            data.secrets_key(),
            data.registry_key(),
            data.token(),
        ] {
            assert!(path.starts_with(&shared), "{}", path.display());
        }
        assert!(data.engine().starts_with(&root));
        data.write_private(&data.token(), "secret").unwrap();
    }

    #[test]
    fn this_process_has_a_start_time() {
        assert!(start_time_ticks() > 0);
    }
}
