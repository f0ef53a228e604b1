"""Style and script of the page that `html` writes: `STYLESHEET`, `SCRIPT`.

Colours pass for the colour-blind (blue and vermilion of Okabe and Ito), and no meaning rests on colour
alone. In print, all details are open.
"""

STYLESHEET = """
:root { color-scheme: light; }
body { font: 15px/1.45 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 76rem;
  margin: 1.5rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.6rem; margin-bottom: .3rem; }
h2 { font-size: 1.2rem; margin-top: 2rem; border-bottom: 1px solid #bbb; }
h4 { margin: 1rem 0 .3rem; }
small { color: #444; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; font-size: .88rem; }
.facts dt { color: #444; } .facts dd { margin: 0; }
.warning { border-left: 4px solid #d55e00; padding: .3rem .8rem; background: #fff4ec; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .86rem; margin: .5rem 0; }
th, td { padding: .25rem .55rem; text-align: right; border-bottom: 1px solid #ddd; vertical-align: top; }
thead th { border-bottom: 2px solid #888; vertical-align: bottom; font-weight: 600; }
th[scope=row] { text-align: left; font-weight: 500; }
.sortable th[scope=row] { min-width: 15rem; } .matrix th[scope=row] { min-width: 9rem; }
.sortable thead th:first-child { text-align: left; }
.sortable thead th { cursor: pointer; }
.matrix td, .matrix thead th { text-align: center; min-width: 6.5rem; }
.matrix tbody td { border: 1px solid #ccc; }
.matrix a { color: inherit; text-decoration: none; display: block; }
.matrix a:hover, .matrix a:focus { text-decoration: underline; }
.matrix .mark { font-size: 1.15rem; font-weight: 700; }
.pass { background: #e3f0fa; } .pass .mark { color: #0059a0; }
.fail { background: #fdebdf; } .fail .mark { color: #b34700; }
.none { color: #555; background: #f4f4f4; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; }
figcaption { font-size: .88rem; color: #333; max-width: 60rem; }
details { border: 1px solid #ccc; border-radius: 4px; padding: .4rem .8rem; margin: .5rem 0; }
details:target { border-color: #0072b2; box-shadow: 0 0 0 2px #0072b2; }
summary { cursor: pointer; font-weight: 600; }
.files { font: .75rem monospace; color: #555; overflow-wrap: anywhere; }
@page { size: A4 landscape; margin: 12mm; }
@media print {
  body { max-width: none; margin: 0; padding: 0; font-size: 9.5pt; }
  button { display: none; } .wide { overflow: visible; }
  a { color: inherit; text-decoration: none; }
  table { font-size: 7.5pt; max-width: 100%; } th, td { padding: .12rem .3rem; }
  .matrix td, .matrix thead th, .matrix th[scope=row] { min-width: 0; }
  .sortable th[scope=row] { min-width: 4.5cm; }
  .matrix { font-size: 6.5pt; }
  figure, tr { break-inside: avoid; } h2, h4, summary { break-after: avoid; }
  img { max-height: 15cm; }
  .pass, .fail, .none { background: none; }
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
