"use strict";

// What is known of the doors, from the messages alone. Touches no document. Everything in a message is untrusted:
// it is read for its type and cut to a length, and shown as text only.

const FILTERS = [
  "status", "info", "health", "outbox_dropped", "config/desired", "config/reported", "gallery/desired", "gallery/reported",
  "camera/+/status", "camera/+/info", "camera/+/state", "camera/+/event",
].map((leaf) => `edge/v1/+/+/${leaf}`);

const MOST_DOORS = 1000;
const MOST_CAMERAS = 32;
const MOST_DECISIONS = 100;
const MOST_SAMPLES = 120;
const LONGEST_TEXT = 200;
const SILENT_AFTER_MS = 180_000; // three reports of health

function text(value) {
  return typeof value === "string" ? value.slice(0, LONGEST_TEXT) : "";
}

function number(value) {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

function object(value) {
  return value !== null && typeof value === "object" && !Array.isArray(value) ? value : {};
}

function list(value) {
  return Array.isArray(value) ? value : [];
}

function entry(table, key) {
  return Object.hasOwn(table, key) ? table[key] : undefined;
}

class Site {
  constructor() {
    this.doors = new Map(); // by "<site>/<device>"
    this.pushes = new Map(); // configuration pushed, by "<site>/<layer>" or "<site>/<device>/device"
    this.decisions = []; // newest first
  }

  // Takes one message in; returns the decision where it is one. Throws where it cannot be read.
  take(topic, payload, retained, now) {
    const [, , site, device, ...leaf] = topic.split("/");
    const what = leaf[0] === "camera" ? `camera/${leaf[2]}` : leaf.join("/");
    if (what === "config/desired") return this._pushed(site, device, payload);
    const key = `${site}/${device}`;
    if (!this.doors.has(key)) {
      if (payload === "" || this.doors.size >= MOST_DOORS) return null;
      this.doors.set(key, { site, device, documents: {}, cameras: new Map(), samples: [], heardAt: null });
    }
    const door = this.doors.get(key);
    if (leaf[0] === "camera") return this._ofCamera(door, leaf[1], what, payload);
    if (payload === "") {
      delete door.documents[what];
      if (Object.keys(door.documents).length === 0) this.doors.delete(key);
      return null;
    }
    door.documents[what] = what === "status" ? payload : object(JSON.parse(payload));
    if (what === "health") this._sample(door, retained, now);
    return null;
  }

  _ofCamera(door, name, what, payload) {
    if (what === "camera/event") return this._decided(door, name, object(JSON.parse(payload)));
    if (payload === "") {
      const camera = door.cameras.get(name);
      if (camera) delete camera[what];
      if (camera && Object.keys(camera).length === 0) door.cameras.delete(name);
    } else if (door.cameras.has(name) || door.cameras.size < MOST_CAMERAS) {
      const camera = door.cameras.get(name) ?? {};
      camera[what] = what === "camera/status" ? payload : object(JSON.parse(payload));
      door.cameras.set(name, camera);
    }
    return null;
  }

  _decided(door, camera, event) {
    if (event.event_type === "left") return null;
    const score = object(event.score);
    const decision = {
      door: `${door.site}/${door.device}`,
      camera,
      id: text(event.event_id),
      kind: text(event.event_type),
      reason: text(event.reason),
      subject: event.subject,
      at: text(event.captured_at),
      best: number(score.best),
      threshold: number(score.threshold),
      second: number(score.second),
      face: number(object(event.quality).face_px),
      took: number(object(event.latency_ms).capture_to_decision),
      refused: Object.keys(object(object(event.shots).refused)).map(text),
      revised: false,
    };
    for (const earlier of this.decisions) {
      if (event.revises && earlier.door === decision.door && earlier.id === event.revises) earlier.revised = true;
    }
    this.decisions.unshift(decision);
    this.decisions.length = Math.min(this.decisions.length, MOST_DECISIONS);
    return decision;
  }

  _pushed(site, device, payload) {
    const layer = device === "_fleet" ? "fleet"
      : device.startsWith("_group-") ? `group:${device.slice("_group-".length)}`
      : `${device}/device`;
    if (payload === "") {
      this.pushes.delete(`${site}/${layer}`);
    } else {
      // Only the version is read. Whether the signature holds is the door's to say, in config/reported.
      this.pushes.set(`${site}/${layer}`, number(object(JSON.parse(atob(text64(JSON.parse(payload))))).version));
    }
    return null;
  }

  _sample(door, retained, now) {
    const health = door.documents.health;
    door.heardAt = retained ? Date.parse(health.at) : now;
    const rates = Object.values(object(health.fps)).map(number).filter((rate) => rate !== null);
    door.samples.push({
      rate: rates.length ? Math.min(...rates) : null,
      loop: number(object(object(health.stages_ms).loop).p95),
      memory: number(health.rss_mb),
      temperature: number(health.temperature_c),
      waiting: number(object(health.outbox).depth),
    });
    door.samples.splice(0, door.samples.length - MOST_SAMPLES);
  }
}

function text64(envelope) {
  return typeof object(envelope).payload === "string" ? envelope.payload : "";
}

// Who a subject is, as far as this door lets it be shown: in privacy mode, or before the door has said that it
// is in none, what people call him is left out, also where an older message has it.
function who(door, subject) {
  const { id, label } = object(subject);
  const open = object(door?.documents.info).anonymous === false;
  return (open && text(label)) || text(id);
}

// What is wrong at a door, worst first: {level, what, remedy}.
function problemsOf(door, pushes, now) {
  const { status, health = {}, "config/reported": config } = door.documents;
  const found = [];
  const add = (level, what, remedy = "") => found.push({ level, what, remedy });
  if (status !== "online") {
    add("bad", "The door is offline", "Look at its power and network; it goes on deciding, and its decisions wait.");
  } else if (door.heardAt !== null && !(now - door.heardAt < SILENT_AFTER_MS)) {
    add("warn", "The door has not reported its health for minutes", "Look at its log: journalctl -u edge");
  }
  for (const word of list(health.problems).slice(0, 32).map(text)) {
    const of = [...door.cameras.keys()].filter((name) => list(object(entry(object(health.cameras), name)).problems).includes(word));
    const what = entry(WORDS.problems, word) ?? word.replaceAll("_", " ");
    add("bad", of.length ? `${what}: ${of.join(", ")}` : what, text(entry(object(health.remedies), word)).replaceAll("`", ""));
  }
  for (const part of list(health.late).slice(0, 32)) {
    add("bad", `No progress: ${text(part)}`, "The door restarts by itself; look at its log if it comes again.");
  }
  for (const [name, camera] of door.cameras) {
    if (status === "online" && camera["camera/status"] === "offline") {
      add("bad", `Camera ${name} delivers nothing`, text(object(camera["camera/info"]).why));
    }
  }
  if (number(object(health.outbox).undeliverable) > 0) {
    add("warn", "Decisions that no broker takes", "Run: edge journal undeliverable");
  }
  const gallery = galleryOf(door);
  if (gallery.level === "bad") {
    const rights = gallery.followed ? "; who was removed is removed here" : "";
    add("bad", `Gallery refused: ${gallery.why}${rights}`, gallery.error);
  }
  if (gallery.behind) {
    add("warn", "A removal may be missing: who was revoked since may still pass", `Wanted ${gallery.desired}, in force ${gallery.reported ?? "none of the fleet's"}.`);
  }
  if (config?.status === "rejected") add("warn", "The last push of configuration was rejected", text(config.error));
  return found.sort((one, other) => (one.level === other.level ? 0 : one.level === "bad" ? -1 : 1));
}

// The gallery as it was asked for and as it serves; `level` says whether they agree. A door whose embedder cannot use it
// has `followed` its removals all the same; one that is `behind` may lack some, as `edge fleet status --revoked` has it.
function galleryOf(door) {
  const told = door.documents["gallery/reported"] ?? {};
  const desired = number(object(door.documents["gallery/desired"]).version);
  const reported = number(told.published);
  const gallery = {
    desired,
    reported,
    of: text(told.scope),
    count: number(told.count) ?? number(object(door.documents.info).gallery_size),
    model: text(told.model_id),
    until: text(told.not_after),
    removedAt: text(told.revoked_applied_at),
    synchronisedAt: text(told.synchronised_at),
    why: entry(WORDS.refusals, text(told.reason)) ?? text(told.reason),
    error: text(told.error),
    followed: number(told.rights) !== null && number(told.rights) >= desired,
    level: "good",
  };
  gallery.behind = Boolean(gallery.of) && desired > 0 && !(reported >= desired) && !gallery.followed;
  if (told.status === "refused") gallery.level = "bad";
  else if (gallery.behind) gallery.level = "warn";
  return gallery;
}

// The layers of configuration: {layer, desired, inForce, state, level} each, from the weakest to the strongest.
function layersOf(door, pushes) {
  const told = door.documents["config/reported"] ?? {};
  const groups = list(told.groups).slice(0, 16).map((group) => `group:${text(group)}`);
  const rows = [];
  for (const layer of ["fleet", ...groups, "device"]) {
    const key = layer === "device" ? `${door.site}/${door.device}/device` : `${door.site}/${layer}`;
    const desired = pushes.get(key) ?? null;
    const inForce = number(entry(object(told.versions), layer));
    if (desired === null && inForce === null) continue;
    const judged = told.layer === layer && told.version === desired ? text(told.status) : "";
    const [state, level] = inForce === desired ? ["in force", "good"]
      : judged === "pending" ? ["on trial", "warn"]
      : judged === "rejected" ? ["rejected", "bad"]
      : judged === "rolled_back" ? ["rolled back", "bad"]
      : desired === null ? ["in force, no longer offered", "idle"]
      : ["not in force", "warn"];
    rows.push({ layer, desired, inForce, state, level });
  }
  return rows;
}
