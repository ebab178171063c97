//! The pipeline from messages to durable verdicts: each outcome that a point can have, the fence against
//! redelivery, and partitions that move between instances.

mod support;

use std::path::Path;

use lapwing::config::Settings;
use lapwing::judge::{Absorbed, Pipeline};
use lapwing::message::Message;
use lapwing::record::places::Places;
use lapwing::store::{self, Ledger};
use support::{events, message, offsets, reasons, row, row_at, value};

/// An instance of the app over the state and the records in `folder`, with windows of 24 points.
fn instance(folder: &Path, extra: &[(&str, &str)]) -> Pipeline {
    let path = |name: &str| folder.join(name).display().to_string();
    let mut pairs = vec![
        ("Window__Points".to_owned(), "24".to_owned()),
        ("Store__Kind".to_owned(), "file".to_owned()),
        ("Store__Path".to_owned(), path("state")),
    ];
    for stream in ["Records", "DeadLetters", "Verdicts"] {
        pairs.push((format!("{stream}__Kind"), "file".to_owned()));
        pairs.push((format!("{stream}__Path"), path("records")));
    }
    pairs.extend(
        extra
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    );
    let settings = Settings::from_pairs(pairs);
    let ledger =
        Ledger::from_settings(store::from_settings(&settings).unwrap(), &settings).unwrap();
    Pipeline::new(&settings, ledger, Places::from_settings(&settings).unwrap()).unwrap()
}

/// Messages of a five-minute series, slots and offsets alike.
fn quiet(slots: std::ops::Range<i64>) -> Vec<Message> {
    slots
        .map(|slot| message(slot, &row(slot, value(slot, &[]))))
        .collect()
}

