"use strict";
const story = JSON.parse(document.getElementById("story").textContent);
const NS = "http://www.w3.org/2000/svg";
const KINDS = {
  content: "what users wrote", acknowledgement: "acknowledgements", knowledge: "what is known", access: "tickets and grants",
  refusal: "refusals", courtesy: "greetings",
};
const make = (name, attributes = {}, text) => {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
};
const draw = (parent, name, attributes = {}, text) => {
  const element = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
};
const ms = (number) => number.toLocaleString("en") + " ms";
const short = (text, length) => (text.length > length ? text.slice(0, length - 1) + "…" : text);

// What is shown: messages by kind, and two kinds of marks that are many and seldom matter.
const shown = {};
const few = story.messages.length <= 60;
for (const kind of Object.keys(KINDS)) {
  shown[kind] = ["content", "access", "refusal"].includes(kind) || (few && kind !== "courtesy");
}
shown.session = story.marks.filter((mark) => mark.kind === "session").length <= 6 && few;
shown.reported = story.marks.some((mark) => mark.kind === "failed" || mark.kind === "crash") && story.marks.length <= 80;
const isShown = (mark) => !(mark.kind in shown) || shown[mark.kind];
const range = { from: 0, to: story.ended };
const fits = (from, to) => to >= range.from && from <= range.to;
const visibleMessages = () => story.messages.filter((m) => shown[m.kind] && fits(m.sent, m.at ?? m.sent));
const visibleMarks = () => story.marks.filter((mark) => isShown(mark) && fits(mark.at, mark.at));

// A long story is shown from its end: that is where it broke.
const MANY = 400;
{
  const times = visibleMessages().map((m) => m.sent).concat(visibleMarks().map((mark) => mark.at)).sort((a, b) => a - b);
  if (times.length > MANY) range.from = times[times.length - MANY];
}

// The top: what is broken, and what was done.
const broken = story.violation;
{
  const h1 = make("h1", {}, story.name + ": ");
  h1.append(make("span", { class: broken ? "bad" : "" }, broken ? `“${broken.invariant}” is broken` : "everything holds"));
  const top = make("div", { class: "top" });
  const left = make("section"), right = make("section");
  if (broken) {
    const box = make("div", { class: "broken" });
    const where = broken.node === null ? "" : ` at ${story.nodes[broken.node] ?? "node " + broken.node}`;
    box.append(make("h2", {}, "What is broken"));
    if (broken.meaning) box.append(make("p", {}, broken.meaning));
    box.append(make("p", {}, `Noticed${where}, ${ms(broken.at)} after the beginning:`));
    const said = make("p");
    said.append(make("code", {}, short(broken.detail, 1200)));
    box.append(said);
    left.append(box);
  } else {
    left.append(make("div", { class: "sound" }, "No invariant was broken in this world."));
  }
  right.append(make("h2", {}, "What was done"), make("p", {}, story.beginning));
  const did = make("ol", { class: "did" });
  for (const { at, words } of story.did) {
    const line = make("li");
    line.append(make("time", {}, ms(at)), make("span", {}, words));
    did.append(line);
  }
  right.append(did);
  top.append(left, right);
  document.body.append(h1, make("div", { class: "faint" }, `level ${story.level}, ${story.nodes.length} nodes, ${ms(story.ended)}; n0:3 is the third event that node 0 wrote`), top);
}

