//! What every store has to keep, as functions to be run against each: `tests/stores.rs` does.
//!
//! Each takes a store and a topic of its own and panics where the store breaks a promise.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Ledger, Loaded, StoreError, Version, WindowStore, read};
use crate::series::{Point, Timestamp};
use crate::window::{Arrival, Change, Rules, Shard, ShardId, codec};

/// Runs all of them; `topic` has to be new to the store.
pub async fn all(store: Arc<dyn WindowStore>, topic: &str) {
    let shard = |partition| ShardId {
        topic: topic.to_owned(),
        partition,
    };
    what_is_written_is_read(&*store, &shard(0)).await;
    a_stale_writer_is_refused(&*store, &shard(1)).await;
    a_conflict_in_the_middle_of_a_compaction_changes_nothing(&*store, &shard(2)).await;
    shards_are_listed_and_removed(&*store, &format!("{topic}.ä/ %~'\"")).await;
    documents_have_versions(&*store, topic).await;
    of_many_writers_one_wins(&store, &shard(3)).await;
    large_snapshots_and_logs_come_back(&*store, &shard(4)).await;
    a_ledger_survives_its_memory(&store, &shard(5)).await;
    a_stale_ledger_notices(&store, &shard(6)).await;
    a_damaged_log_is_repaired(&store, &shard(7)).await;
    an_unreadable_snapshot_is_named(&store, &shard(8)).await;
    silent_series_are_forgotten_at_compaction(&store, &shard(9)).await;
}

/// Snapshot, log and version as they were written, and the version alone.
pub async fn what_is_written_is_read(store: &dyn WindowStore, id: &ShardId) {
    assert!(store.load(id).await.unwrap().is_none());
    assert_eq!(store.version(id).await.unwrap(), None);

    let first = store.replace(id, text("one"), None).await.unwrap();
    assert_eq!(first.log_bytes, 0);
    assert_holds(store, id, "one", "", &first).await;

    let second = store.append(id, text("alpha "), &first).await.unwrap();
    let third = store.append(id, text("beta"), &second).await.unwrap();
    assert_eq!(third.log_bytes, 10);
    assert_holds(store, id, "one", "alpha beta", &third).await;

    let fourth = store.replace(id, text("two"), Some(&third)).await.unwrap();
    assert_ne!(fourth.snapshot, third.snapshot);
    assert_holds(store, id, "two", "", &fourth).await;
    let fifth = store.append(id, text("gamma"), &fourth).await.unwrap();
    assert_holds(store, id, "two", "gamma", &fifth).await;
}

/// Neither an append nor a replacement from any version but the newest has an effect.
pub async fn a_stale_writer_is_refused(store: &dyn WindowStore, id: &ShardId) {
    let first = store.replace(id, text("one"), None).await.unwrap();
    let second = store.append(id, text("alpha"), &first).await.unwrap();
    // As long as the one that is there: the position alone would not tell.
    assert_conflict(store.append(id, text("other"), &first).await);
    assert_conflict(store.replace(id, text("stale"), Some(&first)).await);
    assert_conflict(store.replace(id, text("stale"), None).await);
    assert_holds(store, id, "one", "alpha", &second).await;

    let third = store.replace(id, text("two"), Some(&second)).await.unwrap();
    assert_conflict(store.append(id, text("stale"), &second).await);
    assert_conflict(store.append(id, text("stale"), &first).await);
    assert_conflict(store.replace(id, text("stale"), Some(&second)).await);
    assert_holds(store, id, "two", "", &third).await;

    store.remove(id).await.unwrap();
    assert_conflict(store.append(id, text("stale"), &third).await);
    assert_conflict(store.replace(id, text("stale"), Some(&third)).await);
    assert!(store.load(id).await.unwrap().is_none());
}

