//! What every place that can refuse a repeat must hold: each event once, whole, however often it is
//! written and by whomever.

use std::collections::BTreeMap;

use lapwing::record::archive::{Archive, Found, StoredDeadLetter, Wanted};
use lapwing::record::{Event, Stream};
use tokio::sync::mpsc;

use super::{Shape, dead_letters};

/// Runs all cases on a place that is empty; `open` gives one more instance of it each time.
pub(crate) async fn every_event_is_there_once(open: &dyn Fn() -> Box<dyn Archive>) {
    a_repeated_batch_adds_nothing(open).await;
    a_new_epoch_starts_over(open).await;
    a_batch_across_midnight_lies_in_two_days(open).await;
    instances_take_turns(open).await;
    instances_collide(open).await;
    a_large_message_is_kept_whole(open).await;
    a_large_batch_is_kept_in_order(open).await;
    any_name_can_be_a_series(open).await;
}

async fn a_repeated_batch_adds_nothing(open: &dyn Fn() -> Box<dyn Archive>) {
    let place = open();
    assert_eq!(place.write(&[]).await.unwrap(), 0);
    let write = async |events: &[Event]| place.write(events).await.unwrap();
    assert_eq!(write(&dead_letters([1, 4])).await, 2);
    assert_eq!(write(&dead_letters([1, 4])).await, 0);
    assert_eq!(write(&dead_letters([1, 4, 5])).await, 1);
    assert_eq!(write(&dead_letters([4])).await, 0);
    // A process that knows nothing finds out by itself.
    assert_eq!(open().write(&dead_letters([4, 5, 9])).await.unwrap(), 1);
    assert_eq!(holds(open, 3, &dead_letters([1, 4, 5, 9])).await, 4);
}

async fn a_new_epoch_starts_over(open: &dyn Fn() -> Box<dyn Archive>) {
    let of_epoch = |epoch, offset| {
        Shape {
            partition: 4,
            epoch,
            offset,
            ..Shape::default()
        }
        .event()
    };
    let (old, new) = (of_epoch(0, 100), of_epoch(1, 0));
    let place = open();
    assert_eq!(place.write(std::slice::from_ref(&old)).await.unwrap(), 1);
    assert_eq!(place.write(std::slice::from_ref(&new)).await.unwrap(), 1);
    assert_eq!(open().write(&[old.clone(), new.clone()]).await.unwrap(), 0);
    assert_eq!(holds(open, 4, &[old, new]).await, 2);
}

async fn a_batch_across_midnight_lies_in_two_days(open: &dyn Fn() -> Box<dyn Archive>) {
    let at = |offset, broker_time_ms| {
        Shape {
            partition: 5,
            offset,
            broker_time_ms,
            ..Shape::default()
        }
        .event()
    };
    let midnight = 1_787_270_400_000;
    let events = [at(1, midnight - 1), at(2, midnight), at(3, midnight - 1)];
    assert_eq!(open().write(&events).await.unwrap(), 3);
    assert_eq!(open().write(&events).await.unwrap(), 0);
    assert_eq!(holds(open, 5, &events).await, 3);
    let days: Vec<_> = read(open, 5)
        .await
        .into_iter()
        .map(|found| found.day)
        .collect();
    assert_eq!(days, ["2026-08-20", "2026-08-20", "2026-08-21"]);
}

async fn instances_take_turns(open: &dyn Fn() -> Box<dyn Archive>) {
    let of = |offsets: std::ops::Range<i64>| -> Vec<Event> {
        offsets
            .map(|offset| {
                Shape {
                    partition: 6,
                    offset,
                    ..Shape::default()
                }
                .event()
            })
            .collect()
    };
    let (one, other) = (open(), open());
    assert_eq!(one.write(&of(0..3)).await.unwrap(), 3);
    assert_eq!(other.write(&of(0..5)).await.unwrap(), 2);
    // What it remembers of the place is out of date by now.
    assert_eq!(one.write(&of(3..6)).await.unwrap(), 1);
    assert_eq!(other.write(&of(0..6)).await.unwrap(), 0);
    assert_eq!(holds(open, 6, &of(0..6)).await, 6);
}

async fn instances_collide(open: &dyn Fn() -> Box<dyn Archive>) {
    let events: Vec<_> = (0..60)
        .map(|offset| {
            Shape {
                partition: 7,
                offset,
                ..Shape::default()
            }
            .event()
        })
        .collect();
    let places: Vec<_> = (0..4).map(|_| open()).collect();
    for batch in events.chunks(12) {
        let writes = places.iter().map(|place| place.write(batch));
        let written: usize = futures::future::join_all(writes)
            .await
            .into_iter()
            .map(Result::unwrap)
            .sum();
        assert_eq!(written, 12);
    }
    assert_eq!(holds(open, 7, &events).await, 60);
}

