//! Who this process is to Azure, by the settings that the Functions host reads for its own connections.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use azure_core::credentials::{AccessToken, Secret, TokenCredential, TokenRequestOptions};
use azure_identity::{
    ClientSecretCredential, DeveloperToolsCredential, ManagedIdentityCredential,
    ManagedIdentityCredentialOptions, UserAssignedId, WorkloadIdentityCredential,
};

use crate::config::Settings;

/// The credential of the connection called `name`:
///
/// - `__credential=managedidentity`: the managed identity, of `__clientId` if that is there;
/// - `__tenantId`, `__clientId` and `__clientSecret`: that service principal;
/// - neither: whichever of the environment's service principal, workload identity, managed identity and
///   developer tools gives a token first.
pub(super) fn from_settings(
    settings: &Settings,
    name: &str,
) -> Result<Arc<dyn TokenCredential>, String> {
    let part = |suffix: &str| settings.raw(&format!("{name}__{suffix}"));
    let told = |error: azure_core::Error| error.to_string();
    match part("credential") {
        Some(kind) if kind.eq_ignore_ascii_case("managedidentity") => {
            return managed_identity(part("clientId")).map_err(told);
        }
        Some(_) => {
            return Err(format!(
                "{name}__credential has to be managedidentity or empty"
            ));
        }
        None => {}
    }
    if let (Some(tenant), Some(client), Some(secret)) =
        (part("tenantId"), part("clientId"), part("clientSecret"))
    {
        return service_principal(tenant, client, secret).map_err(told);
    }
    let mut candidates: Vec<Arc<dyn TokenCredential>> = Vec::new();
    let environment = |name| settings.raw(name);
    if let (Some(tenant), Some(client), Some(secret)) = (
        environment("AZURE_TENANT_ID"),
        environment("AZURE_CLIENT_ID"),
        environment("AZURE_CLIENT_SECRET"),
    ) {
        candidates.push(service_principal(tenant, client, secret).map_err(told)?);
    }
    if environment("AZURE_FEDERATED_TOKEN_FILE").is_some() {
        candidates.push(WorkloadIdentityCredential::new(None).map_err(told)?);
    }
    let client = part("clientId").or(environment("AZURE_CLIENT_ID"));
    candidates.push(managed_identity(client).map_err(told)?);
    candidates.push(DeveloperToolsCredential::new(None).map_err(told)?);
    Ok(Arc::new(FirstThatWorks {
        candidates,
        chosen: OnceLock::new(),
    }))
}

fn managed_identity(client: Option<&str>) -> azure_core::Result<Arc<dyn TokenCredential>> {
    let options = ManagedIdentityCredentialOptions {
        user_assigned_id: client.map(|id| UserAssignedId::ClientId(id.to_owned())),
        ..ManagedIdentityCredentialOptions::default()
    };
    Ok(ManagedIdentityCredential::new(Some(options))?)
}

fn service_principal(
    tenant: &str,
    client: &str,
    secret: &str,
) -> azure_core::Result<Arc<dyn TokenCredential>> {
    let secret = Secret::new(secret.to_owned());
    Ok(ClientSecretCredential::new(
        tenant,
        client.to_owned(),
        secret,
        None,
    )?)
}

/// Asks in order until one gives a token, and stays with that one.
#[derive(Debug)]
struct FirstThatWorks {
    candidates: Vec<Arc<dyn TokenCredential>>,
    chosen: OnceLock<usize>,
}

#[async_trait]
impl TokenCredential for FirstThatWorks {
    async fn get_token(
        &self,
        scopes: &[&str],
        options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        if let Some(&chosen) = self.chosen.get() {
            return self.candidates[chosen].get_token(scopes, options).await;
        }
        let mut reasons = Vec::new();
        for (index, candidate) in self.candidates.iter().enumerate() {
            match candidate.get_token(scopes, options.clone()).await {
                Ok(token) => {
                    // If somebody else was first, theirs works as well.
                    let _first = self.chosen.set(index);
                    return Ok(token);
                }
                Err(error) => reasons.push(error.to_string()),
            }
        }
        Err(azure_core::Error::with_message(
            azure_core::error::ErrorKind::Credential,
            format!("no identity gives a token: {}", reasons.join("; ")),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Always(Option<&'static str>);

    #[async_trait]
    impl TokenCredential for Always {
        async fn get_token(
            &self,
            _scopes: &[&str],
            _options: Option<TokenRequestOptions<'_>>,
        ) -> azure_core::Result<AccessToken> {
            let expires = azure_core::time::OffsetDateTime::UNIX_EPOCH;
            self.0
                .map(|token| AccessToken::new(token, expires))
                .ok_or_else(|| {
                    let kind = azure_core::error::ErrorKind::Credential;
                    azure_core::Error::with_message(kind, "no such identity")
                })
        }
    }

    #[tokio::test]
    async fn the_first_that_works_is_kept() {
        let chain = |candidates: Vec<Always>| FirstThatWorks {
            candidates: candidates
                .into_iter()
                .map(|c| Arc::new(c) as Arc<dyn TokenCredential>)
                .collect(),
            chosen: OnceLock::new(),
        };
        let two = chain(vec![
            Always(None),
            Always(Some("second")),
            Always(Some("third")),
        ]);
        for _ in 0..2 {
            let token = two.get_token(&["scope"], None).await.unwrap();
            assert_eq!(token.token.secret(), "second");
        }
        assert_eq!(two.chosen.get(), Some(&1));
        let error = chain(vec![Always(None)])
            .get_token(&["scope"], None)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("no such identity"), "{error}");
    }
}
