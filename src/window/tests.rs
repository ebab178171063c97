use super::*;

const STEP: i64 = 300_000_000;

fn rules() -> Rules {
    Rules {
        points: 12,
        min_points: 12,
        ..Rules::default()
    }
}

fn slot(index: i64) -> Timestamp {
    Timestamp::from_micros(1_393_695_360_000_000 + index * STEP)
}

fn point(timestamp: Timestamp) -> Point {
    Point {
        timestamp,
        value: 1.5,
    }
}

fn minutes_after(index: i64, minutes: i64) -> Timestamp {
    Timestamp::from_micros(slot(index).micros() + minutes * 60_000_000)
}

/// A window with points at the first `count` slots.
fn filled(rules: &Rules, count: i64) -> Window {
    let mut window = Window::default();
    for index in 0..count {
        assert_eq!(window.push(rules, point(slot(index))), Push::Kept);
    }
    window
}

fn times(window: &Window) -> Vec<Timestamp> {
    window.iter().map(|point| point.timestamp).collect()
}

#[test]
fn keeps_the_newest_points() {
    let window = filled(&rules(), 30);
    assert_eq!(times(&window), (18..30).map(slot).collect::<Vec<_>>());
    let (mut timestamps, mut values) = (vec![slot(0)], vec![0.0]);
    window.copy_to(&mut timestamps, &mut values);
    assert_eq!((timestamps, values), (times(&window), vec![1.5; 12]));
}

#[test]
fn a_gap_shorter_than_the_window_is_the_detectors() {
    let mut window = filled(&rules(), 5);
    assert_eq!(window.push(&rules(), point(slot(4 + 11))), Push::Kept);
    assert_eq!(window.len(), 6);
}

#[test]
fn a_gap_as_long_as_the_window_starts_it_anew() {
    for at in [slot(4 + 12), slot(1000), minutes_after(4 + 12, 2)] {
        let mut window = filled(&rules(), 5);
        let push = window.push(&rules(), point(at));
        assert_eq!(push, Push::Restarted(Restart::Gap));
        assert_eq!(times(&window), [at]);
        // The grid starts anew as well.
        let next = Timestamp::from_micros(at.micros() + STEP);
        assert_eq!(window.push(&rules(), point(next)), Push::Kept);
    }
}

#[test]
fn the_first_of_a_slot_stays() {
    let mut window = filled(&rules(), 20);
    for index in [8, 13, 19] {
        let twin = Point {
            value: 99.0,
            ..point(slot(index))
        };
        assert_eq!(window.push(&rules(), twin), Push::Repeated);
    }
    assert!(window.iter().all(|point| point.value == 1.5));
}

#[test]
fn older_than_the_newest_is_late() {
    let mut window = filled(&rules(), 20);
    let mut gapped = filled(&rules(), 3);
    gapped.push(&rules(), point(slot(5)));
    assert_eq!(window.push(&rules(), point(slot(7))), Push::Late);
    assert_eq!(
        window.push(&rules(), point(minutes_after(15, 2))),
        Push::Late
    );
    assert_eq!(gapped.push(&rules(), point(slot(4))), Push::Late);
}

#[test]
fn off_the_grid_is_refused() {
    let mut window = filled(&rules(), 5);
    assert_eq!(
        window.push(&rules(), point(minutes_after(4, 2))),
        Push::OffGrid
    );
    assert_eq!(window.push(&rules(), point(slot(5))), Push::Kept);
    assert_eq!(times(&window), (0..6).map(slot).collect::<Vec<_>>());
}

#[test]
fn or_snapped_to_the_nearest_slot() {
    let rules = Rules {
        off_grid: OffGrid::Snap,
        ..rules()
    };
    let mut window = filled(&rules, 5);
    let cases = [
        (minutes_after(5, 2), Push::Snapped(slot(5))),
        (minutes_after(6, -2), Push::Snapped(slot(6))),
        (minutes_after(6, 1), Push::Repeated),
        (minutes_after(6, -1), Push::Repeated),
        (minutes_after(4, 1), Push::Repeated),
        (minutes_after(7, 0), Push::Kept),
    ];
    for (at, push) in cases {
        assert_eq!(window.push(&rules, point(at)), push, "{at}");
    }
    assert_eq!(times(&window), (0..8).map(slot).collect::<Vec<_>>());
}

#[test]
fn twelve_in_a_row_of_another_phase_take_the_window_over() {
    for off_grid in [OffGrid::Reject, OffGrid::Snap] {
        // So long that the run is no gap.
        let rules = Rules {
            points: 100,
            off_grid,
            ..rules()
        };
        let mut window = filled(&rules, 30);
        for index in 30..41 {
            let push = window.push(&rules, point(minutes_after(index, 1)));
            match off_grid {
                OffGrid::Reject => assert_eq!(push, Push::OffGrid),
                OffGrid::Snap => assert_eq!(push, Push::Snapped(slot(index))),
            }
        }
        let twelfth = minutes_after(41, 1);
        assert_eq!(
            window.push(&rules, point(twelfth)),
            Push::Restarted(Restart::Phase)
        );
        assert_eq!(times(&window), [twelfth]);
        assert_eq!(window.push(&rules, point(minutes_after(42, 1))), Push::Kept);
    }
}

