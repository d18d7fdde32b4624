"use strict";

// Shows what is known: makes elements and puts text into them, and never reads text as HTML. A part of the page is
// made anew only where what it shows has changed, so that focus and a screen reader's place stay.

const SVG = "http://www.w3.org/2000/svg";
const MARKS = { good: "✓", warn: "!", bad: "✕", idle: "–" };
const shown = new WeakMap(); // what each part shows now

function made(tag, attributes = {}, ...children) {
  const svg = ["svg", "polyline", "rect", "line"].includes(tag);
  const node = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children.filter((child) => child !== null && child !== ""));
  return node;
}

function put(part, facts, build) {
  const now = JSON.stringify(facts);
  if (shown.get(part) === now) return;
  shown.set(part, now);
  part.replaceChildren(...build());
}

function badge(level, words) {
  return made("span", { class: `badge ${level}` }, made("span", { "aria-hidden": "true", class: "mark" }, MARKS[level]), words);
}

function fact(name, ...value) {
  return made("div", {}, made("dt", {}, name), made("dd", {}, ...value));
}

function when(stamp) {
  const at = new Date(stamp);
  if (Number.isNaN(at.getTime())) return "–";
  const today = at.toDateString() === new Date().toDateString();
  const clock = at.toLocaleTimeString("en-GB");
  const words = today ? clock : `${at.toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric" })}, ${clock.slice(0, 5)}`;
  return made("time", { datetime: at.toISOString() }, words);
}

// A line of the latest figures. Gaps are left out; the text beside it says the newest figure.
function sparkline(name, values, unit, digits) {
  const known = values.filter((value) => value !== null);
  if (!known.length) return null;
  const [low, high, last] = [Math.min(...known), Math.max(...known), known.at(-1)];
  const written = (value) => `${value.toFixed(digits)}${unit && ` ${unit}`}`;
  const x = (index) => (known.length > 1 ? 2 + (index * 96) / (known.length - 1) : 98);
  const y = (value) => (high > low ? 22 - (20 * (value - low)) / (high - low) : 12);
  const told = `${name}: now ${written(last)}, from ${written(low)} to ${written(high)} in ${known.length} reports`;
  return made("div", { class: "figure" },
    made("span", { class: "name" }, name),
    made("span", { class: "value" }, written(last)),
    made("svg", { viewBox: "0 0 100 24", role: "img", "aria-label": told, preserveAspectRatio: "none" },
      made("polyline", { points: known.map((value, index) => `${x(index).toFixed(1)},${y(value).toFixed(1)}`).join(" ") }),
      made("polyline", { class: "newest", points: `${x(known.length - 1).toFixed(1)},${y(last).toFixed(1)} `.repeat(2) })));
}

class View {
  constructor() {
    this.cards = new Map(); // the parts of each door's card
    this.made = 0;
  }

  // Shows everything anew where it has changed.
  show(site, now) {
    const doors = [...site.doors.entries()].sort(([one], [other]) => (one < other ? -1 : 1));
    const troubled = doors.map(([, door]) => problemsOf(door, site.pushes, now));
    for (const [key, card] of this.cards) {
      if (!site.doors.has(key)) {
        card.root.remove();
        this.cards.delete(key);
      }
    }
    const places = document.getElementById("door-list");
    doors.forEach(([key, door], index) => {
      if (!this.cards.has(key)) this.cards.set(key, this._card(door));
      const card = this.cards.get(key);
      if (places.children[index] !== card.root) places.insertBefore(card.root, places.children[index] ?? null);
      this._door(card, door, troubled[index], layersOf(door, site.pushes));
    });
    const none = document.getElementById("no-doors");
    none.textContent = doors.length ? "" : "No door has said anything yet.";
    this._summary(doors, troubled);
    this._decisions(site);
  }

  _summary(doors, troubled) {
    const online = doors.filter(([, door]) => door.documents.status === "online").length;
    const problems = troubled.flat().length;
    const told = doors.length ? `${online} of ${doors.length} online, ${problems || "no"} problem${problems === 1 ? "" : "s"}` : "";
    document.getElementById("summary").textContent = told;
    document.title = doors.length ? `Doors: ${told}` : "Doors";
  }

