//! More than can be done: who is refused, who is served first, who makes room.

use super::*;

/// A queue of ten rows with this deadline, of which four leave every 4 ms.
fn pressed(deadline_ms: u64) -> Alone {
    let mut batcher = batcher(4);
    for index in 0..18 {
        step(
            &mut batcher,
            0,
            Input::Arrive(request(index, 1, deadline_ms)),
        );
    }
    for now_ms in [0, 4] {
        assert_eq!(joined(&step(&mut batcher, now_ms, Input::Form)).len(), 4);
    }
    batcher
}

/// How long one that was refused would have been late, in microseconds.
fn late_us(effects: &[Effect]) -> Option<u128> {
    effects.iter().find_map(|effect| match effect {
        Effect::Drop {
            why: DropReason::QueueFull { retry_after },
            ..
        } => Some(retry_after.as_micros()),
        Effect::Drop { .. } | Effect::Join(_) => None,
    })
}

#[test]
fn what_would_be_late_is_refused_at_once_and_told_by_how_much() {
    let mut batcher = pressed(20);
    let arrive = |batcher: &mut Alone, index, deadline_ms| {
        late_us(&step(
            batcher,
            4,
            Input::Arrive(request(index, 1, deadline_ms)),
        ))
    };
    // A row takes 1 ms, and the batch that it is part of 0.1 ms: 15 are done in 16 ms.
    for index in 50..55 {
        assert_eq!(arrive(&mut batcher, index, 20), None);
    }
    let late = arrive(&mut batcher, 55, 20).unwrap();
    assert!((50..150).contains(&late), "{late}");
    let late = arrive(&mut batcher, 55, 5).unwrap();
    assert!(
        (50..150).contains(&late),
        "it comes first, and is late: {late}"
    );
    assert_eq!(arrive(&mut batcher, 56, 6), None);
    let late = arrive(&mut batcher, 57, 20).unwrap();
    assert!((1_050..1_150).contains(&late), "{late}");
}

#[test]
fn under_lasting_pressure_half_of_the_time_must_do() {
    let mut batcher = pressed(5_000);
    let arrive = |batcher: &mut Alone, index, now_ms, deadline_ms| {
        late_us(&step(
            batcher,
            now_ms,
            Input::Arrive(request(index, 1, deadline_ms)),
        ))
    };
    // Those wait for nothing but each other: 2.1 ms for the second.
    assert_eq!(arrive(&mut batcher, 50, 998, 1_100), None);
    assert_eq!(arrive(&mut batcher, 51, 999, 1_100), None);
    let third = |batcher: &mut Alone, now_ms| arrive(batcher, 52, now_ms, now_ms + 5);
    assert_eq!(third(&mut batcher, 1_000), None, "nobody is before it");
    assert!(
        arrive(&mut batcher, 53, 1_000, 1_002).is_some(),
        "1 ms is not enough"
    );
    // Once no more waits than a batch takes, all of it counts again.
    let mut now_ms = 1_000;
    while batcher.queued_rows() > 4 {
        now_ms += 4;
        step(&mut batcher, now_ms, Input::Form);
    }
    assert_eq!(arrive(&mut batcher, 53, now_ms, now_ms + 2), None);
}

#[test]
fn nobody_makes_room_in_vain() {
    use Criticality::{Critical, Sheddable};
    let cost = CostFit::from_warm_up(200_000_000, 1, 200_000_000);
    let mut batcher = Alone::new(Options {
        rows_max: 1,
        tokens_max: 0,
        policy: Policy::default(),
        cost,
    });
    let most = batcher.queue_rows_max() as u32;
    for (index, class) in (0..most).map(|index| (index, [Critical, Sheddable][index as usize % 2]))
    {
        assert_eq!(
            step(
                &mut batcher,
                0,
                Input::Arrive(of_class(class, index, 9_000))
            ),
            []
        );
    }
    let large = |rows| RequestMeta {
        rows,
        ..of_class(Critical, most, 9_000)
    };
    let refused = step(&mut batcher, 0, Input::Arrive(large(most / 2 + 1)));
    assert!(matches!(refused[..], [Effect::Drop { slot, .. }] if slot.index == most));
    let shed = step(&mut batcher, 0, Input::Arrive(large(most / 2)));
    assert_eq!(shed.len() as u32, most / 2, "all that is sheddable");
    assert_eq!(batcher.queued_rows(), u64::from(most));
}

