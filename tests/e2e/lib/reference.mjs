// The official seller, `@x402/express`, with the prices of the wall: what the wall is compared with.
import { createServer } from "node:http";
import { HTTPFacilitatorClient } from "@x402/core/server";
import { ExactEvmScheme } from "@x402/evm/exact/server";
import { paymentMiddleware, x402ResourceServer } from "@x402/express";
import express from "express";
import { NETWORK } from "./chain.mjs";
import { FAILURE, QUOTE } from "./origin.mjs";
import { listen } from "./processes.mjs";

export async function startReference({ facilitator, payTo }) {
  const server = new x402ResourceServer(new HTTPFacilitatorClient({ url: facilitator.url }))
    .register(NETWORK, new ExactEvmScheme());
  const paid = { accepts: { scheme: "exact", price: "$0.01", network: NETWORK, payTo }, description: "" };
  const app = express();
  app.use(paymentMiddleware({ "GET /v1/quote": paid, "GET /v1/fail": paid, "POST /v1/echo": paid }, server));
  app.get("/free", (_, response) => response.json({ free: true }));
  app.get("/v1/quote", (_, response) => response.type("application/json").send(QUOTE));
  app.get("/v1/fail", (_, response) => response.status(500).type("application/json").send(FAILURE));
  app.post("/v1/echo", express.text({ type: "*/*" }), (request, response) =>
    response.type(request.headers["content-type"]).send(request.body));
  return listen(createServer(app));
}