const controls = make("div", { class: "controls" });
const redrawAfter = (input, change) => input.addEventListener("change", () => { change(input); render(); });
for (const [kind, name] of Object.entries(KINDS)) {
  const count = story.messages.filter((m) => m.kind === kind).length;
  if (!count) continue;
  const label = make("label"), input = make("input", { type: "checkbox" });
  input.checked = shown[kind];
  redrawAfter(input, () => { shown[kind] = input.checked; });
  label.append(input, make("span", { class: "swatch", style: `background: var(--${kind})` }), `${name} (${count})`);
  controls.append(label);
}
for (const [kind, name] of [["session", "connections"], ["reported", "a node learns of its commits"]]) {
  const count = story.marks.filter((mark) => mark.kind === kind).length;
  if (!count) continue;
  const label = make("label"), input = make("input", { type: "checkbox" });
  input.checked = shown[kind];
  redrawAfter(input, () => { shown[kind] = input.checked; });
  label.append(input, `${name} (${count})`);
  controls.append(label);
}
{
  const from = make("input", { type: "number", min: 0, value: range.from });
  const to = make("input", { type: "number", min: 0, value: range.to });
  redrawAfter(from, () => { range.from = Number(from.value); });
  redrawAfter(to, () => { range.to = Number(to.value); });
  const label = make("label");
  label.append("from", from, "to", to, "ms");
  controls.append(label);
  if (range.from > 0) {
    const all = make("button", {}, "show all of it");
    all.addEventListener("click", () => { from.value = range.from = 0; all.remove(); render(); });
    controls.append(all);
  }
  if (broken) {
    const jump = make("button", {}, "go to what broke");
    jump.addEventListener("click", () => document.getElementById("broke")?.scrollIntoView({ block: "center" }));
    controls.append(jump);
  }
}
const sheet = make("div", { class: "sheet" });
const tip = make("div", { id: "tip" });
const legend = make("div", { class: "legend" });
document.body.append(controls, legend, sheet, tip);
{
  const details = make("details");
  details.append(make("summary", {}, "The scenario, to be run again: cargo sim replay FILE.scenario"), make("pre", {}, story.scenario));
  document.body.append(details);
}

// Glyphs of marks, around a point on a lane.
const GLYPHS = {
  write: (g) => draw(g, "circle", { r: 5.5, style: "fill: var(--paper); stroke: var(--ink); stroke-width: 2" }),
  landed: (g) => draw(g, "rect", { x: -5.5, y: -5.5, width: 11, height: 11, style: "fill: var(--lane)" }),
  reported: (g) => draw(g, "rect", { x: -4, y: -4, width: 8, height: 8, style: "fill: var(--paper); stroke: var(--lane); stroke-width: 2" }),
  acknowledged: (g) => {
    draw(g, "circle", { r: 7.5, style: "fill: var(--good)" });
    draw(g, "path", { d: "M-3.5 0 L-1 3 L4 -3", style: "fill: none; stroke: var(--paper); stroke-width: 2" });
  },
  failed: (g) => {
    draw(g, "rect", { x: -6, y: -6, width: 12, height: 12, style: "fill: var(--paper); stroke: var(--bad); stroke-width: 2" });
    draw(g, "path", { d: "M-3 -3 L3 3 M3 -3 L-3 3", style: "stroke: var(--bad); stroke-width: 2" });
  },
  ticket: (g) => draw(g, "path", { d: "M0 -6.5 L6.5 0 L0 6.5 L-6.5 0 Z", style: "fill: var(--access)" }),
  crash: (g) => draw(g, "path", { d: "M-6.5 -6.5 L6.5 6.5 M6.5 -6.5 L-6.5 6.5", style: "stroke: var(--bad); stroke-width: 4" }),
  restart: (g) => draw(g, "path", { d: "M-6 5 L0 -6 L6 5 Z", style: "fill: var(--good)" }),
  disk: (g) => {
    draw(g, "rect", { x: -6, y: -6, width: 12, height: 12, rx: 3, style: "fill: var(--warn)" });
    draw(g, "circle", { r: 2.2, style: "fill: var(--paper)" });
  },
  hostile: (g) => draw(g, "path", { d: "M0 -8 L8 6 L-8 6 Z", style: "fill: var(--refusal)" }),
  session: (g) => draw(g, "circle", { r: 3, style: "fill: var(--courtesy)" }),
};
const LEGEND = {
  write: "a user asks for a write", landed: "a commit is on the disk", reported: "the node learns of it",
  acknowledged: "the user is told that it is written", failed: "a commit failed", ticket: "a ticket is shown", crash: "crash",
  restart: "starts again", disk: "the disk is saved, put back, copied or hurt", hostile: "turns hostile", session: "connection",
};
{
  const used = new Set(story.marks.map((mark) => mark.kind));
  for (const [kind, words] of Object.entries(LEGEND)) {
    if (!used.has(kind)) continue;
    const item = make("span"), svg = document.createElementNS(NS, "svg");
    for (const [key, value] of Object.entries({ width: 18, height: 18, viewBox: "-9 -9 18 18" })) svg.setAttribute(key, value);
    GLYPHS[kind](svg);
    item.append(svg, words);
    legend.append(item);
  }
  legend.append(make("span", {}, "point at anything for all there is to say of it; click keeps it"));
}

