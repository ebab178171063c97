//! Rows of a `timestamp,value[,series]` CSV, one after the other from a stream of bytes.
//!
//! The fields are handed on as they are: whether a timestamp is one and a value a number is for the
//! reader of the topic to say. What has to be right is the form: a header that names the columns, and as
//! many fields in each row.

use bytes::{Buf, Bytes};
use csv_core::ReadRecordResult;
use futures::StreamExt;
use serde::{Deserialize, Serialize};

use super::source::{ByteStream, Source, SourceError};

/// Longest row, in bytes. What is longer was no row of numbers, but some other file.
const MAX_ROW_BYTES: usize = 64 * 1024;
/// Most columns of a row.
const MAX_COLUMNS: usize = 1024;

/// A row as it is in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsvRow {
    /// Field `timestamp`.
    pub timestamp: String,
    /// Field `value`.
    pub value: String,
    /// Field `series`, where there is such a column.
    pub series: Option<String>,
    /// Where the row stands.
    pub place: RowPlace,
}

/// Where a row stands in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowPlace {
    /// Its first byte, counted from 0.
    pub offset: u64,
    /// Its line, counted from 1.
    pub line: u64,
}

/// Which columns are read, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Columns {
    timestamp: usize,
    value: usize,
    series: Option<usize>,
    count: usize,
}

impl CsvRow {
    /// What tells this row from another in its place.
    pub fn fingerprint(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        for field in [&self.timestamp, &self.value] {
            hasher.update(field.as_bytes());
            hasher.update(&[0]);
        }
        hasher.update(self.series.as_deref().unwrap_or_default().as_bytes());
        hasher.finalize()
    }
}

/// Reads rows.
pub struct Rows {
    place: String,
    columns: Columns,
    fields: Fields,
}

impl Rows {
    /// Begins at the top of `source` with its header. The series is read from the column that
    /// `series_column` names, if there is one of that name.
    pub async fn begin(source: &Source, series_column: &str) -> Result<Self, SourceError> {
        let place = source.place();
        let top = RowPlace { offset: 0, line: 1 };
        let mut fields = Fields::new(source.open(0).await?, top);
        let (at, header) = match fields.next(&place).await? {
            Some(header) => header,
            None => (top, Vec::new()),
        };
        let columns = Columns::of(&header, series_column)
            .map_err(|reason| not_csv(&place, at.line, reason))?;
        Ok(Self {
            place,
            columns,
            fields,
        })
    }

    /// Begins at a row that was read before, with the columns of that time.
    pub async fn resume(
        source: &Source,
        columns: Columns,
        at: RowPlace,
    ) -> Result<Self, SourceError> {
        Ok(Self {
            place: source.place(),
            columns,
            fields: Fields::new(source.open(at.offset).await?, at),
        })
    }

    /// The columns that the header named.
    pub fn columns(&self) -> Columns {
        self.columns
    }

    /// The next row; `None` at the end.
    ///
    /// # Errors
    /// Those of the source, and `NotCsv` for a row that has not the header's number of fields, is too
    /// long, or is no UTF-8.
    pub async fn next(&mut self) -> Result<Option<CsvRow>, SourceError> {
        let Some((place, mut fields)) = self.fields.next(&self.place).await? else {
            return Ok(None);
        };
        let wrong = |reason| not_csv(&self.place, place.line, reason);
        if fields.len() != self.columns.count {
            return Err(wrong(format!(
                "the header has {} fields and this row {}; every row needs the same",
                self.columns.count,
                fields.len()
            )));
        }
        let mut field = |index: usize| {
            String::from_utf8(std::mem::take(&mut fields[index]))
                .map_err(|_| wrong("the row is no utf-8; save the file as utf-8".to_owned()))
        };
        Ok(Some(CsvRow {
            timestamp: field(self.columns.timestamp)?,
            value: field(self.columns.value)?,
            series: self.columns.series.map(field).transpose()?,
            place,
        }))
    }
}

