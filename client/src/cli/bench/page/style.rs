//! The page's style sheet: legible in light and dark, on paper and on a phone.

/// Colours differ in lightness, too, so that they are told apart without their hue.
pub(super) const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --ground: #ffffff; --line: #d1d9e0;
  --good: #2f7d4f; --late: #c78a1b; --refused: #3f6fb5; --failed: #b3372f; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #9aa5b1; --ground: #0f1419; --line: #30373f;
    --good: #57b07a; --late: #e0b355; --refused: #83aae6; --failed: #ec7a70; } }
body { background: var(--ground); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; margin: 0; }
main { max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; margin: 0.5rem 0; } h2 { font-size: 1.15rem; margin: 2rem 0 0.5rem; }
.lead { font-size: 1.15rem; margin: 0.25rem 0 1rem; }
.warning { border-left: 4px solid var(--failed); padding: 0.25rem 0.75rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid var(--line); padding: 0.2rem 0.75rem 0.2rem 0; text-align: left;
  font-variant-numeric: tabular-nums; } th { font-weight: 600; }
pre { border: 1px solid var(--line); overflow-x: auto; padding: 0.75rem; }
summary { cursor: pointer; }
svg { width: 100%; height: auto; } svg text { fill: var(--soft); font: 12px system-ui, sans-serif; }
svg .end { text-anchor: end; } svg .middle { text-anchor: middle; }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .mark { stroke: var(--late); stroke-width: 1.5; stroke-dasharray: 6 4; }
svg path { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
svg path.p50 { stroke: var(--refused); } svg path.p99 { stroke: var(--failed); }
svg path.sent { stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 3 3; }
svg rect.good { fill: var(--good); } svg rect.late { fill: var(--late); }
svg rect.refused { fill: var(--refused); } svg rect.failed { fill: var(--failed); }
.key { margin-right: 1rem; white-space: nowrap; }
.swatch { border: 1px solid var(--line); display: inline-block; height: 0.8em; margin-right: 0.4em; width: 1.2em; }
.swatch.good { background: var(--good); } .swatch.late { background: var(--late); }
.swatch.refused, .swatch.p50 { background: var(--refused); }
.swatch.failed, .swatch.p99 { background: var(--failed); } .swatch.sent { background: var(--ink); }
";
