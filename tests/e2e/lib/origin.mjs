// The unmodified API behind the wall. It knows nothing of payments, and writes down each request that reaches it.
import { createServer } from "node:http";
import { listen, sleep } from "./processes.mjs";

export const QUOTE = '{"symbol":"FWL","bid":"12.34","ask":"12.36"}\n';
export const FAILURE = '{"error":"the origin failed"}\n';
export const EVENTS = ["one", "two", "three"].map(word => `data: ${word}\n\n`);
export const EVENT_GAP_MS = 200;

export async function startOrigin() {
  const seen = [];
  const answer = (response, status, body) => {
    // With a length, as frameworks send it: a small answer that is withheld is then kept.
    const headers = { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(body), ETag: '"origin"' };
    response.writeHead(status, headers).end(body);
  };
  const routes = {
    "GET /free": response => {
      // What only a wall may say, said by the origin: none of it may reach a client.
      response.setHeader("PAYMENT-RESPONSE", "forged");
      response.setHeader("PAYMENT-REQUIRED", "forged");
      response.setHeader("X-PAYMENT-RESPONSE", "forged");
      answer(response, 200, '{"free":true}\n');
    },
    "GET /v1/quote": response => answer(response, 200, QUOTE),
    // Slow enough that copies of one proof overlap.
    "GET /v1/slow": async response => {
      await sleep(300);
      answer(response, 200, QUOTE);
    },
    "GET /v1/fail": response => answer(response, 500, FAILURE),
    "GET /v1/stream": async response => {
      response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-cache" });
      for (const [index, event] of EVENTS.entries()) {
        if (index > 0) await sleep(EVENT_GAP_MS);
        response.write(event);
      }
      response.end();
    },
    "POST /v1/echo": (response, body, request) =>
      response.writeHead(200, { "Content-Type": request.headers["content-type"] ?? "text/plain" }).end(body),
    "GET /__seen": response => answer(response, 200, JSON.stringify(seen)),
  };
  const server = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = Buffer.concat(chunks);
    const path = request.url.split("?")[0];
    if (path !== "/__seen") {
      seen.push({ method: request.method, path, headers: request.headers, body: body.toString("utf8") });
    }
    // As most frameworks do: HEAD is answered by the handler of GET. A wall must not rely on the origin here.
    const verb = request.method === "HEAD" ? "GET" : request.method;
    const route = routes[`${verb} ${path}`];
    if (!route) return answer(response, 404, '{"error":"no such route"}\n');
    await route(response, body, request);
  });
  const { url, close } = await listen(server);
  return {
    url,
    close,
    /** All requests so far, oldest first. */
    seen: async () => (await fetch(`${url}/__seen`)).json(),
  };
}
