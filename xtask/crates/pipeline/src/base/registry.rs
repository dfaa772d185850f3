//! A registry that base images come from. Nothing is asked, no credential helper is run, until
//! something is really needed from it.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use oci::{
    BlobSource, Client, ClientError, ClientOptions, Descriptor, PlainHttp, Repository, Store,
};

use super::error::BaseError;
use crate::deploy::SharedReporter;
use crate::docker_config::DockerConfig;
use crate::events::Event;
use crate::interrupt::Interrupts;
use crate::redact::Redactor;

/// With what registries are asked.
#[derive(Clone)]
pub(crate) struct Access {
    /// Those that may speak plain HTTP.
    pub(crate) insecure: Vec<String>,
    /// Files of certificates that theirs may come from, besides those of the known authorities.
    pub(crate) certificates: Vec<PathBuf>,
    pub(crate) docker: DockerConfig,
    pub(crate) redactor: Redactor,
    pub(crate) interrupts: Interrupts,
    pub(crate) tell: SharedReporter,
}

impl Access {
    /// Says something to the user.
    pub(crate) fn tell(&self, event: Event) {
        (self.tell)(event);
    }
}

/// A registry, connected to when it is first asked for something.
pub(crate) struct Registry {
    name: String,
    access: Access,
    connection: Mutex<Option<Arc<Connection>>>,
}

struct Connection {
    client: Client,
    /// Why it is asked without credentials although there should be some.
    note: Option<String>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registry").field(&self.name).finish()
    }
}

impl Registry {
    pub(crate) fn new(name: &str, access: Access) -> Self {
        Self {
            name: name.to_owned(),
            access,
            connection: Mutex::default(),
        }
    }

    /// `host[:port]`
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Asks for something of `image`.
    pub(crate) fn ask<T>(
        &self,
        image: &str,
        question: impl FnOnce(&Client) -> Result<T, ClientError>,
    ) -> Result<T, BaseError> {
        let failed = |note, source| BaseError::Registry {
            image: image.to_owned(),
            note,
            source: Box::new(source),
        };
        let connection = self.connection().map_err(|source| failed(None, source))?;
        question(&connection.client).map_err(|source| {
            let credentials = matches!(
                source,
                ClientError::Unauthorized { .. } | ClientError::Denied { .. }
            );
            failed(connection.note.clone().filter(|_| credentials), source)
        })
    }

    fn connection(&self) -> Result<Arc<Connection>, ClientError> {
        // Held while a helper runs: of several threads that need it, one asks.
        let mut known = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = known.as_ref() {
            return Ok(Arc::clone(connection));
        }
        let connection = Arc::new(self.connect()?);
        *known = Some(Arc::clone(&connection));
        Ok(connection)
    }

    fn connect(&self) -> Result<Connection, ClientError> {
        let access = &self.access;
        let found = access.docker.credentials(&self.name, &access.interrupts);
        let (credentials, note) = match found {
            Ok(credentials) => (credentials, None),
            Err(error) => {
                let words = crate::control::with_causes(&error);
                let words = access.redactor.clean(&words);
                access.tell(Event::Warning(format!(
                    "{words}; {} is asked without credentials",
                    self.name
                )));
                (None, Some(words))
            }
        };
        if let Some(credentials) = &credentials {
            access.redactor.learn(&credentials.password);
        }
        let interrupts = access.interrupts.clone();
        let options = ClientOptions {
            credentials,
            interrupt: Some(Arc::new(move || interrupts.any())),
            plain_http: PlainHttp {
                loopback: true,
                registries: access.insecure.clone(),
            },
            further_certificates: access.certificates.clone(),
            ..ClientOptions::default()
        };
        let client = Client::new(&self.name, options)?;
        Ok(Connection { client, note })
    }
}

/// A layer of a base image, fetched into the store when somebody opens it.
#[derive(Debug, Clone)]
pub(crate) struct BaseLayer {
    pub(crate) registry: Arc<Registry>,
    pub(crate) repository: Repository,
    /// The name of the image, for messages.
    pub(crate) image: String,
    pub(crate) layer: Descriptor,
    /// The root of the store.
    pub(crate) store: PathBuf,
}

impl BaseLayer {
    /// The layer's file; fetched now unless it is there.
    pub(crate) fn file(&self) -> Result<File, BaseError> {
        let unkept = |source| BaseError::Store {
            image: self.image.clone(),
            source,
        };
        let store = match Store::existing(&self.store) {
            Some(store) => store,
            None => Store::open(&self.store).map_err(unkept)?,
        };
        if !store.contains(&self.layer.digest) {
            self.registry.access.tell(Event::Progress(format!(
                "fetching {} of {}",
                crate::image::megabytes(self.layer.size),
                self.image
            )));
            self.registry.ask(&self.image, |client| {
                client.fetch_blob(&self.repository, &self.layer, &store)
            })?;
        }
        store.open_blob(&self.layer.digest).map_err(unkept)
    }
}

impl BlobSource for BaseLayer {
    fn open_at(&self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        let mut file = self.file().map_err(io::Error::other)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(Box::new(file))
    }
}
