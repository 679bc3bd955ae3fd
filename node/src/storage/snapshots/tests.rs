//! Snapshots survive crashes whole or not at all, and damage is passed over or named.

use super::*;
use crate::storage::MemoryDisk;

const OWNER: Owner = Owner {
    cluster: 7,
    node: 1,
};

fn store(disk: &MemoryDisk) -> SnapshotStore {
    SnapshotStore::new(Arc::new(disk.clone()), OWNER, 1 << 20)
}

fn snapshot(index: u64) -> StoredSnapshot {
    let state = (0..3000).map(|at| (at as u64 * index) as u8).collect();
    StoredSnapshot {
        index,
        meta: index.to_le_bytes().to_vec(),
        state,
    }
}

#[test]
fn the_last_two_are_kept_and_the_newest_is_found() {
    let disk = MemoryDisk::new();
    let store = store(&disk);
    assert!(store.find().unwrap().newest.is_none());
    for index in [3, 10, 200] {
        store.save(&snapshot(index)).unwrap();
    }
    assert_eq!(disk.list().unwrap(), [name(10), name(200)]);
    assert_eq!(store.find().unwrap().newest.unwrap(), snapshot(200));
}

#[test]
fn no_flipped_bit_is_read_and_the_one_before_takes_its_place() {
    let disk = MemoryDisk::new();
    let store = store(&disk);
    store.save(&snapshot(1)).unwrap();
    store.save(&snapshot(2)).unwrap();
    let bytes = disk.content(&name(2)).unwrap().len();
    for byte in (0..68)
        .chain((Header::BYTES..bytes).step_by(37))
        .chain([bytes - 1])
    {
        disk.flip_bit(&name(2), byte, 3);
        let found = store
            .find()
            .unwrap_or_else(|error| panic!("byte {byte}: {error}"));
        assert_eq!(found.newest, Some(snapshot(1)), "byte {byte}");
        assert_eq!(found.damaged.len(), 1);
        assert!(found.damaged[0].to_string().contains(&name(2)));
        disk.flip_bit(&name(2), byte, 3);
    }
    disk.put(&name(2), &disk.content(&name(2)).unwrap()[..100]);
    assert_eq!(store.find().unwrap().newest, Some(snapshot(1)));
    disk.flip_bit(&name(1), 80, 0);
    let found = store.find().unwrap();
    assert!(found.newest.is_none());
    assert_eq!(found.damaged.len(), 2);
}

#[test]
fn a_crash_while_saving_leaves_the_old_or_the_new_one() {
    let (mut old, mut new) = (0, 0);
    for seed in 0..100 {
        let disk = MemoryDisk::new();
        store(&disk).save(&snapshot(1)).unwrap();
        // The sync of the directory fails: whether the name is there is for the crash to decide.
        disk.fail_sync(1 + seed % 2);
        store(&disk).save(&snapshot(2)).unwrap_err();
        let found = store(&disk.crash(seed)).find().unwrap();
        assert!(found.damaged.is_empty());
        match found.newest.unwrap() {
            found if found == snapshot(1) => old += 1,
            found => {
                assert_eq!(found, snapshot(2));
                new += 1;
            }
        }
    }
    assert!(old > 0 && new > 0, "{old} old, {new} new");
}

#[test]
fn a_full_disk_keeps_what_there_was() {
    let disk = MemoryDisk::new();
    let store = store(&disk);
    store.save(&snapshot(1)).unwrap();
    disk.limit_bytes(Some(4000));
    assert!(matches!(
        store.save(&snapshot(2)),
        Err(SnapshotError::Full { bytes: 3084, .. })
    ));
    assert_eq!(disk.list().unwrap(), [name(1)]);
    disk.limit_bytes(None);
    store.save(&snapshot(2)).unwrap();
}

#[test]
fn somebody_elses_snapshot_is_refused() {
    let disk = MemoryDisk::new();
    store(&disk).save(&snapshot(1)).unwrap();
    let other = Owner { node: 2, ..OWNER };
    let other = SnapshotStore::new(Arc::new(disk), other, 1 << 20);
    assert!(matches!(
        other.find(),
        Err(SnapshotError::Header {
            cause: HeaderError::WrongNode {
                found: 1,
                expected: 2
            },
            ..
        })
    ));
}
