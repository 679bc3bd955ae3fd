//! Disks that rot, fail, fill up, or belong to somebody else.

use super::*;

#[test]
fn a_flipped_bit_below_the_durable_offset_refuses_with_file_and_offset() {
    let disk = closed_log();
    let mut refused = 0;
    for file in disk.list().unwrap() {
        let content = disk.content(&file).unwrap();
        // The last record of the last segment is the mark of the close: nothing knows it.
        let used = content.iter().rposition(|byte| *byte != 0).unwrap() - 48;
        for byte in (Header::BYTES..used).step_by(61) {
            disk.flip_bit(&file, byte, 5);
            match open(&disk).map(|_| ()) {
                Err(OpenError::Corrupt {
                    file: named,
                    position,
                    offset,
                    durable,
                    ..
                }) => {
                    assert_eq!(named, file);
                    assert!(position as usize <= byte && byte - (position as usize) < 200);
                    assert!(offset < durable);
                    refused += 1;
                }
                other => panic!("{file} byte {byte} of {used}: {other:?}"),
            }
            disk.flip_bit(&file, byte, 5);
        }
    }
    assert!(refused > 200, "{refused}");
    assert_eq!(
        open(&disk).unwrap().1.entries.len(),
        120,
        "and unharmed it opens"
    );
}

#[test]
fn damage_above_the_durable_offset_is_cut() {
    let disk = closed_log();
    let last = disk.list().unwrap().pop().unwrap();
    let used = disk
        .content(&last)
        .unwrap()
        .iter()
        .rposition(|byte| *byte != 0)
        .unwrap();
    // In the closing mark, and in the zeros behind it.
    for byte in [used - 4, used + 100, OPTIONS.segment_bytes as usize - 1] {
        let disk = closed_log();
        disk.flip_bit(&last, byte, 0);
        let (mut writer, recovered) = open(&disk).unwrap();
        assert_eq!(recovered.entries.len(), 120, "byte {byte}");
        assert!(recovered.cut_bytes > 0);
        write(&mut writer, append(120..121)).unwrap();
        drop(writer);
        let (_, recovered) = open(&disk).unwrap();
        assert_eq!(
            (recovered.entries.len(), recovered.cut_bytes),
            (121, 0),
            "cut for good"
        );
    }
}

#[test]
fn a_failed_sync_poisons_for_ever() {
    let disk = MemoryDisk::new();
    let (mut writer, _) = open(&disk).unwrap();
    write(&mut writer, append(0..3)).unwrap();
    disk.fail_sync(1);
    let failed = writer.write(&[append(3..4), Write::Vote(vec![1])]);
    assert!(
        failed
            .iter()
            .all(|result| matches!(result, Err(AppendError::Poisoned { .. })))
    );
    // The disk works again, and that must not matter: what it holds is unknown.
    for _ in 0..3 {
        let again = write(&mut writer, append(3..4));
        assert!(
            matches!(again, Err(AppendError::Poisoned { cause, .. }) if cause.contains("sync"))
        );
    }
    assert!(writer.close().is_err());
    let (_, recovered) = open(&disk.crash(1)).unwrap();
    assert_eq!(indexes(&recovered), [0, 1, 2]);
}

#[test]
fn a_failed_write_poisons_too() {
    let disk = MemoryDisk::new();
    let (mut writer, _) = open(&disk).unwrap();
    write(&mut writer, append(0..3)).unwrap();
    disk.fail_write(1);
    assert!(matches!(
        write(&mut writer, append(3..9)),
        Err(AppendError::Poisoned { .. })
    ));
    drop(writer);
    assert_eq!(indexes(&open(&disk).unwrap().1), [0, 1, 2]);
}

#[test]
fn a_full_disk_is_typed_keeps_what_was_acknowledged_and_recovers() {
    let disk = MemoryDisk::new();
    let (mut writer, _) = open(&disk).unwrap();
    disk.limit_bytes(Some(OPTIONS.segment_bytes as usize));
    let mut next = 0;
    let full = loop {
        // Several in a group, so that the full disk is met in the middle of one.
        let group: Vec<Write> = (next..next + 3)
            .map(|index| append(index..index + 1))
            .collect();
        let results = writer.write(&group);
        let done = results.iter().take_while(|result| result.is_ok()).count();
        assert!(
            results[done..].iter().all(|result| result.is_err()),
            "in order"
        );
        next += done as u64;
        if let Some(Err(error)) = results.into_iter().last() {
            break error;
        }
    };
    assert!(
        matches!(full, AppendError::Full { bytes: 4096, .. }),
        "{full}"
    );
    assert!(next > 20);
    assert!(matches!(
        write(&mut writer, append(next..next + 1)),
        Err(AppendError::Full { .. })
    ));
    let behind = write(&mut writer, append(next + 1..next + 2));
    assert!(behind.is_err(), "no hole where the failed entry should be");
    write(&mut writer, Write::Vote(b"v".to_vec())).unwrap_or(());

    disk.limit_bytes(None);
    write(&mut writer, append(next..next + 5)).unwrap();
    drop(writer);
    let (_, recovered) = open(&disk.crash(3)).unwrap();
    assert_eq!(
        recovered.entries,
        (0..next + 5).map(entry).collect::<Vec<_>>()
    );
}

