//! A report as one HTML file: whoever gets it needs nothing else, neither a network nor a script.

mod plot;
mod style;

use super::report::Report;
use super::timeline::Second;
use crate::cli::units;
use plot::{Plot, Scale, Tick};
use style::STYLE;

/// Bars that a timeline has at most; longer ones have several seconds in one.
const BARS_MAX: usize = 300;
/// Points of the latency's line at most: more than pixels shows nobody anything.
const POINTS_MAX: usize = 600;

/// The whole page.
pub(super) fn page(report: &Report) -> String {
    let title = format!("paceline bench {}", escaped(report.model.as_str()));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n"
    );
    page.push_str(&summary(report));
    page.push_str(&warnings(report));
    page.push_str(&facts(report));
    page.push_str("<h2>Latency</h2>\n");
    page.push_str(&latency(report));
    page.push_str("<h2>Seconds</h2>\n");
    page.push_str(&seconds(report));
    page.push_str("<h2>Without a right answer</h2>\n");
    page.push_str(&misses(report));
    page.push_str("<h2>How it was measured</h2>\n");
    page.push_str(&provenance(report));
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

fn summary(report: &Report) -> String {
    let p99 = report.latency_ns.map_or_else(
        || "no right answer".to_owned(),
        |latency| format!("p99 {}", units::nanoseconds(latency.p99)),
    );
    let cut = match report.cut_short {
        true => format!("Cut short after {:.1} s. ", report.window_seconds),
        false => String::new(),
    };
    format!(
        "<p class=\"lead\">{cut}{:.1} good answers a second, {p99}.</p>\n",
        report.good_per_second
    )
}

fn warnings(report: &Report) -> String {
    let lines = report.warnings.iter();
    lines
        .map(|line| {
            let line = escaped(line);
            format!("<p class=\"warning\"><strong>Warning:</strong> {line}</p>\n")
        })
        .collect()
}

fn facts(report: &Report) -> String {
    let mut rows = vec![
        ("Load", report.load()),
        ("Good", report.goodput()),
        ("Late", report.late.to_string()),
        ("Without a right answer", report.missing().to_string()),
        ("Not sent", report.unsent.to_string()),
    ];
    if let Some(latency) = report.latency_ns {
        let named = latency.named().into_iter();
        rows.extend(named.map(|(name, nanos)| (name, units::nanoseconds(nanos))));
    }
    let rows = rows.into_iter().map(|(name, value)| {
        let value = escaped(&value);
        format!("<tr><th scope=\"row\">{name}</th><td>{value}</td></tr>\n")
    });
    format!("<table>\n{}</table>\n", rows.collect::<String>())
}

/// Latency by the share of answers that are faster: each further nine has the same room, so that
/// the tail can be seen.
fn latency(report: &Report) -> String {
    let buckets = &report.latency_buckets_ns;
    let (Some((least, _)), Some((most, _))) = (buckets.first(), buckets.last()) else {
        return "<p>There was no right answer.</p>\n".to_owned();
    };
    let count: u64 = buckets.iter().map(|(_, count)| count).sum();
    let across = Scale::Log {
        least: 1.0,
        most: (count as f64).max(10.0),
    };
    let up = Scale::log(*least as f64, *most as f64);
    let worst = units::nanoseconds(*most);
    let told = format!("{count} answers; the slowest took {worst}. The table above has quantiles.");
    let mut plot = Plot::new(("latency", "Latency by percentile", &told), across, up);
    let nines = |at: f64| match at.log10().round() as usize {
        0 => "0 %".to_owned(),
        1 => "90 %".to_owned(),
        2 => "99 %".to_owned(),
        more => format!("99.{} %", "9".repeat(more - 2)),
    };
    plot.axes(
        &across.ticks(nines),
        &up.ticks(|nanos| units::nanoseconds(nanos as u64)),
        "share of right answers that are at least as fast",
    );
    plot.line("p99", &tail(buckets, count));
    let deadline = report.deadline_ns as f64;
    if let Scale::Log { least, most } = up
        && (least..most).contains(&deadline)
    {
        plot.mark(deadline, "deadline");
    }
    plot.end()
}

