//! Azure Table Storage's REST protocol through azure_core's pipeline, which signs and retries.
//!
//! There is no crate for it on azure_core 1. Everything here speaks JSON without metadata; whoever reads an
//! entity knows the types of its properties.

use azure_core::http::{
    Context, Method, Pipeline, PipelineSendOptions, RawResponse, Request, StatusCode, Url,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::{Map, Value};

/// The first version that takes tokens of an identity.
const VERSION: &str = "2020-12-06";
const JSON: &str = "application/json;odata=nometadata";
/// Entities that one transaction takes.
pub(crate) const MOST_OPERATIONS: usize = 100;
/// Bytes that one binary property takes.
pub(crate) const PROPERTY_BYTES: usize = 64 << 10;
/// Bytes of binary properties that fit into one entity of 1 MiB, with room for keys and names.
pub(crate) const ENTITY_BYTES: usize = 15 * PROPERTY_BYTES;
/// Bytes of binary properties that fit into one transaction of 4 MiB: in JSON they grow by a third.
pub(crate) const TRANSACTION_BYTES: usize = 2_800_000;

/// A table of an account.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    endpoint: Url,
    name: String,
    pipeline: Pipeline,
}

/// The service's refusal, or no answer.
#[derive(Debug)]
pub(crate) enum TableError {
    /// The service answered.
    Refused {
        status: StatusCode,
        /// Its code for the reason, such as `EntityNotFound`.
        code: String,
        message: String,
    },
    /// No answer, or one that makes no sense.
    Failed(azure_core::Error),
}

impl TableError {
    pub(crate) fn is(&self, wanted: &str) -> bool {
        matches!(self, Self::Refused { code, .. } if code == wanted)
    }

    fn senseless(what: &'static str) -> Self {
        Self::Failed(azure_core::Error::with_message(
            azure_core::error::ErrorKind::DataConversion,
            what,
        ))
    }
}

impl From<azure_core::Error> for TableError {
    fn from(error: azure_core::Error) -> Self {
        Self::Failed(error)
    }
}

/// An entity's keys and other properties, as JSON.
#[derive(Clone, Debug)]
pub(crate) struct Entity(Map<String, Value>);

impl Entity {
    /// Keys as they are: the caller escapes what keys cannot hold.
    pub(crate) fn new(partition: &str, row: &str) -> Self {
        let mut properties = Map::new();
        properties.insert("PartitionKey".to_owned(), partition.into());
        properties.insert("RowKey".to_owned(), row.into());
        Self(properties)
    }

    pub(crate) fn with_text(mut self, name: &str, text: &str) -> Self {
        self.0.insert(name.to_owned(), text.into());
        self
    }

    pub(crate) fn with_number(mut self, name: &str, number: u64) -> Self {
        self.0
            .insert(format!("{name}@odata.type"), "Edm.Int64".into());
        self.0.insert(name.to_owned(), number.to_string().into());
        self
    }

    /// Up to [`ENTITY_BYTES`], over as many properties as that takes.
    pub(crate) fn with_bytes(mut self, bytes: &[u8]) -> Self {
        for (index, part) in bytes.chunks(PROPERTY_BYTES).enumerate() {
            let name = format!("Data{index}");
            self.0
                .insert(format!("{name}@odata.type"), "Edm.Binary".into());
            self.0.insert(name, BASE64.encode(part).into());
        }
        self
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        match self.0.get(name)? {
            Value::String(digits) => digits.parse().ok(),
            value => value.as_u64(),
        }
    }

    /// What [`with_bytes`](Self::with_bytes) was given, appended to `all`.
    pub(crate) fn bytes(&self, all: &mut Vec<u8>) -> Result<(), TableError> {
        for index in 0.. {
            let Some(part) = self.text(&format!("Data{index}")) else {
                break;
            };
            BASE64
                .decode_vec(part, all)
                .map_err(|_| TableError::senseless("a binary property is no base64"))?;
        }
        Ok(())
    }

    fn key(&self) -> (&str, &str) {
        let key = |name| self.text(name).unwrap_or_default();
        (key("PartitionKey"), key("RowKey"))
    }
}

/// One of the changes of a transaction.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    /// Refused when an entity with that key is there.
    Insert(Entity),
    /// Puts the entity in the place of the one at `etag`.
    Replace { entity: Entity, etag: String },
    /// Removes the entity, whatever its version.
    Delete { partition: String, row: String },
}

impl Table {
    pub(crate) fn new((endpoint, pipeline): (Url, Pipeline), name: &str) -> Self {
        Self {
            endpoint,
            name: name.to_owned(),
            pipeline,
        }
    }

    /// The table's URL.
    pub(crate) fn url(&self) -> Url {
        self.below(&self.name)
    }

