"use strict";
// Draws the charts in the page's own colours, again when those change, and searches the failures. Reads nothing else.
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const style = () => getComputedStyle(document.documentElement);

  // Only what is named a colour is looked up: any other text may be anybody's, "@" or not.
  const painted = (value, colours, name) => {
    if (typeof value === "string") return /color$/.test(name) && value.startsWith("@") ? colours.getPropertyValue("--" + value.slice(1)).trim() : value;
    if (Array.isArray(value)) return value.map((one) => painted(one, colours, name));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, painted(one, colours, key)]));
  };

  const axis = (given, colours) => ({
    automargin: true, gridcolor: colours.getPropertyValue("--line").trim(), zerolinecolor: colours.getPropertyValue("--faint").trim(),
    linecolor: colours.getPropertyValue("--faint").trim(), fixedrange: false, ...given,
    title: { standoff: 8, font: { size: 12 }, ...given.title },
  });

  const layout = (given, colours) => {
    const ink = colours.getPropertyValue("--ink").trim();
    const card = colours.getPropertyValue("--card").trim();
    const axes = Object.entries(given).filter(([name]) => /^[xy]axis/.test(name)).map(([name, one]) => [name, axis(one, colours)]);
    return {
      paper_bgcolor: card, plot_bgcolor: card, margin: { l: 8, r: 8, t: 8, b: 8 }, autosize: true, dragmode: false, bargap: 0,
      font: { family: getComputedStyle(document.body).fontFamily, size: 12.5, color: ink },
      hoverlabel: { bgcolor: card, bordercolor: colours.getPropertyValue("--faint").trim(), font: { color: ink } },
      showlegend: true, legend: { orientation: "h", x: 0, y: 1.02, xanchor: "left", yanchor: "bottom", traceorder: "normal", maxheight: 0.9 },
      ...given, ...Object.fromEntries(axes),
    };
  };

  // The legend's own: what is drawn keeps its height, however many lines the names take.
  const linesOfLegend = (traces, width) => {
    const longest = Math.max(0, ...traces.map((one) => one.name.length));
    return Math.ceil(traces.length / Math.max(1, Math.floor((width - 60) / (44 + 7 * longest)))) || 1;
  };

  const draw = (place) => {
    const chart = charts[place.dataset.chart];
    const colours = style();
    const wanted = layout(painted(chart.layout, colours), colours);
    wanted.height += 20 * (linesOfLegend(chart.data, place.clientWidth) - 1);
    place.style.height = wanted.height + "px";
    Plotly.react(place, painted(chart.data, colours), wanted, { displayModeBar: false, responsive: true });
  };

  const places = [...document.querySelectorAll("[data-chart]")];
  const shown = (place) => !place.closest("details:not([open])");
  const drawAll = () => places.filter(shown).forEach(draw);
  drawAll();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  matchMedia("(max-width: 720px)").addEventListener("change", drawAll);
  for (const part of document.querySelectorAll("details")) {
    part.addEventListener("toggle", () => part.open && part.querySelectorAll("[data-chart]").forEach(draw));
  }

  const search = document.getElementById("search");
  if (!search) return;
  const cause = document.getElementById("cause");
  const found = document.getElementById("found");
  const rows = [...document.querySelectorAll("#ledger tbody tr")].map((row) => [row, row.textContent.toLowerCase(), row.dataset.cause]);
  const sift = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const [row, text, its] of rows) {
      row.hidden = !(words.every((word) => text.includes(word)) && (!cause.value || cause.value === its));
      count += !row.hidden;
    }
    found.textContent = count === rows.length ? "" : `${count} of ${rows.length}`;
  };
  search.addEventListener("input", sift);
  cause.addEventListener("change", sift);
})();
