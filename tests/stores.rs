//! Every store keeps the same promises: the conformance suite, run for each.
//!
//! Blob and table run against Azurite when `LAPWING_AZURITE` names its blob endpoint
//! (`http://127.0.0.1:10000`; tables are two ports further): `scripts/azurite.sh` starts one.

#[path = "stores/cost.rs"]
mod cost;
#[path = "stores/lost.rs"]
mod lost;

use std::sync::Arc;

use lapwing::store::azure::Account;
use lapwing::store::{BlobStore, FileStore, MemoryStore, TableStore, conformance};

/// Azurite, if the environment says where; a name that no earlier run has used.
fn azurite() -> Option<(Account, String)> {
    let Ok(endpoint) = std::env::var("LAPWING_AZURITE") else {
        println!("LAPWING_AZURITE is not set: nothing is tested against Azurite here");
        return None;
    };
    let (host, port) = endpoint.trim_end_matches('/').rsplit_once(':').unwrap();
    let port: u16 = port.parse().unwrap();
    let account = Account::azurite(host, port, port + 2).unwrap();
    let name = format!("t{}", uuid::Uuid::new_v4().simple());
    Some((account, name))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_conforms() {
    conformance::all(Arc::new(MemoryStore::new()), "metrics").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("deep").join("state");
    conformance::all(Arc::new(FileStore::new(root)), "metrics").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blob_conforms() {
    let Some((account, name)) = azurite() else {
        return;
    };
    let container = account.container(&name).unwrap();
    conformance::all(Arc::new(BlobStore::new(container)), "metrics").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn table_conforms() {
    let Some((account, name)) = azurite() else {
        return;
    };
    let store = TableStore::new(account.tables().unwrap(), &name);
    conformance::all(Arc::new(store), "metrics").await;
}