async fn absorb(pipeline: &Pipeline, messages: Vec<Message>) -> Absorbed {
    pipeline.absorb(messages).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_window_judges_every_new_point_and_records_the_anomaly() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = instance(folder.path(), &[]);
    let spikes = [40];
    let messages: Vec<Message> = (0..60)
        .map(|slot| message(slot, &row(slot, value(slot, &spikes))))
        .collect();
    let absorbed = absorb(&pipeline, messages).await;
    // The 24th point fills the window and is the first that is judged.
    assert_eq!(
        (absorbed.kept, absorbed.judged, absorbed.not_judged),
        (60, 37, 0)
    );
    let verdicts = events(&folder.path().join("records"), "verdicts");
    assert_eq!(offsets(&verdicts), (23..60).collect::<Vec<_>>());
    let anomalies = events(&folder.path().join("records"), "anomalies");
    assert!(offsets(&anomalies).contains(&40), "{anomalies:?}");
    let spike = anomalies
        .iter()
        .find(|event| event["data"]["offset"] == 40)
        .unwrap();
    assert_eq!(spike["id"], "aws-cloudwatch-network/0/0/40");
    assert_eq!(spike["specversion"], "1.0");
    assert_eq!(spike["type"], "lapwing.anomaly.v1");
    assert_eq!(spike["subject"], "aws-cloudwatch-network");
    assert_eq!(spike["time"], "2014-03-01T03:20:00Z");
    assert_eq!(spike["data"]["isPositiveAnomaly"], true);
    assert_eq!(
        spike["data"]["row"]["value"],
        format!("{:?}", value(40, &spikes))
    );
    assert_eq!(spike["data"]["detector"]["windowPoints"], 24);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_that_was_absorbed_is_a_no_op() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = instance(folder.path(), &[]);
    absorb(&pipeline, quiet(0..30)).await;
    let before = events(&folder.path().join("records"), "verdicts");
    let again = absorb(&pipeline, quiet(10..32)).await;
    assert_eq!((again.no_ops, again.kept, again.judged), (20, 2, 2));
    let after = events(&folder.path().join("records"), "verdicts");
    assert_eq!(after.len(), before.len() + 2);
    assert_eq!(after[..before.len()], before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_kept_and_judged() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = instance(folder.path(), &[]);
    absorb(&pipeline, quiet(0..30)).await;
    let absorbed = absorb(&pipeline, vec![message(30, &row(35, value(35, &[])))]).await;
    assert_eq!(
        (absorbed.kept, absorbed.judged, absorbed.dead_letters),
        (1, 1, 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_as_long_as_the_window_starts_it_anew() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = instance(folder.path(), &[]);
    absorb(&pipeline, quiet(0..30)).await;
    // Slot 29 is the newest; 24 slots on is as long as the window.
    let absorbed = absorb(&pipeline, vec![message(30, &row(53, 1.0))]).await;
    assert_eq!((absorbed.kept, absorbed.judged), (1, 0));
    let filled = absorb(
        &pipeline,
        (1..24)
            .map(|i| message(30 + i, &row(53 + i, 1.0 + i as f64)))
            .collect(),
    )
    .await;
    assert_eq!((filled.kept, filled.judged + filled.not_judged), (23, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_late_and_off_grid_points_are_dead_letters() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = instance(folder.path(), &[]);
    absorb(&pipeline, quiet(0..30)).await;
    let absorbed = absorb(
        &pipeline,
        vec![
            message(30, &row(29, 7.0)),
            message(31, &row(2, 7.0)),
            message(32, &row_at(30 * 300 + 17, 7.0)),
            message(33, &row(30, value(30, &[]))),
        ],
    )
    .await;
    assert_eq!(
        (absorbed.kept, absorbed.judged, absorbed.dead_letters),
        (1, 1, 3)
    );
    let letters = events(&folder.path().join("records"), "dead-letters");
    let expected = [(30, "repeated"), (31, "late"), (32, "off-grid")];
    assert_eq!(
        reasons(&letters),
        expected.map(|(offset, reason)| (offset, reason.to_owned()))
    );
    assert_eq!(letters[1]["data"]["value"], row(2, 7.0));
    assert_eq!(letters[1]["data"]["series"], "aws-cloudwatch-network");
}

#[tokio::test(flavor = "multi_thread")]
async fn snapping_takes_an_off_grid_point_to_the_nearest_slot() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = instance(folder.path(), &[("Window__OffGrid", "snap")]);
    absorb(&pipeline, quiet(0..30)).await;
    let absorbed = absorb(&pipeline, vec![message(30, &row_at(30 * 300 + 17, 41.0))]).await;
    assert_eq!(
        (absorbed.kept, absorbed.judged, absorbed.dead_letters),
        (1, 1, 0)
    );
    let verdicts = events(&folder.path().join("records"), "verdicts");
    assert_eq!(
        verdicts.last().unwrap()["data"]["timestamp"],
        "2014-03-01T02:30:00Z"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn twelve_points_in_a_row_on_another_grid_start_the_window_anew() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = instance(folder.path(), &[]);
    absorb(&pipeline, quiet(0..30)).await;
    let strays = (30..54)
        .map(|slot| message(slot, &row_at(slot * 300 + 60, value(slot, &[]))))
        .collect();
    let absorbed = absorb(&pipeline, strays).await;
    // Eleven are refused; the twelfth and what follows it are the new window.
    assert_eq!(
        (absorbed.dead_letters, absorbed.kept, absorbed.judged),
        (11, 13, 0)
    );
    let filled = absorb(
        &pipeline,
        (54..66)
            .map(|slot| message(slot, &row_at(slot * 300 + 60, value(slot, &[]))))
            .collect(),
    )
    .await;
    assert_eq!((filled.kept, filled.judged), (12, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_row_is_kept_as_a_dead_letter_and_the_batch_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = instance(folder.path(), &[]);
    let mut batch = quiet(0..30);
    let bad: &[(usize, &[u8], &str)] = &[
        (3, b"not json", "not-json"),
        (4, b"{\"value\": 1}", "bad-timestamp"),
        (
            5,
            b"{\"timestamp\": \"2014-03-01\", \"value\": \"NaN\"}",
            "bad-value",
        ),
        (
            6,
            b"{\"timestamp\": \"2014-03-01\", \"value\": \"inf\"}",
            "bad-value",
        ),
        (
            7,
            b"{\"timestamp\": \"2014-03-01\", \"value\": 1e300}",
            "bad-value",
        ),
        (8, b"\xff\xfe\x00", "not-json"),
        (9, b"", "empty"),
    ];
    for (index, bytes, _) in bad {
        batch[*index].value = Some(bytes.to_vec());
    }
    batch[10].value = Some(vec![b'x'; 70_000]);
    batch[11].value = None;
    let absorbed = absorb(&pipeline, batch).await;
    assert_eq!(
        (absorbed.messages, absorbed.kept, absorbed.dead_letters),
        (30, 21, 9)
    );
    let letters = events(&folder.path().join("records"), "dead-letters");
    let mut expected: Vec<(i64, String)> = bad
        .iter()
        .map(|(index, _, reason)| (*index as i64, (*reason).to_owned()))
        .collect();
    expected.push((10, "too-large".to_owned()));
    expected.push((11, "empty".to_owned()));
    assert_eq!(reasons(&letters), expected);
    assert_eq!(letters[0]["data"]["value"], "not json");
    assert_eq!(letters[5]["data"]["valueBase64"], "//4A");
    assert_eq!(letters[7]["data"]["value"].as_str().unwrap().len(), 70_000);
    assert!(
        letters[1]["data"]["detail"]
            .as_str()
            .unwrap()
            .contains("timestamp")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_the_detector_refuses_keeps_its_point() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = instance(folder.path(), &[]);
    // A season of six, and then most of the grid missing: too many gaps for a seasonal series.
    let seasonal =
        |slot: i64| [0.0, 20.0, 40.0, 30.0, 10.0, -20.0][(slot % 6) as usize] + value(slot, &[]);
    let slots = (0..12).chain((12..48).step_by(3));
    let messages = slots
        .enumerate()
        .map(|(offset, slot)| message(offset as i64, &row(slot, seasonal(slot))))
        .collect();
    let absorbed = absorb(&pipeline, messages).await;
    assert_eq!((absorbed.kept, absorbed.dead_letters), (24, 0));
    assert_eq!(absorbed.judged + absorbed.not_judged, 1);
    let verdicts = events(&folder.path().join("records"), "verdicts");
    assert_eq!(verdicts.len(), 1);
    if absorbed.not_judged == 1 {
        assert_eq!(verdicts[0]["data"]["notJudged"], "InvalidSeries");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_topic_is_a_new_epoch_and_windows_stay() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = instance(folder.path(), &[]);
    absorb(&pipeline, quiet(0..30)).await;
    // The topic was deleted and made again: offsets from 0, broker timestamps newer than any seen.
    let anew: Vec<Message> = (0..5)
        .map(|i| {
            let mut message = message(i, &row(30 + i, value(30 + i, &[])));
            message.broker_time_ms = Some(support::BROKER_START_MS + 1_000_000 + i * 1000);
            message
        })
        .collect();
    let absorbed = absorb(&pipeline, anew.clone()).await;
    assert_eq!((absorbed.kept, absorbed.judged, absorbed.no_ops), (5, 5, 0));
    let verdicts = events(&folder.path().join("records"), "verdicts");
    assert_eq!(
        verdicts.last().unwrap()["id"],
        "aws-cloudwatch-network/1/0/4"
    );
    // In the new epoch, too, a redelivery is a no-op.
    assert_eq!(absorb(&pipeline, anew).await.no_ops, 5);
    // And an old one, with its old timestamps, is still none of the new epoch's.
    assert_eq!(absorb(&pipeline, quiet(0..5)).await.no_ops, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_went_away_and_came_back_is_not_judged_on_a_stale_window() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (instance(folder.path(), &[]), instance(folder.path(), &[]));
    absorb(&one, quiet(0..30)).await;
    absorb(&other, quiet(30..40)).await;
    // `one` still holds the window as of offset 29 in its memory.
    absorb(&one, quiet(40..50)).await;
    let moved = events(&folder.path().join("records"), "verdicts");

    let straight = tempfile::tempdir().unwrap();
    absorb(&instance(straight.path(), &[]), quiet(0..50)).await;
    assert_eq!(moved, events(&straight.path().join("records"), "verdicts"));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_on_one_partition_neither_lose_nor_repeat() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (instance(folder.path(), &[]), instance(folder.path(), &[]));
    absorb(&one, quiet(0..24)).await;
    absorb(&other, quiet(0..24)).await;
    for start in (24..120).step_by(8) {
        let (first, second) = tokio::join!(
            one.absorb(quiet(start..start + 8)),
            other.absorb(quiet(start..start + 8)),
        );
        // One of them may be told that the other was faster too often; the host would bring it again.
        assert!(first.is_ok() || second.is_ok(), "{first:?} {second:?}");
    }
    absorb(&one, quiet(24..120)).await;
    let verdicts = events(&folder.path().join("records"), "verdicts");
    assert_eq!(offsets(&verdicts), (23..120).collect::<Vec<_>>());

    let straight = tempfile::tempdir().unwrap();
    absorb(&instance(straight.path(), &[]), quiet(0..120)).await;
    assert_eq!(
        verdicts,
        events(&straight.path().join("records"), "verdicts")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_series_too_many_is_refused_by_name_of_the_setting() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = instance(folder.path(), &[("Window__MaxSeries", "2")]);
    let batch = (0..3)
        .map(|i| {
            let mut message = message(i, &row(0, 1.0));
            message.key = Some(format!("host-{i}").into_bytes());
            message
        })
        .collect();
    let absorbed = absorb(&pipeline, batch).await;
    assert_eq!((absorbed.kept, absorbed.dead_letters), (2, 1));
    let letters = events(&folder.path().join("records"), "dead-letters");
    assert_eq!(reasons(&letters), [(2, "too-many-series".to_owned())]);
    assert!(
        letters[0]["data"]["detail"]
            .as_str()
            .unwrap()
            .contains("Window__MaxSeries")
    );
}
