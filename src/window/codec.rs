//! The stored form of a shard: a snapshot, and a log of the changes since.
//!
//! `docs/state.md` shows both byte by byte. What this form promises: the same state has the same bytes
//! (floats included, bit for bit); whatever was written by halves, cut off, altered, reordered or belongs
//! to another snapshot is noticed. A snapshot is whole or [`Unreadable`]. A log is taken up to its last
//! whole entry and the rest is reported as [`Damage`].

use std::sync::Arc;

use super::shard::{Series, SeriesChange, ShardTime};
use super::{Boundary, Change, Effect, Fence, Run, Shard, StrayRun, Window};
use crate::series::{Point, Timestamp};

/// What every snapshot begins with; the last byte is the version of the form.
const MAGIC: [u8; 5] = *b"LAPW\x01";
const ENTRY_VERSION: u8 = 1;
/// A series section is closed when it is at least so long.
const SECTION_BYTES: usize = 1 << 20;
/// No longer name is written or believed.
const MAX_NAME_BYTES: usize = 1 << 16;
/// Length and checksum in front of a log entry.
const ENTRY_HEADER: usize = 8;

/// Ties a log to its snapshot: each entry's checksum starts from the one before it, the first entry's from
/// the snapshot's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Counts the snapshots of the shard, from 1.
    pub generation: u64,
    /// Checksum of all that was written so far.
    pub checksum: u32,
    /// Entries in the log.
    pub entries: u64,
}

/// A shard as it was stored.
#[derive(Debug)]
pub struct Reading {
    /// The state after the last whole log entry.
    pub shard: Shard,
    /// Where the next log entry goes on.
    pub chain: Chain,
    /// What of the log could not be used.
    pub damage: Option<Damage>,
}

/// The unusable end of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Byte at which the log stops making sense.
    pub at: usize,
    /// Bytes from there on.
    pub dropped: usize,
    /// What is wrong there.
    pub what: &'static str,
}

