//! The tenants that the operator may deploy to, as last fetched: `.systemprompt/tenants.json`.

use std::path::Path;

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::nearest::nearest;
use crate::private_file::{self, PrivateFileError, Unknown, Warning};
use crate::project;

/// The content of `tenants.json`. Fields that are not known are kept when it is written.
#[derive(Clone, Debug, Default)]
pub struct Tenants {
    /// The tenants.
    pub tenants: Vec<Tenant>,
    /// When they were fetched.
    pub synced_at: Option<String>,
    unknown: Unknown,
}

/// One tenant.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// Its id, which the API knows it by.
    pub id: String,
    /// Its name, for people; not always unique.
    pub name: String,
    /// Name of its application and repository at the hosting provider.
    pub app_id: Option<String>,
    /// Where it is reached.
    pub hostname: Option<String>,
    /// Where it runs.
    pub region: Option<String>,
    /// Its database, with a password in it.
    pub database_url: Option<SecretString>,
    /// `local`, `cloud`, or a kind that later versions know.
    pub tenant_type: Option<String>,
    unknown: Unknown,
}

/// Why a tenant was not found.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FindTenantError {
    /// None has this id or name.
    #[error("no tenant `{wanted}`{}", hint(nearest.as_deref(), known))]
    NotFound {
        /// What was looked for.
        wanted: String,
        /// What may have been meant.
        nearest: Option<String>,
        /// The names there are.
        known: Vec<String>,
    },
    /// Several have this name.
    #[error("{} tenants are called `{wanted}`: name one by its id: {}", ids.len(), ids.join(", "))]
    Ambiguous {
        /// The name.
        wanted: String,
        /// The ids of those who bear it.
        ids: Vec<String>,
    },
}

fn hint(nearest: Option<&str>, known: &[String]) -> String {
    match nearest {
        Some(nearest) => format!(": did you mean `{nearest}`?"),
        None if known.is_empty() => String::new(),
        None => format!(": known are {}", known.join(", ")),
    }
}

#[derive(Serialize, Deserialize)]
struct Record {
    #[serde(default)]
    tenants: Vec<TenantRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    synced_at: Option<String>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

#[derive(Serialize, Deserialize)]
struct TenantRecord {
    id: String,
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    app_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hostname: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    database_url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tenant_type: Option<String>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl Tenant {
    /// A tenant of which only the identity is known.
    #[must_use]
    pub fn new(id: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            name: name.into(),
            app_id: None,
            hostname: None,
            region: None,
            database_url: None,
            tenant_type: None,
            unknown: Unknown::default(),
        }
    }
}

impl Tenants {
    /// Reads the tenants of the project in `root`; `None` where none were fetched.
    ///
    /// # Errors
    ///
    /// When the file is there but cannot be read or understood.
    pub fn read(root: &Path) -> Result<Option<(Self, Vec<Warning>)>, PrivateFileError> {
        let found = private_file::read::<Record>(&root.join(project::TENANTS))?;
        Ok(found.map(|(record, warnings)| (record.into(), warnings)))
    }

    /// Writes the tenants of the project in `root`, for its owner only and out of git's sight.
    ///
    /// # Errors
    ///
    /// When the file or the `.gitignore` beside it cannot be written.
    pub fn write(&self, root: &Path) -> Result<(), PrivateFileError> {
        private_file::write(&root.join(project::TENANTS), &Record::from(self))
    }

    /// The tenant with this id, else the one with this name.
    ///
    /// # Errors
    ///
    /// When there is none, or several bear the name.
    pub fn find(&self, wanted: &str) -> Result<&Tenant, FindTenantError> {
        if let Some(tenant) = self.tenants.iter().find(|tenant| tenant.id == wanted) {
            return Ok(tenant);
        }
        let named = self.tenants.iter().filter(|tenant| tenant.name == wanted);
        match named.collect::<Vec<_>>().as_slice() {
            [tenant] => Ok(tenant),
            [] => Err(self.not_found(wanted)),
            several => Err(FindTenantError::Ambiguous {
                wanted: wanted.to_owned(),
                ids: several.iter().map(|tenant| tenant.id.clone()).collect(),
            }),
        }
    }

