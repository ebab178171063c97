//! Blob and table sinks against Azurite, which `LAPWING_AZURITE` names by its blob endpoint
//! (`http://127.0.0.1:10000`; the table endpoint is two ports further).

use lapwing::record::blob::BlobSink;
use lapwing::record::table::TableSink;
use lapwing::store::azure::Account;
use url::Url;

use super::once;

/// Azurite's account; `None` when the environment names no Azurite.
fn account() -> Option<Account> {
    let Ok(base) = std::env::var("LAPWING_AZURITE") else {
        println!("LAPWING_AZURITE is not set: nothing is tested against Azurite");
        return None;
    };
    let url = Url::parse(&base).expect("LAPWING_AZURITE is a URL");
    let host = format!("{}://{}", url.scheme(), url.host_str().unwrap());
    let port = url.port().expect("LAPWING_AZURITE has a port");
    Some(Account::azurite(&host, port, port + 2).unwrap())
}

/// A name that no other run has.
fn fresh(prefix: &str) -> String {
    format!("{prefix}{}", uuid::Uuid::new_v4().simple())
}

#[tokio::test]
async fn a_container_has_every_event_once() {
    let Some(account) = account() else { return };
    let name = fresh("records");
    once::every_event_is_there_once(&|| Box::new(BlobSink::new(account.container(&name).unwrap())))
        .await;
}

#[tokio::test]
async fn a_table_has_every_event_once() {
    let Some(account) = account() else { return };
    let name = fresh("Records");
    once::every_event_is_there_once(&|| {
        let (endpoint, pipeline) = account.tables().unwrap();
        Box::new(TableSink::new(pipeline, endpoint, name.clone()))
    })
    .await;
}
