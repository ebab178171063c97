use super::*;

/// `days` days of five-minute points: a wave, a window that fills for a day, a gap, a spike a day, and every
/// second day a dip.
pub(super) fn series(days: i64) -> Series {
    let point = |slot: i64| {
        let wave = (slot % 288 - 144).abs() as f64;
        let expected = 160.0 - 0.7 * wave;
        let (value, anomaly) = match slot % 288 {
            200 => (expected * 2.5, Some(Side::High)),
            100 if slot / 288 % 2 == 0 => (expected * 0.1, Some(Side::Low)),
            _ => (expected + (slot * 7919 % 13 - 6) as f64, None),
        };
        Point {
            timestamp: Timestamp::from_micros(1_393_632_060_000_000 + slot * 300_000_000),
            value,
            offset: Some(1000 + slot),
            verdict: (slot >= 288).then_some(Verdict {
                expected,
                upper: expected + 9.0,
                lower: expected - 9.0,
                anomaly,
                severity: 0.25,
            }),
            is_change_point: false,
        }
    };
    Series {
        name: "eth0 <in> & \"out\"".to_owned(),
        points: (0..days * 288)
            .filter(|slot| !(900..920).contains(slot))
            .map(point)
            .collect(),
    }
}

fn report(days: i64) -> Report {
    let series = series(days);
    Report {
        title: "a replay of <b>".to_owned(),
        summary: vec![("rows".to_owned(), "4,027".to_owned())],
        dead_letters: vec![DeadLetter {
            series: None,
            timestamp: Some(series.points[500].timestamp),
            offset: Some(42),
            reason: "bad-value".to_owned(),
            detail: "value: \"n/a\" is no number".to_owned(),
            message: "{\"value\": \"</script><script>alert(1)\"}".to_owned(),
        }],
        series: vec![series],
    }
}

/// Values of an attribute in every tag that has it and `class`.
fn attributes(text: &str, class: &str, name: &str) -> Vec<String> {
    text.split('<')
        .filter(|tag| tag.contains(&format!("class=\"{class}")))
        .filter_map(|tag| {
            let from = tag.find(&format!("{name}=\""))? + name.len() + 2;
            Some(tag[from..].split('"').next()?.to_owned())
        })
        .collect()
}

#[test]
fn the_page_marks_every_anomaly_with_offset_and_time() {
    let report = report(14);
    let page = html(&report);
    let points = &report.series[0].points;
    let found: Vec<&Point> = points.iter().filter(|p| p.anomaly().is_some()).collect();
    assert_eq!(
        found.len(),
        13 + 6,
        "a spike a day but the first, a dip on six"
    );
    let offsets: Vec<String> = found
        .iter()
        .map(|p| p.offset.unwrap().to_string())
        .collect();
    let times: Vec<String> = found.iter().map(|p| p.timestamp.to_string()).collect();
    assert_eq!(attributes(&page, "mark ", "data-offset"), offsets);
    assert_eq!(attributes(&page, "mark ", "data-timestamp"), times);
    assert_eq!(attributes(&page, "dead\"", "data-offset"), ["42"]);
    let chart = svg(&report.series[0]);
    assert_eq!(
        attributes(
            &chart.replace("<circle", "<circle class=\"dot\""),
            "dot",
            "data-offset"
        ),
        offsets
    );
}

#[test]
fn the_page_is_self_contained_and_nothing_in_it_is_run() {
    let page = html(&report(2));
    for outside in ["http://", "https://", "src=", "@import", "url("] {
        let page = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(!page.contains("<script>alert") && !page.contains("<b>\n") && !page.contains("of <b>"));
    assert_eq!(page.matches("<script").count(), 2);
}

#[test]
fn gaps_break_the_line_and_a_window_that_fills_is_shown() {
    let series = series(14);
    assert_eq!(scale::pieces(&series.points), [0..900, 900..4012]);
    assert_eq!(scale::unjudged(&series.points), vec![0..288]);
    let page = html(&report(14));
    assert_eq!(page.matches("<rect class=\"gap\"").count(), 1);
    assert_eq!(page.matches("<rect class=\"unjudged\"").count(), 1);
    let value = page.split("class=\"value\"").nth(1).unwrap();
    let value = value.split("/>").next().unwrap();
    assert_eq!(value.matches('M').count(), 2);
}

#[test]
fn anything_can_be_drawn() {
    let point = |at: i64, value: f64| Point {
        timestamp: Timestamp::from_micros(at),
        value,
        offset: None,
        verdict: Some(Verdict {
            expected: value,
            upper: f64::INFINITY,
            lower: -1e300,
            anomaly: Some(Side::Low),
            severity: 1.0,
        }),
        is_change_point: true,
    };
    let cases = [
        vec![],
        vec![point(0, 0.0)],
        vec![point(0, 1e100), point(1, -1e100)],
        vec![point(0, 5e-324), point(0, 5e-324), point(1, 0.0)],
        vec![
            point(-62_135_596_800_000_000, 1.0),
            point(253_402_300_799_000_000, 1.0),
        ],
    ];
    for points in cases {
        let series = Series {
            name: "ä\u{0}\u{1f600}".to_owned(),
            points,
        };
        let chart = svg(&series);
        assert!(!chart.contains("NaN") && !chart.contains("inf"), "{chart}");
        assert!(png(&series).unwrap().starts_with(b"\x89PNG"));
        let page = html(&Report {
            series: vec![series],
            ..Report::default()
        });
        assert!(!page.contains("NaNL") && !page.contains("\0"));
    }
}

#[test]
fn numbers_and_times_read_well() {
    let numbers = [
        (0.0, "0"),
        (-0.5, "-0.5"),
        (90.4, "90.4"),
        (123_456.78, "123457"),
        (171_362.5, "171362"),
        (1e9, "1e9"),
        (1.5e-7, "1.5e-7"),
        (100.0, "100"),
        (0.000_123_456_78, "0.00012346"),
    ];
    for (value, expected) in numbers {
        assert_eq!(scale::number(value), expected);
    }
    let at = |text| scale::moment(Timestamp::parse(text).unwrap());
    assert_eq!(at("2014-03-02T17:36:00Z"), "2014-03-02 17:36");
    assert_eq!(at("2014-03-02T17:36:05.5Z"), "2014-03-02 17:36:05.500");
    let labels = |days| {
        let ticks = scale::Scale::of(&series(days).points).time_ticks(10);
        ticks
            .into_iter()
            .map(|(_, label)| label)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        labels(14),
        ["3 Mar", "5 Mar", "7 Mar", "9 Mar", "11 Mar", "13 Mar"]
    );
    assert_eq!(
        labels(1),
        [
            "03:00", "06:00", "09:00", "12:00", "15:00", "18:00", "21:00"
        ]
    );
}