    fn not_found(&self, wanted: &str) -> FindTenantError {
        let names = self.tenants.iter().map(|tenant| tenant.name.as_str());
        let ids = self.tenants.iter().map(|tenant| tenant.id.as_str());
        FindTenantError::NotFound {
            wanted: wanted.to_owned(),
            nearest: nearest(wanted, names.clone().chain(ids)).map(str::to_owned),
            known: names.map(str::to_owned).collect(),
        }
    }
}

impl From<Record> for Tenants {
    fn from(record: Record) -> Self {
        Self {
            tenants: record.tenants.into_iter().map(Tenant::from).collect(),
            synced_at: record.synced_at,
            unknown: Unknown(record.unknown),
        }
    }
}

impl From<&Tenants> for Record {
    fn from(tenants: &Tenants) -> Self {
        Self {
            tenants: tenants.tenants.iter().map(TenantRecord::from).collect(),
            synced_at: tenants.synced_at.clone(),
            unknown: tenants.unknown.0.clone(),
        }
    }
}

impl From<TenantRecord> for Tenant {
    fn from(record: TenantRecord) -> Self {
        Self {
            id: record.id,
            name: record.name,
            app_id: record.app_id,
            hostname: record.hostname,
            region: record.region,
            database_url: record.database_url.map(SecretString::from),
            tenant_type: record.tenant_type,
            unknown: Unknown(record.unknown),
        }
    }
}

impl From<&Tenant> for TenantRecord {
    fn from(tenant: &Tenant) -> Self {
        let database_url = tenant.database_url.as_ref();
        Self {
            id: tenant.id.clone(),
            name: tenant.name.clone(),
            app_id: tenant.app_id.clone(),
            hostname: tenant.hostname.clone(),
            region: tenant.region.clone(),
            database_url: database_url.map(|url| url.expose_secret().to_owned()),
            tenant_type: tenant.tenant_type.clone(),
            unknown: tenant.unknown.0.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const FILE: &str = r#"{
  "tenants": [
    {
      "id": "ten-1",
      "name": "shop",
      "app_id": "sp-ten-1",
      "hostname": "shop.example.org",
      "region": "iad",
      "database_url": "postgres://u:hunter2@db/shop",
      "tenant_type": "cloud",
      "plan": "pro"
    },
    {
      "id": "ten-2",
      "name": "twin"
    },
    {
      "id": "twin",
      "name": "twin"
    },
    {
      "id": "ten-4",
      "name": "couple"
    },
    {
      "id": "ten-5",
      "name": "couple"
    }
  ],
  "synced_at": "2026-01-01T00:00:00Z",
  "version": 3
}
"#;

    fn project(text: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(project::FOLDER)).unwrap();
        fs::write(folder.path().join(project::TENANTS), text).unwrap();
        folder
    }

    fn read(text: &str) -> Tenants {
        Tenants::read(project(text).path()).unwrap().unwrap().0
    }

    fn check(wanted: &str) -> String {
        match read(FILE).find(wanted) {
            Ok(tenant) => tenant.id.clone(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn by_id_and_by_name() {
        assert_eq!(check("ten-1"), "ten-1");
        assert_eq!(check("shop"), "ten-1");
        assert_eq!(check("twin"), "twin");
    }

    #[test]
    fn not_found() {
        assert_eq!(
            check("couple"),
            "2 tenants are called `couple`: name one by its id: ten-4, ten-5"
        );
        assert_eq!(check("shpo"), "no tenant `shpo`: did you mean `shop`?");
        assert_eq!(
            check("something else"),
            "no tenant `something else`: known are shop, twin, twin, couple, couple"
        );
        let none = Tenants::default().find("shop").unwrap_err();
        assert_eq!(none.to_string(), "no tenant `shop`");
    }

    #[test]
    fn unknown_fields_survive() {
        let folder = project(FILE);
        read(FILE).write(folder.path()).unwrap();
        let path = folder.path().join(project::TENANTS);
        assert_eq!(fs::read_to_string(path).unwrap(), FILE);
    }

    #[test]
    fn a_file_may_name_no_tenants_and_there_may_be_no_file() {
        assert!(read("{}").tenants.is_empty());
        let folder = tempfile::tempdir().unwrap();
        assert!(Tenants::read(folder.path()).unwrap().is_none());
    }

    #[test]
    fn debug_shows_no_secret() {
        let debug = format!("{:?}", read(FILE));
        assert!(!debug.contains("hunter2"), "{debug}");
    }
}
