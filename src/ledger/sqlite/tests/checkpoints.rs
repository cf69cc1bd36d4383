//! The log is copied beside the payments, to its end when it is long, and whoever reads or writes goes on.

use super::*;
use crate::ledger::sqlite::checkpoints::{Checkpoints, copy, pages_of_log};

/// More than the log may have.
const MANY_BYTES: i64 = file::LOG_PAGES_MAX << 12;

struct World {
    directory: TempDir,
    place: Place,
    writer: Connection,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("farewall.db");
        let place = Place::new(&path);
        let writer = file::open_for_writing(&path, &place, false).unwrap();
        writer
            .execute_batch("CREATE TABLE it (is_so BLOB)")
            .unwrap();
        Self {
            directory,
            place,
            writer,
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("farewall.db")
    }

    fn file_bytes(&self) -> u64 {
        std::fs::metadata(self.path()).unwrap().len()
    }

    fn write(&self, bytes: i64) {
        let sql = "INSERT INTO it VALUES (zeroblob(?1))";
        self.writer.execute(sql, [bytes]).unwrap();
    }

    fn copier(&self) -> Connection {
        file::open_for_checkpoints(&self.path(), &self.place).unwrap()
    }
}

#[test]
fn a_log_that_has_become_long_begins_anew() {
    let world = World::new();
    world.write(MANY_BYTES);
    let copier = world.copier();
    assert!(pages_of_log(&copier, "PASSIVE").unwrap() > file::LOG_PAGES_MAX);
    copy(&copier).unwrap();
    world.write(1);
    let pages = pages_of_log(&copier, "PASSIVE").unwrap();
    assert!(pages < 10, "{pages}");
}

#[test]
fn a_reader_of_old_rows_holds_up_neither_the_copy_nor_the_writer() {
    let world = World::new();
    let reader = file::open_for_reading(&world.path(), &world.place).unwrap();
    let rows = |of: &Connection| -> i64 {
        of.query_row("SELECT count(*) FROM it", [], |row| row.get(0))
            .unwrap()
    };
    reader.execute_batch("BEGIN").unwrap();
    assert_eq!(rows(&reader), 0);
    world.write(MANY_BYTES);
    let copier = world.copier();
    copy(&copier).unwrap();
    world.write(1);
    assert_eq!((rows(&reader), rows(&world.writer)), (0, 2));
    let kept = pages_of_log(&copier, "PASSIVE").unwrap();
    assert!(kept > file::LOG_PAGES_MAX, "{kept}: it is still read");
    reader.execute_batch("COMMIT").unwrap();
    copy(&copier).unwrap();
    world.write(1);
    let pages = pages_of_log(&copier, "PASSIVE").unwrap();
    assert!(pages < 10, "{pages}");
    assert_eq!(rows(&reader), 3);
}

#[test]
fn who_writes_does_not_copy_and_enough_rows_wake_the_thread_that_does() {
    let world = World::new();
    let mut checkpoints = Checkpoints::start(&world.path(), &world.place).unwrap();
    let empty = world.file_bytes();
    // Twice as much as SQLite would leave in the log by itself.
    world.write(8 << 20);
    checkpoints.look(4095);
    drop(checkpoints);
    assert_eq!(world.file_bytes(), empty);
    let mut checkpoints = Checkpoints::start(&world.path(), &world.place).unwrap();
    checkpoints.look(4096);
    drop(checkpoints);
    assert!(world.file_bytes() > empty + (8 << 20));
}
