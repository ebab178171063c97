use proptest::prelude::*;

use super::*;
use crate::window::{Arrival, Grid, OffGrid, Rules};

/// A message: offset step, broker time step, series, timestamp step in minutes, value.
type Message = (i64, i64, u8, i64, f64);

fn messages() -> impl Strategy<Value = Vec<Vec<Message>>> {
    let message = (
        prop_oneof![8 => Just(1_i64), 1 => -5_i64..5],
        -2_i64..20,
        0_u8..4,
        prop_oneof![6 => Just(5_i64), 3 => -6_i64..12, 1 => 50_i64..100],
        prop::num::f64::NORMAL,
    );
    prop::collection::vec(prop::collection::vec(message, 1..12), 1..25)
}

fn rules(off_grid: OffGrid) -> Rules {
    Rules {
        points: 14,
        min_points: 12,
        grid: Grid::new("minutely", 5).unwrap(),
        off_grid,
        max_series: 3,
        ..Rules::default()
    }
}

/// The batches as changes of a shard that is followed in memory, written as a log.
fn written(batches: &[Vec<Message>], rules: &Rules) -> (Vec<u8>, Vec<Vec<u8>>, Vec<Shard>) {
    let mut shard = Shard::default();
    let (snapshot, mut chain) = encode_snapshot(&shard, 7);
    let (mut offset, mut broker_ms, mut minutes) = (100, 1_000_000, [0_i64; 4]);
    let (mut entries, mut states) = (Vec::new(), vec![shard.clone()]);
    for (index, batch) in batches.iter().enumerate() {
        let names: Vec<String> = batch.iter().map(|m| format!("series {}", m.2)).collect();
        let arrivals: Vec<_> = batch
            .iter()
            .zip(&names)
            .map(|(&(step, later, series, apart, value), name)| {
                offset += step;
                broker_ms += later;
                let minute = &mut minutes[usize::from(series)];
                *minute += apart;
                let timestamp = Timestamp::from_micros(*minute * 60_000_000);
                Arrival {
                    offset,
                    broker_ms: (later != 0).then_some(broker_ms),
                    point: (apart != 0).then_some((name.as_str(), Point { timestamp, value })),
                }
            })
            .collect();
        let mut plan = shard.plan(rules, &arrivals);
        plan.work
            .iter_mut()
            .rev()
            .for_each(|work| work.run(rules, |_, _, _| ()));
        let mut change = Change::new(plan);
        if change.is_empty() {
            continue;
        }
        change.time = shard.time_at(1_700_000_000 + 60 * index as u64, rules.forget_after);
        let (entry, next) = encode_entry(&change, [index as u8; 8], chain);
        chain = next;
        shard.apply(&change, rules);
        entries.push(entry);
        states.push(shard.clone());
    }
    (snapshot, entries, states)
}

