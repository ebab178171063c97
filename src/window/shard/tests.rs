use super::*;
use crate::series::Timestamp;
use crate::window::codec;

fn rules() -> Rules {
    Rules {
        points: 12,
        min_points: 12,
        ..Rules::default()
    }
}

/// A message of the series `a` whose timestamp is its offset's slot.
fn arrival(offset: i64, broker_ms: i64) -> Arrival<'static> {
    Arrival {
        offset,
        broker_ms: Some(broker_ms),
        point: Some((
            "a",
            Point {
                timestamp: Timestamp::from_micros(offset * 300_000_000),
                value: offset as f64,
            },
        )),
    }
}

fn absorb(shard: &mut Shard, rules: &Rules, arrivals: &[Arrival<'_>]) -> Vec<Admission> {
    let mut plan = shard.plan(rules, arrivals);
    for work in &mut plan.work {
        work.run(rules, |_, _, _| ());
    }
    let admissions = std::mem::take(&mut plan.admissions);
    shard.apply(&Change::new(plan), rules);
    admissions
}

/// `f0` fresh in epoch 0, `!1` opens epoch 1, `-` absorbed, `x` no room.
fn told(admissions: &[Admission]) -> String {
    let tell = |admission: &Admission| match (admission.entry, admission.opens_epoch) {
        (Entry::Absorbed, _) => "-".to_owned(),
        (Entry::NoRoom, _) => "x".to_owned(),
        (Entry::Fresh, true) => format!("!{}", admission.epoch),
        (Entry::Fresh, false) => format!("f{}", admission.epoch),
    };
    admissions.iter().map(tell).collect::<Vec<_>>().join(" ")
}

#[test]
fn an_offset_absorbed_is_absorbed_for_good() {
    let mut shard = Shard::default();
    let batch: Vec<_> = (5..9).map(|offset| arrival(offset, 100 + offset)).collect();
    assert_eq!(told(&absorb(&mut shard, &rules(), &batch)), "f0 f0 f0 f0");
    let before = codec::encode_snapshot(&shard, 1).0;
    assert_eq!(told(&absorb(&mut shard, &rules(), &batch)), "- - - -");
    assert_eq!(codec::encode_snapshot(&shard, 1).0, before);
    // Old and new in one batch.
    let mixed: Vec<_> = (7..11)
        .map(|offset| arrival(offset, 100 + offset))
        .collect();
    assert_eq!(told(&absorb(&mut shard, &rules(), &mixed)), "- - f0 f0");
    assert_eq!(shard.window("a").unwrap().len(), 6);
}

#[test]
fn a_message_twice_in_one_batch_is_absorbed_once() {
    let mut shard = Shard::default();
    let batch = [1, 2, 1, 2, 3].map(|offset| arrival(offset, 100 + offset));
    assert_eq!(told(&absorb(&mut shard, &rules(), &batch)), "f0 f0 - - f0");
}

#[test]
fn a_topic_made_again_opens_an_epoch() {
    let mut shard = Shard::default();
    let old: Vec<_> = (0..5)
        .map(|offset| arrival(offset, 1_000 + offset))
        .collect();
    absorb(&mut shard, &rules(), &old);
    let new: Vec<_> = (0..3)
        .map(|offset| Arrival {
            point: arrival(offset + 5, 0).point,
            ..arrival(offset, 2_000 + offset)
        })
        .collect();
    assert_eq!(told(&absorb(&mut shard, &rules(), &new)), "!1 f1 f1");
    assert_eq!(told(&absorb(&mut shard, &rules(), &new)), "- - -");
    // The window stays and goes on.
    assert_eq!(shard.window("a").unwrap().len(), 8);
    let fence = *shard.fence().unwrap();
    assert_eq!((fence.epoch, fence.reached.offset), (1, 2));
}

#[test]
fn an_equal_timestamp_is_a_redelivery() {
    let mut shard = Shard::default();
    absorb(
        &mut shard,
        &rules(),
        &[arrival(7, 1_000), arrival(8, 1_000)],
    );
    let again = [arrival(7, 1_000), arrival(8, 1_000), arrival(9, 1_000)];
    assert_eq!(told(&absorb(&mut shard, &rules(), &again)), "- - f0");
}

#[test]
fn a_batch_over_the_end_of_an_epoch_is_absorbed_once() {
    let mut shard = Shard::default();
    absorb(&mut shard, &rules(), &[arrival(98, 900), arrival(99, 901)]);
    let fold = [
        arrival(100, 902),
        arrival(101, 903),
        Arrival {
            point: None,
            ..arrival(0, 2_000)
        },
        Arrival {
            point: None,
            ..arrival(1, 2_001)
        },
    ];
    assert_eq!(told(&absorb(&mut shard, &rules(), &fold)), "f0 f0 !1 f1");
    assert_eq!(told(&absorb(&mut shard, &rules(), &fold)), "- - - -");
    // What follows in the new epoch passes the old one's offsets without being taken for it.
    let later: Vec<_> = (2..150)
        .map(|offset| Arrival {
            point: None,
            ..arrival(offset, 2_000 + offset)
        })
        .collect();
    let admissions = absorb(&mut shard, &rules(), &later);
    assert!(
        admissions
            .iter()
            .all(|a| a.entry == Entry::Fresh && a.epoch == 1)
    );
}

#[test]
fn without_broker_timestamps_a_low_offset_is_a_redelivery() {
    let mut shard = Shard::default();
    let timeless = |offset| Arrival {
        broker_ms: None,
        ..arrival(offset, 0)
    };
    absorb(&mut shard, &rules(), &[timeless(1), timeless(2)]);
    assert_eq!(
        told(&absorb(&mut shard, &rules(), &[timeless(1), timeless(3)])),
        "- f0"
    );
    // The ones absorbed had none, so that one with a timestamp cannot be one of them.
    assert_eq!(told(&absorb(&mut shard, &rules(), &[arrival(1, 5)])), "!1");
    assert_eq!(told(&absorb(&mut shard, &rules(), &[timeless(1)])), "-");
}

#[test]
fn series_too_many_are_refused_and_the_known_go_on() {
    let rules = Rules {
        max_series: 2,
        ..rules()
    };
    let mut shard = Shard::default();
    let of = |offset, name| Arrival {
        point: arrival(offset, 0).point.map(|(_, point)| (name, point)),
        ..arrival(offset, offset)
    };
    let batch = [of(0, "a"), of(1, "b"), of(2, "c"), of(3, "a"), of(4, "d")];
    assert_eq!(told(&absorb(&mut shard, &rules, &batch)), "f0 f0 x f0 x");
    assert_eq!(
        told(&absorb(&mut shard, &rules, &[of(5, "b"), of(6, "c")])),
        "f0 x"
    );
    assert_eq!(shard.len(), 2);
    assert_eq!(shard.fence().unwrap().reached.offset, 6);
}

#[test]
fn a_batch_of_refused_messages_moves_the_fence() {
    let mut shard = Shard::default();
    let unreadable = Arrival {
        point: None,
        ..arrival(3, 100)
    };
    assert_eq!(told(&absorb(&mut shard, &rules(), &[unreadable])), "f0");
    assert_eq!(told(&absorb(&mut shard, &rules(), &[unreadable])), "-");
}

#[test]
fn silence_is_measured_by_the_shards_age_and_a_wrong_clock_forgets_nothing() {
    let rules = Rules {
        forget_after: Duration::from_secs(800),
        ..rules()
    };
    let mut shard = Shard::default();
    let mut save = |name, offset, wall_s| {
        let arrival = Arrival {
            point: arrival(offset, 0).point.map(|(_, point)| (name, point)),
            ..arrival(offset, offset)
        };
        let mut plan = shard.plan(&rules, &[arrival]);
        plan.work
            .iter_mut()
            .for_each(|work| work.run(&rules, |_, _, _| ()));
        let mut change = Change::new(plan);
        change.time = shard.time_at(wall_s, rules.forget_after);
        shard.apply(&change, &rules);
        let mut compacted = shard.clone();
        compacted.forget(rules.forget_after);
        compacted.len()
    };
    assert_eq!(save("quiet", 0, 1_000_000), 1);
    assert_eq!(save("busy", 1, 99_000_000), 2);
    assert_eq!(save("busy", 2, 1_000_100), 2);
    for step in 0..7 {
        assert_eq!(save("busy", 3 + step, 1_000_200 + 100 * step as u64), 2);
    }
    assert_eq!(save("busy", 10, 1_001_000), 1);
}

#[test]
fn ids_are_read_as_they_are_shown() {
    let id: ShardId = "a.b/c-d/12".parse().unwrap();
    assert_eq!((id.topic.as_str(), id.partition), ("a.b/c-d", 12));
    assert_eq!(id.to_string(), "a.b/c-d/12");
    for wrong in ["", "a", "/1", "a/-1", "a/x"] {
        assert!(wrong.parse::<ShardId>().is_err(), "{wrong}");
    }
}
