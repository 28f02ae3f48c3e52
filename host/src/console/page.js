// Lists the streams that a token may read and follows one of them.
// The token stays in this page's memory; the address of the tail carries a ticket instead.
"use strict";

const LINES_MAX = 2000;
const RECONNECT_MS = 3000;
const byId = (id) => document.getElementById(id);
let following = null;

const headers = () => {
  const token = byId("token").value.trim();
  return token ? { authorization: "Bearer " + token } : {};
};

const say = (text) => { byId("state").textContent = text; };

async function json(path, options = {}) {
  const answer = await fetch(path, { ...options, headers: { ...headers(), ...options.headers } });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error);
  return body;
}

async function showStreams() {
  const list = byId("streams");
  try {
    const streams = await json("/v1/streams");
    list.replaceChildren(...streams.map(entry));
    say(streams.length ? "Choose a stream." : "No stream has a record yet.");
  } catch (error) {
    list.replaceChildren();
    say(error.message);
  }
}

function entry({ tenant, project }) {
  const button = document.createElement("button");
  button.textContent = tenant + " / " + project;
  button.onclick = () => {
    document.querySelectorAll("nav button").forEach((other) => other.removeAttribute("aria-current"));
    button.setAttribute("aria-current", "true");
    follow({ tenant, project, position: "" });
  };
  const item = document.createElement("li");
  item.append(button);
  return item;
}

function follow(stream) {
  following?.source?.close();
  clearTimeout(following?.timer);
  following = stream;
  byId("title").textContent = stream.tenant + " / " + stream.project;
  byId("lines").replaceChildren();
  connect(stream);
}

// Where a token is asked, the browser cannot send it with an EventSource: a ticket of a quarter of an hour can.
async function connect(stream) {
  const query = new URLSearchParams();
  try {
    if (headers().authorization) {
      const body = JSON.stringify({ tenant: stream.tenant, projects: [stream.project], seconds: 900 });
      const options = { method: "POST", headers: { "content-type": "application/json" }, body };
      query.set("ticket", (await json("/v1/tickets", options)).ticket);
    }
  } catch (error) {
    if (stream === following) say(error.message);
    return;
  }
  if (stream !== following) return;
  if (stream.position) query.set("after", stream.position);
  const path = [stream.tenant, stream.project].map(encodeURIComponent);
  const source = new EventSource(`/v1/tenants/${path[0]}/projects/${path[1]}/tail?${query}`);
  stream.source = source;
  const on = (name, act) => source.addEventListener(name, (event) => {
    if (event.lastEventId) stream.position = event.lastEventId;
    act(JSON.parse(event.data));
  });
  source.onopen = () => say("Live.");
  on("log", (record) => add(line(record)));
  on("gap", (gap) => add(note(`${gap.count || "some"} records were not shown: ${gap.reason}`)));
  on("alive", () => say("Live."));
  on("end", (end) => again(stream, end.reason));
  source.onerror = () => again(stream, "not connected");
}

// A new ticket each time: the one in the old address may have expired.
function again(stream, reason) {
  stream.source.close();
  if (stream !== following) return;
  say(`Ended (${reason}); connecting again …`);
  clearTimeout(stream.timer);
  stream.timer = setTimeout(() => { if (stream === following) connect(stream); }, RECONNECT_MS);
}

function add(item) {
  const lines = byId("lines");
  const isAtEnd = window.innerHeight + window.scrollY >= document.body.scrollHeight - 40;
  lines.append(item);
  while (lines.childElementCount > LINES_MAX) lines.firstElementChild.remove();
  if (isAtEnd) window.scrollTo(0, document.body.scrollHeight);
}

function note(text) {
  const item = document.createElement("li");
  item.className = "gap";
  item.textContent = text;
  return item;
}

// Texts alone, never markup: a log line says what its sender likes.
function line(record) {
  const item = document.createElement("li");
  const time = document.createElement("time");
  time.textContent = record.time ?? record.observed ?? record.committed;
  const severity = document.createElement("b");
  severity.textContent = record.severity ?? "";
  if (Number(record.severity_number) >= 17) item.className = "high";
  const body = typeof record.body === "string" ? record.body : JSON.stringify(record.body ?? "");
  item.append(time, severity, body);
  item.title = JSON.stringify(record, null, 1);
  return item;
}

byId("credential").addEventListener("submit", (event) => { event.preventDefault(); showStreams(); });
showStreams();