/// Points of the line: one in so many answers is slower, and how slow they are.
fn tail(buckets: &[(u64, u64)], count: u64) -> Vec<(f64, Option<f64>)> {
    let mut points: Vec<(f64, Option<f64>)> = Vec::new();
    let mut seen = 0;
    let apart = 10f64.powf((count as f64).max(10.0).log10() / POINTS_MAX as f64);
    for (nanos, more) in buckets {
        let slower_or_equal = (count - seen) as f64;
        seen += more;
        let one_in = count as f64 / slower_or_equal;
        // What falls on the point before lifts it: the line is never too low.
        match points.last_mut() {
            Some((last, y)) if one_in < *last * apart => *y = Some(*nanos as f64),
            _ => points.push((one_in, Some(*nanos as f64))),
        }
    }
    points.push((count as f64, buckets.last().map(|(nanos, _)| *nanos as f64)));
    points
}

/// One way in which requests end, as a part of a bar.
struct Part {
    class: &'static str,
    name: &'static str,
    count: fn(&Second) -> u64,
}

/// How a second's requests ended, from the foot of its bar up.
const PARTS: [Part; 4] = [
    Part {
        class: "good",
        name: "good",
        count: |second| second.good,
    },
    Part {
        class: "late",
        name: "late",
        count: |second| second.late,
    },
    Part {
        class: "refused",
        name: "refused",
        count: |second| second.refused,
    },
    Part {
        class: "failed",
        name: "failed, expired, lost, wrong, not sent",
        count: |second| second.missing() - second.refused + second.unsent,
    },
];

fn seconds(report: &Report) -> String {
    let all = &report.timeline;
    if all.is_empty() {
        return "<p>There was no second.</p>\n".to_owned();
    }
    let together = all.len().div_ceil(BARS_MAX);
    let bars: Vec<&[Second]> = all.chunks(together).collect();
    let most = bars.iter().map(|bar| {
        let ended: u64 = PARTS.iter().map(|part| sum(bar, part.count)).sum();
        ended.max(sum(bar, |second| second.sent)) as f64 / bar.len() as f64
    });
    let up = Scale::linear(most.fold(1.0, f64::max));
    let across = Scale::Linear {
        most: all.len() as f64,
    };
    let ticks = Scale::linear(all.len() as f64).ticks(|second| format!("{second}"));
    let inside = |tick: &Tick| tick.at <= all.len() as f64;
    let ticks: Vec<Tick> = ticks.into_iter().filter(inside).collect();
    let told = "Requests that ended in each second, by how they ended; the table below has them.";
    let mut plot = Plot::new(("ended", "Requests in each second", told), across, up);
    plot.axes(&ticks, &up.ticks(|count| format!("{count}")), "seconds");
    for (at, bar) in bars.iter().enumerate() {
        let from = (at * together) as f64;
        let mut low = 0.0;
        for Part { class, count, .. } in PARTS {
            let high = low + sum(bar, count) as f64 / bar.len() as f64;
            plot.bar(class, (from, from + bar.len() as f64), (low, high));
            low = high;
        }
    }
    let middle = |at: usize, bar: &[Second]| (at * together) as f64 + bar.len() as f64 / 2.0;
    let sent = |(at, bar): (usize, &&[Second])| {
        let sent = sum(bar, |second| second.sent) as f64 / bar.len() as f64;
        (middle(at, bar), Some(sent))
    };
    let sent: Vec<_> = bars.iter().enumerate().map(sent).collect();
    plot.line("sent", &sent);
    let legend = PARTS.map(|part| key(part.class, part.name)).concat() + &key("sent", "sent");
    let latencies = latencies(&bars, (across, &ticks), together);
    let figure = format!("{}<p>{legend}</p>\n{latencies}", plot.end());
    figure + &table_of_seconds(all)
}

/// Median and tail of each second.
fn latencies(bars: &[&[Second]], (across, ticks): (Scale, &[Tick]), together: usize) -> String {
    let worst = |pick: fn(&Second) -> Option<u64>| -> Vec<(f64, Option<f64>)> {
        let point = |(at, bar): (usize, &&[Second])| {
            let x = (at * together) as f64 + bar.len() as f64 / 2.0;
            let worst = bar.iter().filter_map(pick).max();
            (x, worst.map(|nanos| nanos as f64))
        };
        bars.iter().enumerate().map(point).collect()
    };
    let (p50, p99) = (worst(|second| second.p50_ns), worst(|second| second.p99_ns));
    let known = || p50.iter().chain(&p99).filter_map(|(_, nanos)| *nanos);
    let up = Scale::log(
        known().fold(f64::MAX, f64::min),
        known().fold(1.0, f64::max),
    );
    let told = "Median and 99th percentile of the right answers of each second.";
    let mut plot = Plot::new(("times", "Latency in each second", told), across, up);
    plot.axes(
        ticks,
        &up.ticks(|nanos| units::nanoseconds(nanos as u64)),
        "seconds",
    );
    plot.line("p50", &p50);
    plot.line("p99", &p99);
    let of_several = match together {
        1 => String::new(),
        several => format!(" Each point is the worst of {several} seconds."),
    };
    let legend = key("p50", "p50") + &key("p99", "p99");
    format!("{}<p>{legend}{of_several}</p>\n", plot.end())
}