// One box of text that follows the pointer, or stays where it was clicked.
let pinned = false;
const showTip = (event, title, detail) => {
  tip.replaceChildren(make("strong", {}, title));
  if (detail) tip.append(make("pre", {}, detail.trim()));
  tip.style.display = "block";
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.max(8, Math.min(event.clientX + 16, innerWidth - box.width - 12)) + "px";
  tip.style.top = Math.max(8, Math.min(event.clientY + 12, innerHeight - box.height - 12)) + "px";
};
const hideTip = () => { tip.style.display = "none"; tip.classList.remove("pinned"); pinned = false; };
const withTip = (element, title, detail) => {
  element.classList.add("item");
  element.addEventListener("mousemove", (event) => { if (!pinned) showTip(event, title, detail); });
  element.addEventListener("mouseleave", () => { if (!pinned) hideTip(); });
  element.addEventListener("click", (event) => {
    event.stopPropagation();
    showTip(event, title, detail);
    pinned = true;
    tip.classList.add("pinned");
  });
};
document.addEventListener("click", (event) => { if (!tip.contains(event.target)) hideTip(); });

const GUTTER = 84, HEAD = 4, ROW = 16;

function wrap(text, width) {
  const lines = [];
  for (const paragraph of text.split("\n")) {
    let line = "";
    for (const word of paragraph.split(" ")) {
      if (line && (line + " " + word).length > width) { lines.push(line); line = word; } else line = line ? line + " " + word : word;
      while (line.length > width) { lines.push(line.slice(0, width)); line = line.slice(width); }
    }
    lines.push(line);
  }
  return lines;
}

