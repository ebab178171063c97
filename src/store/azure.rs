//! An Azure storage account: how the app settings name it, how requests to it are signed, and the clients
//! made of that. Whoever writes blobs or tables, windows or records, comes here for a client.
//!
//! The settings are those that the Functions host reads itself, by the same precedence: one connection
//! string, or, without it, a group of settings with its name as prefix that name endpoints and an identity.

mod identity;
mod sign;
pub(crate) mod tables;

use std::fmt;
use std::sync::Arc;

use azure_core::credentials::{Secret, TokenCredential};
use azure_core::error::ErrorKind;
use azure_core::http::policies::Policy;
use azure_core::http::policies::auth::BearerTokenAuthorizationPolicy;
use azure_core::http::{
    ClientOptions, ExponentialRetryOptions, Pipeline, RetryOptions, StatusCode, Url,
};
use azure_core::time::Duration;
use azure_storage_blob::{BlobClient, BlobContainerClient, BlobContainerClientOptions};
use percent_encoding::percent_decode_str;

use super::{Failure, StoreError};
use crate::config::{self, InvalidSetting, Settings};
use sign::{AppendSas, Dialect, SharedKey};
use tables::TableError;

/// The account and key that Azurite answers to, the same for everybody; Azurite publishes it.
const AZURITE_ACCOUNT: &str = "devstoreaccount1";
const AZURITE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
/// What a token for storage is asked for.
const SCOPE: &str = "https://storage.azure.com/.default";

/// A storage account and the right to use it.
#[derive(Clone)]
pub struct Account {
    blob: Option<Url>,
    table: Option<Url>,
    access: Access,
    /// Run for each try of a request, before it is signed.
    policies: Vec<Arc<dyn Policy>>,
}

#[derive(Clone)]
enum Access {
    Key { account: String, key: Secret },
    Sas(Secret),
    Identity(Arc<dyn TokenCredential>),
}

impl fmt::Debug for Account {
    /// Endpoints and the way of access; no secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = match &self.access {
            Access::Key { .. } => "account key",
            Access::Sas(_) => "shared access signature",
            Access::Identity(_) => "identity",
        };
        f.debug_struct("Account")
            .field("blob", &self.blob.as_ref().map(Url::as_str))
            .field("table", &self.table.as_ref().map(Url::as_str))
            .field("access", &access)
            .finish_non_exhaustive()
    }
}

impl Account {
    /// The account of `AzureWebJobsStorage`; `None` when no setting of that name or prefix is there.
    pub fn from_settings(settings: &Settings) -> Result<Option<Self>, InvalidSetting> {
        let name = config::STORAGE.name;
        let wrong = |reason| InvalidSetting::new(&config::STORAGE, "", reason);
        if let Some(text) = settings.raw(name) {
            return Self::from_connection_string(text).map(Some).map_err(wrong);
        }
        let part = |suffix: &str| settings.raw(&format!("{name}__{suffix}"));
        let account = part("accountName");
        let endpoint = |suffix, service| -> Result<Option<Url>, String> {
            let text = match (part(suffix), account) {
                (Some(uri), _) => uri.to_owned(),
                (None, Some(account)) => format!("https://{account}.{service}.core.windows.net"),
                (None, None) => return Ok(None),
            };
            let url = parse_endpoint(&text).map_err(|e| format!("{name}__{suffix} {e}"))?;
            if url.scheme() != "https" {
                return Err(format!("{name}__{suffix} has to begin with https://"));
            }
            Ok(Some(url))
        };
        let blob = endpoint("blobServiceUri", "blob").map_err(wrong)?;
        let table = endpoint("tableServiceUri", "table").map_err(wrong)?;
        if blob.is_none() && table.is_none() {
            return Ok(None);
        }
        let credential = identity::from_settings(settings, name).map_err(wrong)?;
        Ok(Some(Self {
            blob,
            table,
            access: Access::Identity(credential),
            policies: Vec::new(),
        }))
    }

