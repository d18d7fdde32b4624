"use strict";

// Listens to the broker and shows what it hears. Sends nothing but its subscriptions.

const RETRY_MS = 2000;
const SHOW_AFTER_MS = 100; // messages that come together are shown together
const LOOK_AGAIN_MS = 10_000; // a door may have become silent
const REFUSED = new Set([4, 5, 134, 135]); // MQTT: bad user name or password, not authorised

const site = new Site();
const view = new View();
const login = document.getElementById("login");
let waiting = null;
let unread = 0;

function showSoon() {
  waiting ??= setTimeout(() => {
    waiting = null;
    view.show(site, Date.now());
  }, SHOW_AFTER_MS);
}

function connectionIs(level, words) {
  put(document.getElementById("connection"), [level, words], () => [badge(level, words)]);
  document.body.classList.toggle("stale", level !== "good");
}

function heard(topic, payload, packet) {
  try {
    const decision = site.take(topic, new TextDecoder("utf-8", { fatal: true }).decode(payload), packet.retain, Date.now());
    // What was announced last does not outlast the moment at which a door enters privacy mode.
    if (decision || topic.endsWith("/info")) document.getElementById("announcer").textContent = decision ? sentence(site, decision) : "";
    showSoon();
  } catch (error) {
    unread += 1;
    connectionIs("warn", `Connected; messages that cannot be read: ${unread}, the last on ${topic.slice(0, LONGEST_TEXT)}`);
    console.warn(topic, error);
  }
}

function connect(url, user) {
  connectionIs("idle", "Connecting");
  // MQTT 3.1.1, which every broker speaks; timers of its own, because a worker from a blob is not allowed here.
  const client = mqtt.connect(url, { protocolVersion: 4, reconnectPeriod: RETRY_MS, timerVariant: "native", resubscribe: false, ...user });
  client.on("connect", () => {
    connectionIs("good", "Connected");
    client.subscribe(FILTERS, { qos: 0 });
  });
  client.on("close", () => {
    if (!login.open) connectionIs("bad", "No connection to the broker; what is shown may be old");
  });
  client.on("message", heard);
  client.on("error", (error) => {
    if (!REFUSED.has(error.code)) return;
    client.end(true);
    connectionIs("idle", "Not logged in");
    document.getElementById("login-problem").textContent = user ? "The broker refuses this user or password." : "";
    document.getElementById("password").value = "";
    login.showModal();
    document.getElementById(user ? "password" : "user").focus();
    login.onclose = () => connect(url, { username: document.getElementById("user").value, password: document.getElementById("password").value });
  });
}

async function begin() {
  if (typeof mqtt === "undefined") {
    connectionIs("bad", "mqtt.js is missing beside this page; run: make page");
    return;
  }
  const answer = await fetch("broker.json");
  const named = answer.ok ? text(object(await answer.json()).url) : "";
  connect(named || `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/mqtt`, null);
}

login.addEventListener("cancel", (press) => press.preventDefault());
setInterval(showSoon, LOOK_AGAIN_MS);
view.show(site, Date.now());
begin().catch((error) => {
  console.warn(error);
  connectionIs("bad", `broker.json beside this page cannot be read: ${error.message}`);
});
