//! The wire types. Field names are the contract's; fields marked *ours* are sent by the embedded
//! and self-hosted platform only.

mod access;
mod deployment;
mod health;
mod request;
mod server;
mod service;
mod tenant;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};

pub use access::*;
pub use deployment::*;
pub use health::*;
pub use request::*;
pub use server::*;
pub use service::*;
pub use tenant::*;

/// The envelope of most answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Data<T> {
    /// The answer itself.
    pub data: T,
}

/// The few places where a secret goes over the wire on purpose.
fn reveal<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose_secret())
}

fn reveal_all<S: Serializer>(
    secrets: &BTreeMap<String, SecretString>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(secrets.iter().map(|(k, v)| (k, v.expose_secret())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_shapes_of_the_registry_token_are_read() {
        for field in ["token", "password"] {
            let text = format!(r#"{{"registry":"r","username":"x","{field}":"s3cret"}}"#);
            let token: RegistryToken = serde_json::from_str(&text).unwrap();
            assert_eq!(token.token.expose_secret(), "s3cret");
            assert!(!format!("{token:?}").contains("s3cret"));
        }
    }

    #[test]
    fn both_names_of_the_url_are_read() {
        for field in ["app_url", "url"] {
            let text = format!(r#"{{"status":"deploying","{field}":"https://a.example"}}"#);
            let answer: DeployAnswer = serde_json::from_str(&text).unwrap();
            assert_eq!(answer.app_url.as_deref(), Some("https://a.example"));
        }
    }

    #[test]
    fn a_plain_request_is_the_contract_and_nothing_more() {
        let request = DeployRequest {
            image: "r/a:t".into(),
            ..DeployRequest::default()
        };
        assert_eq!(
            serde_json::to_string(&request).unwrap(),
            r#"{"image":"r/a:t"}"#
        );
    }

    #[test]
    fn unknown_statuses_are_waited_on() {
        assert!(!is_final("warming-up"));
        assert!(is_final("ready") && is_good("ready"));
        assert!(is_final("rolled_back") && !is_good("rolled_back"));
    }
}