fn table_of_seconds(seconds: &[Second]) -> String {
    let heads = [
        "second", "sent", "good", "late", "refused", "failed", "expired", "lost", "wrong",
        "not sent", "p50", "p99",
    ];
    let heads = heads.map(|head| format!("<th scope=\"col\">{head}</th>"));
    let time = |nanos: Option<u64>| nanos.map_or_else(|| "-".to_owned(), units::nanoseconds);
    let row = |second: &Second| {
        let counts = [
            second.sent,
            second.good,
            second.late,
            second.refused,
            second.failed,
            second.expired,
            second.lost,
            second.wrong,
            second.unsent,
        ];
        let cells = counts.map(|count| format!("<td>{count}</td>")).concat();
        let (p50, p99) = (time(second.p50_ns), time(second.p99_ns));
        let number = second.second;
        format!("<tr><th scope=\"row\">{number}</th>{cells}<td>{p50}</td><td>{p99}</td></tr>\n")
    };
    let rows: String = seconds.iter().take(ROWS_MAX).map(row).collect();
    let more = match seconds.len().checked_sub(ROWS_MAX) {
        Some(more @ 1..) => format!("<p>{more} more seconds are in the JSON report.</p>\n"),
        _ => String::new(),
    };
    format!(
        "<details><summary>Table of seconds</summary>\n<table>\n<tr>{}</tr>\n{rows}</table>\n{more}</details>\n",
        heads.concat()
    )
}

fn misses(report: &Report) -> String {
    if report.misses.is_empty() && report.unsent == 0 {
        return "<p>None.</p>\n".to_owned();
    }
    let row = |kind: &str, code: &str, count: u64| {
        let code = escaped(code);
        format!("<tr><td>{kind}</td><td>{code}</td><td>{count}</td></tr>\n")
    };
    let mut rows: String = report
        .misses
        .iter()
        .map(|(kind, code, count)| row(kind.name(), code, *count))
        .collect();
    if report.unsent > 0 {
        rows.push_str(&row(
            "not sent",
            "no connection was free in time",
            report.unsent,
        ));
    }
    format!(
        "<table>\n<tr><th scope=\"col\">Kind</th><th scope=\"col\">Code</th><th scope=\"col\">Requests</th></tr>\n{rows}</table>\n"
    )
}

fn provenance(report: &Report) -> String {
    let provenance = &report.provenance;
    let facts = [
        ("Release", provenance.paceline.to_owned()),
        ("Started", provenance.started.clone()),
        ("Client's machine", provenance.machine()),
        ("Asked", report.nodes.join(", ")),
        (
            "Version that answered first",
            report.version.clone().unwrap_or_default(),
        ),
        (
            "Seed",
            report
                .seed
                .map_or_else(|| "none".to_owned(), |seed| seed.to_string()),
        ),
    ];
    let rows = facts.map(|(name, value)| {
        let value = escaped(&value);
        format!("<tr><th scope=\"row\">{name}</th><td>{value}</td></tr>\n")
    });
    let command = escaped(&provenance.command);
    format!(
        "<pre><code>{command}</code></pre>\n<table>\n{}</table>\n",
        rows.concat()
    )
}

fn key(class: &str, name: &str) -> String {
    format!("<span class=\"key\"><span class=\"swatch {class}\"></span>{name}</span> ")
}

fn sum(bar: &[Second], part: fn(&Second) -> u64) -> u64 {
    bar.iter().map(part).sum()
}

/// Text that stays text: what a model is called or a node says opens no element.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c if c.is_control() => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

/// Rows of the table at most: an hour.
const ROWS_MAX: usize = 3_600;

#[cfg(test)]
mod tests;
