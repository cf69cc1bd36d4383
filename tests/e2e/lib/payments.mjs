// What every seller must do: stock clients pay and are served, failures cost nothing. Run against the wall and against the
// official seller alike.
import assert from "node:assert/strict";
import { BUYERS, fetchPaying, makeProof } from "./buyers.mjs";
import { NETWORK, USDC } from "./chain.mjs";
import { FAILURE, QUOTE } from "./origin.mjs";
import { checkReceipt, decode, PRICE } from "./world.mjs";

export async function paymentSteps(steps, world, { nextBuyer, isWall }) {
  await steps.step("a free route is free", async () => {
    const response = await fetch(world.url("/free"));
    assert.equal(response.status, 200);
    assert.deepEqual(await response.json(), { free: true });
  });

  await steps.step("an unpaid request gets 402 with a challenge that names price, token and payee", async () => {
    const buyer = await nextBuyer();
    const { changed } = await world.changesOf(buyer.address, async () => {
      const response = await fetch(world.url("/v1/quote"));
      assert.equal(response.status, 402);
      assert.match(response.headers.get("Content-Type"), /^application\/json/);
      assert.match(response.headers.get("Cache-Control"), /no-store/);
      const challenge = decode(response.headers.get("PAYMENT-REQUIRED"));
      assert.equal(challenge.x402Version, 2);
      assert.equal(challenge.resource.url, world.url("/v1/quote"));
      assert.deepEqual(challenge.accepts, [{
        scheme: "exact", network: NETWORK, amount: String(PRICE), asset: USDC, payTo: world.payTo,
        maxTimeoutSeconds: 300, extra: { name: "USDC", version: "2" },
      }]);
      assert.ok(!(await response.text()).includes("12.34"), "the 402 contains the paid content");
    });
    world.checkNotCharged(changed);
    assert.deepEqual(changed.seen, []);
  });

  for (const { name, pay, network, version, needs } of BUYERS) {
    const sentence = `${name}: pays, is served, and the chain agrees`;
    if (version === 1 && !isWall) {
      steps.skip(sentence, "the official seller of version 2 does not serve version 1");
      continue;
    }
    if (needs && !process.env[needs]) {
      steps.skip(sentence, "E2E_SKIP_RUST is set");
      continue;
    }
    await steps.step(sentence, async () => {
      const buyer = await nextBuyer();
      const { result, changed } = await world.changesOf(buyer.address, () => pay(buyer, world.url("/v1/quote")));
      assert.equal(result.status, 200, result.body);
      assert.equal(result.body, QUOTE);
      const { transaction } = checkReceipt(result.receipt, { payer: buyer.address, network });
      await world.checkCharged(changed, { payer: buyer.address, transaction });
      if (isWall) world.checkForwarded(changed, { payer: buyer.address, path: "/v1/quote", rule: "quote" });
      return `transaction ${transaction.slice(0, 12)}…`;
    });
  }

  await steps.step("a POST is paid for and its body arrives", async () => {
    const buyer = await nextBuyer();
    const body = JSON.stringify({ question: "Wie viel kostet das?", sign: "₮", filler: "x".repeat(20_000) });
    const { result, changed } = await world.changesOf(buyer.address, () =>
      fetchPaying(buyer)(world.url("/v1/echo"), {
        method: "POST", body, headers: { "Content-Type": "application/json" },
      }));
    assert.equal(result.status, 200);
    assert.equal(await result.text(), body);
    const receipt = checkReceipt(result.headers.get("PAYMENT-RESPONSE"), { payer: buyer.address, network: NETWORK });
    await world.checkCharged(changed, { payer: buyer.address, transaction: receipt.transaction });
    if (isWall) {
      world.checkForwarded(changed, { payer: buyer.address, method: "POST", path: "/v1/echo", rule: "echo" });
      assert.equal(changed.seen[0].body, body);
    }
  });

  await steps.step("a route that answers 500 charges nothing, and the same proof then buys a good answer", async () => {
    const buyer = await nextBuyer();
    const proof = await makeProof(buyer, await world.challenge("/v1/fail"));
    const failing = await world.changesOf(buyer.address, async () => {
      const response = await fetch(world.url("/v1/fail"), { headers: proof.headers });
      assert.equal(response.status, 500);
      assert.equal(await response.text(), FAILURE);
      assert.equal(response.headers.get("PAYMENT-RESPONSE"), null);
    });
    world.checkNotCharged(failing.changed);
    assert.equal(await world.chain.read("authorizationState", [proof.payer, proof.nonce]), false);

    const good = await world.changesOf(buyer.address, async () => {
      const response = await fetch(world.url("/v1/quote"), { headers: proof.headers });
      assert.equal(response.status, 200);
      assert.equal(await response.text(), QUOTE);
      return checkReceipt(response.headers.get("PAYMENT-RESPONSE"), { payer: buyer.address, network: NETWORK });
    });
    await world.checkCharged(good.changed, { payer: buyer.address, transaction: good.result.transaction });
    assert.equal(await world.chain.read("authorizationState", [proof.payer, proof.nonce]), true);
  });

  await steps.step("a proof of less than the price is refused", async () => {
    const buyer = await nextBuyer();
    const challenge = await world.challenge("/v1/quote");
    const cheap = structuredClone(challenge);
    cheap.accepts[0].amount = String(PRICE - 1n);
    // Signed for one unit less, presented as an answer to the true offer.
    const proof = await makeProof(buyer, cheap, payment => ({ ...payment, accepted: challenge.accepts[0] }));
    await refused(world, buyer, proof);
  });

  await steps.step("a buyer without money is refused", async () => {
    const buyer = await nextBuyer(0n);
    await refused(world, buyer, await makeProof(buyer, await world.challenge("/v1/quote")));
  });
}

/** The proof gets 402 with a fresh challenge and a reason; nothing is charged and the origin is not asked. */
export async function refused(world, buyer, proof, path = "/v1/quote", init = {}) {
  const { changed } = await world.changesOf(buyer.address, async () => {
    const response = await fetch(world.url(path), { ...init, headers: { ...init.headers, ...proof.headers } });
    const body = await response.text();
    assert.equal(response.status, 402);
    assert.ok(!body.includes("12.34"), "the 402 contains the paid content");
    const challenge = decode(response.headers.get("PAYMENT-REQUIRED"));
    assert.notEqual(challenge.error, "Payment required", "the reason for the refusal");
  });
  world.checkNotCharged(changed);
  assert.deepEqual(changed.seen, []);
  return changed;
}
