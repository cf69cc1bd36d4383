// Everything that a step looks at: the seller, the chain, the facilitator and the origin, and what a step changed in them.
import assert from "node:assert/strict";
import { getAddress } from "viem";
import { USDC } from "./chain.mjs";

export const PRICE = 10_000n; // $0.01 in atomic units of USDC
const BASE64 = /^[A-Za-z0-9+/]+={0,2}$/;
const TRANSACTION = /^0x[0-9a-f]{64}$/;

/** Decodes a header of base64 and JSON, and insists on the padded standard alphabet. */
export function decode(value) {
  assert.equal(typeof value, "string", "the header is missing");
  assert.match(value, BASE64);
  assert.equal(value.length % 4, 0, "base64 without padding");
  return JSON.parse(Buffer.from(value, "base64").toString("utf8"));
}

/** A receipt that says that `payer` paid, and in which transaction. */
export function checkReceipt(header, { payer, network }) {
  const receipt = decode(header);
  assert.equal(receipt.success, true);
  assert.equal(receipt.network, network);
  assert.match(receipt.transaction, TRANSACTION);
  assert.equal(getAddress(receipt.payer), payer);
  return receipt;
}

export class World {
  constructor({ seller, chain, facilitator, origin, payTo }) {
    Object.assign(this, { seller, chain, facilitator, origin, payTo });
  }

  url(path) {
    return `${this.seller.url}${path}`;
  }

  /** The challenge of an unpaid request. */
  async challenge(path, init) {
    const response = await fetch(this.url(path), init);
    await response.arrayBuffer();
    assert.equal(response.status, 402);
    return decode(response.headers.get("PAYMENT-REQUIRED"));
  }

  async snapshot(payer) {
    const { verify, settle } = await (await fetch(`${this.facilitator.url}/stats`)).json();
    return {
      payer: await this.chain.balanceOf(payer),
      payTo: await this.chain.balanceOf(this.payTo),
      verify,
      settle,
      seen: (await this.origin?.seen())?.length ?? 0,
    };
  }

  /** Runs `work` and says by how much it changed balances and counters, and which requests it made the origin see. */
  async changesOf(payer, work) {
    const before = await this.snapshot(payer);
    const result = await work();
    const after = await this.snapshot(payer);
    const changed = {
      paid: before.payer - after.payer,
      earned: after.payTo - before.payTo,
      verify: after.verify - before.verify,
      settle: after.settle - before.settle,
      seen: ((await this.origin?.seen()) ?? []).slice(before.seen),
    };
    return { result, changed };
  }

  /** Exactly one payment of the price was made, in `transaction`. */
  async checkCharged(changed, { payer, transaction }) {
    assert.equal(changed.paid, PRICE, "what left the payer's balance");
    assert.equal(changed.earned, PRICE, "what reached payTo's balance");
    assert.equal(changed.settle, 1, "settle calls");
    const transfers = await this.chain.transfersIn(transaction);
    assert.deepEqual(transfers, [{ from: payer, to: this.payTo, value: PRICE }], "Transfer logs of the transaction");
  }

  checkNotCharged(changed) {
    assert.equal(changed.paid, 0n, "what left the payer's balance");
    assert.equal(changed.earned, 0n, "what reached payTo's balance");
    assert.equal(changed.settle, 0, "settle calls");
  }

  /** One request reached the origin, named its payer, and carried nothing of the payment protocol. Wall only. */
  checkForwarded(changed, { payer, method = "GET", path, rule }) {
    assert.deepEqual(changed.seen.map(({ method, path }) => `${method} ${path}`), [`${method} ${path}`]);
    const { headers } = changed.seen[0];
    for (const name of ["payment-signature", "payment-required", "payment-response", "x-payment", "x-payment-response"]) {
      assert.equal(headers[name], undefined, `${name} reached the origin`);
    }
    assert.equal(getAddress(headers["x-farewall-payer"]), payer);
    assert.equal(headers["x-farewall-amount"], String(PRICE));
    assert.ok(headers["x-farewall-asset"]?.toLowerCase().includes(USDC.toLowerCase()), "X-Farewall-Asset");
    assert.equal(headers["x-farewall-network"], "eip155:84532");
    assert.ok(headers["x-farewall-payment-id"], "X-Farewall-Payment-Id");
    assert.equal(headers["x-farewall-rule"], rule);
  }
}
