// Asks a question, gets 202 and a stream URL, and shows the answer as it grows.
// What is known of the answer is kept in localStorage together with the place in
// the stream up to which it is known, so that a page which is opened again, or a
// connection that is made again, goes on with the next word.

const form = document.querySelector("form");
const stop = document.querySelector("#stop");
const words = { queued: "in the queue", delivering: "thinking", retrying: "trying again", replied: "complete", failed: "given up", cancelled: "cancelled", expired: "too late" };

// What is kept: {stream, cursor, text, state, ended}.
let talk = JSON.parse(localStorage.getItem("talk"));
let events, retry;

// keep changes text and place in one step: of two, a closed laptop may lose one.
function keep(changes) {
  talk = { ...talk, ...changes };
  localStorage.setItem("talk", JSON.stringify(talk));
  show(words[talk.state]);
}

function show(state) {
  document.querySelector("#answer").textContent = talk?.text ?? "";
  const line = document.querySelector("#state");
  line.textContent = state ?? "";
  stop.hidden = !talk || talk.ended;
}

// follow opens the stream behind what is known. It may be called at any time.
function follow() {
  clearTimeout(retry);
  events?.close();
  if (!talk || talk.ended) return;
  const url = new URL(talk.stream, location);
  if (talk.cursor) url.searchParams.set("last-event-id", talk.cursor);
  events = new EventSource(url);
  events.addEventListener("message", (e) => {
    if (!e.data) return;
    const { n, text } = JSON.parse(e.data);
    keep({ cursor: e.lastEventId, text: n === 0 ? text : talk.text + text, state: "delivering" });
  });
  events.addEventListener("status", (e) => keep({ state: JSON.parse(e.data).status }));
  events.addEventListener("gap", () => keep({ text: "" }));
  events.addEventListener("end", (e) => {
    events.close();
    const { status, code } = JSON.parse(e.data);
    keep({ state: code >= 400 ? "failed" : status, ended: true });
  });
  events.addEventListener("error", () => {
    show("the connection is interrupted; nothing is lost");
    // An EventSource comes back by itself, but not where a proxy's error page
    // has answered in between.
    if (events.readyState === EventSource.CLOSED) retry = setTimeout(again, 2000);
  });
}

// again asks whether the stream is still kept, and follows it if so.
async function again() {
  const answer = await fetch(talk.stream, { method: "HEAD" }).catch(() => null);
  if (answer?.status === 404 || answer?.status === 410) keep({ state: "expired", ended: true });
  else follow();
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const response = await fetch(form.action, {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "application/json" },
    body: JSON.stringify(Object.fromEntries(new FormData(form))),
  }).catch(() => null);
  if (response?.status !== 202) {
    show(`not asked: ${response ? `${response.status} ${response.statusText}` : "no connection"}`);
    return;
  }
  talk = null;
  keep({ stream: response.headers.get("Location"), text: "", state: "queued" });
  follow();
});

// The stream's end says what became of it, here and on every other page.
stop.addEventListener("click", async () => {
  const response = await fetch(talk.stream, { method: "DELETE" }).catch(() => null);
  if (!response || response.status >= 500) show("not stopped; try again");
});

// A laptop that is opened again may hold a connection that is long dead.
addEventListener("online", follow);
document.addEventListener("visibilitychange", () => document.hidden || follow());
addEventListener("pagehide", () => events?.close());
addEventListener("pageshow", (e) => e.persisted && follow());

show(words[talk?.state]);
follow();