    /// The account that a connection string names. The reason of a refusal holds no part of it.
    pub fn from_connection_string(text: &str) -> Result<Self, String> {
        let mut fields = Vec::new();
        for field in text.split(';').map(str::trim).filter(|f| !f.is_empty()) {
            let (name, value) = field
                .split_once('=')
                .ok_or("expected a connection string: NAME=VALUE;NAME=VALUE")?;
            fields.push((name.trim().to_ascii_lowercase(), value.trim()));
        }
        let field = |name: &str| {
            fields
                .iter()
                .find(|(n, value)| n == name && !value.is_empty())
                .map(|(_, value)| *value)
        };
        if field("usedevelopmentstorage").is_some_and(|v| v.eq_ignore_ascii_case("true")) {
            let host = field("developmentstorageproxyuri").unwrap_or("http://127.0.0.1");
            return Self::azurite(host, 10_000, 10_002);
        }
        let account = field("accountname");
        let endpoint = |name: &str, service: &str| -> Result<Option<Url>, String> {
            let text = match (field(name), account) {
                (Some(url), _) => url.to_owned(),
                (None, Some(account)) => {
                    let scheme = field("defaultendpointsprotocol").unwrap_or("https");
                    let suffix = field("endpointsuffix").unwrap_or("core.windows.net");
                    format!("{scheme}://{account}.{service}.{suffix}")
                }
                (None, None) => return Ok(None),
            };
            parse_endpoint(&text)
                .map(Some)
                .map_err(|error| format!("its {service} endpoint {error}"))
        };
        let access = match (account, field("accountkey"), field("sharedaccesssignature")) {
            (_, _, Some(sas)) => Access::Sas(Secret::new(sas.trim_start_matches('?').to_owned())),
            (Some(account), Some(key), None) => {
                if azure_core::base64::decode(key).is_err() {
                    return Err("its AccountKey is no base64; copy it again".to_owned());
                }
                Access::Key {
                    account: account.to_owned(),
                    key: Secret::new(key.to_owned()),
                }
            }
            _ => {
                let expected = "expected AccountName and AccountKey, or SharedAccessSignature and BlobEndpoint, or UseDevelopmentStorage=true";
                return Err(expected.to_owned());
            }
        };
        Ok(Self {
            blob: endpoint("blobendpoint", "blob")?,
            table: endpoint("tableendpoint", "table")?,
            access,
            policies: Vec::new(),
        })
    }

    /// Azurite at `host`, such as `http://127.0.0.1`.
    pub fn azurite(host: &str, blob_port: u16, table_port: u16) -> Result<Self, String> {
        let host = host.trim_end_matches('/');
        let endpoint = |port| parse_endpoint(&format!("{host}:{port}/{AZURITE_ACCOUNT}"));
        Ok(Self {
            blob: Some(endpoint(blob_port)?),
            table: Some(endpoint(table_port)?),
            access: Access::Key {
                account: AZURITE_ACCOUNT.to_owned(),
                key: Secret::new(AZURITE_KEY),
            },
            policies: Vec::new(),
        })
    }

    /// The account with one more policy, which sees each try of each request before it is signed.
    pub fn with_policy(mut self, policy: Arc<dyn Policy>) -> Self {
        self.policies.push(policy);
        self
    }

    /// A client for a container, which need not be there yet.
    pub fn container(&self, name: &str) -> Result<BlobContainerClient, String> {
        let url = self.blob.as_ref().ok_or("it names no blob endpoint")?;
        let credential = match &self.access {
            Access::Identity(credential) => Some(Arc::clone(credential)),
            Access::Key { .. } | Access::Sas(_) => None,
        };
        let options = BlobContainerClientOptions {
            client_options: self.client_options(Dialect::Blob),
            ..BlobContainerClientOptions::default()
        };
        BlobContainerClient::new(below(url, name), credential, Some(options))
            .map_err(|error| error.to_string())
    }

    /// A client for the blob at `url`, where it lies in this account and the URL brings no signature of
    /// its own.
    pub fn blob(&self, url: &Url) -> Option<BlobClient> {
        let own = self.blob.as_ref()?;
        let base = own.path().trim_end_matches('/');
        let path = url.path().strip_prefix(base)?.strip_prefix('/')?;
        let (container, name) = path.split_once('/')?;
        let is_own = own.origin() == url.origin() && url.query().is_none();
        // The client encodes names itself.
        let name = percent_decode_str(name).decode_utf8().ok()?;
        let container = self.container(container).ok()?;
        (is_own && !name.is_empty()).then(|| container.blob_client(&name))
    }

