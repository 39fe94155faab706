//! Curves for TensorBoard: event files, for those who watch their runs there.
//!
//! An event file is a sequence of records (a length, its checksum, a message, its checksum), and each message is an
//! `Event` of TensorFlow's in the encoding of protocol buffers: when, at which step, and a scalar under a tag. Of that
//! format a run needs four messages with nine fields, which are written out here; a TensorFlow or a compiler of
//! protocol files would be the larger part of the program.
//!
//! **A run that goes on makes a new file beside the old ones.** What was written last may be half a record, since
//! nothing waits for the disk here, and readers stop for ever at half a record in the midst of a file; at the end of
//! one they go on to the next. So nothing is ever appended to a file of another process, and names of files rise with
//! time.
//!
//! **And it must not show points twice.** A process that was killed had told of steps after its last checkpoint,
//! which its successor computes once more. TensorBoard has a word for that, `SessionLog` with `START`, which
//! TensorFlow's own supervisor writes after a restart: what was told before of that step and later ones is
//! forgotten. Each file here begins with it. (TensorBoard's faster loader does not look at it; it forgets the later
//! points of a tag whenever the tag goes back to an earlier step, which comes to the same when training has passed
//! the place where it was killed.) So a run that begins anew in the same folder, from step 0, shows its own points
//! only.
//!
//! Values are 32-bit numbers, as everywhere in TensorBoard: a curve to look at. The numbers themselves are in
//! `curve.csv` and the study's database.

use crate::ReportError;
use diapason_training::create_folder;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// What TensorBoard knows such files by.
const PREFIX: &str = "events.out.tfevents.";

/// What it knows this version of the messages by.
const VERSION: &[u8] = b"brain.Event:2";

/// An event file that is being written.
#[derive(Debug)]
pub struct EventFile {
    file: File,
    path: PathBuf,
    /// Whole records that are not in the file yet.
    pending: Vec<u8>,
    /// Whether a part of a record may be in it.
    broken: bool,
}

impl EventFile {
    /// Begins an event file in the folder of a run, which is made if it is not there. `from_step` is the first step
    /// that it may tell of: what earlier files in the folder tell of that step and later ones is forgotten. 0 for a
    /// run that begins; the step after the checkpoint's for one that goes on.
    ///
    /// # Errors
    /// A folder or file that cannot be made or written.
    pub fn create(folder: &Path, from_step: u64) -> Result<Self, ReportError> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| ReportError::Io { path, source }
        };
        create_folder(folder).map_err(failed(folder))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Files are read in the order of their names: the newest has the highest, whatever the clock says.
        let latest = latest(folder).map_err(failed(folder))?;
        let mut seconds = latest.map_or(0, |latest| latest.saturating_add(1)).max(now.as_secs());
        let (file, path) = loop {
            let path = folder.join(format!("{PREFIX}{seconds:010}.diapason"));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => break (file, path),
                // Another process began at the same moment.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && seconds < u64::MAX => {
                    seconds += 1;
                }
                Err(source) => return Err(ReportError::Io { path, source }),
            }
        };
        let mut events = Self { file, path, pending: Vec::new(), broken: false };
        let wall_time = now.as_secs_f64();
        events.record(wall_time, 0, |event| bytes_field(event, 3, VERSION));
        events.record(wall_time, from_step, |event| bytes_field(event, 7, &varint_field_of(1, START)));
        events.flush()?;
        Ok(events)
    }

    /// A value of `tag` at a step, NaN and infinities too; `wall_time` in seconds since 1970 (UTC). It reaches the
    /// file with the next [`EventFile::flush`].
    pub fn scalar(&mut self, tag: &str, step: u64, wall_time: f64, value: f64) {
        let mut scalar = Vec::with_capacity(tag.len() + 8);
        bytes_field(&mut scalar, 1, tag.as_bytes());
        key(&mut scalar, 2, FIXED_32);
        scalar.extend((value as f32).to_le_bytes());
        let mut summary = Vec::with_capacity(scalar.len() + 4);
        bytes_field(&mut summary, 1, &scalar);
        self.record(wall_time, step, |event| bytes_field(event, 5, &summary));
    }

    /// Hands everything to the operating system: whole records, so that who reads along finds them.
    ///
    /// # Errors
    /// A file that cannot be written. It is told once: after half a record nothing more would be read, so nothing more
    /// is written, and training need not end for it.
    pub fn flush(&mut self) -> Result<(), ReportError> {
        let records = std::mem::take(&mut self.pending);
        if self.broken {
            return Ok(());
        }
        self.file.write_all(&records).map_err(|source| {
            self.broken = true;
            ReportError::Io { path: self.path.clone(), source }
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Frames one event: its length and its bytes, each with a checksum.
    fn record(&mut self, wall_time: f64, step: u64, what: impl FnOnce(&mut Vec<u8>)) {
        let mut event = Vec::with_capacity(64);
        key(&mut event, 1, FIXED_64);
        event.extend(wall_time.to_le_bytes());
        if step > 0 {
            event.extend(varint_field_of(2, step));
        }
        what(&mut event);
        let length = (event.len() as u64).to_le_bytes();
        self.pending.extend(length);
        self.pending.extend(masked_checksum(&length).to_le_bytes());
        self.pending.extend(&event);
        self.pending.extend(masked_checksum(&event).to_le_bytes());
    }
}

impl Drop for EventFile {
    fn drop(&mut self) {
        // A curve to look at: whoever wants to know has flushed.
        let _ = self.flush();
    }
}

/// The highest number in the names of the folder's event files.
fn latest(folder: &Path) -> io::Result<Option<u64>> {
    let mut latest = None;
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|rest| {
            let digits = rest.split('.').next()?;
            // Beyond ten digits names no longer rise with their numbers.
            digits.parse::<u64>().ok().filter(|_| digits.len() == 10)
        });
        latest = latest.max(number);
    }
    Ok(latest)
}

