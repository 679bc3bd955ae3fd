//! Identity files: made once, found again, replaced whole, and never readable by others.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::*;
use crate::identity::Identity;
use crate::storage::{MemoryDisk, RealDisk};

const FOUNDER: Subject = Subject {
    node: NodeId::FOUNDER,
    cluster: 0xc1,
};
const LEARNER: Subject = Subject {
    node: NodeId(7),
    cluster: 0xc1,
};

fn days(days: u64) -> Duration {
    Duration::from_secs(days * 24 * 3600)
}

/// A disk as a learner's after it joined, signed at `now`.
fn joined(authority: &Authority, now: SystemTime) -> Files {
    let files = Files::new(Arc::new(MemoryDisk::new()));
    let request = authority::request(&files.key().unwrap()).unwrap();
    let given = Given {
        certificate: &authority.sign(&request, LEARNER, now).unwrap(),
        authority: authority.certificate(),
        cookie: &Secret::new([9; 32]),
    };
    files.save_given(&given).unwrap();
    files
}

#[test]
fn a_founder_stays_the_same_and_its_secrets_are_its_own() {
    let home = tempfile::tempdir().unwrap();
    let disk = RealDisk::open(home.path()).unwrap();
    let files = Files::new(Arc::new(disk));
    let now = SystemTime::now();
    let first = files.load(FOUNDER, now).unwrap();
    let second = files.load(FOUNDER, now).unwrap();
    assert_eq!(first.cookie, second.cookie);
    let pin = |loaded: &Loaded| loaded.authority.as_ref().unwrap().pin();
    assert_eq!(pin(&first), pin(&second));
    let key = |loaded: &Loaded| loaded.credentials.key_sha256();
    assert_eq!(key(&first), key(&second));
    let mut seen = 0;
    for entry in std::fs::read_dir(home.path()).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        seen += 1;
    }
    assert_eq!(seen, 5);
    let shown = format!("{first:?}");
    assert!(shown.contains("cookie: ***"), "{shown}");
    assert!(!shown.contains("PRIVATE"), "{shown}");
}

#[test]
fn a_voter_whose_clock_moved_by_three_days_signs_itself() {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
    let files = Files::new(disk);
    let now = SystemTime::now();
    let before = files.load(FOUNDER, now).unwrap().credentials;
    let after = files.load(FOUNDER, now + days(3)).unwrap().credentials;
    let moved = after.life().until_s - before.life().until_s;
    assert_eq!(moved, days(3).as_secs());
    assert_eq!(after.key_sha256(), before.key_sha256());
    assert_eq!(
        after.life().until_s - after.life().from_s,
        days(1).as_secs()
    );
}

#[test]
fn a_learner_keeps_what_it_was_given_until_it_is_a_voter() {
    let authority = Authority::found(LEARNER.cluster).unwrap();
    let now = SystemTime::now();
    let files = joined(&authority, now - days(3));
    let loaded = files.load(LEARNER, now).unwrap();
    assert!(loaded.authority.is_none());
    let until_s = loaded.credentials.life().until_s;
    let now_s = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert!(until_s < now_s, "it cannot sign itself");
    let other = Authority::found(LEARNER.cluster).unwrap();
    let refused = files.save_authority_key(&other.key_pem()).unwrap_err();
    assert!(refused.to_string().contains("ca.key' is damaged"));
    assert!(!refused.to_string().contains("PRIVATE"));
    files.save_authority_key(&authority.key_pem()).unwrap();
    let loaded = files.load(LEARNER, now).unwrap();
    assert!(loaded.credentials.life().until_s > now_s);
    assert!(loaded.authority.is_some());
    files.forget_authority_key().unwrap();
    files.forget_authority_key().unwrap();
    assert!(files.load(LEARNER, now).unwrap().authority.is_none());
}

#[test]
fn what_is_missing_or_damaged_is_named_and_not_shown() {
    let authority = Authority::found(LEARNER.cluster).unwrap();
    let now = SystemTime::now();
    for file in [KEY, CERTIFICATE, AUTHORITY, COOKIE] {
        let files = joined(&authority, now);
        let place = files.disk.place();
        replace(&files.disk, file, b"-----BEGIN SECRET").unwrap();
        let error = files.load(LEARNER, now).unwrap_err().to_string();
        assert!(error.contains(&format!("'{place}/{file}'")), "{error}");
        assert!(!error.contains("SECRET"), "{error}");
        if file != KEY {
            files.disk.remove(file).unwrap();
            let error = files.load(LEARNER, now).unwrap_err().to_string();
            assert!(error.contains(file), "{error}");
        }
    }
    // A key that is lost is another node: the certificate does not fit what is made instead.
    let files = joined(&authority, now);
    files.disk.remove(KEY).unwrap();
    assert!(files.load(LEARNER, now).is_err());
}

#[test]
fn a_founding_that_is_cut_short_is_done_again() {
    let now = SystemTime::now();
    let mut whole = 0;
    for operations in 0..200 {
        let disk = MemoryDisk::new();
        disk.cut_power_after(operations);
        let cut = Files::new(Arc::new(disk.clone())).load(FOUNDER, now);
        let disk: Arc<dyn Disk> = Arc::new(disk.crash(operations));
        let files = Files::new(disk);
        let loaded = files.load(FOUNDER, now).unwrap();
        if let Ok(cut) = cut {
            assert_eq!(loaded.cookie, cut.cookie);
            whole += 1;
        }
    }
    assert!((1..190).contains(&whole), "{whole} of 200 were not cut");
}

#[test]
fn who_began_to_join_does_not_found_a_cluster() {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
    Files::new(disk.clone()).key().unwrap();
    assert_eq!(Identity::load(&disk).unwrap(), None);
    let error = Identity::load_or_found(&disk).unwrap_err().to_string();
    assert!(error.contains("has not joined yet"), "{error}");
}