/// Somebody appends after the snapshot was made: the snapshot is refused and the append stays.
pub async fn a_conflict_in_the_middle_of_a_compaction_changes_nothing(
    store: &dyn WindowStore,
    id: &ShardId,
) {
    let first = store.replace(id, text("one"), None).await.unwrap();
    let second = store.append(id, text("alpha "), &first).await.unwrap();
    // The compactor has read `second`; the other one is faster.
    let third = store.append(id, text("beta"), &second).await.unwrap();
    assert_conflict(store.replace(id, text("compacted"), Some(&second)).await);
    assert_holds(store, id, "one", "alpha beta", &third).await;
    let fourth = store.append(id, text(" gamma"), &third).await.unwrap();
    assert_holds(store, id, "one", "alpha beta gamma", &fourth).await;
    // And the other way round: the append of one who has not seen the compaction.
    let fifth = store.replace(id, text("two"), Some(&fourth)).await.unwrap();
    assert_conflict(store.append(id, text("late"), &fourth).await);
    assert_holds(store, id, "two", "", &fifth).await;
}

/// Shards of any topic are listed, sorted; a removed one is not, and can be made again.
pub async fn shards_are_listed_and_removed(store: &dyn WindowStore, topic: &str) {
    let ids: Vec<_> = [10, 2]
        .map(|partition| ShardId {
            topic: topic.to_owned(),
            partition,
        })
        .into();
    for id in &ids {
        store.replace(id, text("snapshot"), None).await.unwrap();
    }
    let listed = async || {
        let mut all = store.list().await.unwrap();
        assert!(all.is_sorted(), "{all:?}");
        all.retain(|id| id.topic == topic);
        all
    };
    assert_eq!(listed().await, [ids[1].clone(), ids[0].clone()]);
    store.remove(&ids[0]).await.unwrap();
    store.remove(&ids[0]).await.unwrap();
    assert_eq!(listed().await, [ids[1].clone()]);
    let again = store.replace(&ids[0], text("again"), None).await.unwrap();
    assert_holds(store, &ids[0], "again", "", &again).await;
    for id in &ids {
        store.remove(id).await.unwrap();
    }
    assert_eq!(listed().await, []);
}

/// A document is written over the version that its writer has seen, and no other.
pub async fn documents_have_versions(store: &dyn WindowStore, name: &str) {
    for name in [&format!("replay/{name}"), &format!("ä %~'\" {name}")] {
        assert!(store.document(name).await.unwrap().is_none());
        let first = store.put_document(name, text("one"), None).await.unwrap();
        assert_conflict(store.put_document(name, text("stale"), None).await);
        let (content, tag) = store.document(name).await.unwrap().unwrap();
        assert_eq!((content, &tag), (text("one"), &first));
        let second = store
            .put_document(name, text(""), Some(&tag))
            .await
            .unwrap();
        assert_conflict(store.put_document(name, text("stale"), Some(&first)).await);
        let (content, tag) = store.document(name).await.unwrap().unwrap();
        assert_eq!((content, tag), (text(""), second));
    }
}

/// Of writers from the same version exactly one succeeds, whatever they do.
pub async fn of_many_writers_one_wins(store: &Arc<dyn WindowStore>, id: &ShardId) {
    let mut version = store.replace(id, text("start"), None).await.unwrap();
    for round in 0..3 {
        let tasks: Vec<_> = (0..6)
            .map(|writer| {
                let (store, id, seen) = (Arc::clone(store), id.clone(), version.clone());
                let content = Bytes::from(format!("round {round} of writer {writer}"));
                tokio::spawn(async move {
                    if writer == 0 {
                        store.replace(&id, content, Some(&seen)).await
                    } else {
                        store.append(&id, content, &seen).await
                    }
                })
            })
            .collect();
        let mut won = Vec::new();
        for task in tasks {
            match task.await.unwrap() {
                Ok(version) => won.push(version),
                Err(error) => assert!(error.is_conflict(), "{error}"),
            }
        }
        assert_eq!(won.len(), 1, "{won:?}");
        version = won.remove(0);
        assert_eq!(store.version(id).await.unwrap().as_ref(), Some(&version));
    }
}

