"""The style and the script of a report's page. Figures are drawn one after another, the first at once."""

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: #222; font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 1100px; margin: 0 auto; padding: 16px; }
header p, .faint, .none { color: #666; }
h1 { font-size: 1.6rem; margin: 0.2em 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 1.6em 0 0.3em; border-bottom: 1px solid #ddd; padding-bottom: 0.2em; }
p { margin: 0.4em 0; max-width: 46em; overflow-wrap: anywhere; }
.big { font-size: 1.15rem; }
.honest { border-left: 4px solid #e69f00; padding-left: 0.7em; }
#warnings li { border-left: 4px solid #d55e00; padding-left: 0.6em; list-style: none; margin: 0.4em 0; }
#warnings ul { padding-left: 0; }
li { overflow-wrap: anywhere; }
.plot { width: 100%; height: 460px; }
.wide { overflow: auto; max-height: 28em; margin: 0.4em 0; }
table { border-collapse: collapse; font-size: 0.86rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 0.25em 0.8em 0.25em 0; border-bottom: 1px solid #eee; vertical-align: top; }
td { white-space: nowrap; }
#checklist td, #excluded td:last-child, #isoflop td:last-child { white-space: normal; }
#checklist td { min-width: 7em; }
#isoflop td:last-child, #excluded td:last-child { min-width: 14em; }
#checklist .wide { max-height: none; }
th { position: sticky; top: 0; background: #fff; white-space: nowrap; }
pre { overflow: auto; font-size: 0.8rem; }
summary { cursor: pointer; color: #0072b2; }
@media (max-width: 600px) { body { font-size: 15px; } main { padding: 10px; } .plot { height: 400px; } }
@media print {
  body { font-size: 10.5pt; }
  main { max-width: none; padding: 0; }
  section { break-inside: auto; }
  h2, summary { break-after: avoid; }
  .plot { break-inside: avoid; height: 380px; }
  .wide { max-height: none; overflow: visible; }
  .modebar { display: none !important; }
  tr { break-inside: avoid; }
  td { white-space: normal; overflow-wrap: anywhere; }
}
"""

SCRIPT = """
(function () {
  "use strict";
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const names = Object.keys(figures);
  const PRINTED = 660;  // pixels of A4 within its margins
  const config = {responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
                  toImageButtonOptions: {format: "svg"}};
  const base = {
    font: {family: "system-ui, sans-serif", size: 12, color: "#222"}, hovermode: "closest", dragmode: false,
    hoverlabel: {align: "left", bgcolor: "#fff", font: {size: 12, color: "#222"}},
    margin: {l: 50, r: 10, t: 10, b: 45}, paper_bgcolor: "#fff", plot_bgcolor: "#fff",
    legend: {orientation: "h", x: 0, y: 1.01, yanchor: "bottom", font: {size: 11}}
  };
  const grid = {gridcolor: "#e8e8e8", linecolor: "#999", ticks: "outside", zeroline: false};
  function draw(name) {
    const one = figures[name], layout = Object.assign({}, base, one.layout);
    layout.xaxis = Object.assign({}, grid, layout.xaxis);
    layout.yaxis = Object.assign({}, grid, layout.yaxis);
    return Plotly.newPlot("plot-" + name, one.data, layout, config);
  }
  function rest(i) {
    if (i >= names.length) { document.documentElement.dataset.drawn = String(performance.now()); return; }
    draw(names[i]).then(function () {
      if (i === 0) { document.documentElement.dataset.first = String(performance.now()); }
      setTimeout(function () { rest(i + 1); }, 0);
    });
  }
  rest(0);
  let opened = [];
  window.addEventListener("beforeprint", function () {
    opened = Array.from(document.querySelectorAll("section:not(#runs) > details:not([open])"));
    opened.forEach(function (each) { each.open = true; });
    document.querySelectorAll(".plot.js-plotly-plot").forEach(function (each) {
      Plotly.relayout(each, {autosize: false, width: PRINTED, height: 370});
    });
  });
  window.addEventListener("afterprint", function () {
    opened.forEach(function (each) { each.open = false; });
    document.querySelectorAll(".plot.js-plotly-plot").forEach(function (each) {
      Plotly.relayout(each, {autosize: true, width: null, height: null});
    });
  });
}());
"""
