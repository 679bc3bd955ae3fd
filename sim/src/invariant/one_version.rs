//! I5: a batch holds requests of one version and one shape, the version is that of the replica
//! which runs it, and it is no larger than the replica takes.

use paceline_core::Instant;

use super::Invariant;
use crate::fact::{Batch, Fact};

pub(super) struct OneVersion;

impl Invariant for OneVersion {
    fn name(&self) -> &'static str {
        "I5 one-version"
    }

    fn observe(&mut self, _now: Instant, fact: &Fact<'_>) -> Result<(), String> {
        let Fact::Ran(batch) = fact else {
            return Ok(());
        };
        judge(batch)
    }
}

fn judge(batch: &Batch<'_>) -> Result<(), String> {
    let version = batch.version;
    let Some(first) = batch.members.first() else {
        return Err("a batch without requests runs".to_owned());
    };
    for member in batch.members {
        let number = member.request.0;
        if member.version != version {
            let pinned = member.version;
            return Err(format!(
                "request {number}, pinned to version {} of model {}, runs on version {} of model {}",
                pinned.1, pinned.0, version.1, version.0
            ));
        }
        if member.bucket != first.bucket {
            let other = first.request.0;
            return Err(format!(
                "requests {number} and {other} of different shapes share a batch"
            ));
        }
    }
    let rows: u32 = batch.members.iter().map(|member| member.rows).sum();
    if rows != batch.rows || (rows > batch.rows_max && batch.members.len() > 1) {
        let (counted, most) = (batch.rows, batch.rows_max);
        return Err(format!(
            "a batch of {rows} rows was counted as {counted}; it may have {most}"
        ));
    }
    let tokens: u64 = batch
        .members
        .iter()
        .map(|member| u64::from(member.tokens))
        .sum();
    let most = batch.tokens_max;
    if most > 0 && tokens > u64::from(most) && batch.members.len() > 1 {
        return Err(format!("a batch of {tokens} tokens may have {most}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use paceline_core::BucketId;
    use paceline_protocol::VersionNumber;

    use super::*;
    use crate::agenda::{NodeIndex, Process};
    use crate::fact::{Member, RequestNumber};

    fn member(version: u32, bucket: u64, rows: u32) -> Member {
        Member {
            request: RequestNumber(0),
            door: Process {
                node: NodeIndex(0),
                life: 0,
            },
            deadline: Instant::FAR,
            is_wanted: true,
            version: (0, VersionNumber(version)),
            bucket: BucketId(bucket),
            rows,
            tokens: 0,
            is_alone: false,
        }
    }

    fn judged(members: &[Member], rows: u32) -> Result<(), String> {
        judge(&Batch {
            version: (0, VersionNumber(1)),
            members,
            rows,
            rows_max: 4,
            tokens_max: 10,
            nanos: 1,
        })
    }

    #[test]
    fn mixed_oversized_and_miscounted_batches_are_found() {
        assert_eq!(judged(&[member(1, 0, 2), member(1, 0, 2)], 4), Ok(()));
        assert_eq!(judged(&[member(1, 0, 9)], 9), Ok(()));
        assert!(judged(&[], 0).is_err());
        assert!(judged(&[member(1, 0, 1), member(2, 0, 1)], 2).is_err());
        assert!(judged(&[member(2, 0, 1)], 1).is_err());
        assert!(judged(&[member(1, 0, 1), member(1, 3, 1)], 2).is_err());
        assert!(judged(&[member(1, 0, 3), member(1, 0, 2)], 5).is_err());
        assert!(judged(&[member(1, 0, 2)], 3).is_err());
        let text = |tokens| Member {
            tokens,
            ..member(1, 0, 1)
        };
        assert_eq!(judged(&[text(11)], 1), Ok(()));
        assert_eq!(judged(&[text(4), text(6)], 2), Ok(()));
        assert!(judged(&[text(5), text(6)], 2).is_err());
    }
}
