// The page of one device. Everything that comes from the device is put in as text, never as markup.
"use strict";

const STATUS_MS = 3000;
const PICTURE_MS = 1000;
const ASKED_MS = 700;
const CLOSE_ENOUGH = 0.02; // of the picture: a click so close to the first corner closes the polygon

const byId = (id) => document.getElementById(id);
const state = { status: null, camera: null, kind: null, corners: [], closed: false, removing: null, timers: {} };

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function call(path, body) {
  const options = body === undefined ? {} : {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  };
  const response = await fetch(path, { ...options, credentials: "same-origin" });
  const value = await response.json();
  if (!response.ok) throw new Refused(response.status, value.error.message);
  return value;
}

function show(id, text, kind = "") {
  byId(id).textContent = text;
  byId(id).className = kind;
}

function element(tag, text, kind = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = kind;
  return made;
}

// Log in and out ------------------------------------------------------------------------------------------------------

function showLogin(message = "") {
  Object.values(state.timers).forEach(clearTimeout);
  byId("page").hidden = true;
  byId("login").hidden = false;
  byId("picture").removeAttribute("src");
  show("login-error", message, "error");
  byId("token").focus();
}

async function begin() {
  byId("login").hidden = true;
  await refresh();
  if (state.status) byId("page").hidden = false;
  nextPicture(); // also while the device starts and has no status yet
}

byId("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    await call("api/login", { token: byId("token").value });
    byId("token").value = "";
    await begin();
  } catch (error) {
    showLogin(error.message);
  }
});

byId("logout").addEventListener("click", async () => {
  try {
    await call("api/logout", {});
  } finally {
    showLogin();
  }
});

// Status and answers --------------------------------------------------------------------------------------------------

// One timer an action: what is asked for out of turn takes the place of the next turn.
function later(action, delay) {
  clearTimeout(state.timers[action.name]);
  state.timers[action.name] = setTimeout(action, delay);
}

async function refresh() {
  try {
    const status = await call("api/status");
    const { answers } = await call("api/answers");
    state.status = status;
    show("trouble", "", "error");
    renderStatus(status);
    renderAnswers(answers);
  } catch (error) {
    if (error.status === 401) {
      state.status = null;
      showLogin();
      return;
    }
    show("trouble", error instanceof Refused ? error.message : "The device does not answer; trying again.", "error");
    byId("page").hidden = false;
  }
  later(refresh, STATUS_MS);
}

function counted(number, thing) {
  return `${number} ${thing}${number === 1 ? "" : "s"}`;
}

function renderStatus(status) {
  const { health } = status;
  document.title = `${status.device} – moedge`;
  byId("device").textContent = status.device;
  byId("model").textContent = `${status.model}, moedge ${status.version}`;
  const facts = [
    [health.mqtt.connected ? "broker connected" : "broker away", health.mqtt.connected],
    [`${counted(health.requests_waiting, "request")} waiting`, true],
    [health.last_answer_age_s === null ? "no answer yet" : `last answer ${Math.round(health.last_answer_age_s)} s ago`, true],
  ];
  if (health.board.temperature_c !== null) facts.push([`${health.board.temperature_c.toFixed(0)} °C`, health.board.pace === "normal"]);
  if (health.board.pace !== "normal") facts.push([`answers are spaced out (${health.board.pace})`, false]);
  if (health.board.under_voltage) facts.push(["under-voltage", false]);
  byId("facts").replaceChildren(...facts.map(([text, good]) => element("li", text, good ? "" : "bad")));
  const names = Object.keys(status.cameras);
  if (!names.includes(state.camera)) select(names[0] ?? null);
  byId("cameras").replaceChildren(...names.map((name) => {
    const button = element("button", `${name}: ${health.cameras[name].state}`);
    button.type = "button";
    button.dataset.camera = name;
    button.setAttribute("aria-current", String(name === state.camera));
    button.addEventListener("click", () => { select(name); renderStatus(state.status); });
    return button;
  }));
  const counts = health.cameras[state.camera];
  byId("camera-facts").textContent = counts
    ? `${counted(counts.frames, "frame")}: ${counts.skipped} skipped, ${counts.answered} answered, ${counts.dropped} dropped, ${counts.waiting} waiting`
    : "";
  renderOverlay();
  renderDrawing();
  renderMasks();
  renderPause();
}

function renderAnswers(answers) {
  byId("answers").replaceChildren(...answers.map((answer) => {
    const item = document.createElement("li");
    const time = new Date(answer.answered_at).toLocaleTimeString();
    const seconds = answer.timing ? `, ${answer.timing.total_s.toFixed(1)} s` : "";
    item.append(element("div", `${time} ${answer.camera}/${answer.watch ?? "request"}${seconds}`, "dim"));
    item.append(answer.status === "ok" ? element("div", answer.text) : element("div", answer.error.message, "bad"));
    return item;
  }));
}

// The picture ---------------------------------------------------------------------------------------------------------