/// A snapshot that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {at}: {what}")]
pub struct Unreadable {
    /// Byte near which it stops making sense.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

/// The snapshot of a shard, and the chain that its log begins with.
pub fn encode_snapshot(shard: &Shard, generation: u64) -> (Vec<u8>, Chain) {
    let points: usize = shard.series.iter().map(|s| s.window.len()).sum();
    let mut out = Writer(Vec::with_capacity(
        64 + 64 * shard.series.len() + 8 * points,
    ));
    out.0.extend_from_slice(&MAGIC);

    let head = out.open_section();
    out.number(generation);
    out.number(shard.time.wall_s);
    out.number(shard.time.age_s);
    out.fence(shard.fence.as_ref());
    out.number(shard.series.len() as u64);
    out.close_section(head);

    let mut series = shard.series.iter().peekable();
    while series.peek().is_some() {
        let section = out.open_section();
        while out.0.len() - section < SECTION_BYTES {
            let Some(series) = series.next() else { break };
            out.series(series);
        }
        out.close_section(section);
    }
    let chain = Chain {
        generation,
        checksum: crc32fast::hash(&out.0),
        entries: 0,
    };
    (out.0, chain)
}

/// One log entry, and the chain behind it. `id` tells this write from any other.
pub fn encode_entry(change: &Change, id: [u8; 8], chain: Chain) -> (Vec<u8>, Chain) {
    let mut out = Writer(Vec::with_capacity(64 + 24 * change.series.len()));
    out.0.extend_from_slice(&[0; ENTRY_HEADER]);
    out.0.push(ENTRY_VERSION);
    out.0.extend_from_slice(&id);
    out.number(chain.generation);
    out.number(change.time.wall_s);
    out.number(change.time.age_s);
    out.fence(change.fence.as_ref());
    out.number(change.series.len() as u64);
    let (mut number, mut micros) = (0, 0);
    for part in &change.series {
        out.number(u64::from(part.number - number));
        number = part.number;
        out.number((part.effects.len() as u64) << 1 | u64::from(part.name.is_some()));
        if let Some(name) = &part.name {
            out.text(name);
        }
        for &effect in &part.effects {
            micros = out.effect(effect, micros);
        }
    }
    let length = (out.0.len() - ENTRY_HEADER) as u32;
    out.0[..4].copy_from_slice(&length.to_le_bytes());
    let checksum = entry_checksum(chain, &out.0[..4], &out.0[ENTRY_HEADER..]);
    out.0[4..ENTRY_HEADER].copy_from_slice(&checksum.to_le_bytes());
    let chain = Chain {
        checksum,
        entries: chain.entries + 1,
        ..chain
    };
    (out.0, chain)
}

/// Reads a snapshot and the log behind it; `points` is the most kept of a series.
pub fn decode(snapshot: &[u8], log: &[u8], points: usize) -> Result<Reading, Unreadable> {
    let (mut shard, mut chain) = decode_snapshot(snapshot, points)?;
    let mut at = 0;
    let mut damage = None;
    while at < log.len() {
        match decode_entry(&log[at..], chain, &shard) {
            Ok((change, length, next)) => {
                shard.apply_keeping(&change, points);
                chain = next;
                at += length;
            }
            Err(what) => {
                damage = Some(Damage {
                    at,
                    dropped: log.len() - at,
                    what,
                });
                break;
            }
        }
    }
    Ok(Reading {
        shard,
        chain,
        damage,
    })
}

fn decode_snapshot(bytes: &[u8], points: usize) -> Result<(Shard, Chain), Unreadable> {
    let mut all = Reader::new(bytes);
    let failed = |at, what| Unreadable { at, what };
    let magic = all.take(MAGIC.len()).map_err(|what| failed(0, what))?;
    if magic[..4] != MAGIC[..4] {
        return Err(failed(0, "it is no snapshot of Lapwing"));
    }
    if magic[4] != MAGIC[4] {
        let what = "its form is newer than this program; use the version that wrote it";
        return Err(failed(4, what));
    }

    let at = all.at;
    let mut head = all.section().map_err(|what| failed(at, what))?;
    let (generation, mut shard, count) = head.snapshot_head().map_err(|what| failed(at, what))?;
    while all.left() > 0 {
        let at = all.at;
        let mut section = all.section().map_err(|what| failed(at, what))?;
        while section.left() > 0 {
            let series = section.series(points).map_err(|what| failed(at, what))?;
            if shard.number(&series.name).is_some() {
                return Err(failed(at, "a series is there twice"));
            }
            shard.insert(series);
        }
    }
    if shard.len() as u64 != count {
        return Err(failed(all.at, "it ends before its last series"));
    }
    let chain = Chain {
        generation,
        checksum: crc32fast::hash(bytes),
        entries: 0,
    };
    Ok((shard, chain))
}

/// The first entry of `log`, its whole length, and the chain behind it.
fn decode_entry(
    log: &[u8],
    chain: Chain,
    shard: &Shard,
) -> Result<(Change, usize, Chain), &'static str> {
    let mut header = Reader::new(log);
    let length_bytes = header.take(4)?;
    let length = header_u32(length_bytes) as usize;
    let checksum = header_u32(header.take(4)?);
    let body = header.take(length)?;
    if entry_checksum(chain, length_bytes, body) != checksum {
        return Err("the checksum of an entry is wrong, or it belongs to another snapshot");
    }
    let mut body = Reader::new(body);
    if body.byte()? != ENTRY_VERSION {
        return Err("the form of an entry is newer than this program");
    }
    body.take(8)?;
    if body.number()? != chain.generation {
        return Err("an entry belongs to another snapshot");
    }
    let change = body.change(shard)?;
    if body.left() > 0 {
        return Err("an entry is longer than what it holds");
    }
    let next = Chain {
        checksum,
        entries: chain.entries + 1,
        ..chain
    };
    Ok((change, header.at, next))
}

fn entry_checksum(chain: Chain, length: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&chain.checksum.to_le_bytes());
    hasher.update(length);
    hasher.update(body);
    hasher.finalize()
}

fn header_u32(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .rev()
        .fold(0, |number, &byte| number << 8 | u32::from(byte))
}

const KEEP: u8 = 0;
const SNAP: u8 = 1;
const RESTART: u8 = 2;
const STRAY: u8 = 3;
const NEXT_STRAY: u8 = 4;

struct Writer(Vec<u8>);

impl Writer {
    /// Leaves room for length and checksum; gives where the section begins.
    fn open_section(&mut self) -> usize {
        self.0.extend_from_slice(&[0; 8]);
        self.0.len()
    }

    fn close_section(&mut self, start: usize) {
        let length = (self.0.len() - start) as u32;
        let checksum = crc32fast::hash(&self.0[start..]);
        self.0[start - 8..start - 4].copy_from_slice(&length.to_le_bytes());
        self.0[start - 4..start].copy_from_slice(&checksum.to_le_bytes());
    }

