//! Rows print as CPython 3.11 printed them: `tests/fixtures/python_repr.jsonl`, made by the script of
//! that name beside it.

use lapwing::record::python::repr;

#[derive(serde::Deserialize)]
struct Pair {
    json: String,
    python: String,
}

#[test]
fn every_text_prints_as_in_python() {
    let pairs = include_str!("fixtures/python_repr.jsonl");
    let mut count = 0;
    for line in pairs.lines() {
        let Pair { json, python } = serde_json::from_str(line).expect("a line of the fixture");
        assert_eq!(repr(&json).as_deref(), Some(python.as_str()), "{json}");
        count += 1;
    }
    assert_eq!(count, 340);
}
