//! What the in-memory disk does to a program that forgets to sync, and to one that does not.

use super::machine::SECTOR_BYTES;
use super::*;

fn written(disk: &MemoryDisk, bytes: &[u8]) -> Box<dyn DiskFile> {
    let mut file = disk.create("file").unwrap();
    file.write_at(0, bytes).unwrap();
    file
}

#[test]
fn what_is_synced_survives_every_crash() {
    for seed in 0..50 {
        let disk = MemoryDisk::new();
        written(&disk, &[7; 3000]).sync_data().unwrap();
        disk.sync_dir().unwrap();
        assert_eq!(disk.crash(seed).content("file").unwrap(), [7; 3000]);
    }
}

#[test]
fn what_is_not_synced_is_lost_kept_or_torn() {
    let (mut lost, mut kept, mut torn) = (0, 0, 0);
    for seed in 0..200 {
        let disk = MemoryDisk::new();
        let mut file = written(&disk, &[0; 4096]);
        file.sync_data().unwrap();
        disk.sync_dir().unwrap();
        file.write_at(0, &[9; 4096]).unwrap();
        let content = disk.crash(seed).content("file").unwrap();
        match content.iter().filter(|byte| **byte == 9).count() {
            0 => lost += 1,
            4096 => kept += 1,
            part => {
                assert_eq!(part % SECTOR_BYTES, 0, "sectors are written whole");
                torn += 1;
            }
        }
    }
    assert!(
        lost > 10 && kept > 10 && torn > 10,
        "{lost} lost, {kept} kept, {torn} torn"
    );
}

#[test]
fn a_name_without_sync_dir_may_be_lost() {
    let mut lost = 0;
    for seed in 0..50 {
        let disk = MemoryDisk::new();
        written(&disk, &[7; 10]).sync_data().unwrap();
        lost += u32::from(disk.crash(seed).content("file").is_none());
    }
    assert!(lost > 5 && lost < 45, "{lost} of 50 names lost");
}

#[test]
fn a_failed_sync_fails_once_and_then_lies() {
    let disk = MemoryDisk::new();
    let mut file = written(&disk, &[0; 8]);
    file.sync_data().unwrap();
    disk.sync_dir().unwrap();
    file.write_at(0, &[1; 8]).unwrap();
    disk.fail_sync(1);
    assert!(file.sync_data().is_err());
    file.sync_data().unwrap();
    assert_eq!(disk.content("file").unwrap(), [1; 8], "still in the cache");
    assert_eq!(
        disk.crash(1).content("file").unwrap(),
        [0; 8],
        "never on the medium"
    );
}

#[test]
fn a_lost_sync_claims_success() {
    let lost = |seed: &u64| {
        let disk = MemoryDisk::new();
        let mut file = written(&disk, &[0; 8]);
        file.sync_data().unwrap();
        disk.sync_dir().unwrap();
        disk.lose_syncs(true);
        file.write_at(0, &[1; 8]).unwrap();
        file.sync_data().unwrap();
        disk.crash(*seed).content("file").unwrap() == [0; 8]
    };
    assert!((0..50).filter(lost).count() > 0);
}

#[test]
fn room_ends_at_the_budget_and_overwriting_needs_none() {
    let disk = MemoryDisk::new();
    let mut file = written(&disk, &[0; 100]);
    disk.limit_bytes(Some(100));
    assert_eq!(
        file.write_at(100, &[1]).unwrap_err().kind(),
        io::ErrorKind::StorageFull
    );
    file.write_at(0, &[1; 100]).unwrap();
    disk.limit_bytes(None);
    file.write_at(100, &[1]).unwrap();
}

#[test]
fn a_crash_ends_files_and_lock_of_the_boot_before() {
    let disk = MemoryDisk::new();
    let mut file = written(&disk, &[0; 8]);
    let lock = disk.lock().unwrap();
    assert!(matches!(disk.lock(), Err(LockError::InUse { .. })));
    let after = disk.crash(1);
    assert!(file.write_at(0, &[1]).is_err() && file.sync_data().is_err());
    let again = after.lock().unwrap();
    drop(lock);
    assert!(
        matches!(after.lock(), Err(LockError::InUse { .. })),
        "the old guard frees nothing"
    );
    drop(again);
    after.lock().unwrap();
}
