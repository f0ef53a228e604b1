"""Style and script of the page that `html` writes: `STYLESHEET`, `SCRIPT`.

Colours pass for the colour-blind (blue and vermilion of Okabe and Ito), and no meaning rests on colour
alone. In print, all details are open.
"""

STYLESHEET = """
:root { color-scheme: light; --line: #c9ced3; --ink: #1a1a1a; --quiet: #555; --blue: #0059a0; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: #fff; max-width: 104rem;
  margin: 1.5rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; padding-bottom: .2rem;
  border-bottom: 2px solid var(--line); }
h4 { margin: 1rem 0 .3rem; }
p { max-width: 60rem; } a { color: var(--blue); }
small { color: var(--quiet); }
nav { margin: 1rem 0; font-size: .92rem; } nav a { margin-right: 1.1rem; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(18rem, 1fr)); gap: .1rem 1.5rem;
  font-size: .88rem; border-left: 4px solid var(--line); padding: .1rem .8rem; }
.facts div { display: flex; gap: .6rem; } .facts dt { color: var(--quiet); flex: 0 0 5.2rem; }
.facts dd { margin: 0; overflow-wrap: anywhere; }
.warning { border-left: 4px solid #d55e00; padding: .3rem .8rem; background: #fff4ec; max-width: none; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .86rem; margin: .5rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .55rem; text-align: right; border-bottom: 1px solid #e2e5e8; vertical-align: top; }
thead th { border-bottom: 2px solid #888; vertical-align: bottom; font-weight: 600; line-height: 1.25; }
thead th small { font-weight: 400; }
tbody tr:hover > * { background: #f3f6f9; }
th[scope=row] { text-align: left; font-weight: 500; position: sticky; left: 0; background: #fff; z-index: 1; }
.interval { display: block; white-space: nowrap; }
.sortable th[scope=row] { min-width: 17rem; } .matrix th[scope=row] { min-width: 8.5rem; }
.sortable thead th:first-child { text-align: left; }
.sortable thead th { cursor: pointer; }
.sortable [data-order=up]::after { content: ' ▲'; } .sortable [data-order=down]::after { content: ' ▼'; }
.matrix td, .matrix thead th { text-align: center; min-width: 6.3rem; }
.matrix tbody td { border: 1px solid var(--line); }
.matrix a { color: inherit; text-decoration: none; display: block; }
.matrix a:hover, .matrix a:focus { text-decoration: underline; }
.matrix .mark { font-size: 1.15rem; font-weight: 700; }
.matrix tbody .pass { background: #e3f0fa; } .pass .mark { color: var(--blue); }
.matrix tbody .fail { background: #fdebdf; } .fail .mark { color: #b34700; }
.none { color: #777; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 40rem), 1fr));
  gap: .5rem 2rem; align-items: start; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; }
figcaption { font-size: .88rem; color: #333; max-width: 44rem; }
details { border: 1px solid var(--line); border-radius: 4px; padding: .4rem .8rem; margin: .5rem 0; }
details:target { border-color: #0072b2; box-shadow: 0 0 0 2px #0072b2; }
summary { cursor: pointer; font-weight: 600; }
dl:not(.facts) dt { font-weight: 600; } dl:not(.facts) dd { margin: 0 0 .5rem 1.2rem; max-width: 60rem; }
.files { font: .75rem monospace; color: var(--quiet); overflow-wrap: anywhere; max-width: none; }
@media screen and (max-width: 48rem) {
  body { font-size: 14px; margin: .8rem auto; padding: 0 .8rem; } h1 { font-size: 1.4rem; }
  nav a { display: inline-block; padding: .25rem 0; }
  table { font-size: .8rem; } th, td { padding: .25rem .4rem; }
  .sortable th[scope=row] { min-width: 8rem; max-width: 8rem; overflow-wrap: anywhere; }
  figure { overflow-x: auto; } img { max-width: none; width: max(100%, 38rem); }
  .matrix th[scope=row] { min-width: 5.5rem; } .matrix td, .matrix thead th { min-width: 5.2rem; }
}
@page { size: A4 landscape; margin: 12mm; }
@media print {
  body { max-width: none; margin: 0; padding: 0; font-size: 9.5pt; }
  nav, button, .screen { display: none; } .wide { overflow: visible; }
  p { max-width: none; } a { color: inherit; text-decoration: none; }
  h2 { margin-top: 1.2rem; }
  table { font-size: 7.5pt; max-width: 100%; } th, td { padding: .12rem .3rem; }
  th[scope=row] { position: static; }
  .matrix td, .matrix thead th, .matrix th[scope=row] { min-width: 0; }
  .sortable th[scope=row] { min-width: 4.5cm; }
  .matrix { font-size: 6.5pt; } .matrix td br { display: none; }
  figure, tr, .facts { break-inside: avoid; } h2, h4, summary { break-after: avoid; }
  .figures { grid-template-columns: 1fr 1fr; } img { max-height: 15cm; }
  .matrix tbody .pass, .matrix tbody .fail, .none { background: none; }
  details { border: 0; border-top: 1px solid #999; border-radius: 0; padding: .4rem 0; }
  details::details-content { content-visibility: visible; height: auto; }
}
"""

SCRIPT = """
function openAll(open) { document.querySelectorAll('details').forEach(d => { d.open = open; }); }

function openTarget() {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (target && target.tagName === 'DETAILS') { target.open = true; target.scrollIntoView(); }
}

function sortBy(heading, column) {
  const body = heading.closest('table').tBodies[0];
  const value = row => {
    const text = row.cells[column].textContent, number = parseFloat(text);
    return column === 0 ? text : isNaN(number) ? Infinity : number;
  };
  const order = (a, b) => value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0;
  const rows = [...body.rows].sort(order);
  const descending = heading.dataset.order === 'up';
  if (descending) rows.reverse();
  heading.dataset.order = descending ? 'down' : 'up';
  rows.forEach(row => body.append(row));
}

const links = document.querySelectorAll('.matrix a, .sortable a');
links.forEach(link => link.addEventListener('click', () => setTimeout(openTarget)));
const headings = document.querySelectorAll('.sortable thead th');
headings.forEach((heading, column) => heading.addEventListener('click', () => sortBy(heading, column)));
addEventListener('hashchange', openTarget);
let closed = [];
addEventListener('beforeprint', () => {
  closed = [...document.querySelectorAll('details:not([open])')];
  openAll(true);
});
addEventListener('afterprint', () => closed.forEach(details => { details.open = false; }));
openTarget();
"""
