// Sends an order with fetch, gets 202 and a stream URL, and listens there.
// Without JavaScript the form posts itself, and the gateway's own page waits.

const form = document.querySelector("form");
const log = document.querySelector("#log");

// show adds a line to the log: what happened, in detail, and how long after the order.
function show(status, text, ordered) {
  const line = document.createElement("li");
  line.dataset.status = status;
  line.append(
    Object.assign(document.createElement("b"), { textContent: status }),
    Object.assign(document.createElement("code"), { textContent: text }),
    Object.assign(document.createElement("small"), { textContent: `${Math.round(performance.now() - ordered)} ms` }),
  );
  log.append(line);
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const ordered = performance.now();
  const response = await fetch(form.action, {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "application/json" },
    body: JSON.stringify(Object.fromEntries(new FormData(form))),
  }).catch((error) => ({ status: "", statusText: error.message }));
  if (response.status !== 202) {
    show("refused", `${response.status} ${response.statusText}`, ordered);
    return;
  }
  const { id, status, stream } = await response.json();
  show(status, `${response.status}, order ${id}`, ordered);

  const events = new EventSource(stream);
  events.addEventListener("status", (e) => show(JSON.parse(e.data).status, e.data, ordered));
  events.addEventListener("message", (e) => show("reply", e.data, ordered));
  events.addEventListener("end", (e) => {
    const { status, code } = JSON.parse(e.data);
    show(status, `${code ? `${code}, ` : ""}the stream has ended`, ordered);
    events.close();
  });
  addEventListener("pagehide", () => events.close(), { once: true });
});
