//! Sorting with one definite order of equal keys.
//!
//! Which of several equal values is flagged, and at which rank the last point sits, follows from the
//! order that sorting gives to equal keys. The reference inherits it from numpy's introsort (an
//! unstable sort): quicksort with the median of three, insertion sort below 17 elements, heapsort when
//! the recursion grows too deep. This is that order, the same on every machine. (On processors with
//! AVX-512 numpy uses another sort and orders ties otherwise.)

/// A key and where it stood.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Ranked {
    /// The value sorted by; no NaN.
    pub(super) key: f64,
    /// Its position before.
    pub(super) index: u32,
}

/// Ranges this long or shorter are sorted by insertion.
const INSERTION: usize = 16;

/// The values in ascending order with their positions, into `out`.
pub(super) fn argsort(values: &[f64], out: &mut Vec<Ranked>) {
    out.clear();
    out.extend(
        values
            .iter()
            .zip(0..)
            .map(|(key, index)| Ranked { key: *key, index }),
    );
    sort(out);
}

fn sort(a: &mut [Ranked]) {
    if a.len() < 2 {
        return;
    }
    // The larger part is put off and the smaller one at least halves, so 64 places are plenty.
    let mut later = [(0, 0, 0); 64];
    let mut waiting = 0;
    let (mut low, mut high, mut budget) = (0, a.len() - 1, 2 * a.len().ilog2() as i32);
    loop {
        if budget < 0 {
            heapsort(&mut a[low..=high]);
        } else {
            while high - low + 1 > INSERTION {
                let cut = partition(a, low, high);
                budget -= 1;
                let (next, put_off) = if cut - low < high - cut {
                    ((low, cut - 1), (cut + 1, high))
                } else {
                    ((cut + 1, high), (low, cut - 1))
                };
                later[waiting] = (put_off.0, put_off.1, budget);
                waiting += 1;
                (low, high) = next;
            }
            insertion_sort(&mut a[low..=high]);
        }
        if waiting == 0 {
            return;
        }
        waiting -= 1;
        (low, high, budget) = later[waiting];
    }
}

/// Splits `low..=high` around the median of its first, middle and last key; returns where that ended.
fn partition(a: &mut [Ranked], low: usize, high: usize) -> usize {
    let middle = low + (high - low) / 2;
    if a[middle].key < a[low].key {
        a.swap(middle, low);
    }
    if a[high].key < a[middle].key {
        a.swap(high, middle);
    }
    if a[middle].key < a[low].key {
        a.swap(middle, low);
    }
    let pivot = a[middle].key;
    a.swap(middle, high - 1);
    let (mut i, mut j) = (low, high - 1);
    loop {
        i += 1;
        while a[i].key < pivot {
            i += 1;
        }
        j -= 1;
        while pivot < a[j].key {
            j -= 1;
        }
        if i >= j {
            break;
        }
        a.swap(i, j);
    }
    a.swap(i, high - 1);
    i
}

fn insertion_sort(a: &mut [Ranked]) {
    for i in 1..a.len() {
        let moving = a[i];
        let mut to = i;
        while to > 0 && moving.key < a[to - 1].key {
            a[to] = a[to - 1];
            to -= 1;
        }
        a[to] = moving;
    }
}

fn heapsort(a: &mut [Ranked]) {
    for root in (0..a.len() / 2).rev() {
        sift_down(a, root, a.len());
    }
    for end in (1..a.len()).rev() {
        a.swap(0, end);
        sift_down(a, 0, end);
    }
}

fn sift_down(a: &mut [Ranked], mut root: usize, end: usize) {
    let moving = a[root];
    loop {
        let mut child = 2 * root + 1;
        if child >= end {
            break;
        }
        if child + 1 < end && a[child].key < a[child + 1].key {
            child += 1;
        }
        if moving.key < a[child].key {
            a[root] = a[child];
            root = child;
        } else {
            break;
        }
    }
    a[root] = moving;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(keys: &[f64]) -> Vec<u32> {
        let mut out = vec![];
        argsort(keys, &mut out);
        out.iter().map(|ranked| ranked.index).collect()
    }

    #[test]
    fn equal_keys_come_in_the_order_of_the_reference() {
        let keys = [0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2].map(f64::from);
        let expected = [0, 11, 10, 9, 7, 6, 8, 1, 5, 4, 3, 2, 15, 12, 13, 14, 16];
        assert_eq!(order(&keys), expected);
        let keys: Vec<f64> = (0..40).map(|i| f64::from(i % 4)).collect();
        let expected = [
            0, 28, 4, 16, 32, 36, 8, 20, 24, 12, 33, 17, 29, 21, 25, 9, 5, 37, 1, 13, 22, 26, 34,
            18, 14, 10, 6, 2, 38, 30, 35, 19, 27, 23, 15, 11, 7, 3, 31, 39,
        ];
        assert_eq!(order(&keys), expected);
    }

    #[test]
    fn sixteen_or_fewer_keys_keep_the_order_of_equals() {
        let keys: Vec<f64> = (0..16).map(|i| f64::from(i % 2)).collect();
        let expected: Vec<u32> = (0..16).step_by(2).chain((1..16).step_by(2)).collect();
        assert_eq!(order(&keys), expected);
    }

    #[test]
    fn everything_is_sorted_heaps_too() {
        let keys: Vec<f64> = (0..1000).map(|i| f64::from(i * 7919 % 1009)).collect();
        let mut out = vec![];
        argsort(&keys, &mut out);
        assert!(out.is_sorted_by(|a, b| a.key <= b.key));
        argsort(&[], &mut out);
        let mut heap: Vec<Ranked> = keys
            .iter()
            .zip(0..)
            .map(|(key, index)| Ranked { key: *key, index })
            .collect();
        heapsort(&mut heap);
        assert!(heap.is_sorted_by(|a, b| a.key <= b.key));
    }
}
