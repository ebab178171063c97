//! Who may call: keys, and how often each may.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// The keys that open the API; never shown.
pub struct Keys(Vec<[u8; 32]>);

impl Keys {
    /// These keys; empty ones are none.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a str>) -> Self {
        Self(
            keys.into_iter()
                .filter(|key| !key.is_empty())
                .map(|key| Sha256::digest(key).into())
                .collect(),
        )
    }

    /// Whether there is no key at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The position of `key` among the keys. Takes equally long whatever is wrong with it: digests
    /// are compared, all of them, so neither length nor prefix nor position shows.
    pub(crate) fn position(&self, key: &[u8]) -> Option<usize> {
        let digest = Sha256::digest(key);
        let mut found = Choice::from(0);
        let mut position = 0_usize;
        for (i, known) in self.0.iter().enumerate() {
            let equal = known.as_slice().ct_eq(digest.as_slice());
            position |= i * usize::from((equal & !found).unwrap_u8());
            found |= equal;
        }
        bool::from(found).then_some(position)
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

/// Calls per second for each of several callers: a bucket that holds one second's worth and fills
/// steadily.
#[derive(Debug)]
pub(crate) struct RateLimit {
    per_second: f64,
    buckets: Vec<Mutex<Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl RateLimit {
    /// `per_second` calls for each of `callers`.
    pub(crate) fn new(per_second: f64, callers: usize, now: Instant) -> Self {
        let full = || {
            Mutex::new(Bucket {
                tokens: per_second.max(1.0),
                filled: now,
            })
        };
        Self {
            per_second,
            buckets: std::iter::repeat_with(full).take(callers).collect(),
        }
    }

    /// Counts a call of `caller` at `now`, or says how long it has to wait for the next one.
    pub(crate) fn take(&self, caller: usize, now: Instant) -> Result<(), Duration> {
        // Two numbers, written together: a panic elsewhere cannot leave them half done.
        let mut bucket = self.buckets[caller]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_duration_since(bucket.filled).as_secs_f64();
        bucket.tokens = (bucket.tokens + passed * self.per_second).min(self.per_second.max(1.0));
        bucket.filled = now.max(bucket.filled);
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64(
            (1.0 - bucket.tokens) / self.per_second,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_key_opens_and_nothing_near_them() {
        let keys = Keys::new(["first", "", "second"]);
        assert_eq!(keys.len(), 2);
        assert_eq!(keys.position(b"first"), Some(0));
        assert_eq!(keys.position(b"second"), Some(1));
        for wrong in [&b""[..], b"x", b"firs", b"firstx", b"First", b"\xff"] {
            assert_eq!(keys.position(wrong), None);
        }
        assert_eq!(Keys::new([""]).position(b""), None);
        assert_eq!(Keys::new(["same", "same"]).position(b"same"), Some(0));
        assert_eq!(format!("{keys:?}"), "2 keys");
    }

    #[test]
    fn a_bucket_lets_a_seconds_worth_through_and_fills_again() {
        let start = Instant::now();
        let limit = RateLimit::new(2.0, 2, start);
        assert_eq!(limit.take(0, start), Ok(()));
        assert_eq!(limit.take(0, start), Ok(()));
        assert_eq!(limit.take(0, start), Err(Duration::from_millis(500)));
        assert_eq!(limit.take(1, start), Ok(()), "callers do not share");
        assert_eq!(limit.take(0, start + Duration::from_millis(500)), Ok(()));
        let later = start + Duration::from_secs(3600);
        assert_eq!(
            (limit.take(0, later), limit.take(0, later)),
            (Ok(()), Ok(()))
        );
        assert!(
            limit.take(0, later).is_err(),
            "a pause saves up no more than a second"
        );
        let slow = RateLimit::new(0.5, 1, start);
        assert_eq!(slow.take(0, start), Ok(()));
        assert_eq!(slow.take(0, start), Err(Duration::from_secs(2)));
    }
}
