// Posts jobs, and shows twice a second what the gateway has measured and decided.

const span = 120_000; // milliseconds that the chart shows
const most = 8; // workers, in the Caddyfile

const seen = []; // {at, backlog, running}, oldest first

const show = (id, text) => { document.getElementById(id).textContent = text; };

async function look() {
  const response = await fetch("scale").catch(() => null);
  const all = response?.ok ? await response.json() : [];
  const jobs = all.find(({ topic }) => topic === "jobs");
  if (!jobs) {
    show("reason", "The gateway does not answer.");
    return;
  }
  // What the gateway does not know is null.
  const told = (number, digits = 0) => number?.toLocaleString("en", { maximumFractionDigits: digits }) ?? "–";
  show("inflow", `${told(jobs.inflow)}/s`);
  show("backlog", told(jobs.backlog));
  show("oldest", `${told(jobs.oldest_seconds, 1)} s`);
  show("desired", told(jobs.desired));
  show("running", told(jobs.running));
  show("reason", jobs.reason);
  seen.push({ at: performance.now(), backlog: jobs.backlog ?? 0, running: jobs.running ?? 0 });
  while (seen[0].at < performance.now() - span) seen.shift();
  draw();
}

// draw fills the chart: what waits as an area, the workers as steps.
function draw() {
  const high = Math.max(10, ...seen.map(({ backlog }) => backlog));
  show("most", high.toLocaleString("en"));
  const x = (at) => (600 * (1 - (performance.now() - at) / span)).toFixed(1);
  const y = (share) => (158 - 155 * share).toFixed(1);
  const area = seen.map(({ at, backlog }) => `${x(at)},${y(backlog / high)}`);
  const steps = seen.flatMap(({ at, running }, i) => [`${x(at)},${y((seen[i - 1] ?? seen[i]).running / most)}`, `${x(at)},${y(running / most)}`]);
  document.getElementById("waiting").setAttribute("points", [`${x(seen[0].at)},160`, ...area, `${x(seen.at(-1).at)},160`].join(" "));
  document.getElementById("working").setAttribute("points", steps.join(" "));
}

let posted = 0;

document.querySelector("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const jobs = Number(event.submitter.value);
  await Promise.all(Array.from({ length: jobs }, async (_, n) => {
    const response = await fetch("jobs", {
      method: "POST",
      headers: { "Content-Type": "application/json", Accept: "application/json" },
      body: JSON.stringify({ n, ms: 100 }),
    }).catch(() => null);
    if (response?.status === 202) show("posted", `${(++posted).toLocaleString("en")} accepted`);
  }));
});

// One look after the other, so that slow ones do not pile up.
for (;;) {
  await look();
  await new Promise((go) => setTimeout(go, 500));
}
