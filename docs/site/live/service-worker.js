// Answers from what was loaded before, so that the page works without a network, and says with each answer that the
// page is isolated from all others: browsers then give it shared memory, and with that threads.

const KEPT = "stzoo-live";
const PATIENCE = 3000; // milliseconds, after which what is kept is better than what the network may still send

self.addEventListener("install", (event) => {
  event.waitUntil(
    (async () => {
      const files = await (await fetch("./files.json", { cache: "no-cache" })).json();
      const kept = await caches.open(KEPT);
      await kept.addAll(files.map((file) => new Request(file, { cache: "no-cache" })));
      await self.skipWaiting();
    })(),
  );
});

self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("fetch", (event) => {
  if (event.request.method === "GET" && new URL(event.request.url).origin === location.origin) {
    event.respondWith(answer(event.request));
  }
});

// What never changes under its name, the runtime and the models, is taken from what was kept. Of everything else the
// network's is better, so that a new version of the site is seen.
async function answer(request) {
  const old = await caches.match(request, { ignoreSearch: true });
  if (old && /\/(models|runtime-[^/]+)\//.test(request.url)) return isolated(old);
  try {
    const fresh = await fetch(request, old ? { signal: AbortSignal.timeout(PATIENCE) } : {});
    if (fresh.ok) await (await caches.open(KEPT)).put(request, fresh.clone());
    return isolated(fresh);
  } catch (error) {
    if (old) return isolated(old);
    throw error;
  }
}

function isolated(answered) {
  if (answered.type === "opaque" || answered.status === 0) return answered;
  const headers = new Headers(answered.headers);
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Resource-Policy", "same-origin");
  return new Response(answered.body, { status: answered.status, statusText: answered.statusText, headers });
}
