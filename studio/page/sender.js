// A worker: sends requests with large bodies, each of which would hold up a stroke in the page.

addEventListener("message", async ({ data: { id, method, path, body, headers } }) => {
  try {
    const answer = await fetch(path, { method, body, headers });
    const text = answer.ok ? "" : (await answer.text()).slice(0, 500);
    postMessage({ id, status: answer.status, ok: answer.ok, text, etag: answer.headers.get("etag") });
  } catch {
    postMessage({ id, status: 0, ok: false, text: "the server cannot be reached" });
  }
});