/// Several megabytes in one snapshot, and a log of several entries of some size.
pub async fn large_snapshots_and_logs_come_back(store: &dyn WindowStore, id: &ShardId) {
    let noise = |length: usize, seed: u8| -> Bytes {
        let mut state = u32::from(seed) + 1;
        (0..length)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect()
    };
    let snapshot = noise(9_000_000, 0);
    let mut version = store.replace(id, snapshot.clone(), None).await.unwrap();
    let mut log = Vec::new();
    for (seed, length) in [1, 70_000, 1_000_000, 100].into_iter().enumerate() {
        let entry = noise(length, seed as u8);
        log.extend_from_slice(&entry);
        version = store.append(id, entry, &version).await.unwrap();
    }
    let loaded = store.load(id).await.unwrap().unwrap();
    assert!(loaded.snapshot == snapshot && loaded.log == log);
    assert_eq!(loaded.version, version);
    let small = store
        .replace(id, noise(10, 9), Some(&version))
        .await
        .unwrap();
    let loaded = store.load(id).await.unwrap().unwrap();
    assert_eq!((loaded.snapshot, loaded.version), (noise(10, 9), small));
    store.remove(id).await.unwrap();
    assert!(store.load(id).await.unwrap().is_none());
}

/// Batches, compactions and restarts: what is stored is what was in memory, byte for byte.
pub async fn a_ledger_survives_its_memory(store: &Arc<dyn WindowStore>, id: &ShardId) {
    let mut expected = Shard::default();
    for batch in 0..12 {
        // A new process every third batch.
        let ledger = ledger(store);
        for part in 0..3 {
            let first_offset = (batch * 3 + part) * 4;
            absorb(&ledger, id, first_offset).await.unwrap();
            apply(&mut expected, first_offset);
        }
        if batch % 4 == 3 {
            let mut open = ledger.open(id, 0).await.unwrap();
            open.compact().await.unwrap();
        }
        assert_eq!(stored_bytes(&**store, id).await, bytes(&expected));
    }
}

/// A partition that went to another instance and came back is not judged on a stale window.
pub async fn a_stale_ledger_notices(store: &Arc<dyn WindowStore>, id: &ShardId) {
    let (here, there) = (ledger(store), ledger(store));
    absorb(&here, id, 0).await.unwrap();
    absorb(&there, id, 4).await.unwrap();
    // Not at the next offset: the version is compared first.
    absorb(&here, id, 8).await.unwrap();
    // At the next offset as far as `there` knows: only the write finds out.
    let refused = absorb(&there, id, 8).await;
    assert!(refused.unwrap_err().is_conflict());
    let mut expected = Shard::default();
    for first_offset in [0, 4, 8] {
        apply(&mut expected, first_offset);
    }
    assert_eq!(stored_bytes(&**store, id).await, bytes(&expected));
    // Redone after the conflict it is a redelivery.
    absorb(&there, id, 8).await.unwrap();
    assert_eq!(stored_bytes(&**store, id).await, bytes(&expected));
    // Somebody compacts in between: the fence holds over snapshots too.
    here.open(id, 0).await.unwrap().compact().await.unwrap();
    assert!(absorb(&there, id, 12).await.unwrap_err().is_conflict());
    absorb(&there, id, 12).await.unwrap();
    apply(&mut expected, 12);
    assert_eq!(stored_bytes(&**store, id).await, bytes(&expected));
}

/// A torn write at the end of a log costs that write and nothing else; the next goes on behind the rest.
pub async fn a_damaged_log_is_repaired(store: &Arc<dyn WindowStore>, id: &ShardId) {
    absorb(&ledger(store), id, 0).await.unwrap();
    absorb(&ledger(store), id, 4).await.unwrap();
    let version = store.version(id).await.unwrap().unwrap();
    store
        .append(id, Bytes::from_static(b"\x40\0\0\0half an ent"), &version)
        .await
        .unwrap();
    let reading = read(&**store, id, rules().points).await.unwrap().unwrap();
    assert_eq!(reading.damage.map(|damage| damage.dropped), Some(15));
    absorb(&ledger(store), id, 8).await.unwrap();
    let mut expected = Shard::default();
    for first_offset in [0, 4, 8] {
        apply(&mut expected, first_offset);
    }
    let reading = read(&**store, id, rules().points).await.unwrap().unwrap();
    assert_eq!(reading.damage, None);
    assert_eq!(bytes(&reading.shard), bytes(&expected));
}

/// An unreadable snapshot is an error that names it, and stays.
pub async fn an_unreadable_snapshot_is_named(store: &Arc<dyn WindowStore>, id: &ShardId) {
    let version = store.replace(id, text("nonsense"), None).await.unwrap();
    let error = ledger(store).open(id, 0).await.unwrap_err();
    let told = error.to_string();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{told}");
    assert!(told.contains(&version.snapshot), "{told}");
    assert!(told.contains(&format!("state reset {id}")), "{told}");
    assert_holds(&**store, id, "nonsense", "", &version).await;
    store.remove(id).await.unwrap();
    absorb(&ledger(store), id, 0).await.unwrap();
}

