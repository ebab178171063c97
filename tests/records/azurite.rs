//! Blob and table sinks against Azurite, which `LAPWING_AZURITE` names by its blob endpoint
//! (`http://127.0.0.1:10000`; the table endpoint is two ports further).

use azure_core::http::{ClientOptions, Pipeline, Url};
use azure_storage_blob::BlobContainerClient;
use base64::prelude::{BASE64_STANDARD, Engine};
use hmac::{Hmac, Mac};
use lapwing::record::blob::BlobSink;
use lapwing::record::table::TableSink;
use sha2::Sha256;

use super::once;

/// Azurite's published account and key.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// The account's endpoint at so many ports past blob's, with a SAS; `None` when the environment names
/// no Azurite.
fn endpoint(port_offset: u16) -> Option<Url> {
    let Ok(base) = std::env::var("LAPWING_AZURITE") else {
        println!("LAPWING_AZURITE is not set: nothing is tested against Azurite");
        return None;
    };
    let mut url = Url::parse(&base).expect("LAPWING_AZURITE is a URL");
    let port = url.port().expect("LAPWING_AZURITE has a port");
    url.set_port(Some(port + port_offset)).unwrap();
    url.set_path(ACCOUNT);
    let (permissions, services, kinds) = ("rwdlacu", "bt", "sco");
    let (end, version) = ("2099-01-01T00:00:00Z", "2019-02-02");
    let text = format!("{ACCOUNT}\n{permissions}\n{services}\n{kinds}\n\n{end}\n\n\n{version}\n");
    let key = BASE64_STANDARD.decode(KEY).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(text.as_bytes());
    let signature = BASE64_STANDARD.encode(mac.finalize().into_bytes());
    url.query_pairs_mut().extend_pairs([
        ("sv", version),
        ("ss", services),
        ("srt", kinds),
        ("sp", permissions),
        ("se", end),
        ("sig", &signature),
    ]);
    Some(url)
}

/// A name that no other run has.
fn fresh(prefix: &str) -> String {
    format!("{prefix}{}", uuid::Uuid::new_v4().simple())
}

#[tokio::test]
async fn a_container_has_every_event_once() {
    let Some(mut url) = endpoint(0) else { return };
    url.path_segments_mut().unwrap().push(&fresh("records"));
    once::every_event_is_there_once(&|| {
        let container = BlobContainerClient::new(url.clone(), None, None).unwrap();
        Box::new(BlobSink::new(container))
    })
    .await;
}

#[tokio::test]
async fn a_table_has_every_event_once() {
    let Some(url) = endpoint(2) else { return };
    let name = fresh("Records");
    once::every_event_is_there_once(&|| {
        let pipeline = Pipeline::new(
            Some("lapwing"),
            None,
            ClientOptions::default(),
            Vec::new(),
            Vec::new(),
            None,
        );
        Box::new(TableSink::new(pipeline, url.clone(), name.clone()))
    })
    .await;
}
