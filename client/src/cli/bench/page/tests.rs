//! The page is whole, needs nothing from elsewhere, and shows text as text.

use super::*;
use crate::cli::bench::report::tests::report;

/// Checks that every element that is opened is closed, in order; returns their names.
fn elements(html: &str) -> Vec<String> {
    let mut open: Vec<String> = Vec::new();
    let mut all = Vec::new();
    let body = html.strip_prefix("<!doctype html>").unwrap();
    for part in body.split('<').skip(1) {
        let (tag, _) = part.split_once('>').expect("a tag ends");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "closed in order");
            continue;
        }
        let name = tag.split(' ').next().unwrap().to_owned();
        assert_eq!(tag.matches('"').count() % 2, 0, "quotes are pairs: {tag}");
        if name != "meta" {
            open.push(name.clone());
        }
        all.push(name);
    }
    assert_eq!(open, Vec::<String>::new());
    all
}

#[test]
fn a_page_is_well_formed_and_needs_nothing_from_elsewhere() {
    let html = page(&report());
    let elements = elements(&html);
    assert_eq!(elements.iter().filter(|name| *name == "svg").count(), 3);
    for wanted in ["8, 4.0/s", "66.67 %", "deadline", "paceline", "not sent"] {
        assert!(html.contains(wanted), "{wanted}");
    }
    for foreign in [
        "http", "src=", "href=", "url(", "@import", "<script", "<link", "NaN", "inf\"",
    ] {
        assert!(!html.contains(foreign), "{foreign}");
    }
}

#[test]
fn text_opens_no_element() {
    let mut hostile = report();
    hostile.provenance.command = "<script>alert(\"x\")</script>&'".to_owned();
    hostile.warnings = vec!["</p><b>".to_owned()];
    hostile.nodes = vec!["\"><img>".to_owned()];
    let html = page(&hostile);
    let elements = elements(&html);
    assert!(
        !elements
            .iter()
            .any(|name| ["script", "img", "b"].contains(&name.as_str()))
    );
    assert!(html.contains("&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;&amp;&#39;"));
    assert!(
        html.contains("&lt;OVERLOADED&gt;"),
        "codes come from outside"
    );
}

/// A run without any answer, and one of a day, are shown as well.
#[test]
fn nothing_and_very_much_have_a_page() {
    let mut empty = report();
    empty.latency_buckets_ns.clear();
    empty.latency_ns = None;
    empty.timeline.clear();
    empty.misses.clear();
    elements(&page(&empty));
    let mut long = report();
    let second = long.timeline[0].clone();
    long.timeline = (0..86_400)
        .map(|number| Second {
            second: number,
            ..second.clone()
        })
        .collect();
    let html = page(&long);
    elements(&html);
    assert!(html.matches("<rect").count() <= BARS_MAX * PARTS.len());
    assert!(html.contains("82800 more seconds"));
    assert!(html.len() < 2 << 20, "{} bytes", html.len());
}

/// One in so many is slower: with a hundred answers of 1 ms and one of 1 s, the line reaches 1 s
/// where one in a hundred is slower, and nowhere before.
#[test]
fn the_tail_has_room() {
    let buckets = [(1_000_000, 100), (1_000_000_000, 1)];
    let points = tail(&buckets, 101);
    let wanted = [(1.0, 1e6), (101.0, 1e9), (101.0, 1e9)];
    assert_eq!(points, wanted.map(|(x, y)| (x, Some(y))));
}