impl Columns {
    fn of(header: &[Vec<u8>], series_column: &str) -> Result<Self, String> {
        let names: Vec<String> = header
            .iter()
            .map(|name| {
                let name = String::from_utf8_lossy(name);
                // The byte order mark that spreadsheets put first.
                name.trim_start_matches('\u{feff}').trim().to_owned()
            })
            .collect();
        let find = |wanted: &str| {
            names
                .iter()
                .position(|name| name.eq_ignore_ascii_case(wanted))
        };
        let needed = |wanted: &str| {
            find(wanted).ok_or_else(|| {
                let found: String = names.join(",").chars().take(80).collect();
                format!(
                    "no column {wanted:?}; the first line has to name the columns, such as timestamp,value, and is {found:?}"
                )
            })
        };
        Ok(Self {
            timestamp: needed("timestamp")?,
            value: needed("value")?,
            series: find(series_column),
            count: names.len(),
        })
    }
}

/// Records of a CSV, with the place of each.
struct Fields {
    bytes: ByteStream,
    chunk: Bytes,
    is_ended: bool,
    parser: csv_core::Reader,
    at: RowPlace,
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl Fields {
    fn new(bytes: ByteStream, at: RowPlace) -> Self {
        Self {
            bytes,
            chunk: Bytes::new(),
            is_ended: false,
            parser: csv_core::Reader::new(),
            at,
            text: vec![0; 256],
            ends: vec![0; 8],
        }
    }

    async fn next(&mut self, place: &str) -> Result<Option<(RowPlace, Vec<Vec<u8>>)>, SourceError> {
        // Line ends before a row are no part of it: its place is that of its first byte.
        loop {
            self.fill().await?;
            match self.chunk.first() {
                Some(b'\n' | b'\r') => self.consume(1),
                _ => break,
            }
        }
        let start = self.at;
        let (mut text, mut ends) = (0, 0);
        loop {
            self.fill().await?;
            let (result, read, written, ended) = self.parser.read_record(
                &self.chunk,
                &mut self.text[text..],
                &mut self.ends[ends..],
            );
            self.consume(read);
            text += written;
            ends += ended;
            if self.at.offset - start.offset > MAX_ROW_BYTES as u64 {
                let reason = format!(
                    "the row is longer than {MAX_ROW_BYTES} bytes; is this a csv, and is a quote left open?"
                );
                return Err(not_csv(place, start.line, reason));
            }
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => self.text.resize(self.text.len() * 2, 0),
                ReadRecordResult::OutputEndsFull if self.ends.len() >= MAX_COLUMNS => {
                    let reason = format!("the row has more than {MAX_COLUMNS} fields");
                    return Err(not_csv(place, start.line, reason));
                }
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::Record => break,
                ReadRecordResult::End => return Ok(None),
            }
        }
        let mut from = 0;
        let fields = self.ends[..ends].iter().map(|&to| {
            let field = self.text[from..to].to_vec();
            from = to;
            field
        });
        Ok(Some((start, fields.collect())))
    }

    /// Has bytes in `chunk`, unless there are no more. The parser takes an empty input for the end.
    async fn fill(&mut self) -> Result<(), SourceError> {
        while self.chunk.is_empty() && !self.is_ended {
            match self.bytes.next().await {
                Some(chunk) => self.chunk = chunk?,
                None => self.is_ended = true,
            }
        }
        Ok(())
    }

    fn consume(&mut self, count: usize) {
        let lines = self.chunk[..count].iter().filter(|byte| **byte == b'\n');
        self.at.line += lines.count() as u64;
        self.at.offset += count as u64;
        self.chunk.advance(count);
    }
}