    /// An entity and its ETag; `None` without one, or without a table.
    pub(crate) async fn get(
        &self,
        partition: &str,
        row: &str,
    ) -> Result<Option<(Entity, String)>, TableError> {
        let request = self.request(self.entity_url(partition, row), Method::Get);
        let response = match self.send(request).await {
            Err(error) if error.is("ResourceNotFound") || error.is("TableNotFound") => {
                return Ok(None);
            }
            response => response?,
        };
        let etag = response
            .headers()
            .get_optional_string(&"etag".into())
            .ok_or(TableError::senseless("an entity came without its ETag"))?;
        let entity = serde_json::from_slice(response.body())
            .map_err(|_| TableError::senseless("an entity is no JSON object"))?;
        Ok(Some((Entity(entity), etag)))
    }

    /// Every entity that `filter` holds for, page after page, in the order of their keys; none without a
    /// table. `select` names the properties wanted; empty: all.
    pub(crate) async fn query(
        &self,
        filter: &str,
        select: &str,
        mut visit: impl FnMut(Entity) -> Result<(), TableError>,
    ) -> Result<(), TableError> {
        #[derive(Deserialize)]
        struct Page {
            value: Vec<Map<String, Value>>,
        }
        let mut next: Vec<(&str, String)> = Vec::new();
        loop {
            let mut url = self.below(&format!("{}()", self.name));
            url.query_pairs_mut().append_pair("$filter", filter);
            if !select.is_empty() {
                url.query_pairs_mut().append_pair("$select", select);
            }
            url.query_pairs_mut().extend_pairs(&next);
            let response = match self.send(self.request(url, Method::Get)).await {
                Err(error) if error.is("TableNotFound") => return Ok(()),
                response => response?,
            };
            let page: Page = serde_json::from_slice(response.body())
                .map_err(|_| TableError::senseless("a page is no list of entities"))?;
            page.value
                .into_iter()
                .try_for_each(|entity| visit(Entity(entity)))?;
            // A page may be empty and not the last.
            let continuation = [
                ("NextPartitionKey", "x-ms-continuation-nextpartitionkey"),
                ("NextRowKey", "x-ms-continuation-nextrowkey"),
            ];
            next = continuation
                .into_iter()
                .filter_map(|(name, header)| {
                    let value = response.headers().get_optional_string(&header.into())?;
                    Some((name, value))
                })
                .collect();
            if next.is_empty() {
                return Ok(());
            }
        }
    }

    /// Does all of the operations or none; gives the ETag of the last entity that was written. They share
    /// their partition, and are not more, nor larger, than one transaction takes. Makes the table when it
    /// is missing.
    pub(crate) async fn transact(&self, operations: &[Operation]) -> Result<String, TableError> {
        match self.send_transaction(operations).await {
            Err(error) if error.is("TableNotFound") => {
                self.make().await?;
                self.send_transaction(operations).await
            }
            done => done,
        }
    }

    async fn send_transaction(&self, operations: &[Operation]) -> Result<String, TableError> {
        let boundary = uuid::Uuid::new_v4().simple();
        let mut body = format!(
            "--batch_{boundary}\r\nContent-Type: multipart/mixed; boundary=changes_{boundary}\r\n\r\n"
        );
        for (number, operation) in operations.iter().enumerate() {
            let (method, url, etag, entity) = match operation {
                Operation::Insert(entity) => ("POST", self.url(), None, Some(entity)),
                Operation::Replace { entity, etag } => {
                    let (partition, row) = entity.key();
                    let url = self.entity_url(partition, row);
                    ("PUT", url, Some(etag.as_str()), Some(entity))
                }
                Operation::Delete { partition, row } => {
                    ("DELETE", self.entity_url(partition, row), Some("*"), None)
                }
            };
            body.push_str(&format!(
                "--changes_{boundary}\r\nContent-Type: application/http\r\n\
                 Content-Transfer-Encoding: binary\r\n\r\n\
                 {method} {url} HTTP/1.1\r\nContent-ID: {number}\r\nAccept: {JSON}\r\n\
                 DataServiceVersion: 3.0\r\nPrefer: return-no-content\r\n"
            ));
            if let Some(etag) = etag {
                body.push_str(&format!("If-Match: {etag}\r\n"));
            }
            if let Some(Entity(properties)) = entity {
                let json = serde_json::to_string(properties)
                    .map_err(|_| TableError::senseless("an entity cannot be written"))?;
                body.push_str("Content-Type: application/json\r\n\r\n");
                body.push_str(&json);
            }
            body.push_str("\r\n");
        }
        body.push_str(&format!(
            "--changes_{boundary}--\r\n--batch_{boundary}--\r\n"
        ));
        let mut request = self.request(self.below("$batch"), Method::Post);
        let kind = format!("multipart/mixed; boundary=batch_{boundary}");
        request.insert_header("content-type", kind);
        request.set_body(body);
        let response = self.send(request).await?;
        last_etag(response.body())
    }

