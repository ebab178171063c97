//! Signatures that the storage SDK does not make: the account key's on each request, and the query string
//! of a shared access signature.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use azure_core::credentials::Secret;
use azure_core::hmac::hmac_sha256;
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{Context, Method, Request, Url};
use azure_core::time::{OffsetDateTime, to_rfc7231};

/// Which service's string to sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Blob,
    Table,
}

/// Signs each try with the account key, as "Authorize with Shared Key" in Azure Storage's REST reference
/// has it.
#[derive(Debug)]
pub(super) struct SharedKey {
    pub(super) account: String,
    pub(super) key: Secret,
    pub(super) dialect: Dialect,
}

#[async_trait]
impl Policy for SharedKey {
    async fn send(
        &self,
        ctx: &Context,
        request: &mut Request,
        next: &[Arc<dyn Policy>],
    ) -> PolicyResult {
        request.insert_header("x-ms-date", to_rfc7231(&OffsetDateTime::now_utc()));
        let text = match self.dialect {
            Dialect::Blob => self.blob_text(request),
            Dialect::Table => self.table_text(request),
        };
        let signature = hmac_sha256(&text, &self.key)?;
        let authorization = format!("SharedKey {}:{signature}", self.account);
        request.insert_header("authorization", authorization);
        next[0].send(ctx, request, &next[1..]).await
    }
}

impl SharedKey {
    fn blob_text(&self, request: &Request) -> String {
        let headers: BTreeMap<String, &str> = request
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str().to_ascii_lowercase(), value.as_str().trim()))
            .collect();
        let header = |name: &str| headers.get(name).copied().unwrap_or_default();
        // A length of zero is signed as an empty text since version 2015-02-21.
        let length = match request.body().len() {
            Some(0) | None => String::new(),
            Some(length) => length.to_string(),
        };
        let mut text = String::from(method_name(request.method()));
        let standard = [
            header("content-encoding"),
            header("content-language"),
            &length,
            header("content-md5"),
            header("content-type"),
            "", // the date is in x-ms-date
            header("if-modified-since"),
            header("if-match"),
            header("if-none-match"),
            header("if-unmodified-since"),
            header("range"),
        ];
        for value in standard {
            text.push('\n');
            text.push_str(value);
        }
        for (name, value) in headers.iter().filter(|(name, _)| name.starts_with("x-ms-")) {
            text.push_str(&format!("\n{name}:{value}"));
        }
        text.push('\n');
        text.push_str(&self.resource(request.url()));
        let mut queries: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in request.url().query_pairs() {
            queries
                .entry(name.to_ascii_lowercase())
                .or_default()
                .push(value.into_owned());
        }
        for (name, mut values) in queries {
            values.sort_unstable();
            text.push_str(&format!("\n{name}:{}", values.join(",")));
        }
        text
    }

    fn table_text(&self, request: &Request) -> String {
        let header = |name: &str| {
            request
                .headers()
                .iter()
                .find(|(other, _)| other.as_str().eq_ignore_ascii_case(name))
                .map_or("", |(_, value)| value.as_str())
        };
        let component = request
            .url()
            .query_pairs()
            .find(|(name, _)| name == "comp")
            .map_or_else(String::new, |(_, value)| format!("?comp={value}"));
        format!(
            "{}\n{}\n{}\n{}\n{}{component}",
            method_name(request.method()),
            header("content-md5"),
            header("content-type"),
            header("x-ms-date"),
            self.resource(request.url()),
        )
    }

    fn resource(&self, url: &Url) -> String {
        format!("/{}{}", self.account, url.path())
    }
}

fn method_name(method: Method) -> &'static str {
    match method {
        Method::Delete => "DELETE",
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Patch => "PATCH",
        Method::Post => "POST",
        Method::Put => "PUT",
        _ => "",
    }
}

/// Adds a shared access signature to each try's URL and takes it away again, so that it is in no URL that
/// anybody keeps.
#[derive(Debug)]
pub(super) struct AppendSas(pub(super) Secret);

#[async_trait]
impl Policy for AppendSas {
    async fn send(
        &self,
        ctx: &Context,
        request: &mut Request,
        next: &[Arc<dyn Policy>],
    ) -> PolicyResult {
        let query = request.url().query().map(str::to_owned);
        let signed = match query.as_deref() {
            None | Some("") => self.0.secret().to_owned(),
            Some(query) => format!("{query}&{}", self.0.secret()),
        };
        request.url_mut().set_query(Some(&signed));
        let response = next[0].send(ctx, request, &next[1..]).await;
        request.url_mut().set_query(query.as_deref());
        response
    }
}