    /// Seven bits a byte, least significant first.
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    /// Small magnitudes of either sign in few bytes.
    fn signed(&mut self, number: i64) {
        self.number((number << 1 ^ number >> 63) as u64);
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    fn value(&mut self, value: f64) {
        self.0.extend_from_slice(&value.to_bits().to_le_bytes());
    }

    fn fence(&mut self, fence: Option<&Fence>) {
        let Some(fence) = fence else {
            return self.0.push(0);
        };
        self.0.push(1);
        self.number(u64::from(fence.epoch));
        self.boundary(Some(fence.reached));
        self.boundary(fence.before);
    }

    fn boundary(&mut self, boundary: Option<Boundary>) {
        match boundary {
            None => self.0.push(0),
            Some(Boundary { offset, broker_ms }) => {
                self.0.push(1 + u8::from(broker_ms.is_some()));
                self.signed(offset);
                if let Some(broker_ms) = broker_ms {
                    self.signed(broker_ms);
                }
            }
        }
    }

    fn series(&mut self, series: &Series) {
        self.text(&series.name);
        self.number(series.heard_s);
        match series.window.stray {
            None => self.0.push(0),
            Some(run) => {
                self.0.push(run.count);
                self.signed(run.anchor.micros());
                self.signed(run.last.micros() - run.anchor.micros());
            }
        }
        let runs = series.window.times.runs();
        self.number(runs.len() as u64);
        let mut micros = 0;
        for run in runs {
            self.number(u64::from(run.count));
            self.signed(run.start - micros);
            if run.count > 1 {
                self.number(run.step as u64);
            }
            micros = run.last();
        }
        for &value in &series.window.values {
            self.value(value);
        }
    }

    /// Times are stored as distances; gives the one that the next is measured from.
    fn effect(&mut self, effect: Effect, micros: i64) -> i64 {
        let (tag, at, value) = match effect {
            Effect::Keep(point) => (KEEP, point.timestamp, Some(point.value)),
            Effect::Snap(point) => (SNAP, point.timestamp, Some(point.value)),
            Effect::Restart(point) => (RESTART, point.timestamp, Some(point.value)),
            Effect::Stray(at) => (STRAY, at, None),
            Effect::NextStray(at) => (NEXT_STRAY, at, None),
        };
        self.0.push(tag);
        self.signed(at.micros() - micros);
        if let Some(value) = value {
            self.value(value);
        }
        at.micros()
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

const ENDS: &str = "it ends in the middle";
const TOO_LARGE: &str = "a number is too large";

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], &'static str> {
        let end = self
            .at
            .checked_add(count)
            .filter(|&end| end <= self.bytes.len())
            .ok_or(ENDS)?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, &'static str> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> Result<u64, &'static str> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(TOO_LARGE);
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(TOO_LARGE)
    }

