//! Writes that arrive while their answer is lost: recognised, never doubled.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use azure_core::error::ErrorKind;
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{Context, Method, Request};
use bytes::Bytes;
use lapwing::store::azure::Account;
use lapwing::store::{BlobStore, Ledger, StoreError, TableStore, WindowStore, conformance, read};
use lapwing::window::{Rules, ShardId};

use super::azurite;

/// Lets so many writes through and loses what the service says to them.
#[derive(Debug, Default)]
struct Loss(AtomicUsize);

impl Loss {
    fn lose(&self, answers: usize) {
        self.0.store(answers, Ordering::SeqCst);
    }

    fn is_spent(&self) -> bool {
        self.0.load(Ordering::SeqCst) == 0
    }
}

#[async_trait]
impl Policy for Loss {
    async fn send(
        &self,
        ctx: &Context,
        request: &mut Request,
        next: &[Arc<dyn Policy>],
    ) -> PolicyResult {
        let is_write = matches!(request.method(), Method::Put | Method::Post);
        let answer = next[0].send(ctx, request, &next[1..]).await;
        let lost = is_write
            && self
                .0
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
                .is_ok();
        if !lost {
            return answer;
        }
        // Arrived for certain before it is lost.
        let status = answer?.status();
        Err(azure_core::Error::with_message(
            ErrorKind::Io,
            format!("the connection broke behind a {status}"),
        ))
    }
}

fn stores(account: &Account, name: &str) -> [Arc<dyn WindowStore>; 2] {
    [
        Arc::new(BlobStore::new(account.container(name).unwrap())),
        Arc::new(TableStore::new(account.tables().unwrap(), name)),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_answer_is_lost_is_done_once() {
    let Some((account, name)) = azurite() else {
        return;
    };
    let loss = Arc::new(Loss::default());
    let account = account.with_policy(Arc::clone(&loss) as Arc<dyn Policy>);
    for store in stores(&account, &name) {
        let id: ShardId = "metrics/0".parse().unwrap();
        let text = |text: &'static str| Bytes::from_static(text.as_bytes());
        let mut version = store.replace(&id, text("one"), None).await.unwrap();
        for entry in ["alpha ", "beta "] {
            loss.lose(1);
            version = store.append(&id, text(entry), &version).await.unwrap();
            assert!(loss.is_spent());
        }
        let version = store.append(&id, text("gamma"), &version).await.unwrap();
        let loaded = store.load(&id).await.unwrap().unwrap();
        assert_eq!(loaded.log, "alpha beta gamma");
        assert_eq!(loaded.version, version);

        // Both requests of a replacement lose their answers.
        loss.lose(2);
        let version = store
            .replace(&id, text("two"), Some(&version))
            .await
            .unwrap();
        assert!(loss.is_spent());
        let version = store.append(&id, text("delta"), &version).await.unwrap();
        let loaded = store.load(&id).await.unwrap().unwrap();
        assert_eq!((loaded.snapshot, loaded.log), (text("two"), text("delta")));
        assert_eq!(loaded.version, version);

        loss.lose(1);
        let tag = store.put_document("cursor", text("1"), None).await.unwrap();
        loss.lose(1);
        let tag = store
            .put_document("cursor", text("2"), Some(&tag))
            .await
            .unwrap();
        assert_eq!(
            store.document("cursor").await.unwrap(),
            Some((text("2"), tag))
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_whose_every_answer_is_lost_is_absorbed_once() {
    let Some((account, name)) = azurite() else {
        return;
    };
    let loss = Arc::new(Loss::default());
    let account = account.with_policy(Arc::clone(&loss) as Arc<dyn Policy>);
    for store in stores(&account, &name) {
        let id: ShardId = "metrics/1".parse().unwrap();
        let patient = Duration::from_secs(60);
        let ledger = Ledger::new(Arc::clone(&store), Rules::default(), patient, patient);
        let absorb = async |first_offset| -> Result<(), StoreError> {
            let mut open = ledger.open(&id, first_offset).await?;
            let shard = open.shard()?;
            let change = conformance::change(shard, ledger.rules(), &["a"], first_offset);
            open.commit(change).await
        };
        absorb(0).await.unwrap();
        // The first try and the client's three retries: the retries are refused and lost as well.
        loss.lose(4);
        let error = absorb(4).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
        // The broker delivers it again.
        absorb(4).await.unwrap();
        let reading = read(&*store, &id, 288).await.unwrap().unwrap();
        assert_eq!(reading.shard.window("a").unwrap().len(), 8);
        assert_eq!(reading.chain.entries, 1);
        absorb(8).await.unwrap();
        let reading = read(&*store, &id, 288).await.unwrap().unwrap();
        assert_eq!(reading.shard.window("a").unwrap().len(), 12);
    }
}

#[tokio::test]
async fn a_wrong_key_is_told_as_one() {
    let Ok(endpoint) = std::env::var("LAPWING_AZURITE") else {
        println!("LAPWING_AZURITE is not set: nothing is tested against Azurite here");
        return;
    };
    let text = format!(
        "AccountName=devstoreaccount1;AccountKey=d3Jvbmc=;BlobEndpoint={endpoint}/devstoreaccount1"
    );
    let account = Account::from_connection_string(&text).unwrap();
    let store = BlobStore::new(account.container("lapwing").unwrap());
    let id: ShardId = "metrics/0".parse().unwrap();
    let error = store.replace(&id, Bytes::new(), None).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("AzureWebJobsStorage"), "{error}");
}

#[tokio::test]
async fn a_store_that_is_down_is_unavailable() {
    // A port that nobody listens on: it was free a moment ago.
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let account = Account::azurite("http://127.0.0.1", port, port).unwrap();
    for store in stores(&account, "lapwing") {
        let id: ShardId = "metrics/0".parse().unwrap();
        let error = store.load(&id).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains("127.0.0.1"), "{error}");
    }
}