#[test]
fn a_disk_that_others_fill_leaves_the_log_one_more_segment() {
    let disk = MemoryDisk::new();
    let (mut writer, _) = open(&disk).unwrap();
    writer.keep_reserve();
    disk.limit_bytes(Some(2 * OPTIONS.segment_bytes as usize));
    let append_until_full = |writer: &mut Writer, from: u64| {
        let refused = (from..).find(|index| write(writer, append(*index..index + 1)).is_err());
        refused.unwrap()
    };
    let with = append_until_full(&mut writer, 0);
    let alone = {
        let disk = MemoryDisk::new();
        let (mut writer, _) = open(&disk).unwrap();
        disk.limit_bytes(Some(OPTIONS.segment_bytes as usize));
        append_until_full(&mut writer, 0)
    };
    assert!(
        with > alone + alone / 2,
        "{with} entries, {alone} without a reserve"
    );
    drop(writer);
    let (mut writer, recovered) = open(&disk.crash(9)).unwrap();
    let entries: Vec<_> = (0..with).map(entry).collect();
    assert_eq!(recovered.entries, entries);
    disk.limit_bytes(None);
    writer.keep_reserve();
    write(&mut writer, append(with..with + 60)).unwrap();
}

#[test]
fn an_append_that_fails_half_way_is_replaced_by_its_repeat() {
    let disk = MemoryDisk::new();
    let (mut writer, _) = open(&disk).unwrap();
    disk.limit_bytes(Some(OPTIONS.segment_bytes as usize));
    // The first entries of this fill the segment and are synced before the room ends.
    assert!(matches!(
        write(&mut writer, append(0..60)),
        Err(AppendError::Full { .. })
    ));
    disk.limit_bytes(None);
    assert!(matches!(
        write(&mut writer, append(5..6)),
        Err(AppendError::Gap {
            expected: 0,
            found: 5
        })
    ));
    let other = |index| Entry {
        index,
        bytes: b"the repeat".to_vec(),
    };
    write(&mut writer, Write::Append((0..5).map(other).collect())).unwrap();
    drop(writer);
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.entries, (0..5).map(other).collect::<Vec<_>>());
}

#[test]
fn another_clusters_or_nodes_log_is_refused() {
    let disk = closed_log();
    let as_owner = |owner| Writer::open(Arc::new(disk.clone()), owner, OPTIONS).map(|_| ());
    assert!(matches!(
        as_owner(Owner {
            cluster: 0xc2,
            node: 1
        }),
        Err(OpenError::Header {
            cause: HeaderError::WrongCluster {
                found: 0xc1,
                expected: 0xc2
            },
            ..
        })
    ));
    assert!(matches!(
        as_owner(Owner {
            cluster: 0xc1,
            node: 2
        }),
        Err(OpenError::Header {
            cause: HeaderError::WrongNode {
                found: 1,
                expected: 2
            },
            ..
        })
    ));
    let disk: Arc<dyn Disk> = Arc::new(disk);
    assert_eq!(Log::owner(&disk).unwrap(), Some(OWNER));
    let empty: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
    assert_eq!(Log::owner(&empty).unwrap(), None);
}

#[test]
fn a_damaged_or_short_segment_is_refused_by_name() {
    for file in [
        name(1),
        name(2),
        closed_log().list().unwrap().pop().unwrap(),
    ] {
        let whole = closed_log().content(&file).unwrap();
        let mut garbage = whole.clone();
        garbage[..Header::BYTES].fill(0xa5);
        let shortened = [
            0,
            10,
            Header::BYTES,
            Header::BYTES + 20,
            1000,
            whole.len() - 8,
        ];
        let contents = shortened.map(|bytes| whole[..bytes].to_vec());
        for content in contents.into_iter().chain([garbage, vec![0; whole.len()]]) {
            let disk = closed_log();
            disk.put(&file, &content);
            let refused = open(&disk).map(|_| ()).unwrap_err();
            assert!(
                matches!(&refused, OpenError::Header { file: named, .. }
                    | OpenError::Corrupt { file: named, .. } if *named == file),
                "{refused}"
            );
        }
    }
}

#[test]
fn a_missing_segment_is_refused_by_name() {
    for missing in [1, 2, 3] {
        let disk = closed_log();
        disk.remove(&name(missing)).unwrap();
        let refused = open(&disk).map(|_| ()).unwrap_err();
        assert!(
            matches!(&refused, OpenError::Missing { file, .. } if *file == name(missing)),
            "{refused}"
        );
    }
    // And one that is lost beside those that were removed in order.
    let disk = closed_log();
    let (mut writer, _) = open(&disk).unwrap();
    write(&mut writer, purge(40)).unwrap();
    drop(writer);
    let first = disk.list().unwrap().remove(0);
    disk.remove(&first).unwrap();
    assert!(
        matches!(open(&disk).map(|_| ()), Err(OpenError::Missing { file, .. }) if file == first)
    );
}
