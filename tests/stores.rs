//! Every store keeps the same promises: the conformance suite, run for each.

use std::sync::Arc;

use lapwing::store::{FileStore, MemoryStore, conformance};

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