function select(name) {
  state.camera = name;
  state.corners = [];
  state.closed = false;
  state.removing = null;
  byId("picture").removeAttribute("src"); // nobody draws on the picture of another camera
  later(nextPicture, 0);
}

function nextPicture() {
  if (byId("page").hidden) return;
  if (state.camera === null || document.hidden || isPaused()) {
    later(nextPicture, PICTURE_MS);
    return;
  }
  byId("picture").src = `api/cameras/${state.camera}/picture?at=${Date.now()}`;
}

byId("picture").addEventListener("load", () => later(nextPicture, PICTURE_MS));
byId("picture").addEventListener("error", () => { if (byId("picture").hasAttribute("src")) later(nextPicture, 3 * PICTURE_MS); });

// Polygons are fractions of the whole picture; what is shown is the part in the crop.
function shown([x, y]) {
  const [left, top, right, bottom] = state.status.cameras[state.camera].crop;
  return [(x - left) / (right - left), (y - top) / (bottom - top)];
}

function whole([x, y]) {
  const [left, top, right, bottom] = state.status.cameras[state.camera].crop;
  const round = (value) => Math.round(Math.min(1, Math.max(0, value)) * 10000) / 10000;
  return [round(left + x * (right - left)), round(top + y * (bottom - top))];
}

