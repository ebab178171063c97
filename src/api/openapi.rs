//! The OpenAPI 3.1 description of the API, made from the types and routes that serve it.

use std::sync::LazyLock;

use utoipa::openapi::path::{HttpMethod, OperationBuilder};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder, PathItem,
    PathsBuilder, Ref, Required, ResponsesBuilder,
};

use crate::contract::{
    ChangePointAnswer, ChangePointRequest, DetectRequest, EntireAnswer, FlatError, Health,
    LastAnswer, NestedError, Operation, Version, path,
};

const KEY: &str = "key";

/// The description as JSON.
pub fn json() -> &'static str {
    static JSON: LazyLock<String> = LazyLock::new(|| {
        let text = serde_json::to_string_pretty(&document());
        text.expect("a document of strings, numbers and lists is JSON") + "\n"
    });
    &JSON
}

/// The description for people: the operations, and where the document is.
pub(super) fn page() -> String {
    let mut rows = String::new();
    for version in Version::ALL {
        for operation in Operation::ALL {
            let (path, text) = (path(version, operation), summary(operation));
            rows += &format!("<tr><td><code>POST {path}</code><td>{text}\n");
        }
    }
    format!(
        "<!doctype html>\n<html lang=en><meta charset=utf-8><title>Lapwing: Anomaly Detector API</title>\n\
         <h1>Anomaly Detector API</h1>\n<p>Served by Lapwing {}. The machine-readable description is \
         <a href=openapi.json>openapi.json</a>.\n<table>\n{rows}</table>\n",
        env!("CARGO_PKG_VERSION")
    )
}

fn document() -> OpenApi {
    let about = "Univariate anomaly detection with the REST contract of the retired Azure AI Anomaly Detector. \
        Names of members are taken in any case, null stands for an absent option, unknown members are ignored. \
        Multivariate routes answer 501.";
    let info = InfoBuilder::new()
        .title("Lapwing: Anomaly Detector API")
        .description(Some(about))
        .version(env!("CARGO_PKG_VERSION"));
    let mut paths = PathsBuilder::new();
    for version in Version::ALL {
        for operation in Operation::ALL {
            let item = PathItem::new(HttpMethod::Post, univariate(version, operation));
            paths = paths.path(path(version, operation), item);
        }
    }
    for (path, id, text) in [
        (
            "/status",
            "status",
            "Whether the server has what it needs: a key, or leave to do without",
        ),
        ("/ready", "ready", "Whether the server can take work now"),
    ] {
        let operation = OperationBuilder::new()
            .operation_id(Some(id))
            .summary(Some(text))
            .response("200", response("It is.", "Health"))
            .response("503", response("It is not.", "NestedError"));
        paths = paths.path(path, PathItem::new(HttpMethod::Get, operation));
    }
    let components = ComponentsBuilder::new()
        .schema_from::<DetectRequest>()
        .schema_from::<ChangePointRequest>()
        .schema_from::<LastAnswer>()
        .schema_from::<EntireAnswer>()
        .schema_from::<ChangePointAnswer>()
        .schema_from::<Health>()
        .schema_from::<FlatError>()
        .schema_from::<NestedError>()
        .security_scheme(
            KEY,
            SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new(
                "Ocp-Apim-Subscription-Key",
            ))),
        );
    OpenApiBuilder::new()
        .info(info)
        .paths(paths)
        .components(Some(components.build()))
        .build()
}

fn summary(operation: Operation) -> &'static str {
    match operation {
        Operation::Entire => "Judge every point of a series, by one model of the whole",
        Operation::Last => "Judge the last point of a series by all points before it",
        Operation::ChangePoint => "Find where the trend of a series changes",
    }
}

fn univariate(version: Version, operation: Operation) -> OperationBuilder {
    let (request, answer) = match operation {
        Operation::Entire => ("DetectRequest", "EntireAnswer"),
        Operation::Last => ("DetectRequest", "LastAnswer"),
        Operation::ChangePoint => ("ChangePointRequest", "ChangePointAnswer"),
    };
    let version_words: String = version
        .as_str()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    let body = RequestBodyBuilder::new()
        .content(
            "application/json",
            ContentBuilder::new()
                .schema(Some(Ref::from_schema_name(request)))
                .build(),
        )
        .required(Some(Required::True));
    let responses = ResponsesBuilder::new()
        .response("200", response("The verdict.", answer))
        .response(
            "400",
            response(
                "The request is refused; `code` says why and comes as x-ms-error-code too.",
                "FlatError",
            ),
        )
        .response(
            "401",
            response("The key is missing or wrong.", "NestedError"),
        )
        .response(
            "408",
            response("The body did not arrive in time.", "NestedError"),
        )
        .response("413", response("The body is too large.", "FlatError"))
        .response(
            "415",
            response("The body has an unknown Content-Encoding.", "FlatError"),
        )
        .response(
            "429",
            response(
                "The rate limit is exceeded; Retry-After says for how long.",
                "NestedError",
            ),
        )
        .response("500", response("A defect of the server.", "FlatError"))
        .response(
            "503",
            response(
                "The server is overloaded; Retry-After says for how long.",
                "NestedError",
            ),
        );
    OperationBuilder::new()
        .operation_id(Some(format!("{}_{version_words}", operation.as_str())))
        .tag(version.as_str())
        .summary(Some(summary(operation)))
        .request_body(Some(body.build()))
        .responses(responses.build())
        .security(SecurityRequirement::new::<_, [&str; 0], _>(KEY, []))
}

fn response(description: &str, schema: &str) -> utoipa::openapi::Response {
    ResponseBuilder::new()
        .description(description)
        .content(
            "application/json",
            ContentBuilder::new()
                .schema(Some(Ref::from_schema_name(schema)))
                .build(),
        )
        .build()
}