    /// The table service's endpoint, and a pipeline that signs what goes there.
    pub fn tables(&self) -> Result<(Url, Pipeline), String> {
        let url = self.table.clone().ok_or("it names no table endpoint")?;
        let mut own: Vec<Arc<dyn Policy>> = Vec::new();
        if let Access::Identity(credential) = &self.access {
            own.push(Arc::new(BearerTokenAuthorizationPolicy::new(
                Arc::clone(credential),
                [SCOPE],
            )));
        }
        let pipeline = Pipeline::new(
            option_env!("CARGO_PKG_NAME"),
            option_env!("CARGO_PKG_VERSION"),
            self.client_options(Dialect::Table),
            Vec::new(),
            own,
            None,
        );
        Ok((url, pipeline))
    }

    fn client_options(&self, dialect: Dialect) -> ClientOptions {
        let mut per_try_policies = self.policies.clone();
        match &self.access {
            Access::Key { account, key } => per_try_policies.push(Arc::new(SharedKey {
                account: account.clone(),
                key: key.clone(),
                dialect,
            })),
            Access::Sas(sas) => per_try_policies.push(Arc::new(AppendSas(sas.clone()))),
            Access::Identity(_) => {}
        }
        // A few quick tries here; the host's own retries, minutes apart, come on top.
        let retry = ExponentialRetryOptions {
            initial_delay: Duration::milliseconds(200),
            max_retries: 3,
            max_total_elapsed: Duration::seconds(10),
            max_delay: Duration::seconds(3),
        };
        ClientOptions {
            per_try_policies,
            retry: RetryOptions::exponential(retry),
            ..ClientOptions::default()
        }
    }
}

/// `url` with one more path segment.
pub(crate) fn below(url: &Url, segment: &str) -> Url {
    let mut url = url.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().push(segment);
    }
    url
}

/// An error of the client, sorted by what its caller can do; conflicts are the caller's to recognise.
pub(crate) fn sort_error(place: String, doing: String, error: &azure_core::Error) -> StoreError {
    let source = without_signatures(&crate::telemetry::one_line(error)).into();
    if matches!(error.kind(), ErrorKind::Credential) {
        return StoreError::Refused {
            place,
            doing,
            remedy: "check the identity that the AzureWebJobsStorage__… settings name".to_owned(),
            source,
        };
    }
    sort_status(place, doing, error.http_status(), source)
}

/// The same for the table service.
pub(crate) fn sort_answer(place: String, doing: String, error: TableError) -> StoreError {
    match error {
        TableError::Failed(error) => sort_error(place, doing, &error),
        TableError::Refused {
            status,
            code,
            message,
        } => {
            let source = format!(
                "the service answers {} {code}: {message}",
                u16::from(status)
            );
            sort_status(place, doing, Some(status), source.into())
        }
    }
}

fn sort_status(
    place: String,
    doing: String,
    status: Option<StatusCode>,
    source: Failure,
) -> StoreError {
    let remedy = match status {
        Some(StatusCode::InsufficientStorage) => return StoreError::Full { place, source },
        Some(StatusCode::Unauthorized | StatusCode::Forbidden) => {
            "check the key or signature in AzureWebJobsStorage, the clock, and the identity's roles (Storage Blob Data Contributor, Storage Table Data Contributor)"
        }
        Some(StatusCode::BadRequest) => "check the names in the Store__… settings",
        _ => {
            return StoreError::Unavailable {
                place,
                doing,
                source,
            };
        }
    };
    StoreError::Refused {
        place,
        doing,
        remedy: remedy.to_owned(),
        source,
    }
}

/// The service's code for an error, such as `ContainerNotFound`.
pub(crate) fn error_code(error: &azure_core::Error) -> Option<&str> {
    match error.kind() {
        ErrorKind::HttpResponse { error_code, .. } => error_code.as_deref(),
        _ => None,
    }
}

/// A text without what signs a URL in it: transport errors tell the whole of one.
pub(crate) fn without_signatures(text: &str) -> String {
    let mut told = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("sig=") {
        let value = &rest[at + 4..];
        let end = value
            .find(|c: char| !(c.is_ascii_alphanumeric() || "%+/=-_.~".contains(c)))
            .unwrap_or(value.len());
        told.push_str(&rest[..at + 4]);
        told.push_str("***");
        rest = &value[end..];
    }
    told + rest
}

fn parse_endpoint(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|_| "is no URL".to_owned())?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err("is no http or https URL".to_owned());
    }
    Ok(url)
}

#[cfg(test)]
mod tests;