    fn small(&mut self) -> Result<u32, &'static str> {
        u32::try_from(self.number()?).map_err(|_| TOO_LARGE)
    }

    fn signed(&mut self) -> Result<i64, &'static str> {
        let number = self.number()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    fn text(&mut self) -> Result<Arc<str>, &'static str> {
        let length = self.number()? as usize;
        if length > MAX_NAME_BYTES {
            return Err("a name is too long");
        }
        std::str::from_utf8(self.take(length)?)
            .map(Arc::from)
            .map_err(|_| "a name is no text")
    }

    fn value(&mut self) -> Result<f64, &'static str> {
        let bytes = self.take(8)?;
        let bits = bytes
            .iter()
            .rev()
            .fold(0, |bits, &byte| bits << 8 | u64::from(byte));
        let value = f64::from_bits(bits);
        value
            .is_finite()
            .then_some(value)
            .ok_or("a value is no number")
    }

    fn timestamp(&mut self, from: i64) -> Result<Timestamp, &'static str> {
        from.checked_add(self.signed()?)
            .map(Timestamp::from_micros)
            .ok_or(TOO_LARGE)
    }

    fn section(&mut self) -> Result<Reader<'a>, &'static str> {
        let length = header_u32(self.take(4)?) as usize;
        let checksum = header_u32(self.take(4)?);
        let section = self.take(length)?;
        if crc32fast::hash(section) != checksum {
            return Err("the checksum of a section is wrong");
        }
        Ok(Reader::new(section))
    }

    fn fence(&mut self) -> Result<Option<Fence>, &'static str> {
        if self.byte()? == 0 {
            return Ok(None);
        }
        let epoch = self.small()?;
        let reached = self.boundary()?.ok_or("a fence is nowhere")?;
        let before = self.boundary()?;
        Ok(Some(Fence {
            epoch,
            reached,
            before,
        }))
    }

    fn boundary(&mut self) -> Result<Option<Boundary>, &'static str> {
        let kind = self.byte()?;
        if kind == 0 {
            return Ok(None);
        }
        let offset = self.signed()?;
        let broker_ms = match kind {
            1 => None,
            2 => Some(self.signed()?),
            _ => return Err("a boundary is of no known kind"),
        };
        Ok(Some(Boundary { offset, broker_ms }))
    }

    fn time(&mut self) -> Result<ShardTime, &'static str> {
        Ok(ShardTime {
            wall_s: self.number()?,
            age_s: self.number()?,
        })
    }

    fn snapshot_head(&mut self) -> Result<(u64, Shard, u64), &'static str> {
        let generation = self.number()?;
        let mut shard = Shard::default();
        shard.time = self.time()?;
        shard.fence = self.fence()?;
        let count = self.number()?;
        if self.left() > 0 {
            return Err("its head is longer than what it holds");
        }
        Ok((generation, shard, count))
    }

    fn series(&mut self, points: usize) -> Result<Series, &'static str> {
        let name = self.text()?;
        let heard_s = self.number()?;
        let mut window = Window::default();
        let count = self.byte()?;
        if count > 0 {
            let anchor = self.timestamp(0)?;
            let last = self.timestamp(anchor.micros())?;
            window.stray = Some(StrayRun {
                anchor,
                last,
                count,
            });
        }
        let mut length = 0_usize;
        let mut micros = 0;
        for index in 0..self.number()? {
            let count = self.small()?;
            let start = self.timestamp(micros)?.micros();
            let step = if count > 1 { self.number()? } else { 0 };
            let step = i64::try_from(step).map_err(|_| TOO_LARGE)?;
            let last = step
                .checked_mul(i64::from(count) - 1)
                .and_then(|span| start.checked_add(span))
                .ok_or(TOO_LARGE)?;
            if count == 0 || (count > 1 && step == 0) || (index > 0 && start <= micros) {
                return Err("timestamps do not ascend");
            }
            window.times.push_run(Run { start, step, count });
            length += count as usize;
            micros = last;
        }
        if length > self.left() / 8 {
            return Err(ENDS);
        }
        window.values.reserve_exact(length);
        for _ in 0..length {
            window.values.push_back(self.value()?);
        }
        window.trim(points);
        Ok(Series {
            name,
            window,
            heard_s,
        })
    }

    fn change(&mut self, shard: &Shard) -> Result<Change, &'static str> {
        let time = self.time()?;
        let fence = self.fence()?;
        let count = self.number()? as usize;
        let mut series = Vec::with_capacity(count.min(self.left()));
        let (mut number, mut micros, mut known) = (0_u32, 0, shard.len());
        for index in 0..count {
            let distance = self.small()?;
            if index > 0 && distance == 0 {
                return Err("series do not ascend");
            }
            number = number.checked_add(distance).ok_or(TOO_LARGE)?;
            let effect_count = self.number()?;
            let name = match effect_count & 1 {
                0 => None,
                _ => Some(self.text()?),
            };
            match &name {
                Some(name) if number as usize == known && shard.number(name).is_none() => {
                    known += 1
                }
                None if (number as usize) < shard.len() => {}
                _ => return Err("an entry speaks of a series that is not there"),
            }
            let window = shard.series.get(number as usize).map(|s| &s.window);
            let mut newest = window.and_then(Window::newest);
            let effect_count = (effect_count >> 1) as usize;
            let mut effects = Vec::with_capacity(effect_count.min(self.left()));
            for _ in 0..effect_count {
                let effect = self.effect(micros)?;
                micros = match effect {
                    Effect::Keep(point) | Effect::Snap(point) | Effect::Restart(point) => {
                        if newest.is_some_and(|newest| newest >= point.timestamp) {
                            return Err("timestamps do not ascend");
                        }
                        newest = Some(point.timestamp);
                        point.timestamp.micros()
                    }
                    Effect::Stray(at) | Effect::NextStray(at) => at.micros(),
                };
                effects.push(effect);
            }
            series.push(SeriesChange {
                number,
                name,
                effects,
            });
        }
        Ok(Change::from_parts(fence, series, time))
    }

    fn effect(&mut self, from: i64) -> Result<Effect, &'static str> {
        let tag = self.byte()?;
        let timestamp = self.timestamp(from)?;
        Ok(match tag {
            KEEP | SNAP | RESTART => {
                let value = self.value()?;
                let point = Point { timestamp, value };
                match tag {
                    KEEP => Effect::Keep(point),
                    SNAP => Effect::Snap(point),
                    _ => Effect::Restart(point),
                }
            }
            STRAY => Effect::Stray(timestamp),
            NEXT_STRAY => Effect::NextStray(timestamp),
            _ => return Err("an effect is of no known kind"),
        })
    }
}

#[cfg(test)]
mod tests;