fn not_csv(place: &str, line: u64, reason: String) -> SourceError {
    SourceError::NotCsv {
        place: place.to_owned(),
        line,
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of `text`, read in pieces of `piece` bytes, as `timestamp|value|series@line`.
    async fn read(text: &[u8], piece: usize) -> Result<Vec<(String, RowPlace)>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.csv");
        std::fs::write(&path, text).unwrap();
        let source = Source::File(path);
        let hide = |error: SourceError| error.to_string().replace(&source.place(), "FILE");
        let mut rows = Rows::begin(&source, "series").await.map_err(hide)?;
        // The same stream, cut into small pieces.
        let rest = text[usize::try_from(rows.fields.at.offset).unwrap()..]
            .chunks(piece)
            .map(|piece| Ok(Bytes::copy_from_slice(piece)))
            .collect::<Vec<_>>();
        rows.fields = Fields::new(Box::pin(futures::stream::iter(rest)), rows.fields.at);
        let mut all = Vec::new();
        while let Some(row) = rows.next().await.map_err(hide)? {
            let series = row.series.unwrap_or("-".to_owned());
            all.push((
                format!("{}|{}|{series}", row.timestamp, row.value),
                row.place,
            ));
        }
        Ok(all)
    }

    fn place(offset: u64, line: u64) -> RowPlace {
        RowPlace { offset, line }
    }

    #[tokio::test]
    async fn fields_come_as_they_are_whatever_the_pieces() {
        let text = b"value,Timestamp ,note\r\n1.50,2014-03-01 17:36:00,x\r\n\r\n,nonsense,\"a\n\"\"b\"\r\nNaN,,\n 7 ,t";
        for piece in [1, 2, 3, 7, 1000] {
            let rows = read(&[text.as_slice(), b","].concat(), piece).await;
            let expected = [
                ("2014-03-01 17:36:00|1.50|-", place(23, 2)),
                ("nonsense||-", place(53, 4)),
                ("|NaN|-", place(72, 6)),
                ("t| 7 |-", place(78, 7)),
            ];
            let expected = expected.map(|(row, place)| (row.to_owned(), place));
            assert_eq!(rows.unwrap(), expected, "{piece}");
        }
    }

    #[tokio::test]
    async fn the_byte_order_mark_and_a_series_column_are_understood() {
        let rows = read(b"\xef\xbb\xbftimestamp,value,SERIES\na,1,web\n", 5).await;
        assert_eq!(rows.unwrap(), [("a|1|web".to_owned(), place(26, 2))]);
    }

    #[tokio::test]
    async fn what_is_no_such_csv_stops_with_its_line_and_reason() {
        let long = [b"timestamp,value\n1,2\n\"".as_slice(), &[b'x'; 70_000]].concat();
        let cases: [(&[u8], &str); 6] = [
            (
                b"",
                "FILE, line 1: no column \"timestamp\"; the first line has to name the columns, such as timestamp,value, and is \"\"",
            ),
            (
                b"2014-03-01,5\n",
                "FILE, line 1: no column \"timestamp\"; the first line has to name the columns, such as timestamp,value, and is \"2014-03-01,5\"",
            ),
            (
                b"timestamp,x\n",
                "FILE, line 1: no column \"value\"; the first line has to name the columns, such as timestamp,value, and is \"timestamp,x\"",
            ),
            (
                b"timestamp,value\n1,2\n\n1,2,3\n",
                "FILE, line 4: the header has 2 fields and this row 3; every row needs the same",
            ),
            (
                b"timestamp,value\n1,\xff\n",
                "FILE, line 2: the row is no utf-8; save the file as utf-8",
            ),
            (
                &long,
                "FILE, line 3: the row is longer than 65536 bytes; is this a csv, and is a quote left open?",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(read(text, 4096).await, Err(expected.to_owned()));
        }
    }

    #[tokio::test]
    async fn reading_goes_on_at_any_row() {
        let text = b"timestamp,value\r\n1,a\r\n2,b\r\n3,c\r\n";
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.csv");
        std::fs::write(&path, text).unwrap();
        let source = Source::File(path);
        let mut rows = Rows::begin(&source, "series").await.unwrap();
        let mut seen = Vec::new();
        while let Some(row) = rows.next().await.unwrap() {
            seen.push(row);
        }
        assert_eq!(seen.len(), 3);
        for (index, row) in seen.iter().enumerate() {
            let mut again = Rows::resume(&source, rows.columns(), row.place)
                .await
                .unwrap();
            for expected in &seen[index..] {
                assert_eq!(again.next().await.unwrap().as_ref(), Some(expected));
            }
            assert_eq!(again.next().await.unwrap(), None);
        }
    }
}
