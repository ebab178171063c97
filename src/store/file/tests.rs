//! What a power failure leaves: every write that was not fsynced may be there, be torn or be missing, and
//! every name that was not may be the old or the new one, in any combination.

use std::collections::BTreeMap;
use std::sync::Mutex;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::disk::Step;
use super::*;
use crate::store::{Ledger, conformance, read};
use crate::window::{Rules, Shard, codec};

const COMMITS: i64 = 14;

/// A disk as it is and as it would be after a failure.
#[derive(Clone, Default)]
struct Model {
    files: Vec<ModelFile>,
    /// Names as a running program sees them.
    names: BTreeMap<PathBuf, usize>,
    lasting_names: BTreeMap<PathBuf, usize>,
    /// Changes of names that nothing made last yet: the name and what it means from then on.
    pending_names: Vec<(PathBuf, Option<usize>)>,
}

#[derive(Clone, Default)]
struct ModelFile {
    lasting: Vec<u8>,
    pending: Vec<(usize, Vec<u8>)>,
}

impl ModelFile {
    fn write(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
        content.resize(content.len().max(at + bytes.len()), 0);
        content[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

impl Model {
    fn step(&mut self, step: &Step) {
        match step {
            Step::MakeFolder(_) => {}
            Step::Create(path) => {
                self.files.push(ModelFile::default());
                self.name(path, Some(self.files.len() - 1));
            }
            Step::Write(path, at, bytes) => {
                let file = self.names[path];
                self.files[file].pending.push((*at as usize, bytes.clone()));
            }
            Step::Sync(path) => {
                let file = &mut self.files[self.names[path]];
                for (at, bytes) in std::mem::take(&mut file.pending) {
                    ModelFile::write(&mut file.lasting, at, &bytes);
                }
            }
            Step::Rename(from, to) => {
                let file = self.names[from];
                self.name(from, None);
                self.name(to, Some(file));
            }
            Step::Remove(path) => self.name(path, None),
            Step::SyncFolder(folder) => {
                let pending = std::mem::take(&mut self.pending_names);
                for (path, file) in pending {
                    if path.parent() == Some(folder) {
                        set(&mut self.lasting_names, &path, file);
                    } else {
                        self.pending_names.push((path, file));
                    }
                }
            }
        }
    }

    fn name(&mut self, path: &Path, file: Option<usize>) {
        set(&mut self.names, path, file);
        self.pending_names.push((path.to_owned(), file));
    }

    /// Lays out one of the things that a failure now could leave, `from` moved to `to`.
    fn crash(&self, random: &mut StdRng, from: &Path, to: &Path) {
        let mut names = self.lasting_names.clone();
        for (path, file) in &self.pending_names {
            if random.random_bool(0.5) {
                set(&mut names, path, *file);
            }
        }
        for (path, file) in names {
            let file = &self.files[file];
            let mut content = file.lasting.clone();
            for (at, bytes) in &file.pending {
                let torn = random.random_range(0..=bytes.len());
                match random.random_range(0..4) {
                    0 => {}
                    1 => ModelFile::write(&mut content, *at, bytes),
                    2 => ModelFile::write(&mut content, *at, &bytes[..torn]),
                    // The length lasted, a part of what was written did not.
                    _ => {
                        ModelFile::write(&mut content, *at, &vec![0; bytes.len()]);
                        ModelFile::write(&mut content, at + torn, &bytes[torn..]);
                    }
                }
            }
            let path = to.join(path.strip_prefix(from).unwrap());
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
    }
}

fn set(names: &mut BTreeMap<PathBuf, usize>, path: &Path, file: Option<usize>) {
    match file {
        Some(file) => names.insert(path.to_owned(), file),
        None => names.remove(path),
    };
}

fn rules() -> Rules {
    Rules {
        points: 12,
        min_points: 12,
        ..Rules::default()
    }
}

fn ledger(store: FileStore) -> Ledger {
    let patient = Duration::from_secs(60);
    Ledger::new(Arc::new(store), rules(), patient, patient)
}

fn bytes(shard: &Shard) -> Vec<u8> {
    codec::encode_snapshot(&shard.without_clocks(), 1).0
}

/// Absorbs the batch of that number, and compacts after every fourth.
async fn absorb(ledger: &Ledger, id: &ShardId, batch: i64) -> Vec<u8> {
    let mut open = ledger.open(id, batch * 4).await.unwrap();
    let change = conformance::change(open.shard().unwrap(), &rules(), &["a", "b", "c"], batch * 4);
    open.commit(change).await.unwrap();
    if batch % 4 == 3 {
        open.compact().await.unwrap();
    }
    bytes(open.shard().unwrap())
}

#[tokio::test]
async fn no_torn_and_no_reordered_write_loses_what_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let id: ShardId = "metrics/0".parse().unwrap();
    let root = folder.path().join("state");
    let record = Arc::new(Mutex::new(Vec::new()));
    let mut store = FileStore::new(&root);
    store.disk.record = Some(Arc::clone(&record));
    let running = ledger(store);
    // The state after so many commits, and how many steps the disk had done by then.
    let mut states = vec![(0, bytes(&Shard::default()))];
    for batch in 0..COMMITS {
        let state = absorb(&running, &id, batch).await;
        states.push((record.lock().unwrap().len(), state));
    }

    let steps = record.lock().unwrap().clone();
    let mut random = StdRng::seed_from_u64(7);
    let mut model = Model::default();
    let (mut old, mut new, mut damaged) = (0, 0, 0);
    for done in 0..=steps.len() {
        for _ in 0..6 {
            let left = tempfile::tempdir().unwrap();
            model.crash(&mut random, &root, left.path());
            let store = FileStore::new(left.path());
            let reading = read(&store, &id, rules().points).await.unwrap();
            let found = reading.map_or_else(
                || states[0].1.clone(),
                |reading| {
                    damaged += usize::from(reading.damage.is_some());
                    bytes(&reading.shard)
                },
            );
            let acknowledged = states.iter().rposition(|(by, _)| *by <= done).unwrap();
            let next = states.get(acknowledged + 1).map(|(_, state)| state);
            let next_number = match found {
                state if state == states[acknowledged].1 => {
                    old += 1;
                    acknowledged
                }
                state if Some(&state) == next => {
                    new += 1;
                    acknowledged + 1
                }
                _ => panic!("after {done} steps neither the old state nor the new one is there"),
            };
            // The broker delivers the rest again, as from a new process.
            if random.random_bool(0.05) {
                let again = ledger(store);
                for batch in next_number as i64..COMMITS {
                    absorb(&again, &id, batch).await;
                }
                let store = FileStore::new(left.path());
                let reading = read(&store, &id, rules().points).await.unwrap().unwrap();
                assert_eq!(reading.damage, None);
                assert_eq!(bytes(&reading.shard), states.last().unwrap().1);
            }
        }
        if let Some(step) = steps.get(done) {
            model.step(step);
        }
    }
    assert!(
        old > 100 && new > 20 && damaged > 10,
        "{old} {new} {damaged}"
    );
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_said_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "no folder").unwrap();
    let store = FileStore::new(file.join("state"));
    let id = "metrics/0".parse().unwrap();
    let error = store.replace(&id, Bytes::new(), None).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("Store__Path"), "{error}");
}

#[tokio::test]
async fn a_damaged_header_is_an_error_that_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::new(folder.path());
    let id: ShardId = "metrics/0".parse().unwrap();
    store.replace(&id, Bytes::new(), None).await.unwrap();
    let log = store.shard_folder(&id).join("log");
    let mut content = std::fs::read(&log).unwrap();
    content[9] ^= 1;
    for damaged in [content, b"LAPL".to_vec()] {
        std::fs::write(&log, damaged).unwrap();
        let error = store.load(&id).await.unwrap_err().to_string();
        assert!(error.contains(log.to_str().unwrap()), "{error}");
        assert!(error.contains("state reset metrics/0"), "{error}");
    }
    store.remove(&id).await.unwrap();
    assert_eq!(store.version(&id).await.unwrap(), None);
}

#[tokio::test]
async fn a_lock_held_elsewhere_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::new(folder.path());
    let id: ShardId = "metrics/0".parse().unwrap();
    store.replace(&id, Bytes::new(), None).await.unwrap();
    let held = lock(&store.shard_folder(&id)).unwrap();
    let waiting = tokio::spawn({
        let (store, id) = (store.clone(), id.clone());
        async move { store.load(&id).await }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(held);
    assert!(waiting.await.unwrap().unwrap().is_some());
}
