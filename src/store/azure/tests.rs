use azure_core::http::{Body, Context, Method, Request};

use super::*;

fn account(text: &str) -> Account {
    Account::from_connection_string(text).unwrap()
}

fn urls(account: &Account) -> (Option<&str>, Option<&str>) {
    let url = |url: &'_ Option<Url>| url.as_ref().map(|url| url.to_string());
    let (blob, table) = (url(&account.blob), url(&account.table));
    (blob.map(|s| &*s.leak()), table.map(|s| &*s.leak()))
}

#[test]
fn connection_strings_name_endpoints() {
    let key = "AccountKey=c2VjcmV0";
    assert_eq!(
        urls(&account(&format!(
            "DefaultEndpointsProtocol=https;AccountName=acc;{key};EndpointSuffix=core.windows.net"
        ))),
        (
            Some("https://acc.blob.core.windows.net/"),
            Some("https://acc.table.core.windows.net/")
        )
    );
    assert_eq!(
        urls(&account(&format!(
            "AccountName=acc; BlobEndpoint=http://127.0.0.1:9/acc;{key};"
        ))),
        (
            Some("http://127.0.0.1:9/acc"),
            Some("https://acc.table.core.windows.net/")
        )
    );
    assert_eq!(
        urls(&account("UseDevelopmentStorage=true")),
        (
            Some("http://127.0.0.1:10000/devstoreaccount1"),
            Some("http://127.0.0.1:10002/devstoreaccount1")
        )
    );
    let sas = account(
        "BlobEndpoint=https://acc.blob.core.windows.net;SharedAccessSignature=?sv=1&sig=abc",
    );
    assert_eq!(
        urls(&sas),
        (Some("https://acc.blob.core.windows.net/"), None)
    );
    assert!(sas.tables().is_err());
}

#[test]
fn a_wrong_connection_string_is_not_told() {
    for text in [
        "secret",
        "AccountName=acc",
        "AccountName=acc;AccountKey=sec*ret",
        "AccountName=acc;AccountKey=c2VjcmV0;BlobEndpoint=secret",
    ] {
        let reason = Account::from_connection_string(text).unwrap_err();
        assert!(!reason.contains("sec"), "{reason}");
        let settings = Settings::from_pairs([("AzureWebJobsStorage", text)]);
        let error = Account::from_settings(&settings).unwrap_err();
        assert_eq!(error.name, "AzureWebJobsStorage");
        assert!(!error.to_string().contains("sec"), "{error}");
    }
    let debug = format!("{:?}", account("AccountName=acc;AccountKey=c2VjcmV0"));
    assert!(!debug.contains("c2Vj"), "{debug}");
}

#[test]
fn identities_are_named_by_a_group_of_settings() {
    let found = |pairs: &[(&str, &str)]| {
        let pairs = pairs
            .iter()
            .map(|(suffix, value)| (format!("AzureWebJobsStorage__{suffix}"), *value));
        Account::from_settings(&Settings::from_pairs(pairs))
    };
    assert!(found(&[]).unwrap().is_none());
    let named = found(&[("accountName", "acc")]).unwrap().unwrap();
    assert_eq!(urls(&named).0, Some("https://acc.blob.core.windows.net/"));
    assert!(format!("{named:?}").contains("identity"));
    let explicit = found(&[
        ("accountName", "acc"),
        ("blobServiceUri", "https://blob.example"),
        ("credential", "managedidentity"),
        ("clientId", "00000000-0000-0000-0000-000000000000"),
    ]);
    assert_eq!(
        urls(&explicit.unwrap().unwrap()).0,
        Some("https://blob.example/")
    );
    let principal = found(&[
        ("tableServiceUri", "https://table.example"),
        ("tenantId", "tenant"),
        ("clientId", "client"),
        ("clientSecret", "secret"),
    ]);
    assert_eq!(
        urls(&principal.unwrap().unwrap()),
        (None, Some("https://table.example/"))
    );
    for wrong in [
        [("accountName", "acc"), ("credential", "password")],
        [("blobServiceUri", "http://blob.example"), ("clientId", "x")],
    ] {
        assert!(found(&wrong).is_err(), "{wrong:?}");
    }
    // The connection string wins.
    let both = Settings::from_pairs([
        ("AzureWebJobsStorage", "UseDevelopmentStorage=true"),
        ("AzureWebJobsStorage__accountName", "acc"),
    ]);
    let both = Account::from_settings(&both).unwrap().unwrap();
    assert!(format!("{both:?}").contains("127.0.0.1"), "{both:?}");
}

/// Answers with the request's own URL and headers.
#[derive(Debug)]
struct Mirror;

#[async_trait::async_trait]
impl Policy for Mirror {
    async fn send(
        &self,
        _ctx: &Context,
        request: &mut Request,
        _next: &[Arc<dyn Policy>],
    ) -> azure_core::http::policies::PolicyResult {
        Ok(azure_core::http::AsyncRawResponse::from_bytes(
            StatusCode::Ok,
            request.headers().clone(),
            request.url().to_string(),
        ))
    }
}

#[tokio::test]
async fn requests_are_signed_with_the_key() {
    let policy = SharedKey {
        account: "acc".to_owned(),
        key: Secret::new("c2VjcmV0"),
        dialect: Dialect::Blob,
    };
    let url = "https://acc.blob.core.windows.net/c/a%2Fb?timeout=5&comp=appendblock";
    let mut request = Request::new(Url::parse(url).unwrap(), Method::Put);
    request.set_body(Body::from(azure_core::Bytes::from_static(b"entry")));
    request.insert_header("if-match", "\"tag\"");
    request.insert_header("x-ms-version", "2026-04-06");
    let mirror: Arc<dyn Policy> = Arc::new(Mirror);
    let response = policy.send(&Context::new(), &mut request, &[mirror]).await;
    let headers = response.unwrap().headers().clone();
    let date = headers.get_str(&"x-ms-date".into()).unwrap();
    let text = format!(
        "PUT\n\n\n5\n\n\n\n\n\"tag\"\n\n\n\nx-ms-date:{date}\nx-ms-version:2026-04-06\n/acc/c/a%2Fb\ncomp:appendblock\ntimeout:5"
    );
    let signature = azure_core::hmac::hmac_sha256(&text, &Secret::new("c2VjcmV0")).unwrap();
    assert_eq!(
        headers.get_str(&"authorization".into()).unwrap(),
        format!("SharedKey acc:{signature}")
    );
}

#[tokio::test]
async fn a_signature_is_in_the_url_for_one_try_only() {
    let policy = AppendSas(Secret::new("sv=1&sig=abc%3D"));
    for (before, signed) in [
        ("https://b.example/c", "https://b.example/c?sv=1&sig=abc%3D"),
        (
            "https://b.example/c?comp=list",
            "https://b.example/c?comp=list&sv=1&sig=abc%3D",
        ),
    ] {
        let mut request = Request::new(Url::parse(before).unwrap(), Method::Get);
        let mirror: Arc<dyn Policy> = Arc::new(Mirror);
        let response = policy.send(&Context::new(), &mut request, &[mirror]).await;
        let body = response
            .unwrap()
            .into_body()
            .collect_string()
            .await
            .unwrap();
        assert_eq!((body.as_str(), request.url().as_str()), (signed, before));
    }
}

#[test]
fn errors_keep_signatures_to_themselves() {
    let text = "no answer from https://b.example/c?sv=1&sig=abc%3D&se=2 (sig=xyz)";
    assert_eq!(
        without_signatures(text),
        "no answer from https://b.example/c?sv=1&sig=***&se=2 (sig=***)"
    );
}
