// The buyers: stock clients, each of which turns a URL into { status, body, receipt }, where `receipt` is the raw value of
// the header that carries it.
import { x402Client, x402HTTPClient } from "@x402/core/client";
import { ExactEvmScheme } from "@x402/evm";
import { wrapFetchWithPayment as payingFetch } from "@x402/fetch";
import { createSigner, wrapFetchWithPayment as payingFetchV1 } from "x402-fetch";
import { join } from "node:path";
import { NETWORK, NETWORK_V1 } from "./chain.mjs";
import { run } from "./processes.mjs";

const clientOf = buyer => new x402Client().register(NETWORK, new ExactEvmScheme(buyer.signer));

/** `@x402/fetch` as its README uses it. */
export const fetchPaying = buyer => payingFetch(fetch, clientOf(buyer));

async function typescript(buyer, url) {
  const response = await fetchPaying(buyer)(url);
  return { status: response.status, body: await response.text(), receipt: response.headers.get("PAYMENT-RESPONSE") };
}

/** `x402-fetch`, the client of protocol version 1. */
async function typescriptV1(buyer, url) {
  const signer = await createSigner(NETWORK_V1, buyer.key);
  const response = await payingFetchV1(fetch, signer)(url);
  return { status: response.status, body: await response.text(), receipt: response.headers.get("X-PAYMENT-RESPONSE") };
}

async function program(name, args, buyer) {
  const { status, stdout, stderr } = await run(name, args, { env: { BUYER_KEY: buyer.key } });
  if (status !== 0) throw new Error(`${name} ended with status ${status}: ${stderr.trim().slice(-2000)}`);
  return JSON.parse(stdout);
}

const python = library => (buyer, url) => {
  const script = join(import.meta.dirname, "..", "buyers", "buyer.py");
  return program(process.env.E2E_PYTHON, [script, library, url], buyer);
};

const rust = (buyer, url) => program(process.env.E2E_RUST_BUYER, [url], buyer);

/** All stock clients, with the network's name in the version of the protocol that they speak. */
export const BUYERS = [
  { name: "TypeScript, @x402/fetch 2.27.0", pay: typescript, network: NETWORK, version: 2 },
  { name: "Python, x402 2.25.0 with httpx", pay: python("httpx"), network: NETWORK, version: 2 },
  { name: "Python, x402 2.25.0 with requests", pay: python("requests"), network: NETWORK, version: 2 },
  { name: "Rust, x402-reqwest 2.0.2", pay: rust, network: NETWORK, version: 2, needs: "E2E_RUST_BUYER" },
  { name: "protocol version 1, x402-fetch 1.2.0", pay: typescriptV1, network: NETWORK_V1, version: 1 },
];

/**
 * A proof made by hand with the official client's own parts: the value of PAYMENT-SIGNATURE for a challenge, not sent.
 * `alter` may change the payment after it was signed.
 */
export async function makeProof(buyer, challenge, alter = payment => payment) {
  const client = clientOf(buyer);
  const payment = alter(await client.createPaymentPayload(challenge));
  const headers = new x402HTTPClient(client).encodePaymentSignatureHeader(payment);
  return { payer: buyer.address, nonce: payment.payload.authorization.nonce, headers };
}
