//! Where tokens are counted: limits, costs, prices and estimates are of them.

use super::*;

/// Batches of up to 4 rows and 100 tokens; a token takes 10 µs, a batch 50 µs more.
fn reader() -> Alone {
    let cost = CostFit::from_batches((10, 150_000), (100, 1_050_000));
    Alone::new(Options {
        rows_max: 4,
        tokens_max: 100,
        policy: Policy::default(),
        cost,
    })
}

fn text(index: u32, tokens: u32, deadline_ms: u64) -> RequestMeta {
    RequestMeta {
        tokens,
        ..request(index, 1, deadline_ms)
    }
}

fn arrive(batcher: &mut Alone, now_ms: u64, texts: &[RequestMeta]) {
    for text in texts {
        assert_eq!(step(batcher, now_ms, Input::Arrive(*text)), []);
    }
}

#[test]
fn a_batch_ends_where_tokens_do_not_fit() {
    let mut batcher = reader();
    let texts = [(0, 60), (1, 40), (2, 1), (3, 500)];
    arrive(
        &mut batcher,
        0,
        &texts.map(|(index, tokens)| text(index, tokens, 90)),
    );
    for batch in [&[0, 1][..], &[2], &[3]] {
        assert_eq!(joined(&step(&mut batcher, 1, Input::Form)), batch);
    }
}

#[test]
fn a_batch_of_short_texts_ends_where_rows_do_not_fit() {
    let mut batcher = reader();
    let texts: Vec<_> = (0..6).map(|index| text(index, 5, 90)).collect();
    arrive(&mut batcher, 0, &texts);
    for batch in [&[0, 1, 2, 3][..], &[4, 5]] {
        assert_eq!(joined(&step(&mut batcher, 1, Input::Form)), batch);
    }
}

#[test]
fn what_a_batch_takes_is_expected_of_its_tokens() {
    let mut batcher = reader();
    arrive(&mut batcher, 0, &[text(0, 10, 90)]);
    assert_eq!(batcher.next_batch_nanos(&batcher.fair), 150_000);
    arrive(&mut batcher, 0, &[text(1, 80, 80)]);
    assert_eq!(batcher.next_batch_nanos(&batcher.fair), 950_000);
    // Further ones do not fit; one that is longer than a batch runs alone, and is first.
    arrive(&mut batcher, 0, &[text(2, 80, 90)]);
    assert_eq!(batcher.next_batch_nanos(&batcher.fair), 1_050_000);
    arrive(&mut batcher, 0, &[text(3, 300, 70)]);
    assert_eq!(batcher.next_batch_nanos(&batcher.fair), 3_050_000);
}

#[test]
fn what_ran_teaches_what_a_token_costs() {
    let mut batcher = reader();
    for _ in 0..2_000 {
        for tokens in [8, 100] {
            let nanos = 20_000 + 5_000 * u64::from(tokens);
            let rows = 1 + tokens % 4;
            step(
                &mut batcher,
                0,
                Input::Ran {
                    rows,
                    tokens,
                    nanos,
                },
            );
        }
    }
    arrive(&mut batcher, 0, &[text(0, 60, 90)]);
    let nanos = batcher.next_batch_nanos(&batcher.fair);
    assert!(nanos.abs_diff(320_000) < 1_000, "{nanos}");
}

#[test]
fn a_row_costs_what_rows_have_that_wait_or_came_before() {
    let mut batcher = reader();
    assert_eq!(
        batcher.row_nanos(),
        262_500,
        "25 tokens, until more is known"
    );
    arrive(&mut batcher, 0, &[text(0, 90, 90), text(1, 70, 90)]);
    assert_eq!(batcher.row_nanos(), 80 * 10_500);
    assert_eq!(batcher.backlog_nanos(), 160 * 10_500);
    for _ in 0..60 {
        arrive(&mut batcher, 0, &[text(2, 5, 90)]);
        while !joined(&step(&mut batcher, 1, Input::Form)).is_empty() {}
    }
    let (row, one) = (batcher.row_nanos(), batcher.one_row_nanos());
    // Four rows of 5 tokens are a full batch: 250 µs.
    assert!((50_000..80_000).contains(&row), "{row}");
    assert!((90_000..110_000).contains(&one), "{one}");
}

#[test]
fn fewer_rows_may_wait_where_rows_are_long() {
    let mut batcher = reader();
    let mut after = |tokens| {
        for _ in 0..100 {
            arrive(&mut batcher, 0, &[text(0, tokens, 90)]);
            step(&mut batcher, 0, Input::Form);
        }
        batcher.queue_rows_max()
    };
    assert_eq!(
        after(5),
        16_384,
        "10 s of them are more than any queue holds"
    );
    let of_long = after(100);
    assert!((9_400..9_800).contains(&of_long), "{of_long}");
}

