// Answers from what was loaded before, so that the page works without a network, and says with each answer that the
// page is isolated from all others: browsers then give it shared memory, and with that threads.
//
// When the site is built, browser.py writes the three constants. A site that has changed has another VERSION; browsers
// then install this file anew, beside the old one, and use it once no page of the old one is open any more.

const VERSION = "";
const FILES = []; // the page itself
const LASTING = []; // what never changes under its name: the models, and the runtime

const SHELL = `stzoo-live-${VERSION}`; // holds FILES, as a whole, so that no page runs with the scripts of another one
const KEPT = "stzoo-live-kept"; // holds what was asked for of LASTING
const lasts = ({ url }) => LASTING.some((name) => url.endsWith(`/${name}`));

self.addEventListener("install", (event) => event.waitUntil(shell()));

async function shell() {
  const fresh = FILES.map((file) => new Request(file, { cache: "no-cache" }));
  await (await caches.open(SHELL)).addAll(fresh);
}

self.addEventListener("activate", (event) => event.waitUntil(begin()));

async function begin() {
  const old = (await caches.keys()).filter((name) => name.startsWith("stzoo-live-") && ![SHELL, KEPT].includes(name));
  await Promise.all(old.map((name) => caches.delete(name)));
  const kept = await caches.open(KEPT);
  const gone = (await kept.keys()).filter((request) => !lasts(request));
  await Promise.all(gone.map((request) => kept.delete(request)));
  await self.clients.claim();
}

self.addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  if (method === "GET" && new URL(url).origin === location.origin) event.respondWith(answer(event.request));
});

async function answer(request) {
  const folder = request.url.replace(/[?#].*/, "") === self.registration.scope; // not every host has a page for it
  const kept = await caches.open(lasts(request) ? KEPT : SHELL);
  const known = await kept.match(folder ? "index.html" : request, { ignoreSearch: true });
  if (known) return isolated(known);
  const fresh = await fetch(request);
  if (fresh.ok && lasts(request)) {
    const copy = fresh.clone();
    await (await caches.open(KEPT)).put(request, copy).catch(() => {}); // there may be no room for it
  }
  return isolated(fresh);
}

function isolated(answered) {
  if (answered.type === "opaque" || answered.status === 0) return answered;
  const headers = new Headers(answered.headers);
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Resource-Policy", "same-origin");
  return new Response(answered.body, { status: answered.status, statusText: answered.statusText, headers });
}
