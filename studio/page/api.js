// Requests to the server. A tab has one name for as long as its page is loaded.

export const TAB = crypto.randomUUID();
const AWAY = "the server cannot be reached";

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status; // 0: the server cannot be reached
  }
}

export async function request(method, path, { body, headers = {} } = {}) {
  let answer;
  try {
    answer = await fetch(path, { method, body, headers: { "x-studio-tab": TAB, ...headers } });
  } catch {
    throw new Refused(0, AWAY);
  }
  if (!answer.ok) throw new Refused(answer.status, (await answer.text()).slice(0, 500));
  return answer;
}

// The same, but sent by a worker: to hand over a mask of 1,024 px takes longer than a frame. Gives
// the answer's tag.
let sender = null;
const sent = new Map(); // number -> what to do with the answer
function startSender() {
  const made = (sender = new Worker("/page/sender.js"));
  made.addEventListener("message", ({ data }) => {
    const { resolve, reject } = sent.get(data.id);
    sent.delete(data.id);
    if (data.ok) resolve(data.etag);
    else reject(new Refused(data.status, data.text));
  });
  made.addEventListener("error", () => { // its file cannot be read; the next request starts another
    sender = null;
    for (const { reject } of sent.values()) reject(new Refused(0, AWAY));
    sent.clear();
  });
}
export function requestApart(method, path, { body, headers }) {
  if (!sender) startSender();
  const id = crypto.randomUUID();
  return new Promise((resolve, reject) => {
    sent.set(id, { resolve, reject });
    sender.postMessage({ id, method, path, body, headers: { "x-studio-tab": TAB, ...headers } });
  });
}

export const getJson = async (path) => (await request("GET", path)).json();
export const send = (method, path, content) =>
  request(method, path, { body: JSON.stringify(content), headers: { "content-type": "application/json" } });

export async function getBytes(path) {
  const answer = await request("GET", path);
  return { bytes: new Uint8Array(await answer.arrayBuffer()), headers: answer.headers };
}

// Samples of the review are named by the weights that label them; all other names are images.
export const isSample = (stem) => /^review-[0-9a-f]{16}-\d{1,5}$/.test(stem);
export const image = (stem) => `/api/${isSample(stem) ? "review" : "images"}/${encodeURIComponent(stem)}`;
export const picture = (entry) => (isSample(entry.stem)
  ? `/review/${entry.stem}?v=${entry.tag}` : `/images/${encodeURIComponent(entry.stem)}?v=${entry.sha}`);
// A small picture of an image or sample, for lists.
export const SIDE = 256;
export const thumbnail = (entry) => (isSample(entry.stem)
  ? `${picture(entry)}&side=${SIDE}` : `/thumbnails/${encodeURIComponent(entry.stem)}?v=${entry.sha}`);

// A picture, decoded; else the server's words for why there is none.
export async function loaded(source) {
  const found = new Image();
  found.src = source;
  try {
    await found.decode();
  } catch {
    await request("GET", source);
    throw new Error("the picture cannot be decoded");
  }
  return found;
}