/// `SessionLog.SessionStatus`: a process begins.
const START: u64 = 1;

// How protocol buffers write a field.
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const BYTES: u64 = 2;
const FIXED_32: u64 = 5;

fn key(out: &mut Vec<u8>, field: u64, kind: u64) {
    varint(out, field << 3 | kind);
}

/// Seven bits a byte, the lowest first; the eighth says that there are more.
fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint_field_of(field: u64, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    key(&mut out, field, VARINT);
    varint(&mut out, value);
    out
}

fn bytes_field(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    key(out, field, BYTES);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

/// CRC-32C, turned and shifted as in all files of TensorFlow: a checksum of data that hold checksums would be weak.
fn masked_checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The messages of a file, their checksums checked.
    fn records(path: &Path) -> Vec<Vec<u8>> {
        let bytes = fs::read(path).unwrap();
        let mut rest = bytes.as_slice();
        let mut records = Vec::new();
        while !rest.is_empty() {
            let (length, after) = rest.split_at(8);
            let size = u64::from_le_bytes(length.try_into().unwrap()) as usize;
            assert_eq!(after[..4], masked_checksum(length).to_le_bytes());
            let (message, after) = after[4..].split_at(size);
            assert_eq!(after[..4], masked_checksum(message).to_le_bytes());
            records.push(message.to_vec());
            rest = &after[4..];
        }
        records
    }

    #[test]
    fn checksums_as_tensorflow_has_them() {
        // The check value of CRC-32C, and the first record of every event file: a length of 24.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(masked_checksum(&24u64.to_le_bytes()).to_le_bytes(), [0xa3, 0x7f, 0x4b, 0x22]);
    }

    #[test]
    fn events_in_the_wire_format() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = EventFile::create(&folder.path().join("a/b"), 300).unwrap();
        file.scalar("loss", 301, 1.5, 0.25);
        file.flush().unwrap();
        let records = records(file.path());
        assert_eq!(records.len(), 3);
        assert_eq!(records[0][9..], *b"\x1a\x0dbrain.Event:2");
        // Step 300 in two bytes; a message of two bytes, status 1.
        assert_eq!(records[1][9..], *b"\x10\xac\x02\x3a\x02\x08\x01");
        let scalar = b"\x10\xad\x02\x2a\x0d\x0a\x0b\x0a\x04loss\x15\x00\x00\x80\x3e";
        assert_eq!(records[2][..9], [&[9][..], &1.5f64.to_le_bytes()].concat());
        assert_eq!(records[2][9..], *scalar);
    }

    #[test]
    fn names_rise() {
        let folder = tempfile::tempdir().unwrap();
        let names: Vec<_> =
            (0..3).map(|_| EventFile::create(folder.path(), 0).unwrap().path().to_path_buf()).collect();
        assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
        // A clock that was ahead, and files of other programs.
        fs::write(folder.path().join(format!("{PREFIX}9999999990.host")), b"").unwrap();
        fs::write(folder.path().join(format!("{PREFIX}x")), b"").unwrap();
        let last = EventFile::create(folder.path(), 0).unwrap();
        assert!(last.path().ends_with(format!("{PREFIX}9999999991.diapason")));
        let file = folder.path().join("file");
        fs::write(&file, b"").unwrap();
        assert!(EventFile::create(&file, 0).unwrap_err().to_string().contains("file"));
    }

    #[test]
    fn nothing_is_lost_without_a_flush() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = EventFile::create(folder.path(), 0).unwrap();
        file.scalar("größe", u64::MAX, 0.0, f64::NAN);
        let path = file.path().to_path_buf();
        assert_eq!(records(&path).len(), 2);
        drop(file);
        assert_eq!(records(&path).len(), 3);
    }
}
