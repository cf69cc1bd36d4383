// What the wall promises beyond the official seller: one claim per payment, retries for free, nothing unpaid, streams that
// stay streams.
import assert from "node:assert/strict";
import { fetchPaying, makeProof } from "./buyers.mjs";
import { highS, NETWORK, NETWORK_V1, USDC } from "./chain.mjs";
import { EVENT_GAP_MS, EVENTS, QUOTE } from "./origin.mjs";
import { refused } from "./payments.mjs";
import { sleep } from "./processes.mjs";
import { checkReceipt, decode, PRICE } from "./world.mjs";

const COPIES = 50;

export async function guaranteeSteps(steps, world, { nextBuyer }) {
  await steps.step("the body of a 402 is a challenge of protocol version 1", async () => {
    const response = await fetch(world.url("/v1/quote"));
    const { x402Version, error, accepts } = await response.json();
    assert.equal(x402Version, 1);
    assert.equal(typeof error, "string");
    assert.equal(accepts.length, 1);
    const { scheme, network, maxAmountRequired, asset, payTo, resource, extra } = accepts[0];
    assert.deepEqual({ scheme, network, maxAmountRequired, asset, payTo, resource, extra }, {
      scheme: "exact", network: NETWORK_V1, maxAmountRequired: String(PRICE), asset: USDC, payTo: world.payTo,
      resource: world.url("/v1/quote"), extra: { name: "USDC", version: "2" },
    });
  });

  await steps.step("HEAD on a priced GET gets 402 and does not reach the origin", async () => {
    const buyer = await nextBuyer();
    const { changed } = await world.changesOf(buyer.address, async () => {
      const response = await fetch(world.url("/v1/quote"), { method: "HEAD" });
      assert.equal(response.status, 402);
      assert.equal(decode(response.headers.get("PAYMENT-REQUIRED")).accepts[0].amount, String(PRICE));
      assert.equal(response.headers.get("ETag"), null);
    });
    assert.deepEqual(changed.seen, []);
  });

  await steps.step("a path that no rule names gets 404 and does not reach the origin", async () => {
    const before = (await world.origin.seen()).length;
    assert.equal((await fetch(world.url("/__seen"))).status, 404);
    assert.equal((await fetch(world.url("/v1/unlisted"))).status, 404);
    assert.equal((await world.origin.seen()).length, before);
  });

  await steps.step("headers of the wall cannot be forged, by a client or by the origin", async () => {
    const before = (await world.origin.seen()).length;
    const forged = ["X-Farewall-Payer", "X-Farewall-Amount", "X-Farewall-Asset", "X-Farewall-Network",
      "X-Farewall-Payment-Id", "X-Farewall-Rule", "PAYMENT-SIGNATURE", "X-PAYMENT"];
    const headers = Object.fromEntries(forged.map(name => [name, "forged"]));
    const response = await fetch(world.url("/free"), { headers });
    assert.equal(response.status, 200);
    for (const name of ["PAYMENT-RESPONSE", "PAYMENT-REQUIRED", "X-PAYMENT-RESPONSE"]) {
      assert.equal(response.headers.get(name), null, `${name} of the origin reached the client`);
    }
    const [request] = (await world.origin.seen()).slice(before);
    const arrived = Object.entries(request.headers).filter(([, value]) => value === "forged");
    assert.deepEqual(arrived, [], "headers of the client that reached the origin");
  });

  await steps.step("the same proof again gets the same bytes for free, another route gets 402", async () => {
    const buyer = await nextBuyer();
    const proof = await makeProof(buyer, await world.challenge("/v1/quote"));
    const first = await world.changesOf(buyer.address, () => buy(world, proof, buyer));
    assert.equal(first.result.replayed, null);
    await world.checkCharged(first.changed, { payer: buyer.address, transaction: first.result.transaction });

    const again = await world.changesOf(buyer.address, () => buy(world, proof, buyer));
    assert.equal(again.result.replayed, "true", "Idempotency-Replayed");
    assert.equal(again.result.transaction, first.result.transaction);
    world.checkNotCharged(again.changed);
    assert.deepEqual(again.changed.seen, []);

    await refused(world, buyer, proof, "/v1/slow");
    await refused(world, buyer, proof, "/v1/quote?other=1");
    await refused(world, buyer, proof, "/v1/echo", { method: "POST", body: "{}" });
  });

  await steps.step(`${COPIES} copies of one proof at once run the origin once and are charged once`, async () => {
    const buyer = await nextBuyer();
    const proof = await makeProof(buyer, await world.challenge("/v1/slow"));
    const { result, changed } = await world.changesOf(buyer.address, () =>
      Promise.all(Array.from({ length: COPIES }, async () => {
        const response = await fetch(world.url("/v1/slow"), { headers: proof.headers });
        return {
          status: response.status,
          body: await response.text(),
          receipt: response.headers.get("PAYMENT-RESPONSE"),
        };
      })));
    assert.equal(changed.seen.length, 1, "runs of the origin");
    assert.equal(changed.settle, 1, "settle calls");
    const served = result.filter(({ status }) => status === 200);
    assert.ok(served.length >= 1, "nobody was served");
    const transactions = new Set();
    for (const { body, receipt } of served) {
      assert.equal(body, QUOTE);
      transactions.add(checkReceipt(receipt, { payer: buyer.address, network: NETWORK }).transaction);
    }
    assert.equal(transactions.size, 1);
    await world.checkCharged(changed, { payer: buyer.address, transaction: [...transactions][0] });
    const others = result.filter(({ status }) => status !== 200);
    for (const { status, body } of others) {
      assert.ok([402, 409, 425, 429, 503].includes(status), `status ${status}`);
      assert.ok(!body.includes("12.34"), "a refusal contains the paid content");
    }
    return `${served.length} of ${COPIES} served`;
  });

  await steps.step("a settlement whose answer was lost is found on the chain, and the same proof collects", async () => {
    const buyer = await nextBuyer();
    const proof = await makeProof(buyer, await world.challenge("/v1/quote"));
    const { result, changed } = await world.changesOf(buyer.address, async () => {
      world.facilitator.loseNextSettlement();
      const lost = await fetch(world.url("/v1/quote"), { headers: proof.headers });
      assert.equal(lost.status, 503);
      assert.equal((await lost.json()).error, "settlement_unknown");
      assert.equal(lost.headers.get("PAYMENT-REQUIRED"), null, "an invitation to pay again");
      const began = performance.now();
      for (;;) {
        const response = await fetch(world.url("/v1/quote"), { headers: proof.headers });
        const body = await response.text();
        if (response.status === 200) {
          assert.equal(body, QUOTE);
          const receipt = checkReceipt(response.headers.get("PAYMENT-RESPONSE"), { payer: buyer.address, network: NETWORK });
          return { transaction: receipt.transaction, ms: performance.now() - began };
        }
        assert.equal(response.status, 503, body);
        assert.ok(performance.now() - began < 30_000, "never collected");
        await sleep(250);
      }
    });
    assert.equal(changed.paid, PRICE, "what left the payer's balance");
    assert.equal(changed.earned, PRICE, "what reached payTo's balance");
    assert.equal(changed.seen.length, 1, "runs of the origin");
    const transfers = await world.chain.transfersIn(result.transaction);
    assert.deepEqual(transfers, [{ from: buyer.address, to: world.payTo, value: PRICE }]);
    return `collected after ${Math.round(result.ms)} ms`;
  });

  await steps.step("a paid event stream stays a stream", async () => {
    const buyer = await nextBuyer();
    const { result, changed } = await world.changesOf(buyer.address, async () => {
      const response = await fetchPaying(buyer)(world.url("/v1/stream"));
      assert.equal(response.status, 200);
      assert.match(response.headers.get("Content-Type"), /^text\/event-stream/);
      const decoder = new TextDecoder();
      const arrivals = [];
      let text = "";
      for await (const chunk of response.body) {
        text += decoder.decode(chunk, { stream: true });
        while (arrivals.length < EVENTS.length && text.length >= EVENTS.slice(0, arrivals.length + 1).join("").length) {
          arrivals.push(performance.now());
        }
      }
      assert.equal(text, EVENTS.join(""));
      const receipt = checkReceipt(response.headers.get("PAYMENT-RESPONSE"), { payer: buyer.address, network: NETWORK });
      return { arrivals, transaction: receipt.transaction };
    });
    await world.checkCharged(changed, { payer: buyer.address, transaction: result.transaction });
    world.checkForwarded(changed, { payer: buyer.address, path: "/v1/stream", rule: "stream" });
    const [first, , last] = result.arrivals;
    assert.ok(last - first >= EVENT_GAP_MS, `all events arrived within ${Math.round(last - first)} ms`);
    return `last event ${Math.round(last - first)} ms after the first`;
  });

  await steps.step("a proof with the other signature of the same key is refused without asking the facilitator", async () => {
    const buyer = await nextBuyer();
    const proof = await makeProof(buyer, await world.challenge("/v1/quote"), payment => ({
      ...payment, payload: { ...payment.payload, signature: highS(payment.payload.signature) },
    }));
    const changed = await refused(world, buyer, proof);
    assert.equal(changed.verify, 0, "verify calls");
  });
}

async function buy(world, proof, buyer) {
  const response = await fetch(world.url("/v1/quote"), { headers: proof.headers });
  assert.equal(response.status, 200);
  assert.equal(await response.text(), QUOTE);
  const receipt = checkReceipt(response.headers.get("PAYMENT-RESPONSE"), { payer: buyer.address, network: NETWORK });
  return { transaction: receipt.transaction, replayed: response.headers.get("Idempotency-Replayed") };
}