/// A compaction leaves out the series that were silent for longer than the rules say.
pub async fn silent_series_are_forgotten_at_compaction(store: &Arc<dyn WindowStore>, id: &ShardId) {
    let rules = Rules {
        forget_after: Duration::ZERO,
        ..rules()
    };
    let patient = Duration::from_secs(60);
    let ledger = Ledger::new(Arc::clone(store), rules, patient, patient);
    let mut open = ledger.open(id, 0).await.unwrap();
    let shard = open.shard().unwrap();
    let change = change(shard, ledger.rules(), &["quiet", "busy"], 0);
    open.commit(change).await.unwrap();
    // The clock of a shard counts seconds.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let change = self::change(open.shard().unwrap(), ledger.rules(), &["busy"], 4);
    open.commit(change).await.unwrap();
    open.compact().await.unwrap();
    assert!(open.shard().unwrap().window("quiet").is_none());
    let reading = read(&**store, id, 12).await.unwrap().unwrap();
    let names: Vec<_> = reading.shard.iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["busy"]);
    assert_eq!(bytes(&reading.shard), bytes(open.shard().unwrap()));
}

fn text(content: &str) -> Bytes {
    Bytes::copy_from_slice(content.as_bytes())
}

async fn assert_holds(
    store: &dyn WindowStore,
    id: &ShardId,
    snapshot: &str,
    log: &str,
    version: &Version,
) {
    let loaded: Loaded = store.load(id).await.unwrap().unwrap();
    assert_eq!(loaded.snapshot, snapshot);
    assert_eq!(loaded.log, log);
    assert_eq!(&loaded.version, version);
    assert_eq!(store.version(id).await.unwrap().as_ref(), Some(version));
}

#[track_caller]
fn assert_conflict<T: std::fmt::Debug>(done: Result<T, StoreError>) {
    match done {
        Err(StoreError::Conflict { .. }) => {}
        other => panic!("no conflict: {other:?}"),
    }
}

fn rules() -> Rules {
    Rules {
        points: 12,
        min_points: 12,
        ..Rules::default()
    }
}

fn ledger(store: &Arc<dyn WindowStore>) -> Ledger {
    let patient = Duration::from_secs(60);
    Ledger::new(Arc::clone(store), rules(), patient, patient)
}

/// What four messages from `first_offset` on do to a shard; they name the series in turn.
pub fn change(shard: &Shard, rules: &Rules, series: &[&str], first_offset: i64) -> Change {
    let arrivals: Vec<_> = (first_offset..first_offset + 4)
        .zip(series.iter().cycle())
        .map(|(offset, name)| {
            let point = Point {
                timestamp: Timestamp::from_micros(offset * 300_000_000),
                value: offset as f64 / 3.0,
            };
            Arrival {
                offset,
                broker_ms: Some(1_700_000_000_000 + offset),
                point: Some((name, point)),
            }
        })
        .collect();
    let mut plan = shard.plan(rules, &arrivals);
    for work in &mut plan.work {
        work.run(rules, |_, _, _| ());
    }
    Change::new(plan)
}

async fn absorb(ledger: &Ledger, id: &ShardId, first_offset: i64) -> Result<(), StoreError> {
    let mut open = ledger.open(id, first_offset).await?;
    let change = change(open.shard()?, ledger.rules(), &["a", "b"], first_offset);
    open.commit(change).await
}

fn apply(shard: &mut Shard, first_offset: i64) {
    let change = change(shard, &rules(), &["a", "b"], first_offset);
    shard.apply(&change, &rules());
}

async fn stored_bytes(store: &dyn WindowStore, id: &ShardId) -> Vec<u8> {
    let reading = read(store, id, rules().points).await.unwrap().unwrap();
    assert_eq!(reading.damage, None);
    bytes(&reading.shard)
}

/// The shard without its clocks, which differ from run to run.
fn bytes(shard: &Shard) -> Vec<u8> {
    codec::encode_snapshot(&shard.without_clocks(), 1).0
}
