// Sends an order with fetch, gets 202 and a stream URL, and listens there.
// Without JavaScript the form posts itself, and the gateway's own page waits.

const form = document.querySelector("form");
const log = document.querySelector("#log");

function show(status, text) {
  const line = document.createElement("li");
  line.dataset.status = status;
  line.append(Object.assign(document.createElement("b"), { textContent: status }));
  line.append(Object.assign(document.createElement("code"), { textContent: text }));
  log.append(line);
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const response = await fetch(form.action, {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "application/json" },
    body: JSON.stringify({ item: form.elements.item.value }),
  }).catch((error) => ({ ok: false, status: 0, statusText: error.message }));
  if (response.status !== 202) {
    show("refused", `${response.status} ${response.statusText}`);
    return;
  }
  const { id, status, stream } = await response.json();
  show(status, id);

  const events = new EventSource(stream);
  events.addEventListener("status", (e) => show(JSON.parse(e.data).status, e.data));
  events.addEventListener("message", (e) => show("reply", e.data));
  events.addEventListener("end", (e) => {
    show(JSON.parse(e.data).status, "the stream has ended");
    events.close();
  });
  addEventListener("pagehide", () => events.close(), { once: true });
});