  _card(door) {
    const id = `door-${(this.made += 1)}`;
    const parts = {};
    for (const [name, tag] of [["badge", "p"], ["problems", "ul"], ["cameras", "ul"], ["figures", "div"], ["facts", "dl"], ["summary", "summary"], ["agreed", "div"]]) {
      parts[name] = made(tag, { class: name });
    }
    const heading = made("h3", { id }, door.device, " ", made("span", { class: "of" }, door.site));
    parts.root = made("article", { class: "door", "aria-labelledby": id },
      made("div", { class: "head" }, heading, parts.badge),
      parts.problems, parts.cameras, parts.figures, parts.facts,
      made("details", {}, parts.summary, parts.agreed));
    return parts;
  }

  _door(card, door, problems, layers) {
    const { status, info = {}, health = {}, outbox_dropped: dropped } = door.documents;
    const level = status !== "online" ? "bad" : problems[0]?.level ?? "good";
    const state = status !== "online" ? "Offline" : problems.length ? "Online, with problems" : "Online";
    put(card.badge, [level, state], () => [badge(level, state)]);
    put(card.problems, problems, () => problems.map((problem) =>
      made("li", { class: problem.level },
        made("span", { "aria-hidden": "true", class: "mark" }, MARKS[problem.level]),
        made("div", {}, made("strong", {}, problem.what), problem.remedy && made("p", {}, problem.remedy)))));
    const cameras = [...door.cameras].sort(([one], [other]) => (one < other ? -1 : 1)).map(([name, camera]) => this._camera(door, name, camera));
    put(card.cameras, cameras, () => cameras.map(cameraLine));
    const figures = (name) => door.samples.map((sample) => sample[name]);
    put(card.figures, door.samples, () => [
      sparkline("Frames a second", figures("rate"), "", 1),
      sparkline("One frame takes", figures("loop"), "ms", 0),
      sparkline("Memory", figures("memory"), "MB", 0),
      sparkline("Temperature", figures("temperature"), "°C", 0),
      sparkline("Decisions waiting", figures("waiting"), "", 0),
    ].filter((line) => line !== null));
    const counters = object(health.counters);
    const gallery = galleryOf(door);
    const facts = [
      ["Enrolled", gallery.count],
      ["Visits rejected since its start", number(entry(counters, "events.reject")) ?? 0],
      ["Strangers kept since its start", number(entry(counters, "strangers.kept")) ?? 0],
      ["Last removal in force", gallery.removedAt || null],
      ["Last report", text(health.at) || null],
      ["Decisions lost", number(object(dropped).dropped) || null],
    ].filter(([, value]) => value !== null);
    put(card.facts, facts, () => facts.map(([name, value]) => fact(name, typeof value === "string" ? when(value) : String(value))));
    const agreed = ["gallery/reported", "config/reported"].every((each) => !door.documents[each]) ? ["idle", "not reported"]
      : gallery.level !== "good" || layers.some((row) => row.level !== "good") ? ["warn", "not in step"]
      : ["good", "in step"];
    put(card.summary, agreed, () => ["Gallery and configuration ", badge(...agreed)]);
    put(card.agreed, [gallery, layers, info, status], () => agreement(gallery, layers, info));
  }

  _camera(door, name, camera) {
    const state = object(camera["camera/state"]);
    const last = object(state.last);
    return {
      name,
      online: camera["camera/status"] === "online",
      known: door.documents.status === "online",
      why: text(object(camera["camera/info"]).why),
      present: list(state.present).slice(0, 8).map((visit) => who(door, object(visit).subject) || "a stranger"),
      last: last.at ? [...kindOf(text(last.event_type)), who(door, last.subject) || reasonOf(text(last.reason)), text(last.at)] : null,
    };
  }

  _decisions(site) {
    const parts = site.decisions.map((decision) => ({ ...decision, name: who(site.doors.get(decision.door), decision.subject) }));
    const place = document.getElementById("decision-list");
    document.getElementById("no-decisions").hidden = parts.length > 0;
    put(place, parts, () => parts.map(decisionLine));
  }
}

function kindOf(kind) {
  return entry(WORDS.kinds, kind) ?? [kind.replaceAll("_", " "), "idle"];
}

function reasonOf(reason) {
  return entry(WORDS.reasons, reason) ?? reason.replaceAll("_", " ");
}