function svg(tag, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

const points = (polygon) => polygon.map((corner) => shown(corner).join(",")).join(" ");

const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

function label(polygon, text, kind) {
  const [x, y] = polygon.map(shown).reduce((least, corner) => (corner[1] < least[1] ? corner : least));
  const made = element("span", text, kind);
  made.style.left = `${100 * Math.min(0.9, Math.max(0, x))}%`;
  made.style.top = `${100 * Math.min(0.95, Math.max(0, y))}%`;
  byId("frame").append(made);
}

function renderOverlay() {
  document.querySelectorAll("#frame .name").forEach((label) => label.remove());
  const camera = state.status?.cameras[state.camera];
  if (!camera) {
    byId("overlay").replaceChildren();
    return;
  }
  const shapes = camera.masks.map((mask, index) => {
    label(mask, `mask ${index + 1}`, "name of-mask");
    return svg("polygon", { class: same(mask, state.removing) ? "mask going" : "mask", points: points(mask) });
  });
  for (const [name, zone] of Object.entries(camera.zones)) {
    shapes.push(svg("polygon", { class: "zone", points: points(zone), "data-zone": name }));
    label(zone, name, "name");
  }
  if (state.corners.length) {
    shapes.push(svg(state.closed ? "polygon" : "polyline", { class: "new", points: points(state.corners) }));
    for (const corner of state.corners) {
      const [x, y] = shown(corner);
      shapes.push(svg("path", { class: "corner", d: `M${x} ${y}h0.00001` }));
    }
  }
  byId("overlay").replaceChildren(...shapes);
}

// Drawing -------------------------------------------------------------------------------------------------------------

function choose(kind) {
  state.kind = state.kind === kind ? null : kind;
  state.corners = [];
  state.closed = false;
  show("draw-result", "");
  renderOverlay();
  renderDrawing();
}

function yamlText() {
  const corners = `[${state.corners.map(([x, y]) => `[${x}, ${y}]`).join(", ")}]`;
  return state.kind === "masks"
    ? `cameras:\n  ${state.camera}:\n    masks: [${corners}]`
    : `cameras:\n  ${state.camera}:\n    zones: {${byId("zone-name").value || "NAME"}: ${corners}}`;
}

function renderDrawing() {
  byId("draw-mask").setAttribute("aria-pressed", String(state.kind === "masks"));
  byId("draw-zone").setAttribute("aria-pressed", String(state.kind === "zones"));
  byId("zone-name").hidden = state.kind !== "zones";
  byId("frame").classList.toggle("drawing", state.kind !== null && !state.closed);
  const whole = state.closed && (state.kind === "masks" || byId("zone-name").value !== "");
  byId("yaml").value = state.closed ? yamlText() : "";
  byId("copy").disabled = !whole;
  byId("apply").disabled = !whole || !state.status?.allow_changes;
  byId("apply").title = state.status?.allow_changes ? "" : "web.allow_changes is false: copy it into moedge.yaml";
  byId("hint").textContent = state.kind === null
    ? "Choose mask or zone, then click the corners in the picture."
    : state.closed ? "Add it to what the camera has already."
      : "Click the corners in order; click the first one again to close it.";
}

byId("draw-mask").addEventListener("click", () => choose("masks"));
byId("draw-zone").addEventListener("click", () => choose("zones"));
byId("zone-name").addEventListener("input", renderDrawing);

byId("undo").addEventListener("click", () => {
  if (state.closed) state.closed = false;
  else state.corners.pop();
  renderOverlay();
  renderDrawing();
});

byId("overlay").addEventListener("click", (event) => {
  if (state.kind === null || state.closed || !state.status) return;
  const box = byId("overlay").getBoundingClientRect();
  const at = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  const first = state.corners.length ? shown(state.corners[0]) : null;
  const closes = first && Math.hypot(at[0] - first[0], at[1] - first[1]) < CLOSE_ENOUGH;
  if (closes && state.corners.length >= 3) state.closed = true;
  else if (!closes) state.corners.push(whole(at));
  renderOverlay();
  renderDrawing();
});

byId("copy").addEventListener("click", async () => {
  byId("yaml").select();
  try {
    if (navigator.clipboard) await navigator.clipboard.writeText(byId("yaml").value);
    else document.execCommand("copy"); // without TLS there is no clipboard object
    show("draw-result", "Copied.", "good");
  } catch {
    document.execCommand("copy");
    show("draw-result", "Copied.", "good");
  }
});

byId("apply").addEventListener("click", async () => {
  byId("apply").disabled = true;
  show("draw-result", "Applying …");
  try {
    const body = { polygon: state.corners };
    if (state.kind === "zones") body.name = byId("zone-name").value;
    const { id } = await call(`api/cameras/${state.camera}/${state.kind}`, body);
    const outcome = await ended(id);
    choose(null);
    state.kind = null;
    await refresh();
    show("draw-result", outcome.changed ? "Applied." : "Nothing has changed.", "good");
  } catch (error) {
    show("draw-result", error.message, "bad");
    renderDrawing();
  }
});

// Pausing a camera ----------------------------------------------------------------------------------------------------

const isPaused = () => state.status?.cameras[state.camera]?.enabled === false;

function renderPause() {
  const camera = state.status.cameras[state.camera];
  byId("pause").hidden = !camera;
  byId("pause").textContent = isPaused() ? `Let ${state.camera} go on` : `Pause ${state.camera}`;
  byId("pause").disabled = !state.status.allow_changes;
  byId("pause").title = state.status.allow_changes ? "" : "web.allow_changes is false: pause it over MQTT";
  byId("frame").classList.toggle("paused", isPaused());
  if (isPaused()) byId("picture").removeAttribute("src");
}

byId("pause").addEventListener("click", async () => {
  byId("pause").disabled = true;
  show("pause-result", "");
  try {
    const { id } = await call(`api/cameras/${state.camera}/enabled`, { on: isPaused() });
    await ended(id);
    await refresh();
    later(nextPicture, 0);
  } catch (error) {
    show("pause-result", error.message, "bad");
    renderPause();
  }
});

// Removing a mask -----------------------------------------------------------------------------------------------------

function renderMasks() {
  const masks = state.status?.cameras[state.camera]?.masks ?? [];
  const number = masks.findIndex((mask) => same(mask, state.removing)) + 1;
  if (!number) state.removing = null; // someone else has removed it
  byId("masks").replaceChildren(...masks.map((mask, index) => {
    const button = element("button", `Remove mask ${index + 1} …`);
    button.type = "button";
    button.disabled = !state.status.allow_changes;
    button.title = state.status.allow_changes ? "" : "web.allow_changes is false: take it out of moedge.yaml";
    button.addEventListener("click", () => {
      state.removing = mask;
      show("remove-result", "");
      renderOverlay();
      renderMasks();
    });
    const item = document.createElement("li");
    item.append(button);
    return item;
  }));
  byId("removing").hidden = !number;
  if (number) {
    byId("remove-warning").textContent = `Without mask ${number} of camera ${state.camera}, what is under it can be seen from the next `
      + "frame on: by the model, in pictures on MQTT, and by everybody who opens this page. Only a new mask hides it again, and only "
      + "from then on.";
  }
}

byId("remove-keep").addEventListener("click", () => {
  state.removing = null;
  renderOverlay();
  renderMasks();
});

byId("remove-confirm").addEventListener("click", async () => {
  byId("remove-confirm").disabled = true;
  show("remove-result", "Removing …");
  try {
    const { id } = await call(`api/cameras/${state.camera}/masks/remove`, { polygon: state.removing });
    await ended(id);
    state.removing = null;
    await refresh();
    show("remove-result", "Removed.", "good");
  } catch (error) {
    show("remove-result", error.message, "bad");
  } finally {
    byId("remove-confirm").disabled = false;
  }
});

// Questions -----------------------------------------------------------------------------------------------------------

async function ended(id) {
  for (;;) {
    try {
      const outcome = await call(`api/asked/${id}`);
      if (outcome.state === "done") return outcome.data;
      if (outcome.state === "failed") throw new Error(outcome.error.message);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // the network: the server is back soon
    }
    await new Promise((resolve) => setTimeout(resolve, ASKED_MS));
  }
}

byId("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = byId("ask").querySelector("button");
  button.disabled = true;
  show("reply", "Waiting for the model …", "dim");
  try {
    const { id } = await call("api/ask", { camera: state.camera, question: byId("question").value });
    const answer = await ended(id);
    show("reply", answer.status === "ok" ? answer.text : answer.error.message, answer.status === "ok" ? "good" : "bad");
  } catch (error) {
    show("reply", error.message, "bad");
  } finally {
    button.disabled = false;
  }
});

begin();
