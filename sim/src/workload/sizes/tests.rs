//! Sizes are drawn from the range and with the shares that their settings say.

use super::*;

fn drawn(sizes: &Sizes, seed: u64, count: usize) -> Vec<u32> {
    sizes.check("rows", 0, u32::MAX).unwrap();
    let sizer = Sizer::new(sizes);
    let mut random = Random::from_seed(seed);
    (0..count).map(|_| sizer.draw(&mut random)).collect()
}

fn every_kind() -> [Sizes; 4] {
    let of = [(1, 90), (512, 9), (9_000, 1)].map(|(size, weight)| WeightedSize { size, weight });
    [
        Sizes::Fixed { size: 7 },
        Sizes::Uniform { least: 3, most: 9 },
        Sizes::Pareto {
            least: 2,
            shape_permille: 1_200,
            most: 900,
        },
        Sizes::Choice { of: of.to_vec() },
    ]
}

#[test]
fn the_same_seed_draws_the_same_sizes() {
    for sizes in every_kind() {
        assert_eq!(drawn(&sizes, 4, 1_000), drawn(&sizes, 4, 1_000));
    }
}

/// Written down once: another platform or a later change has to draw the same.
#[test]
fn the_first_sizes_of_a_seed_stay_what_they_are() {
    let [_, uniform, pareto, choice] = every_kind();
    let firsts = [uniform, pareto, choice].map(|sizes| drawn(&sizes, 1, 8));
    assert_eq!(firsts[0], [8, 8, 3, 8, 4, 7, 9, 6]);
    assert_eq!(firsts[1], [3, 2, 4, 4, 2, 12, 2, 2]);
    assert_eq!(firsts[2], [1, 1, 1, 1, 1, 1, 512, 1]);
}

#[test]
fn means_are_those_of_the_draws() {
    for sizes in every_kind() {
        let found: u64 = drawn(&sizes, 6, 200_000).into_iter().map(u64::from).sum();
        let (found, expected) = (found / 200, Sizer::new(&sizes).mean_thousandths());
        // The choice has a standard deviation of 890: 2 in its mean, of 137.
        assert!(
            found.abs_diff(expected) <= expected / 20,
            "{sizes:?}: {found}, not {expected}"
        );
    }
}

#[test]
fn both_ends_of_a_uniform_range_are_drawn() {
    let sizes = drawn(&Sizes::Uniform { least: 3, most: 5 }, 1, 1_000);
    assert_eq!(sizes.iter().min(), Some(&3));
    assert_eq!(sizes.iter().max(), Some(&5));
}

#[test]
fn what_is_not_allowed_is_named() {
    let of = |key: &str| format!("tokens.{key}");
    for (json, key) in [
        (r#"{"kind": "fixed", "size": 0}"#, of("size")),
        (r#"{"kind": "fixed", "size": 101}"#, of("size")),
        (r#"{"kind": "uniform", "least": 0, "most": 3}"#, of("least")),
        (r#"{"kind": "uniform", "least": 4, "most": 3}"#, of("most")),
        (
            r#"{"kind": "pareto", "least": 1, "shape_permille": 99, "most": 3}"#,
            of("shape_permille"),
        ),
        (
            r#"{"kind": "pareto", "least": 4, "shape_permille": 900, "most": 3}"#,
            of("most"),
        ),
        (r#"{"kind": "choice", "of": []}"#, of("of")),
        (
            r#"{"kind": "choice", "of": [{"size": 101, "weight": 1}]}"#,
            of("of.0.size"),
        ),
    ] {
        let sizes: Sizes = serde_json::from_str(json).unwrap();
        assert_eq!(sizes.check("tokens", 1, 100).unwrap_err().key, key);
        let again: Sizes = serde_json::from_value(serde_json::to_value(&sizes).unwrap()).unwrap();
        assert_eq!(again, sizes);
    }
    for unknown in [
        r#"{"kind": "fixed", "size": 1, "sise": 1}"#,
        r#"{"kind": "normal", "mean": 1}"#,
        r#"{"kind": "fixed", "size": -1}"#,
    ] {
        assert!(serde_json::from_str::<Sizes>(unknown).is_err(), "{unknown}");
    }
}

#[test]
fn whatever_passes_the_check_can_be_drawn() {
    let mut random = Random::from_seed(21);
    let interesting = [0, 1, 2, 100, 1_000, 100_000, u32::MAX - 1, u32::MAX];
    let mut pick = || interesting[random.below(interesting.len() as u64) as usize];
    let mut passed = 0;
    for _ in 0..4_000 {
        let (least, most, shape_permille) = (pick(), pick(), pick());
        let of = vec![
            WeightedSize {
                size: least,
                weight: most,
            },
            WeightedSize {
                size: most,
                weight: shape_permille,
            },
        ];
        for sizes in [
            Sizes::Uniform { least, most },
            Sizes::Pareto {
                least,
                shape_permille,
                most,
            },
            Sizes::Choice { of },
        ] {
            if sizes.check("rows", 0, u32::MAX).is_ok() {
                passed += 1;
                let drawn = drawn(&sizes, 1, 4);
                let range = least.min(most)..=least.max(most);
                assert!(drawn.iter().all(|size| range.contains(size)), "{sizes:?}");
            }
        }
    }
    assert!(passed > 4_000, "{passed}");
}
