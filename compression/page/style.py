"""How the page looks: one style sheet, light and dark, narrow and wide, on paper too."""

SHEET = """
:root { color-scheme: light dark;
  --paper: #fbfbf9; --card: #fff; --ink: #1c1e21; --soft: #5c6370; --line: #d9dce1;
  --rung: #1f5fbf; --good: #17713f; --bad: #a8321f; --bound: #9a5b00; --grey: #8a9099;
  --warn: #fff3d6; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #15171a; --card: #1d2024; --ink: #e8eaed; --soft: #a2a9b4; --line: #363b42;
  --rung: #7fb0ff; --good: #6fcf97; --bad: #ff9b85; --bound: #f0b35a; --grey: #7d848f;
  --warn: #3a2f14; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
header, main, footer { max-width: 68rem; margin: 0 auto; padding: 0 1rem; }
header { padding-top: 1.6rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 0 0 .6rem; }
p { margin: .4rem 0; max-width: 46rem; }
p, li, td, dd { overflow-wrap: anywhere; }
code { font: .9em ui-monospace, "DejaVu Sans Mono", monospace; }
section { background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
  padding: 1rem; margin: 1rem 0; }
.soft, figcaption, caption, footer { color: var(--soft); font-size: .88rem; }
footer { padding-bottom: 2rem; }
.good { color: var(--good); } .bad { color: var(--bad); } .good, .bad { font-weight: 600; }
.warn { background: var(--warn); border-color: var(--bound); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .7rem;
  margin: .9rem 0 0; padding: 0; }
.cards div { border: 1px solid var(--line); border-radius: .5rem; padding: .55rem .7rem; }
.cards dt { color: var(--soft); font-size: .82rem; }
.cards dd { margin: 0; font-size: 1.35rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.cards small { display: block; font-size: .8rem; font-weight: 400; color: var(--soft); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr));
  gap: 1rem; }
figure { margin: 0; } figure.bars { max-width: 38rem; }
svg { width: 100%; height: auto; display: block; }
.wide { overflow-x: auto; } .wide:focus { outline: 2px solid var(--rung); }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
caption { text-align: left; padding-bottom: .4rem; }
th, td { text-align: left; padding: .35rem .6rem .35rem 0; border-top: 1px solid var(--line);
  vertical-align: top; }
thead th { border-top: 0; color: var(--soft); font-weight: 600; white-space: nowrap; }
tbody th { font-weight: 600; min-width: 9rem; }
td.n { font-variant-numeric: tabular-nums; white-space: nowrap; }
td.budget { min-width: 6.5rem; }
td.why { min-width: 15rem; }
td.range { min-width: 12.5rem; font-variant-numeric: tabular-nums; }
td small, th small { display: block; color: var(--soft); font-weight: 400; font-size: .82rem; }
tr.best { background: color-mix(in srgb, var(--rung) 9%, transparent); }
details > summary { cursor: pointer; color: var(--soft); }
dl.facts { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: .2rem 1rem;
  margin: 0; } dl.facts dt { color: var(--soft); } dl.facts dd { margin: 0; }
svg text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
  fill: var(--soft); }
svg .axis, svg .tick { stroke: var(--line); fill: none; } svg .label { fill: var(--ink); }
svg .rung { fill: var(--rung); stroke: var(--card); stroke-width: 1.5; }
svg .misses { fill: var(--card); stroke: var(--rung); stroke-width: 2; }
svg .noise { stroke: var(--rung); stroke-opacity: .55; stroke-width: 1.5; }
svg .original { fill: var(--ink); } svg .rejected { stroke: var(--grey); stroke-width: 1.5;
  fill: none; }
svg .front { fill: none; stroke: var(--rung); stroke-opacity: .35; stroke-width: 1.5; }
svg .bound { stroke: var(--bound); stroke-dasharray: 5 4; stroke-width: 1.5; }
svg text.bounded { fill: var(--bound); } svg .bar { fill: var(--rung); }
svg .low { fill: var(--bad); } svg .number { fill: var(--ink); font-weight: 600; }
@media print { body { background: none; } section { break-inside: avoid; border: 0; padding: 0; } }
"""