    async fn make(&self) -> Result<(), TableError> {
        let mut request = self.request(self.below("Tables"), Method::Post);
        request.insert_header("content-type", "application/json");
        request.insert_header("prefer", "return-no-content");
        request.set_body(serde_json::json!({ "TableName": self.name }).to_string());
        match self.send(request).await {
            Err(error) if !error.is("TableAlreadyExists") => Err(error),
            _ => Ok(()),
        }
    }

    fn entity_url(&self, partition: &str, row: &str) -> Url {
        let quoted = |key: &str| key.replace('\'', "''");
        self.below(&format!(
            "{}(PartitionKey='{}',RowKey='{}')",
            self.name,
            quoted(partition),
            quoted(row)
        ))
    }

    fn below(&self, resource: &str) -> Url {
        super::below(&self.endpoint, resource)
    }

    fn request(&self, url: Url, method: Method) -> Request {
        let mut request = Request::new(url, method);
        request.insert_header("accept", JSON);
        request.insert_header("x-ms-version", VERSION);
        request.insert_header("dataserviceversion", "3.0");
        request.insert_header("maxdataserviceversion", "3.0;NetFx");
        request
    }

    async fn send(&self, mut request: Request) -> Result<RawResponse, TableError> {
        let options = PipelineSendOptions {
            // The service tells its codes in a form that the pipeline's own check does not read.
            skip_checks: true,
            ..PipelineSendOptions::default()
        };
        let context = Context::new();
        let sent = self.pipeline.send(&context, &mut request, Some(options));
        let response = sent.await?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(refusal(response.status(), response.body()))
        }
    }
}

/// Reads the answers inside a transaction's answer: one for each operation, or a single refusal.
fn last_etag(body: &[u8]) -> Result<String, TableError> {
    let text = String::from_utf8_lossy(body);
    let mut etag = String::new();
    let mut answers = 0;
    for line in text.lines() {
        if let Some(status) = line.strip_prefix("HTTP/1.1 ") {
            answers += 1;
            let status: u16 = status
                .get(..3)
                .and_then(|digits| digits.parse().ok())
                .ok_or(TableError::senseless(
                    "a transaction's answer has no status",
                ))?;
            if !(200..300).contains(&status) {
                let json = text.find('{').zip(text.rfind('}'));
                let json = json.map_or("", |(start, end)| &text[start..=end]);
                return Err(refusal(StatusCode::from(status), json.as_bytes()));
            }
        } else if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("etag")
        {
            etag = value.trim().to_owned();
        }
    }
    if answers == 0 {
        return Err(TableError::senseless("a transaction's answer is empty"));
    }
    Ok(etag)
}

fn refusal(status: StatusCode, body: &[u8]) -> TableError {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = &answer["odata.error"];
    let message = error["message"]["value"].as_str().unwrap_or_default();
    // In a transaction the message begins with the number of the operation; the lines after the first
    // hold the request's id and time.
    TableError::Refused {
        status,
        code: error["code"].as_str().unwrap_or_default().to_owned(),
        message: message.lines().next().unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transactions_answer_is_read_part_by_part() {
        let done = "--batchresponse_1\r\nContent-Type: multipart/mixed; boundary=changesetresponse_2\r\n\r\n\
                    --changesetresponse_2\r\nContent-Type: application/http\r\n\r\n\
                    HTTP/1.1 204 No Content\r\nETag: W/\"datetime'1'\"\r\n\r\n\r\n\
                    --changesetresponse_2\r\n\r\nHTTP/1.1 204 No Content\r\nEtag: W/\"datetime'2'\"\r\n";
        assert_eq!(last_etag(done.as_bytes()).unwrap(), "W/\"datetime'2'\"");
        let refused = "--batchresponse_1\r\n\r\nHTTP/1.1 412 Precondition Failed\r\n\r\n\
                       {\"odata.error\":{\"code\":\"UpdateConditionNotSatisfied\",\"message\":{\"lang\":\"en-US\",\"value\":\"1:No.\\nRequestId:x\"}}}\r\n";
        let error = last_etag(refused.as_bytes()).unwrap_err();
        assert!(error.is("UpdateConditionNotSatisfied"), "{error:?}");
        assert!(last_etag(b"<html>").is_err());
    }

    #[test]
    fn bytes_come_back_over_several_properties() {
        for length in [0, 1, PROPERTY_BYTES, PROPERTY_BYTES + 1, ENTITY_BYTES] {
            let bytes: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let entity = Entity::new("p", "r").with_bytes(&bytes);
            let mut back = Vec::new();
            entity.bytes(&mut back).unwrap();
            assert_eq!(back, bytes);
        }
    }
}
