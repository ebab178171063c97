//! Notices a series that comes on two partitions: each then has a window of its own with a part of the
//! points, which is what an unkeyed producer does to it.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::row::{Row, RowError};
use crate::window::ShardId;

/// Names looked after; beyond it no further ones are, so that made-up names cannot fill the memory.
const MAX_NAMES: usize = 2_000_000;

/// Names warned of, after which the pattern is clear.
const MAX_WARNINGS: usize = 10;

#[derive(Debug, Default)]
pub(super) struct Splits {
    hasher: RandomState,
    /// The partition that a name (its hash; a clash costs a wrong warning in a lifetime) was seen on.
    partitions: Mutex<HashMap<u64, i32>>,
    warnings: AtomicUsize,
}

impl Splits {
    pub(super) fn look(&self, shard: &ShardId, rows: &[Result<Row, RowError>]) {
        let mut split = Vec::new();
        {
            let mut partitions = self
                .partitions
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let has_room = partitions.len() < MAX_NAMES;
            for row in rows.iter().flatten() {
                let hash = self.hasher.hash_one((&shard.topic, &row.series));
                match partitions.get_mut(&hash) {
                    Some(seen) if *seen != shard.partition => {
                        // A partition that moved its series on is no split: only the change is told.
                        split.push((&row.series, std::mem::replace(seen, shard.partition)));
                    }
                    Some(_) => {}
                    None if has_room => {
                        partitions.insert(hash, shard.partition);
                    }
                    None => {}
                }
            }
        }
        for (series, other) in split {
            if self.warnings.fetch_add(1, Ordering::Relaxed) < MAX_WARNINGS {
                tracing::warn!(
                    series = &**series,
                    topic = shard.topic,
                    partition = shard.partition,
                    other,
                    "The series comes on two partitions and has a window on each; key its messages by its name."
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::series::{Point, Timestamp};

    #[test]
    fn a_name_on_a_second_partition_is_noticed_and_one_that_stays_is_not() {
        let splits = Splits::default();
        let look = |partition, name: &str| {
            let timestamp = Timestamp::from_micros(0);
            let point = Point {
                timestamp,
                value: 1.0,
            };
            let row = Row {
                series: Arc::from(name),
                point,
            };
            splits.look(
                &ShardId {
                    topic: "metrics".to_owned(),
                    partition,
                },
                &[Ok(row)],
            );
            splits.warnings.load(Ordering::Relaxed)
        };
        assert_eq!(
            (look(0, "eth0"), look(0, "eth0"), look(1, "eth1")),
            (0, 0, 0)
        );
        assert_eq!((look(1, "eth0"), look(1, "eth0")), (1, 1));
    }
}