#[test]
fn a_run_of_another_phase_is_broken_by_a_kept_point_and_by_a_third_phase() {
    let rules = Rules {
        points: 100,
        ..rules()
    };
    for breaker in [slot(36), minutes_after(36, 2)] {
        let mut window = filled(&rules, 30);
        for index in (30..36).chain(37..48) {
            let push = window.push(&rules, point(minutes_after(index, 1)));
            assert_eq!(push, Push::OffGrid, "{index}");
            if index == 35 {
                window.push(&rules, point(breaker));
            }
        }
        let push = window.push(&rules, point(minutes_after(48, 1)));
        assert_eq!(push, Push::Restarted(Restart::Phase));
    }
}

// The tutorial's own file holds one stray row twelve times over.
#[test]
fn twelve_copies_of_one_stray_point_are_no_new_phase() {
    let mut window = filled(&rules(), 12);
    for _ in 0..30 {
        assert_eq!(
            window.push(&rules(), point(minutes_after(11, 2))),
            Push::OffGrid
        );
    }
    assert_eq!(window.push(&rules(), point(slot(12))), Push::Kept);
    assert_eq!(times(&window), (1..13).map(slot).collect::<Vec<_>>());
}

#[test]
fn late_and_repeated_points_do_not_break_a_run() {
    let rules = Rules {
        points: 100,
        ..rules()
    };
    let mut window = filled(&rules, 30);
    for index in 30..41 {
        window.push(&rules, point(minutes_after(index, 1)));
        window.push(&rules, point(slot(20)));
        window.push(&rules, point(minutes_after(20, 3)));
    }
    let push = window.push(&rules, point(minutes_after(41, 1)));
    assert_eq!(push, Push::Restarted(Restart::Phase));
}

#[test]
fn without_a_grid_only_the_order_counts() {
    let rules = Rules {
        grid: Grid::None,
        ..rules()
    };
    let mut window = Window::default();
    let pushes: Vec<_> = [0, 7, 8, 8, 3, 7, 1_000_000_000_000]
        .map(|micros| window.push(&rules, point(Timestamp::from_micros(micros))))
        .into();
    use Push::{Kept, Late, Repeated};
    assert_eq!(pushes, [Kept, Kept, Kept, Repeated, Late, Repeated, Kept]);
}

#[test]
fn calendar_months_go_by_their_day() {
    let rules = Rules {
        grid: Grid::new("monthly", 1).unwrap(),
        ..rules()
    };
    let mut window = Window::default();
    let cases = [
        ("2019-01-31", Push::Kept),
        ("2019-02-28", Push::Kept),
        ("2019-02-28 12:00", Push::Repeated),
        ("2019-03-31", Push::Kept),
        ("2019-04-29", Push::OffGrid),
        ("2019-05-31", Push::Kept),
        ("2020-05-31", Push::Restarted(Restart::Gap)),
    ];
    for (text, push) in cases {
        let at = Timestamp::parse(text).unwrap();
        assert_eq!(window.push(&rules, point(at)), push, "{text}");
    }
}

#[test]
fn a_smaller_window_setting_drops_the_oldest() {
    let mut window = filled(&rules(), 12);
    let smaller = Rules {
        points: 4,
        ..rules()
    };
    window.push(&smaller, point(slot(12)));
    assert_eq!(times(&window), (9..13).map(slot).collect::<Vec<_>>());
}

#[test]
fn settings_make_rules() {
    let rules =
        |pairs: &[(&str, &str)]| Rules::from_settings(&Settings::from_pairs(pairs.iter().copied()));
    let defaults = rules(&[]).unwrap();
    assert_eq!((defaults.points, defaults.min_points), (288, 288));
    assert_eq!(defaults.grid, Rules::default().grid);
    let wrong = [
        ("Window__Points", "11"),
        ("Window__Points", "8641"),
        ("Window__MinPoints", "289"),
        ("Window__OffGrid", "drop"),
        ("Window__MaxSeries", "0"),
        ("Detector__Granularity", "fortnightly"),
        ("Detector__CustomInterval", "0"),
    ];
    for (name, value) in wrong {
        assert_eq!(rules(&[(name, value)]).unwrap_err().name, name);
    }
}

/// A million of these have to fit well under 6 GiB.
#[test]
fn a_full_window_is_small() {
    let rules = Rules::default();
    let window = filled(&rules, 1000);
    let heap = window.values.capacity() * size_of::<f64>()
        + window.times.runs().capacity() * size_of::<Run>();
    assert_eq!(heap, 288 * 8 + 24);
    assert!(size_of::<Window>() <= 104, "{}", size_of::<Window>());
}
