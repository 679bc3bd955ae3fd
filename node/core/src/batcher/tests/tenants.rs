//! Tenants that share a replica: who is served how much, and who makes room for whom.

use super::*;

const LOUD: TenantId = TenantId(4);
const QUIET: TenantId = TenantId(9);

fn of(tenant: TenantId, index: u32, deadline_ms: u64) -> RequestMeta {
    RequestMeta {
        tenant,
        ..request(index, 1, deadline_ms)
    }
}

/// Rows of a tenant in a batch.
fn rows_of(effects: &[Effect], tenant: TenantId) -> u32 {
    let rows = effects.iter().map(|effect| match effect {
        Effect::Join(request) if request.tenant == tenant => request.rows,
        Effect::Join(_) | Effect::Drop { .. } => 0,
    });
    rows.sum()
}

/// A queue that is full of one tenant's requests, where a row takes 200 ms and may wait for 10 s.
fn full() -> (Alone, u32) {
    let cost = CostFit::from_warm_up(200_000_000, 1, 200_000_000);
    let mut batcher = Alone::new(Options {
        rows_max: 1,
        tokens_max: 0,
        policy: Policy::default(),
        cost,
    });
    let most = batcher.queue_rows_max() as u32;
    for index in 0..most {
        let arrives = Input::Arrive(of(LOUD, index, 9_000));
        assert_eq!(step(&mut batcher, 0, arrives), []);
    }
    (batcher, most)
}

#[test]
fn who_has_less_waiting_is_not_behind_who_has_more() {
    let mut batcher = batcher(4);
    for index in 0..20 {
        step(&mut batcher, 0, Input::Arrive(of(LOUD, index, 100)));
    }
    for index in [20, 21] {
        step(&mut batcher, 0, Input::Arrive(of(QUIET, index, 900)));
    }
    assert_eq!(joined(&step(&mut batcher, 1, Input::Form)).len(), 4);
    let second = step(&mut batcher, 1, Input::Form);
    assert_eq!(rows_of(&second, QUIET), 0, "it had its two rows");
    assert_eq!(batcher.queued_rows(), 14);
}

#[test]
fn a_full_queue_makes_room_for_who_has_less_than_others() {
    let (mut batcher, most) = full();
    let refused = step(&mut batcher, 0, Input::Arrive(of(LOUD, most, 9_000)));
    assert!(matches!(refused[..], [Effect::Drop { slot, .. }] if slot.index == most));
    // Of each arrival one of the others goes, until both have as much.
    for index in 0..most / 2 {
        let arrives = Input::Arrive(of(QUIET, most + index, 9_000));
        let cut = step(&mut batcher, 0, arrives);
        assert!(
            matches!(cut[..], [Effect::Drop { slot, .. }] if slot.index < most),
            "{index}: {cut:?}"
        );
    }
    let arrives = Input::Arrive(of(QUIET, 2 * most, 9_000));
    let refused = step(&mut batcher, 0, arrives);
    assert!(matches!(refused[..], [Effect::Drop { slot, .. }] if slot.index == 2 * most));
    assert_eq!(batcher.queued_rows(), u64::from(most));
}

#[test]
fn who_weighs_more_may_have_more_waiting() {
    let (mut batcher, most) = full();
    batcher.fair.set_weights([(LOUD, 3)]);
    let arrivals = (0..most).map(|index| Input::Arrive(of(QUIET, most + index, 9_000)));
    let let_in = arrivals.filter(|arrival| {
        let left = step(&mut batcher, 0, *arrival);
        matches!(left[..], [Effect::Drop { slot, .. }] if slot.index < most)
    });
    assert_eq!(let_in.count() as u32, most / 4);
}

#[test]
fn whether_it_is_late_depends_on_its_own_tenants_requests() {
    let (mut batcher, most) = full();
    // A row leaves each 200 ms, and more than a batch waits: the pace is learnt.
    for now_ms in [0, 200, 400] {
        assert_eq!(joined(&step(&mut batcher, now_ms, Input::Form)).len(), 1);
    }
    let soon = |tenant| Input::Arrive(of(tenant, most, 1_500));
    let late = step(&mut batcher, 400, soon(LOUD));
    assert_eq!(late, [], "it is due before all others of its tenant");
    step(&mut batcher, 400, Input::Cancel(request(most, 1, 0).slot));
    let last = Input::Arrive(of(LOUD, most, 9_001));
    assert_eq!(step(&mut batcher, 400, last).len(), 1, "it would be late");
    assert_eq!(step(&mut batcher, 400, soon(QUIET)), []);
    let first = joined(&step(&mut batcher, 600, Input::Form));
    assert_eq!(first, [most], "and is served next");
}

proptest! {
    /// In one batch, and over many, what tenants get differs from their shares by no more than
    /// their largest requests.
    #[test]
    fn tenants_get_their_shares_of_a_batch_and_of_many(
        weights in proptest::collection::vec(1u32..8, 2..6),
        rows_max in 8u32..64,
        sizes in proptest::collection::vec(1u32..5, 16),
        batches in 1u32..6,
    ) {
        let mut batcher = batcher(rows_max);
        let tenants = || (0..).map(TenantId).zip(weights.iter().copied());
        batcher.fair.set_weights(tenants());
        let total: u32 = weights.iter().sum();
        let largest = *sizes.iter().max().unwrap();
        for (index, size) in (0..).zip(sizes.iter().cycle().take(1_000)) {
            for (place, tenant) in (0..).zip(tenants()) {
                let request = RequestMeta {
                    tenant: tenant.0,
                    rows: *size,
                    ..request(index * 8 + place, 1, 10_000)
                };
                // What there is no room for is refused: always enough waits.
                step(&mut batcher, 0, Input::Arrive(request));
            }
        }
        let mut had = vec![0; weights.len()];
        for _ in 0..batches {
            let formed = step(&mut batcher, 0, Input::Form);
            for (had, (tenant, _)) in had.iter_mut().zip(tenants()) {
                *had += rows_of(&formed, tenant);
            }
        }
        let all: u32 = had.iter().sum();
        prop_assert!(all + batches * largest >= batches * rows_max, "batches are filled");
        for (a, weight_a) in had.iter().zip(&weights) {
            for (b, weight_b) in had.iter().zip(&weights) {
                let ahead = f64::from(*a) / f64::from(*weight_a) - f64::from(*b) / f64::from(*weight_b);
                let largest = f64::from(largest);
                let bound = largest / f64::from(*weight_a) + largest / f64::from(*weight_b);
                prop_assert!(ahead <= bound + 1e-9, "{had:?} of {total} for {weights:?}");
            }
        }
    }
}
