//! Azure Table Storage's REST protocol, as much of it as records need, through azure_core's pipeline
//! (which retries, signs and identifies the requests).

use azure_core::http::{
    Context, Method, Pipeline, PipelineSendOptions, RawResponse, Request, StatusCode, Url,
};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::super::SinkError;

const VERSION: &str = "2019-02-02";
const JSON: &str = "application/json;odata=nometadata";

/// A table of an account.
pub(super) struct Rest {
    pipeline: Pipeline,
    endpoint: Url,
    table: String,
}

/// What came of an insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Insert {
    Done,
    /// An entity with that key is there; of a transaction, at least one is, and nothing was written.
    Exists,
}

/// Why the table did not answer as it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum TableError {
    #[error(transparent)]
    Request(#[from] azure_core::Error),
    #[error("the service answers {status} {code}: {message}")]
    Answer {
        status: u16,
        code: String,
        message: String,
    },
    #[error("the service's answer is no json")]
    Json(#[from] serde_json::Error),
    #[error("the account's endpoint cannot have a path")]
    Endpoint,
}

impl TableError {
    pub(super) fn into_sink_error(self, stream: &'static str, place: String) -> SinkError {
        match self {
            Self::Request(error) => SinkError::of_azure(stream, place, error),
            Self::Answer { status, .. } => SinkError::of_status(stream, place, status, self.into()),
            Self::Json(_) | Self::Endpoint => SinkError::of_status(stream, place, 0, self.into()),
        }
    }
}

impl Rest {
    pub(super) fn new(pipeline: Pipeline, endpoint: Url, table: String) -> Self {
        Self {
            pipeline,
            endpoint,
            table,
        }
    }

    pub(super) fn table(&self) -> &str {
        &self.table
    }

    /// Inserts an entity, given as JSON; makes the table where there is none.
    pub(super) async fn insert(&self, entity: &str) -> Result<Insert, TableError> {
        let url = self.url(&self.table)?;
        let send = || async {
            let mut request = self.request(url.clone(), Method::Post);
            request.insert_header("prefer", "return-no-content");
            request.insert_header("content-type", "application/json");
            request.set_body(entity.to_owned());
            check(&self.send(request).await?)
        };
        self.having_table(send).await
    }

    /// Inserts entities that share their partition, all or none.
    pub(super) async fn insert_all(&self, entities: &[&str]) -> Result<Insert, TableError> {
        let url = self.url("$batch")?;
        let (batch, changes) = (Uuid::new_v4(), Uuid::new_v4());
        let target = self.url(&self.table)?;
        let target = format!("{}{}", target.origin().ascii_serialization(), target.path());
        let mut body = format!(
            "--batch_{batch}\r\ncontent-type: multipart/mixed; boundary=changeset_{changes}\r\n\r\n"
        );
        for (number, entity) in entities.iter().enumerate() {
            body.push_str(&format!(
                "--changeset_{changes}\r\ncontent-type: application/http\r\n\
                 content-transfer-encoding: binary\r\n\r\n\
                 POST {target} HTTP/1.1\r\ncontent-id: {number}\r\naccept: {JSON}\r\n\
                 prefer: return-no-content\r\ncontent-type: application/json\r\n\r\n{entity}\r\n"
            ));
        }
        body.push_str(&format!("--changeset_{changes}--\r\n--batch_{batch}--\r\n"));
        let send = || async {
            let mut request = self.request(url.clone(), Method::Post);
            let kind = format!("multipart/mixed; boundary=batch_{batch}");
            request.insert_header("content-type", kind);
            request.set_body(body.clone());
            let response = self.send(request).await?;
            check(&response)?;
            check_parts(response.body())
        };
        self.having_table(send).await
    }

    /// An entity by its key.
    pub(super) async fn get(&self, partition: &str, row: &str) -> Result<Value, TableError> {
        let quoted = |key: &str| key.replace('\'', "''");
        let (partition, row) = (quoted(partition), quoted(row));
        let url = self.url(&format!(
            "{}(PartitionKey='{partition}',RowKey='{row}')",
            self.table
        ))?;
        let response = self.send(self.request(url, Method::Get)).await?;
        check(&response)?;
        Ok(serde_json::from_slice(response.body())?)
    }

    /// What `keep` makes of every entity that `filter` holds for, page after page; nothing when there
    /// is no table.
    pub(super) async fn query<T>(
        &self,
        filter: &str,
        select: &str,
        keep: impl Fn(&Value) -> Option<T>,
    ) -> Result<Vec<T>, TableError> {
        #[derive(Deserialize)]
        struct Page {
            value: Vec<Value>,
        }
        let mut kept = Vec::new();
        let mut next: Vec<(&str, String)> = Vec::new();
        loop {
            let mut url = self.url(&format!("{}()", self.table))?;
            url.query_pairs_mut()
                .append_pair("$filter", filter)
                .append_pair("$select", select)
                .extend_pairs(&next);
            let response = self.send(self.request(url, Method::Get)).await?;
            match check(&response) {
                Err(error) if is(&error, "TableNotFound") => return Ok(kept),
                checked => checked?,
            }
            let page: Page = serde_json::from_slice(response.body())?;
            kept.extend(page.value.iter().filter_map(&keep));
            // A page may be empty and not the last.
            next = [
                ("NextPartitionKey", "x-ms-continuation-nextpartitionkey"),
                ("NextRowKey", "x-ms-continuation-nextrowkey"),
            ]
            .into_iter()
            .filter_map(|(name, header)| {
                let value = response.headers().get_optional_string(&header.into())?;
                Some((name, value))
            })
            .collect();
            if next.is_empty() {
                return Ok(kept);
            }
        }
    }

    /// Runs an insert, and once more when it finds no table and one was made.
    async fn having_table<F>(&self, send: impl Fn() -> F) -> Result<Insert, TableError>
    where
        F: Future<Output = Result<(), TableError>>,
    {
        let mut sent = send().await;
        if sent.as_ref().is_err_and(|error| is(error, "TableNotFound")) {
            self.make_table().await?;
            sent = send().await;
        }
        match sent {
            Ok(()) => Ok(Insert::Done),
            Err(error) if is(&error, "EntityAlreadyExists") => Ok(Insert::Exists),
            Err(error) => Err(error),
        }
    }

    async fn make_table(&self) -> Result<(), TableError> {
        let mut request = self.request(self.url("Tables")?, Method::Post);
        request.insert_header("prefer", "return-no-content");
        request.insert_header("content-type", "application/json");
        request.set_body(serde_json::json!({ "TableName": self.table }).to_string());
        match check(&self.send(request).await?) {
            Err(error) if is(&error, "TableAlreadyExists") => Ok(()),
            made => made,
        }
    }

    /// A resource of the account; what a SAS put into the endpoint's query stays.
    fn url(&self, resource: &str) -> Result<Url, TableError> {
        let mut url = self.endpoint.clone();
        url.path_segments_mut()
            .map_err(|()| TableError::Endpoint)?
            .pop_if_empty()
            .push(resource);
        Ok(url)
    }

    fn request(&self, url: Url, method: Method) -> Request {
        let mut request = Request::new(url, method);
        request.insert_header("accept", JSON);
        request.insert_header("x-ms-version", VERSION);
        request.insert_header("dataserviceversion", "3.0;NetFx");
        request.insert_header("maxdataserviceversion", "3.0;NetFx");
        request
    }

    async fn send(&self, mut request: Request) -> Result<RawResponse, TableError> {
        let options = PipelineSendOptions {
            // The service tells its codes in the body, which the pipeline's own check does not read.
            skip_checks: true,
            ..Default::default()
        };
        let context = Context::new();
        Ok(self
            .pipeline
            .send(&context, &mut request, Some(options))
            .await?)
    }
}

fn check(response: &RawResponse) -> Result<(), TableError> {
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    Err(refusal(status, response.body()))
}

/// Checks the answers inside a transaction's answer: one for each entity, or a single refusal.
fn check_parts(body: &[u8]) -> Result<(), TableError> {
    let text = String::from_utf8_lossy(body);
    let statuses = text.lines().filter_map(|line| {
        let status = line.strip_prefix("HTTP/1.1 ")?;
        status.split(' ').next()?.parse::<u16>().ok()
    });
    let mut parts = 0;
    for status in statuses {
        parts += 1;
        if !(200..300).contains(&status) {
            let json = text.find('{').zip(text.rfind('}'));
            let json = json.map_or("", |(start, end)| &text[start..=end]);
            return Err(refusal(StatusCode::from(status), json.as_bytes()));
        }
    }
    if parts == 0 {
        return Err(refusal(StatusCode::from(502), body));
    }
    Ok(())
}

fn refusal(status: StatusCode, body: &[u8]) -> TableError {
    #[derive(Deserialize)]
    struct Body {
        #[serde(rename = "odata.error")]
        error: ODataError,
    }
    #[derive(Deserialize)]
    struct ODataError {
        code: String,
        message: Message,
    }
    #[derive(Deserialize)]
    struct Message {
        value: String,
    }
    let (code, message) = match serde_json::from_slice::<Body>(body) {
        // The message's further lines hold the request's id and time.
        Ok(Body { error }) => {
            let message = error.message.value.lines().next().unwrap_or("").to_owned();
            (error.code, message)
        }
        Err(_) => {
            let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
            (String::new(), text)
        }
    };
    TableError::Answer {
        status: status.into(),
        code,
        message,
    }
}

fn is(error: &TableError, wanted: &str) -> bool {
    matches!(error, TableError::Answer { code, .. } if code == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_s_answer_is_read_part_by_part() {
        let done = "--batchresponse_1\r\nContent-Type: multipart/mixed; boundary=changesetresponse_2\r\n\r\n\
                    --changesetresponse_2\r\nContent-Type: application/http\r\n\r\n\
                    HTTP/1.1 204 No Content\r\nContent-ID: 0\r\n\r\n\r\n\
                    --changesetresponse_2\r\nContent-Type: application/http\r\n\r\n\
                    HTTP/1.1 204 No Content\r\nContent-ID: 1\r\n\r\n\r\n\
                    --changesetresponse_2--\r\n--batchresponse_1--\r\n";
        assert!(check_parts(done.as_bytes()).is_ok());
        let refused = "--batchresponse_1\r\n\r\n--changesetresponse_2\r\n\r\n\
                       HTTP/1.1 409 Conflict\r\nContent-Type: application/json\r\n\r\n\
                       {\"odata.error\":{\"code\":\"EntityAlreadyExists\",\"message\":{\"lang\":\"en-US\",\"value\":\"1:The specified entity already exists.\\nRequestId:x\"}}}\r\n\
                       --changesetresponse_2--\r\n";
        let error = check_parts(refused.as_bytes()).unwrap_err();
        assert!(is(&error, "EntityAlreadyExists"), "{error}");
        assert!(
            error
                .to_string()
                .ends_with("1:The specified entity already exists.")
        );
        assert!(check_parts(b"<html>").is_err());
    }
}