fn bytes(shard: &Shard) -> Vec<u8> {
    encode_snapshot(shard, 1).0
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_read_back_is_what_was_in_memory(batches in messages(), snap in any::<bool>()) {
        let rules = rules(if snap { OffGrid::Snap } else { OffGrid::Reject });
        let (snapshot, entries, states) = written(&batches, &rules);
        let log = entries.concat();
        let last = states.last().unwrap();
        let reading = decode(&snapshot, &log, rules.points).unwrap();
        prop_assert_eq!(&reading.damage, &None);
        prop_assert_eq!(bytes(&reading.shard), bytes(last));
        prop_assert_eq!(reading.chain.entries, entries.len() as u64);
        // And through a snapshot in the middle.
        let (snapshot, _) = encode_snapshot(&states[states.len() / 2], 8);
        let half = decode(&snapshot, &[], rules.points).unwrap();
        prop_assert_eq!(bytes(&half.shard), bytes(&states[states.len() / 2]));
    }

    #[test]
    fn a_log_cut_anywhere_counts_up_to_its_last_whole_entry(batches in messages()) {
        let rules = rules(OffGrid::Reject);
        let (snapshot, entries, states) = written(&batches, &rules);
        let log = entries.concat();
        let mut ends = vec![0];
        entries.iter().for_each(|entry| ends.push(ends.last().unwrap() + entry.len()));
        let tail = log.len().saturating_sub(300);
        for cut in tail..log.len() {
            let reading = decode(&snapshot, &log[..cut], rules.points).unwrap();
            let whole = ends.iter().rposition(|&end| end <= cut).unwrap();
            prop_assert_eq!(bytes(&reading.shard), bytes(&states[whole]));
            let dropped = reading.damage.map_or(0, |damage| damage.dropped);
            prop_assert_eq!(dropped, cut - ends[whole]);
        }
    }

    #[test]
    fn any_flipped_bit_is_noticed(
        batches in messages(),
        at in any::<prop::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let rules = rules(OffGrid::Reject);
        let (snapshot, entries, states) = written(&batches, &rules);
        prop_assume!(!entries.is_empty());
        let mut log = entries.concat();
        let at_log = at.index(log.len());
        log[at_log] ^= 1 << bit;
        let reading = decode(&snapshot, &log, rules.points).unwrap();
        let damage = reading.damage.expect("the flip is noticed");
        prop_assert!(damage.at <= at_log);
        let kept = usize::try_from(reading.chain.entries).unwrap();
        prop_assert_eq!(entries[..kept].concat().len(), damage.at);
        prop_assert_eq!(bytes(&reading.shard), bytes(&states[kept]));

        let (mut snapshot, _) = encode_snapshot(states.last().unwrap(), 1);
        let at = at.index(snapshot.len());
        snapshot[at] ^= 1 << bit;
        prop_assert!(decode(&snapshot, &[], rules.points).is_err());
        snapshot.truncate(at);
        prop_assert!(decode(&snapshot, &[], rules.points).is_err());
    }

    #[test]
    fn nothing_makes_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut snapshot = MAGIC.to_vec();
        for section in bytes.chunks(20) {
            snapshot.extend((section.len() as u32).to_le_bytes());
            snapshot.extend(crc32fast::hash(section).to_le_bytes());
            snapshot.extend(section);
        }
        let _any = decode(&snapshot, &bytes, 12);
        // A body behind a right checksum, so that the reader goes all the way into it.
        let (snapshot, chain) = encode_snapshot(&Shard::default(), 1);
        let mut body = vec![ENTRY_VERSION, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        body.extend(&bytes);
        let length = (body.len() as u32).to_le_bytes();
        let checksum = entry_checksum(chain, &length, &body).to_le_bytes();
        let log = [&length[..], &checksum, &body].concat();
        prop_assert!(decode(&snapshot, &log, 12).is_ok());
    }
}

#[test]
fn a_log_of_another_snapshot_does_not_count() {
    let rules = rules(OffGrid::Reject);
    let batch = vec![(1, 1, 0, 5, 1.0), (1, 1, 1, 5, 2.0)];
    let (snapshot, entries, states) = written(&[batch.clone(), batch], &rules);
    let first = bytes(&states[1]);
    for (snapshot, log) in [
        (encode_snapshot(&states[1], 7).0, entries.concat()),
        (encode_snapshot(&states[0], 8).0, entries.concat()),
        // Entries out of order, and one twice.
        (snapshot.clone(), [&entries[1][..], &entries[0]].concat()),
    ] {
        let reading = decode(&snapshot, &log, rules.points).unwrap();
        assert_eq!(reading.damage.map(|damage| damage.at), Some(0));
    }
    let twice = [&entries[0][..], &entries[0]].concat();
    let reading = decode(&snapshot, &twice, rules.points).unwrap();
    assert_eq!(reading.damage.unwrap().at, entries[0].len());
    assert_eq!(bytes(&reading.shard), first);
}

#[test]
fn a_point_costs_few_bytes() {
    let rules = Rules::default();
    let names: Vec<String> = (0..64)
        .map(|i| format!("host-{i:04}/eth0/bytes-in"))
        .collect();
    let mut shard = Shard::default();
    let mut chain = encode_snapshot(&shard, 1).1;
    let mut sizes = Vec::new();
    for batch in 0..3 {
        let point = |series: usize| Point {
            timestamp: Timestamp::from_micros((1_700_000_000 + 300 * batch) * 1_000_000),
            value: series as f64 / 7.0,
        };
        let arrivals: Vec<_> = (0..64)
            .map(|series| Arrival {
                offset: batch * 64 + series as i64,
                broker_ms: Some(1_700_000_000_000 + batch),
                point: Some((names[series].as_str(), point(series))),
            })
            .collect();
        let mut plan = shard.plan(&rules, &arrivals);
        plan.work
            .iter_mut()
            .for_each(|work| work.run(&rules, |_, _, _| ()));
        let mut change = Change::new(plan);
        change.time = shard.time_at(1_700_000_000, rules.forget_after);
        let (entry, next) = encode_entry(&change, [9; 8], chain);
        shard.apply(&change, &rules);
        chain = next;
        sizes.push(entry.len());
    }
    assert!(sizes[0] < 64 * 40 && sizes[1] < 64 * 14, "{sizes:?}");
}
