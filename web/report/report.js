/* Draws a report from the data in the page. No library: five kinds of chart, each a few lines of SVG that take their
 * colours from the style sheet (light and dark), scale with the page and can be read by assistive technology. */
"use strict";
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const first = data.runs[0], many = data.runs.length > 1;
const DASHES = ["", "7 4", "2 4", "10 3 2 3", "1 3", "12 5"];

/* ---- small helpers ---- */

/* element("td", {class: "x"}, child, "text") */
function element(name, attributes = {}, ...children) {
  const out = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) out.setAttribute(key, value);
  out.append(...children.filter((c) => c !== null && c !== undefined));
  return out;
}
function shape(name, attributes = {}, text) {
  const out = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) out.setAttribute(key, value);
  if (text !== undefined) out.textContent = text;
  return out;
}
const whole = (n) => n.toLocaleString("en");
const four = (x) => x.toFixed(4);
const signed = (x) => (x >= 0 ? "+" : "\u2212") + Math.abs(x).toFixed(4);
const chance = (p) => (p < 0.001 ? "< 0.001" : p.toFixed(3));
const percent = Math.round(data.level * 100);
const colour = (i) => `var(--run${i % 6})`;
const plural = (n, one, more = one + "s") => `${whole(n)} ${n === 1 ? one : more}`;

const main = document.getElementById("main"), contents = element("ul");
document.getElementById("contents").append(contents);
function section(id, title, note) {
  const heading = element("h2", {id: `${id}-title`}, title);
  const out = element("section", {id, "aria-labelledby": `${id}-title`}, heading);
  if (note) out.append(element("p", {class: "note"}, note));
  main.append(out);
  contents.append(element("li", {}, element("a", {href: `#${id}`}, title)));
  return out;
}

/* ---- charts ---- */

/* A chart of one kind of series over x: {title, note, x, y, ticks, series: [{name, values, run}], bars, log, format}. */
function chart(parent, c) {
  const plot = element("div", {class: "plot"}), legend = element("ul", {class: "legend"});
  const box = element("figure", {class: "panel chart"}, element("h3", {}, c.title), element("p", {class: "note"}, c.note), plot, legend,
    element("details", {}, element("summary", {}, "As a table"), element("div", {class: "scroll"}, chartTable(c))));
  const outputs = c.series.map((s) => {
    const key = shape("svg", {viewBox: "0 0 26 10", "aria-hidden": "true"}), out = element("output");
    key.append(c.bars && !s.line ? shape("rect", {x: 6, y: 0, width: 14, height: 10, rx: 2, style: `fill:${s.colour};opacity:.75`})
      : shape("line", {x1: 0, x2: 26, y1: 5, y2: 5, style: `stroke:${s.colour};stroke-width:2.4`, "stroke-dasharray": s.dash}));
    legend.append(element("li", {}, key, element("span", {}, s.name), out));
    return out;
  });
  const where = element("li");
  legend.append(where);
  parent.append(box);
  let width = 0;
  const draw = () => {
    const now = Math.round(plot.clientWidth);
    if (!now || now === width) return;
    width = now;
    plot.replaceChildren(drawChart(c, width, outputs, where));
  };
  draw();
  new ResizeObserver(draw).observe(plot);
}

function chartTable(c) {
  const table = element("table", {}, element("thead", {}, element("tr", {}, element("th", {scope: "col"}, c.x),
    ...c.series.map((s) => element("th", {scope: "col"}, s.name)))));
  const body = element("tbody");
  c.at.forEach((x, i) => {
    if (c.at.length > 60 && i % 5) return;
    body.append(element("tr", {}, element("th", {scope: "row"}, c.label(i)), ...c.series.map((s) => element("td", {}, c.format(s.values[i])))));
  });
  table.append(body);
  return table;
}

function niceTop(value) {
  if (!(value > 0)) return 1;
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((m) => m * unit).find((t) => t >= value * 0.999);
}