async fn a_large_message_is_kept_whole(open: &dyn Fn() -> Box<dyn Archive>) {
    // Past one block of a blob, past one entity of a table; of two and four bytes, and with quotes.
    let value = "\"\u{e9}\u{1f426}\" 0123456789".repeat(250_000);
    let large = |offset| {
        Shape {
            partition: 8,
            offset,
            value: &value,
            ..Shape::default()
        }
        .event()
    };
    let events = [
        large(1),
        Shape {
            partition: 8,
            offset: 2,
            ..Shape::default()
        }
        .event(),
        large(3),
    ];
    assert_eq!(open().write(&events).await.unwrap(), 3);
    assert_eq!(open().write(&events).await.unwrap(), 0);
    assert_eq!(holds(open, 8, &events).await, 3);
}

async fn a_large_batch_is_kept_in_order(open: &dyn Fn() -> Box<dyn Archive>) {
    let events: Vec<_> = (0..2_000)
        .map(|offset| {
            Shape {
                partition: 9,
                offset,
                ..Shape::default()
            }
            .event()
        })
        .collect();
    assert_eq!(open().write(&events[..700]).await.unwrap(), 700);
    assert_eq!(open().write(&events).await.unwrap(), 1_300);
    assert_eq!(holds(open, 9, &events).await, 2_000);
}

async fn any_name_can_be_a_series(open: &dyn Fn() -> Box<dyn Archive>) {
    let long = "long".repeat(2_000);
    let names = [
        "",
        " ",
        "a/b\\c#d?e",
        "%2F",
        "!",
        "'quoted'",
        "\u{7}\u{7f}\u{85}\n",
        "Größe\u{1f426}",
        &long,
    ];
    let events: Vec<_> = (1..)
        .zip(names)
        .map(|(offset, series)| {
            Shape {
                partition: 10,
                offset,
                series: Some(series),
                ..Shape::default()
            }
            .event()
        })
        .chain([Shape {
            partition: 10,
            offset: 99,
            series: None,
            ..Shape::default()
        }
        .event()])
        .collect();
    assert_eq!(open().write(&events).await.unwrap(), events.len());
    assert_eq!(open().write(&events).await.unwrap(), 0);
    assert_eq!(holds(open, 10, &events).await, events.len());
}

/// Reads a partition, compares it with what was written, and gives the number of its events.
async fn holds(open: &dyn Fn() -> Box<dyn Archive>, partition: i32, written: &[Event]) -> usize {
    let mut expected: BTreeMap<String, serde_json::Value> = written
        .iter()
        .map(|event| (event.id.to_string(), serde_json::to_value(event).unwrap()))
        .collect();
    let found = read(open, partition).await;
    for event in &found {
        let json: serde_json::Value = serde_json::from_str(&event.json).unwrap();
        let stored: StoredDeadLetter = serde_json::from_str(&event.json).unwrap();
        assert!(!event.at.is_empty());
        let written = expected.remove(&stored.id).expect(&event.at);
        // Not `assert_eq`: a message here has megabytes.
        let differ = first_difference(&written.to_string(), &json.to_string());
        assert!(differ.is_none(), "at {}: {differ:?}", event.at);
    }
    assert!(expected.is_empty(), "missing: {:?}", expected.keys());
    found.len()
}

/// Where two texts begin to differ, and a little of each from there.
fn first_difference(one: &str, other: &str) -> Option<(usize, String, String)> {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let at = (0..one.len().max(other.len())).find(|at| one.get(*at) != other.get(*at))?;
    let from = |text: &[char]| text.iter().skip(at).take(20).collect();
    Some((at, from(&one), from(&other)))
}

async fn read(open: &dyn Fn() -> Box<dyn Archive>, partition: i32) -> Vec<Found> {
    let wanted = Wanted {
        stream: Stream::DeadLetters,
        topic: Some("metrics".to_owned()),
        partition: Some(partition),
        day: None,
    };
    let place = open();
    let (sender, mut receiver) = mpsc::channel(16);
    let reading = async move { place.read(&wanted, sender).await.unwrap() };
    let collecting = async {
        let mut found = Vec::new();
        while let Some(event) = receiver.recv().await {
            found.push(event);
        }
        found
    };
    futures::join!(reading, collecting).1
}