// One sentence about a decision, for a screen reader.
function sentence(site, decision) {
  const name = who(site.doors.get(decision.door), decision.subject);
  const why = decision.kind === "match" ? "" : reasonOf(decision.reason);
  return [kindOf(decision.kind)[0], name, why, `at ${decision.door.split("/")[1]}, camera ${decision.camera}`].filter(Boolean).join(", ");
}

function cameraLine(camera) {
  const present = !camera.known ? "Nobody knows who is there." : camera.present.length ? `There now: ${camera.present.join(", ")}.` : "Nobody there.";
  const last = camera.last && made("span", {}, "Last: ", badge(camera.last[1], camera.last[0]), ` ${camera.last[2]}, `, when(camera.last[3]));
  return made("li", {},
    made("div", { class: "camera-head" }, made("strong", {}, camera.name), badge(camera.online ? "good" : "bad", camera.online ? "delivers" : "delivers nothing"),
      made("span", { class: "why" }, camera.why)),
    made("p", {}, present, last ? " " : null, last));
}

function decisionLine(decision) {
  const [kind, level] = kindOf(decision.kind);
  const why = decision.kind === "match" ? null : reasonOf(decision.reason);
  const details = [
    decision.face !== null && `face ${decision.face.toFixed(0)} px`,
    decision.second !== null && `next ${decision.second.toFixed(2)}`,
    decision.took !== null && `after ${decision.took.toFixed(0)} ms`,
    decision.refused.length && `shots refused: ${decision.refused.join(", ")}`,
  ].filter(Boolean).join(" · ");
  return made("li", { class: decision.revised ? "revised" : "" },
    made("div", { class: "head" }, badge(level, kind), made("strong", { class: "who" }, decision.name || (why ? "Unknown" : "")), when(decision.at)),
    made("p", {}, `${decision.door.split("/")[1]} · ${decision.camera}`, why && ` · ${why}`, decision.revised ? " · replaced by a later look" : null),
    scoreLine(decision),
    details && made("p", { class: "details" }, details));
}

// The score as a bar from 0 to 1, with a line where the threshold is.
function scoreLine({ best, threshold }) {
  if (best === null || threshold === null) return null;
  const width = (value) => Math.max(0, Math.min(100, 100 * value)).toFixed(1);
  return made("div", { class: `score ${best >= threshold ? "enough" : "below"}` },
    made("svg", { viewBox: "0 0 100 6", "aria-hidden": "true", preserveAspectRatio: "none" },
      made("rect", { class: "track", width: 100, height: 6 }),
      made("rect", { class: "bar", width: width(best), height: 6 }),
      made("line", { x1: width(threshold), x2: width(threshold), y1: 0, y2: 6 })),
    made("span", {}, `score ${best.toFixed(2)}, threshold ${threshold.toFixed(2)}`));
}

function agreement(gallery, layers, info) {
  const rows = [
    fact("Gallery wanted", gallery.desired === null ? "nothing asked for" : gallery.desired ? `version ${gallery.desired}` : "the newest"),
    fact("Gallery in force", gallery.of ? `version ${gallery.reported ?? "unknown"} of ${gallery.of}` : "the door's own"),
    gallery.error ? fact("Why not", gallery.error) : null,
    gallery.synchronisedAt ? fact("Synchronised", when(gallery.synchronisedAt)) : null,
    gallery.until ? fact("Trusted until", when(gallery.until)) : null,
    fact("Embedder", text(object(object(info.models).embedder).id) || gallery.model || "unknown"),
    fact("Threshold", number(info.threshold) === null ? "unknown" : info.threshold.toFixed(3)),
    fact("Program", text(info.version) || "unknown"),
    fact("Privacy mode", info.anonymous === false ? "off" : info.anonymous === true ? "on: no names, no boxes" : "unknown"),
  ];
  const table = layers.length ? made("table", {},
    made("caption", {}, "Configuration"),
    made("thead", {}, made("tr", {}, ...["Layer", "Wanted", "In force", "State"].map((head) => made("th", { scope: "col" }, head)))),
    made("tbody", {}, ...layers.map((row) => made("tr", {},
      made("th", { scope: "row" }, row.layer),
      made("td", {}, row.desired === null ? "–" : String(row.desired)),
      made("td", {}, row.inForce === null ? "–" : String(row.inForce)),
      made("td", {}, badge(row.level, row.state)))))) : made("p", { class: "quiet" }, "No configuration was pushed.");
  return [made("dl", { class: "facts" }, ...rows.filter((row) => row !== null)), table];
}