function drawChart(c, width, outputs, where) {
  const height = Math.max(190, Math.min(300, width * 0.56)), left = 46, right = 12, top = 8, bottom = 40;
  const high = c.top ?? niceTop(Math.max(...c.series.flatMap((s) => s.values)));
  const low = c.at[0], last = c.at[c.at.length - 1] + (c.bars ? c.step : 0);
  const place = c.log ? (x) => Math.log(x / low) / Math.log(last / low) : (x) => (x - low) / (last - low);
  const px = (x) => left + place(x) * (width - left - right), py = (y) => height - bottom - (y / high) * (height - top - bottom);
  const svg = shape("svg", {viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": `${c.title}. ${c.note}`});
  const lead = Number(high.toExponential(1).split("e")[0]), steps = [1.5, 3, 6].includes(lead) ? 3 : [5, 10].includes(lead) ? 5 : 4;
  for (let i = 0; i <= steps; i++) {
    const y = (high * i) / steps;
    svg.append(shape("line", {x1: left, x2: width - right, y1: py(y), y2: py(y), class: i ? "grid" : "axis"}));
    svg.append(shape("text", {x: left - 8, y: py(y) + 4, "text-anchor": "end"}, c.tick(y)));
  }
  let edge = -100;
  for (const x of c.ticks) {
    if (px(x) - edge < 30) continue;
    edge = px(x);
    svg.append(shape("text", {x: px(x), y: height - bottom + 18, "text-anchor": "middle"}, c.tickX ? c.tickX(x) : x));
  }
  svg.append(shape("text", {x: (left + width - right) / 2, y: height - 3, "text-anchor": "middle"}, c.x));
  if (c.bars) drawBars(svg, c, px, py); else drawLines(svg, c, px, py);
  const cursor = shape("line", {class: "cursor", y1: top, y2: height - bottom, visibility: "hidden"});
  svg.append(cursor);
  const show = (event) => {
    const box = svg.getBoundingClientRect(), at = ((event.clientX - box.left) / box.width) * width;
    let best = 0;
    c.at.forEach((x, i) => { if (Math.abs(px(x + (c.bars ? c.step / 2 : 0)) - at) < Math.abs(px(c.at[best] + (c.bars ? c.step / 2 : 0)) - at)) best = i; });
    const x = px(c.at[best] + (c.bars ? c.step / 2 : 0));
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    cursor.setAttribute("visibility", "visible");
    c.series.forEach((s, i) => { outputs[i].textContent = c.format(s.values[best]); });
    where.textContent = `at ${c.label(best)}`;
  };
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerdown", show);
  svg.addEventListener("pointerleave", () => {
    cursor.setAttribute("visibility", "hidden");
    outputs.forEach((o) => { o.textContent = ""; });
    where.textContent = "";
  });
  return svg;
}

function drawLines(svg, c, px, py) {
  for (const s of c.series) {
    const d = s.values.map((y, i) => `${i ? "L" : "M"}${px(c.at[i]).toFixed(1)} ${py(y).toFixed(1)}`).join("");
    svg.append(shape("path", {d, style: `stroke:${s.colour}`, "stroke-dasharray": s.dash}));
  }
}

/* Side by side bars for few series that are counts; outlines with a light fill for distributions. */
function drawBars(svg, c, px, py) {
  const n = c.series.length;
  c.series.forEach((s, k) => {
    if (c.overlay) {
      let d = `M${px(c.at[0])} ${py(0)}`;
      s.values.forEach((y, i) => { d += `L${px(c.at[i]).toFixed(1)} ${py(y).toFixed(1)}L${px(c.at[i] + c.step).toFixed(1)} ${py(y).toFixed(1)}`; });
      svg.append(shape("path", {d: `${d}L${px(c.at[c.at.length - 1] + c.step)} ${py(0)}Z`, class: "area",
        style: `stroke:${s.colour};fill:${s.colour};fill-opacity:.22`}));
      return;
    }
    s.values.forEach((y, i) => {
      const begin = px(c.at[i]) + 1, room = (px(c.at[i] + c.step) - px(c.at[i]) - 2) / n;
      svg.append(shape("rect", {x: begin + k * room, y: py(y), width: Math.max(room - (n > 1 ? 1 : 0), .5), height: Math.max(py(0) - py(y), 0), rx: 2,
        style: `fill:${s.colour};opacity:.85`}));
    });
  });
}

/* ---- summary ---- */

function facts() {
  const parts = [plural(first.queries, "query", "queries")];
  if (first.gallery) parts.push(`among ${plural(first.gallery, "picture")}`);
  let text = parts.join(" ");
  if (first.without) text += `; ${whole(first.without)} more have nothing to find and are left out`;
  if (first.depth) text += `; only the best ${whole(first.depth)} are ranked, what lies deeper counts as not found`;
  text += ". ";
  const missing = data.runs.filter((r) => r.missing).map((r) => `${r.name} does not answer ${plural(r.missing, "query", "queries")} (each counts with 0)`);
  if (missing.length) text += missing.join("; ") + ". ";
  text += `Ranges are ${percent}% bootstrap intervals over queries.`;
  document.getElementById("facts").textContent = text;
}

function figures() {
  const out = section("summary", "Summary"), grid = element("div", {class: "figures"});
  const firstK = data.ks[0], middle = data.ks[Math.min(data.ks.length - 1, 2)];
  const shown = [["mAP", "Mean average precision"], [`hit@${firstK}`, `A right one among the first ${firstK === 1 ? "" : firstK}`.trim()],
    ["R-precision", "Share right in the first R"], [`recall@${middle}`, `Share found in the first ${middle}`], [`nDCG@${middle}`, "Order of the first " + middle]];
  if (firstK === 1) shown[1][1] = "First result is right";
  for (const [name, means] of shown) {
    const [mean, low, high] = first.means[name];
    const track = element("div", {class: "track", "aria-hidden": "true"}, element("i", {style: `left:${low * 100}%;width:${Math.max((high - low) * 100, .6)}%`}),
      element("b", {style: `left:${mean * 100}%`}));
    grid.append(element("div", {class: "panel figure"}, element("div", {class: "name"}, name), element("div", {class: "value"}, four(mean)), track,
      element("div", {class: "range"}, `${four(low)} to ${four(high)}`), element("div", {class: "range"}, means)));
  }
  out.append(grid);
  if (many) out.append(element("p", {class: "note", style: "margin-top:.7rem"}, `The figures above are those of ${first.name}; below, the other runs stand beside it.`));
}

/* One run: metrics of the whole ranking, then a table of cut-offs. */
function metricsOfOne() {
  const out = section("metrics", "Metrics", "hit@k is what metric-learning papers call Recall@K; recall@k is the share of the relevant pictures that was found. " +
    `Small figures are the ${percent}% interval.`);
  const cell = (name) => {
    const [mean, low, high] = first.means[name];
    return element("td", {}, element("div", {}, four(mean)), element("small", {}, `${four(low)}\u2013${four(high)}`));
  };
  const whole_ = element("tbody"), cut = element("tbody");
  for (const name of data.columns.filter((n) => !n.includes("@") || n === "MAP@R"))
    whole_.append(element("tr", {}, element("th", {scope: "row"}, name), cell(name)));
  const lists = [...new Set(data.columns.filter((n) => n.includes("@") && n !== "MAP@R").map((n) => n.split("@")[0]))];
  for (const list of lists) cut.append(element("tr", {}, element("th", {scope: "row"}, `${list}@k`), ...data.ks.map((k) => cell(`${list}@${k}`))));
  const heads = data.ks.map((k) => element("th", {scope: "col"}, `k = ${whole(k)}`));
  out.append(element("div", {class: "metrics"},
    element("div", {class: "panel scroll"}, element("table", {}, element("thead", {}, element("tr", {}, element("th", {scope: "col"}, "Whole ranking"), element("th", {scope: "col"}, "Mean"))), whole_)),
    element("div", {class: "panel scroll"}, element("table", {}, element("thead", {}, element("tr", {}, element("th", {scope: "col"}, "First k results"), ...heads)), cut))));
}

/* Several runs: a line a metric, grouped as they are read. */
function metricsTable() {
  if (!many) return metricsOfOne();
  const out = section("metrics", "Metrics",
    `The change is to ${first.name}; p is that of the two-sided randomisation test over the queries, the range that of the paired bootstrap.`);
  const head = element("tr", {}, element("th", {scope: "col"}, "Metric"));
  data.runs.forEach((r, i) => {
    head.append(element("th", {scope: "col"}, r.name));
    if (i) head.append(element("th", {scope: "col"}, "Change"), element("th", {scope: "col"}, "p"), element("th", {scope: "col"}, "Better / worse"));
  });
  const body = element("tbody");
  const groups = [["Whole ranking", data.columns.filter((n) => !n.includes("@") || n === "MAP@R")],
    ...data.ks.map((k) => [`First ${whole(k)}`, data.columns.filter((n) => n.endsWith(`@${k}`))])];
  for (const [title, names] of groups) {
    body.append(element("tr", {class: "group"}, element("th", {scope: "rowgroup", colspan: head.children.length}, title)));
    for (const name of names) body.append(metricRow(name));
  }
  out.append(element("div", {class: "panel scroll"}, element("table", {}, element("thead", {}, head), body)));
}

function metricRow(name) {
  const row = element("tr", {}, element("th", {scope: "row"}, name));
  data.runs.forEach((r, i) => {
    const [mean, low, high] = r.means[name];
    row.append(element("td", {}, four(mean), element("small", {}, `${four(low)}\u2013${four(high)}`)));
    if (!i) return;
    const c = data.comparisons[i - 1].columns[name], [change, from, to] = c.difference;
    const sure = from > 0 ? "up" : to < 0 ? "down" : "";
    row.append(element("td", {class: sure}, signed(change), element("small", {}, `${signed(from)} to ${signed(to)}`)),
      element("td", {}, chance(c.p_randomisation)), element("td", {}, `${whole(c.better_worse_equal[0])} / ${whole(c.better_worse_equal[1])}`));
  });
  return row;
}

/* Easy, medium and hard of the revisited protocol, where the truth tells them apart. */
function revisited() {
  if (!first.revisited) return;
  const out = section("revisited", "Easy, medium, hard", "The protocol of the revisited Oxford and Paris sets: average precision by trapezoids, junk left out of the ranking.");
  const names = Object.keys(first.revisited.easy), body = element("tbody");
  for (const r of data.runs.filter((run) => run.revisited))
    for (const setup of ["easy", "medium", "hard"])
      body.append(element("tr", {}, element("th", {scope: "row"}, many ? `${r.name}, ${setup}` : setup), ...names.map((n) => element("td", {}, four(r.revisited[setup][n])))));
  out.append(element("div", {class: "panel scroll"}, element("table", {}, element("thead", {}, element("tr", {}, element("th", {scope: "col"}, "Set-up"),
    ...names.map((n) => element("th", {scope: "col"}, n)))), body)));
}

/* ---- curves ---- */

function curves() {
  const out = section("curves", "Curves"), grid = element("div", {class: "charts"});
  out.append(grid);
  const series = (key, scale = (r, v) => v) => data.runs.map((r, i) => ({name: r.name, values: r[key].map((v) => scale(r, v)), colour: colour(i), dash: DASHES[i % 6]}));
  const levels = first.precision.map((_, i) => i / (first.precision.length - 1));
  const share = {top: 1, tick: (y) => y.toFixed(2), format: four};
  chart(grid, {...share, title: "Precision and recall", note: "Interpolated precision at each level of recall, mean over queries.", x: "Recall", at: levels,
    ticks: [0, .2, .4, .6, .8, 1], label: (i) => `recall ${levels[i].toFixed(2)}`, series: series("precision")});
  const depths = {...share, x: "First k results", at: data.depths, log: true, ticks: [1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000], label: (i) => `k = ${whole(data.depths[i])}`};
  chart(grid, {...depths, title: "Recall at k", note: "Share of the relevant pictures that the first k results hold.", series: series("recall")});
  chart(grid, {...depths, title: "Hit at k", note: "Share of queries with a right result among the first k: the CMC curve.", series: series("hit")});
  const bins = first.ap.length, at = first.ap.map((_, i) => i / bins);
  chart(grid, {title: "Average precision of the queries", note: "How many queries have an average precision in each step of 0.05.", x: "Average precision", at, bars: true,
    step: 1 / bins, ticks: [0, .2, .4, .6, .8, 1], tick: (y) => whole(Math.round(y)), format: whole, label: (i) => `${at[i].toFixed(2)} to ${(at[i] + 1 / bins).toFixed(2)}`,
    series: series("ap")});
  if (data.distribution) distribution(grid, data.distribution);
}

function distribution(grid, d) {
  const n = d.right.length, step = (d.high - d.low) / n, at = d.right.map((_, i) => d.low + i * step);
  const round = (x) => (Math.abs(d.high - d.low) > 20 ? x.toFixed(0) : x.toFixed(2));
  const ticks = [0, 1, 2, 3, 4, 5].map((i) => d.low + (i * (d.high - d.low)) / 5);
  chart(grid, {title: "Scores of right and wrong pairs", note: `Share of the pairs of each kind, over ${plural(d.queries, "query", "queries")} with the whole gallery. The less they overlap, the better the score tells them apart.`,
    x: d.score[0].toUpperCase() + d.score.slice(1), at, bars: true, overlay: true, step, ticks, tickX: round, tick: (y) => `${(y * 100).toFixed(y && y < .02 ? 1 : 0)}%`,
    format: (v) => `${(v * 100).toFixed(2)}%`, label: (i) => `${round(at[i])} to ${round(at[i] + step)}`,
    series: [{name: "right pairs", values: d.right, colour: "var(--right)", dash: ""}, {name: "wrong pairs", values: d.wrong, colour: "var(--wrong)", dash: ""}]});
}

/* ---- confusion ---- */

function confusion(c) {
  const total = c.right + c.wrong;
  const out = section("confusion", "Confusion between labels",
    `The label of a query against that of its first result: ${whole(c.right)} of ${whole(total)} agree (${((100 * c.right) / total).toFixed(1)}%).`);
  if (!c.pairs.length) return;
  const body = element("tbody");
  for (const [own, found, count] of c.pairs)
    body.append(element("tr", {}, element("th", {scope: "row"}, own), element("td", {class: "words"}, found), element("td", {}, whole(count))));
  const pairs = element("div", {class: "panel"}, element("div", {class: "scroll", style: "max-height:30rem;overflow:auto", tabindex: "0"},
    element("table", {}, element("caption", {}, "Confused most often"), element("thead", {}, element("tr", {}, element("th", {scope: "col"}, "Label"),
      element("th", {scope: "col", style: "text-align:left"}, "Taken for"), element("th", {scope: "col"}, "Queries"))), body)));
  const heads = [...c.matrix.labels, "any other"];
  const rows = c.matrix.rows.map((cells, r) => element("tr", {}, element("th", {scope: "row", title: c.matrix.labels[r]}, c.matrix.labels[r]), ...cells.map((n, i) => {
    const heat = n / Math.max(1, cells.reduce((a, b) => a + b, 0));
    return element("td", {class: i === r ? "own" : "", style: `--heat:${heat.toFixed(3)}`}, n ? whole(n) : "");
  })));
  const matrix = element("div", {class: "panel scroll"}, element("table", {class: "matrix"}, element("caption", {}, "The labels with the most errors: rows are queries, columns first results"),
    element("thead", {}, element("tr", {}, element("td"), ...heads.map((h) => element("th", {scope: "col", title: h}, element("span", {}, h))))), element("tbody", {}, ...rows)));
  out.append(element("div", {class: "two"}, pairs, matrix));
}

/* ---- strips ---- */

const MARKS = [["is-wrong", "\u2715", "wrong"], ["is-right", "\u2713", "right"], ["is-junk", "\u2013", "does not count"]];

function tile(item, kind, badge, said) {
  const box = element("div", {class: `tile ${kind}`});
  if (item.picture) {
    const picture = element("img", {src: item.picture, alt: item.label || item.file || item.name, loading: "lazy"});
    picture.addEventListener("error", () => picture.replaceWith("no picture any more"));
    box.append(picture);
  } else {
    box.append(item.name);
  }
  if (badge) box.append(element("span", {class: "badge", "aria-hidden": "true"}, badge), element("span", {class: "hidden"}, said));
  return box;
}

function strip(s) {
  const query = element("figure", {}, tile(s.query, "query"), element("figcaption", {}, element("span", {class: "label"}, s.query.label || s.query.file || s.query.name),
    element("span", {}, `query ${s.query.name}`), element("span", {}, `${whole(s.relevant)} to find`)));
  const lists = element("div", {class: "lists"});
  for (const l of s.lists) {
    const head = element("h4", {}, ...(many ? [element("b", {}, l.run), " \u00b7 "] : []), `average precision `, element("b", {}, four(l.ap)),
      l.mrr > 0 ? ` \u00b7 first right one at ${whole(Math.round(1 / l.mrr))}` : " \u00b7 nothing right was found");
    const items = element("ol", {tabindex: "0", "aria-label": `Results of ${l.run} for ${s.query.label || s.query.name}`});
    for (const item of l.items) {
      const [kind, badge, said] = MARKS[item.mark];
      items.append(element("li", {}, element("figure", {}, tile(item, kind, badge, said), element("figcaption", {title: item.file || item.name},
        element("span", {class: "label"}, item.label || item.file || item.name), element("span", {}, item.score.toFixed(3))))));
    }
    lists.append(element("div", {}, head, items));
  }
  return element("article", {class: "panel strip"}, query, lists);
}

function strips() {
  const kinds = [["improved", "Most improved queries", `Queries whose average precision ${many ? data.runs[1].name : ""} raises most over ${first.name}.`],
    ["worsened", "Most worsened queries", `Queries whose average precision ${many ? data.runs[1].name : ""} lowers most.`],
    ["worst", "Worst queries", "The lowest average precision first; of equal ones those with more to find."],
    ["best", "Best queries", "The highest average precision first; of equal ones those with more to find."]];
  for (const [key, title, note] of kinds) {
    const list = data.strips[key];
    if (!list || !list.length) continue;
    section(key, title, note).append(element("div", {class: "strips"}, ...list.map(strip)));
  }
}

facts();
figures();
metricsTable();
revisited();
curves();
if (data.confusion && data.confusion.right + data.confusion.wrong) confusion(data.confusion);
strips();
})();