function render() {
  hideTip();
  const messages = visibleMessages(), marks = visibleMarks();
  const spans = story.spans.filter((span) => fits(span.begin, span.end ?? story.ended));
  const count = story.nodes.length;
  const gap = Math.max(330, Math.min(560, (document.documentElement.clientWidth - 60 - GUTTER) / count));
  const x = (node) => GUTTER + 46 + node * gap;
  const width = Math.max(x(count - 1) + gap - 40, 900);
  const letters = Math.floor((gap * 0.62) / 6.4);

  // Rows: moments at which something visible happens. Between them time is compressed; a row is moved down as far as
  // labels above it on the same lane need.
  const times = new Set([range.from, Math.min(range.to, story.ended)]);
  for (const m of messages) { times.add(m.sent); if (m.at !== null) times.add(m.at); }
  for (const mark of marks) times.add(mark.at);
  for (const span of spans) { times.add(Math.max(span.begin, range.from)); if (span.end !== null) times.add(span.end); }
  if (broken && fits(broken.at, broken.at)) times.add(broken.at);
  const rows = [...times].filter((time) => time >= range.from && time <= range.to).sort((a, b) => a - b);
  const labelled = new Map();
  for (const mark of marks) {
    if (!labelled.has(mark.at)) labelled.set(mark.at, []);
    labelled.get(mark.at).push(mark);
  }
  const arrivals = new Map();
  for (const m of messages) {
    const right = Math.max(m.from, m.to), at = m.from < m.to ? m.at ?? m.sent : m.sent;
    arrivals.set(at + ":" + right, (arrivals.get(at + ":" + right) ?? 0) + 1);
  }
  const y = new Map(), markY = new Map(), bottom = new Array(count).fill(0), passes = [];
  let top = HEAD + 22, last = null;
  for (const time of rows) {
    const passed = last === null ? 0 : time - last;
    let here = last === null ? top : top + 7 + Math.min(passed > 300 ? 40 : 30, 6 * Math.log1p(passed));
    // What concerns everyone has a row of its own, above what else happens then.
    const own = (labelled.get(time) ?? []).toSorted((a, b) => (a.node !== null) - (b.node !== null));
    for (const mark of own) here = Math.max(here, mark.node === null ? Math.max(...bottom) : bottom[mark.node]);
    if (passed > 300) passes.push([top, here, passed]);
    y.set(time, here);
    const next = new Array(count).fill(here);
    for (const mark of own) {
      if (mark.node === null) {
        markY.set(mark, here);
        next.fill(here + ROW);
        continue;
      }
      markY.set(mark, next[mark.node]);
      next[mark.node] += ROW;
      bottom[mark.node] = next[mark.node];
    }
    for (let right = 0; right < count; right++) {
      const many = arrivals.get(time + ":" + right) ?? 0;
      if (many > 1) here += Math.min(many - 1, 4) * 6;
    }
    top = here;
    last = time;
  }
  // Arrows that get nowhere need room below their row.
  const nowhere = messages.filter((m) => m.at === null).map((m) => y.get(m.sent) + 34);
  const end = Math.max(top, ...bottom, ...nowhere);
  const place = (time) => {
    if (y.has(time)) return y.get(time);
    if (time <= rows[0]) return HEAD + 8;
    let before = rows[0];
    for (const row of rows) if (row <= time) before = row;
    return y.get(before);
  };

  const svg = document.createElementNS(NS, "svg");
  svg.setAttribute("class", "story");
  const heads = document.createElementNS(NS, "svg");
  const layer = () => draw(svg, "g");
  const bands = layer(), lanes = layer(), arrows = layer(), labels = layer(), dots = layer(), above = layer();

  // Bands between lanes, where nothing or little gets through.
  const written = new Set();
  for (const span of spans) {
    const from = place(Math.max(span.begin, range.from)), to = span.end === null || span.end > range.to ? end + 10 : place(span.end);
    if (span.kind === "cut" || span.kind === "weather") {
      const [left, right] = [Math.min(span.from, span.to), Math.max(span.from, span.to)];
      const height = Math.max(4, to - from);
      const band = draw(bands, "g");
      draw(band, "rect", { class: "band " + span.kind, x: x(left) + 4, y: from, width: x(right) - x(left) - 8, height });
      withTip(band, span.label, `from ${ms(span.begin)} ${span.end === null ? "on" : "to " + ms(span.end)}`);
      const both = spans.some((other) => other.kind === "cut" && span.kind === "cut" && other.from === span.to && other.to === span.from && other.begin === span.begin);
      const text = both ? `nothing gets through between ${left} and ${right}` : span.kind === "cut" ? `nothing gets from ${span.from} to ${span.to}` : `bad weather from ${span.from} to ${span.to}`;
      if (!written.has(text + span.begin)) {
        written.add(text + span.begin);
        const middle = (x(left) + x(right)) / 2 + gap * 0.08;
        draw(labels, "text", { class: "halo bandtext " + span.kind, x: middle, y: from + Math.min(height / 2 + 4, 22) }, text);
      }
    }
  }

  // Lanes, with gaps where there is no process.
  for (let node = 0; node < count; node++) {
    const downs = spans.filter((span) => span.kind === "down" && span.from === node).map((span) => [place(Math.max(span.begin, range.from)), span.end === null ? end + 24 : place(span.end)]);
    downs.sort((a, b) => a[0] - b[0]);
    const hostile = spans.find((span) => span.kind === "hostile" && span.from === node);
    for (const span of spans.filter((span) => span.kind === "slow" && span.from === node)) {
      const line = draw(lanes, "g");
      draw(line, "line", { class: "slow", x1: x(node), x2: x(node), y1: place(span.begin), y2: span.end === null ? end + 24 : place(span.end) });
      withTip(line, span.label, "");
    }
    let from = HEAD + 6;
    const piece = (a, b) => {
      if (b <= a) return;
      const turns = hostile ? place(hostile.begin) : Infinity;
      if (a < turns) draw(lanes, "line", { class: "lane", x1: x(node), x2: x(node), y1: a, y2: Math.min(b, turns) });
      if (b > turns) draw(lanes, "line", { class: "lane hostile", x1: x(node), x2: x(node), y1: Math.max(a, turns), y2: b });
    };
    for (const [a, b] of downs) {
      piece(from, a);
      draw(lanes, "rect", { class: "gap", x: x(node) - 5, y: a, width: 10, height: Math.max(3, b - a) });
      from = Math.max(from, b);
    }
    piece(from, end + 24);
    draw(heads, "text", { class: "head", x: x(node), y: 23 }, story.nodes[node]);
  }

  // Times in the gutter, and pauses.
  let lastTime = -100;
  for (const time of rows) {
    const at = y.get(time);
    if (at - lastTime < 13) continue;
    lastTime = at;
    draw(labels, "text", { class: "time", x: GUTTER - 14, y: at + 4 }, time.toLocaleString("en"));
  }
  draw(heads, "text", { class: "time", x: GUTTER - 14, y: 23 }, "ms");
  for (const [from, to, passed] of passes) {
    const middle = (from + to) / 2 + 4;
    draw(bands, "line", { class: "pass", x1: GUTTER, x2: width, y1: middle, y2: middle });
    draw(labels, "text", { class: "passtext halo", x: GUTTER - 14, y: middle + 3, "text-anchor": "end" }, `+${passed.toLocaleString("en")}`);
  }

  // What concerns everyone.
  for (const mark of marks.filter((mark) => mark.node === null)) {
    const at = markY.get(mark);
    draw(bands, "line", { class: "world", x1: GUTTER, x2: width, y1: at, y2: at });
    draw(labels, "text", { class: "worldtext halo", x: Math.min(width, document.documentElement.clientWidth - 50) - 8, y: at - 5, "text-anchor": "end" }, mark.label);
  }

  // Messages. Their labels stand at the left of the lane on the right, where that lane's own labels are not.
  const taken = [];
  const free = (left, right, at) => {
    let tries = 0;
    while (tries < 8 && taken.some(([l, r, t]) => l < right && r > left && Math.abs(t - at) < 12)) { at += 12; tries++; }
    taken.push([left, right, at]);
    return at;
  };
  for (const m of messages) {
    const x1 = x(m.from), y1 = place(m.sent), g = draw(arrows, "g");
    const forbidden = m.fate === "forbidden";
    const colour = forbidden ? "var(--bad)" : `var(--${m.kind})`, side = Math.sign(x(m.to) - x1) || 1;
    let x2 = x(m.to) - side * 3, y2 = m.at === null ? y1 + 26 : place(Math.min(m.at, range.to));
    if (m.fate !== "arrived") { x2 = x1 + (x2 - x1) * 0.55; }
    const path = `M${x1 + side * 3} ${y1} L${x2} ${y2}`;
    draw(g, "path", { class: "hit", d: path });
    draw(g, "path", { class: "message" + (m.fate === "arrived" ? "" : " lost"), d: path, style: `stroke: ${colour}` });
    const angle = Math.atan2(y2 - y1, x2 - x1);
    if (m.fate === "arrived") {
      const wing = (turn) => `${x2 - 9 * Math.cos(angle + turn)} ${y2 - 9 * Math.sin(angle + turn)}`;
      draw(g, "path", { d: `M${wing(0.38)} L${x2} ${y2} L${wing(-0.38)} Z`, style: `fill: ${colour}` });
    } else if (m.fate === "lost") {
      draw(g, "path", { d: `M${x2 - 5} ${y2 - 5} l10 10 M${x2 + 5} ${y2 - 5} l-10 10`, style: `stroke: var(--bad); stroke-width: 2.5` });
    }
    const text = short(m.summary, 34) + (m.fate === "lost" ? " (lost)" : forbidden ? " — this may not be said" : "");
    const long = text.length * 6.1;
    let tx, ty, anchor;
    if (m.fate === "arrived") {
      const right = Math.max(x1, x2), along = (right - 14 - long / 2 - x1) / (x2 - x1 || 1);
      tx = right - 14; ty = y1 + (y2 - y1) * along - 4; anchor = "end";
    } else { tx = x2 + (side > 0 ? 10 : -10); ty = y2 + 4; anchor = side > 0 ? "start" : "end"; }
    ty = free(anchor === "end" ? tx - long : tx, anchor === "end" ? tx : tx + long, ty);
    draw(g, "text", { class: "halo", x: tx, y: ty, "text-anchor": anchor, style: `fill: ${colour}; font-size: 11px${forbidden ? "; font-weight: 600" : ""}` }, text);
    const fate = m.fate === "arrived" ? `sent ${ms(m.sent)}, arrived ${ms(m.at)}` : m.fate === "lost" ? `sent ${ms(m.sent)}: ${m.why}` : forbidden ? `said ${ms(m.sent)}: it breaks “${broken?.invariant}”` : `sent ${ms(m.sent)}, still under way in the end`;
    withTip(g, `${story.nodes[m.from]} → ${story.nodes[m.to]}: ${m.summary}`, `${KINDS[m.kind]}; ${fate}\n${m.detail}`);
  }

  // Marks and their labels, right of their lanes.
  for (const mark of marks.filter((mark) => mark.node !== null)) {
    const at = markY.get(mark), g = draw(dots, "g", {});
    const glyph = draw(g, "g", { transform: `translate(${x(mark.node)} ${at})` });
    (GLYPHS[mark.kind] ?? GLYPHS.session)(glyph);
    const strong = ["crash", "failed", "hostile"].includes(mark.kind) ? "fill: var(--bad); font-weight: 600" : mark.kind === "acknowledged" ? "fill: var(--good)" : ["session", "reported"].includes(mark.kind) ? "fill: var(--faint)" : "";
    draw(g, "text", { class: "halo", x: x(mark.node) + 13, y: at + 4, style: strong }, short(mark.label, letters));
    withTip(g, `${story.nodes[mark.node]}, ${ms(mark.at)}: ${mark.label}`, mark.detail);
  }

  // What broke.
  let height = end + 40;
  if (broken && fits(broken.at, broken.at)) {
    const at = end + 14;
    draw(bands, "line", { class: "violation", x1: GUTTER, x2: width, y1: at, y2: at, id: "broke" });
    const lane = broken.node === null || broken.node >= count ? null : x(broken.node);
    if (lane !== null) draw(above, "circle", { class: "ring", cx: lane, cy: at, r: 9 });
    const letters = Math.floor(Math.min(760, width - GUTTER - 60) / 6.6);
    const lines = wrap(broken.detail, letters).slice(0, 8);
    const left = Math.min(lane === null ? GUTTER : lane + 16, width - 700 > GUTTER ? width - 700 : GUTTER);
    draw(above, "rect", { class: "violationbox", x: left, y: at + 12, width: Math.min(width - left - 6, Math.max(...lines.map((line) => line.length), 46) * 6.7 + 24), height: 34 + lines.length * 16, rx: 6 });
    draw(above, "text", { class: "violationtext", x: left + 12, y: at + 32 }, `“${broken.invariant}” is broken at ${ms(broken.at)}${broken.node === null ? "" : ", " + (story.nodes[broken.node] ?? "")}`);
    lines.forEach((line, number) => draw(above, "text", { x: left + 12, y: at + 50 + 16 * number }, line));
    height = at + 70 + lines.length * 16;
  }
  svg.setAttribute("width", width);
  svg.setAttribute("height", height);
  const bar = make("div", { class: "heads" });
  heads.setAttribute("width", width);
  heads.setAttribute("height", 35);
  bar.append(heads);
  sheet.replaceChildren(bar, svg);
}

render();
addEventListener("resize", render);
