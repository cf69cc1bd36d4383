// The official seller, `@x402/express`, in front of the same origin as the wall: what paying is compared with.
//
//   node seller.mjs PORT ORIGIN_PORT FACILITATOR_PORT
import { Agent, createServer, request } from "node:http";
import { HTTPFacilitatorClient } from "@x402/core/server";
import { ExactEvmScheme } from "@x402/evm/exact/server";
import { paymentMiddleware, x402ResourceServer } from "@x402/express";
import express from "express";

const [port, origin, facilitator] = process.argv.slice(2).map(Number);
const NETWORK = "eip155:84532";
const server = new x402ResourceServer(new HTTPFacilitatorClient({ url: `http://127.0.0.1:${facilitator}` }))
  .register(NETWORK, new ExactEvmScheme());
const payTo = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
const accepts = { scheme: "exact", price: "$0.001", network: NETWORK, payTo, maxTimeoutSeconds: 3600 };
const agent = new Agent({ keepAlive: true, maxSockets: 256 });
const app = express();
app.disable("etag");
app.use(paymentMiddleware({ "GET /paid": { accepts, description: "" } }, server));
app.use((ask, answer) => {
  const upstream = request({ agent, host: "127.0.0.1", port: origin, method: ask.method, path: ask.url }, got => {
    answer.writeHead(got.statusCode, got.headers);
    got.pipe(answer);
  });
  upstream.on("error", () => answer.writeHead(502).end());
  ask.pipe(upstream);
});
createServer(app).listen(port, "127.0.0.1");