#[test]
fn a_queue_that_ran_empty_says_nothing_of_the_pace() {
    let mut batcher = pressed(20);
    step(&mut batcher, 20, Input::Form);
    assert_eq!(batcher.queued_rows(), 0, "all have expired");
    for index in 0..8 {
        step(
            &mut batcher,
            60_000,
            Input::Arrive(request(index, 1, 60_100)),
        );
    }
    step(&mut batcher, 60_000, Input::Form);
    let mut arrive = |index| {
        step(
            &mut batcher,
            60_000,
            Input::Arrive(request(index, 1, 60_100)),
        )
    };
    let refused: Vec<_> = (50..90).map(|index| late_us(&arrive(index))).collect();
    assert_eq!(refused.iter().flatten().count(), 0, "1 ms a row, as before");
}

fn of_class(criticality: Criticality, index: u32, deadline_ms: u64) -> RequestMeta {
    RequestMeta {
        criticality,
        ..request(index, 1, deadline_ms)
    }
}

#[test]
fn a_higher_class_goes_first_whatever_its_deadline_and_shares_no_batch() {
    use Criticality::{Critical, CriticalPlus, Sheddable, SheddablePlus};
    let mut batcher = batcher(8);
    let classes = [Sheddable, Critical, SheddablePlus, CriticalPlus, Critical];
    for (index, class) in (0..).zip(classes) {
        let arrives = of_class(class, index, 20 + u64::from(index));
        assert_eq!(step(&mut batcher, 0, Input::Arrive(arrives)), []);
    }
    assert_eq!(batcher.urgency(), Some((CriticalPlus, at(23))));
    assert_eq!(
        batcher.earliest_deadline(),
        Some(at(20)),
        "who expires first"
    );
    let mut form = || joined(&step(&mut batcher, 1, Input::Form));
    assert_eq!(
        [form(), form(), form(), form()],
        [vec![3], vec![1, 4], vec![2], vec![0]]
    );
}

#[test]
fn what_is_full_or_late_is_told_to_lower_classes_first() {
    use Criticality::{Critical, Sheddable};
    let cost = CostFit::from_warm_up(200_000_000, 1, 200_000_000);
    let mut batcher = Alone::new(Options {
        rows_max: 1,
        tokens_max: 0,
        policy: Policy::default(),
        cost,
    });
    let most = batcher.queue_rows_max() as u32;
    for index in 0..most {
        step(
            &mut batcher,
            0,
            Input::Arrive(of_class(Sheddable, index, 6_000)),
        );
    }
    let full = step(
        &mut batcher,
        0,
        Input::Arrive(of_class(Sheddable, most, 6_000)),
    );
    assert!(late_us(&full).is_some(), "{full:?}");
    let shed = step(
        &mut batcher,
        0,
        Input::Arrive(of_class(Critical, most, 6_000)),
    );
    assert!(matches!(shed[..], [Effect::Drop { slot, .. }] if slot.index < most));
    assert_eq!(batcher.queued_rows(), u64::from(most));
    assert_eq!(joined(&step(&mut batcher, 0, Input::Form)), [most]);
    // A row leaves each 200 ms. For the one class some 60 wait, for the other nobody.
    step(&mut batcher, 200, Input::Form);
    let late = step(
        &mut batcher,
        200,
        Input::Arrive(of_class(Sheddable, most, 6_500)),
    );
    assert!(late_us(&late).is_some(), "{late:?}");
    let urgent = of_class(Critical, most, 1_000);
    assert_eq!(step(&mut batcher, 200, Input::Arrive(urgent)), []);
}