#[test]
fn tenants_pay_for_tokens() {
    let mut batcher = reader();
    let of = |tenant, text| RequestMeta {
        tenant: TenantId(tenant),
        ..text
    };
    let long = (0..3).map(|index| of(1, text(index, 100, 90)));
    let short = (3..12).map(|index| of(2, text(index, 10, 95)));
    let texts: Vec<_> = long.chain(short).collect();
    arrive(&mut batcher, 0, &texts);
    let mut of_short = 0;
    let mut order = Vec::new();
    while let batch = joined(&step(&mut batcher, 1, Input::Form))
        && !batch.is_empty()
    {
        of_short += batch.iter().filter(|index| **index > 2).count();
        order.push(batch);
    }
    assert_eq!(of_short, 9);
    // A long text costs as much as ten short ones: after one of them all the others go first.
    assert_eq!(order[0], [0]);
    assert!(
        order[1..4].concat().iter().all(|index| *index > 2),
        "{order:?}"
    );
    assert_eq!(order[4..], [[1], [2]]);
}

#[test]
fn under_pressure_a_long_text_is_refused_where_a_short_one_would_be_in_time() {
    let mut batcher = reader();
    let texts: Vec<_> = (0..12).map(|index| text(index, 50, 7)).collect();
    arrive(&mut batcher, 0, &texts);
    // Two leave each ms: a token takes 10 µs.
    for now_ms in [0, 1, 2] {
        assert_eq!(joined(&step(&mut batcher, now_ms, Input::Form)).len(), 2);
    }
    // 300 tokens wait, which take 3 ms, and the last batch takes 1 ms.
    let late = step(&mut batcher, 2, Input::Arrive(text(20, 200, 7)));
    assert!(matches!(
        late[..],
        [Effect::Drop {
            why: DropReason::QueueFull { .. },
            ..
        }]
    ));
    assert_eq!(step(&mut batcher, 2, Input::Arrive(text(21, 50, 7))), []);
}

proptest! {
    /// No batch has more tokens or rows than it may, unless one request has; every request leaves
    /// once; and what waits is counted as it comes and goes.
    #[test]
    fn no_batch_is_larger_than_it_may_be_unless_one_request_is(
        arrivals in proptest::collection::vec((1u32..4, 1u32..80, any::<bool>(), 1u64..30), 1..100),
        tokens_max in 1u32..120,
        policy in prop_oneof![Just(Policy::Deadlines), Just(Policy::Arrival)],
    ) {
        let cost = CostFit::from_batches((1, 1_000), (tokens_max.max(2), 50_000));
        let mut batcher = Alone::new(Options { rows_max: 4, tokens_max, policy, cost });
        let mut open = BTreeMap::new();
        let settle = |effects: Vec<Effect>, open: &mut BTreeMap<u32, RequestMeta>| {
            let mut batch = Vec::new();
            for effect in effects {
                let slot = match effect {
                    Effect::Join(request) => {
                        batch.push(request);
                        request.slot
                    }
                    Effect::Drop { slot, .. } => slot,
                };
                assert!(open.remove(&slot.index).is_some(), "{} left twice", slot.index);
            }
            let rows: u32 = batch.iter().map(|request| request.rows).sum();
            let tokens: u32 = batch.iter().map(|request| request.tokens).sum();
            assert!(batch.len() == 1 || (rows <= 4 && tokens <= tokens_max), "{batch:?}");
        };
        for (now, (rows, tokens, forms, wait)) in arrivals.iter().enumerate() {
            let (index, now) = (now as u32, now as u64);
            let request = RequestMeta {
                tokens: tokens * rows,
                ..request(index, *rows, now + wait)
            };
            open.insert(index, request);
            settle(step(&mut batcher, now, Input::Arrive(request)), &mut open);
            if *forms {
                settle(step(&mut batcher, now, Input::Form), &mut open);
            }
            let waiting = open.values().map(|request| u64::from(request.tokens)).sum::<u64>();
            prop_assert_eq!(batcher.queue.size(), waiting);
        }
        settle(batcher.wake(Instant::FAR), &mut open);
        settle(step(&mut batcher, 10_000, Input::Close), &mut open);
        prop_assert!(open.is_empty());
        prop_assert_eq!(batcher.queue.size(), 0);
    }
}
