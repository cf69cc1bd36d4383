// Proofs without end, from a seed: good ones, and good ones with every field changed in every way.
import { getAddress, hexToBigInt, keccak256, numberToHex, padHex, stringToBytes } from "viem";
import { privateKeyToAccount } from "viem/accounts";

export const NOW = 1760000000;
const KEYS = [
  "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80", // public development keys
  "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
];
export const payer = privateKeyToAccount(KEYS[0]);
const stranger = privateKeyToAccount(KEYS[1]);
const ELSEWHERE = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";
const PERMIT2 = "0x000000000022D473030F116dDEE9F6B43aC78BA3";
const EXACT_PROXY = "0x402085c248EeA27D92E8b30b2C58ed07f9E20001";
const UPTO_PROXY = "0x4020A4f3b7b90ccA423B9fabCc0CE57C6C240002";
const ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
const TYPES_3009 = { TransferWithAuthorization: [
  ["from", "address"], ["to", "address"], ["value", "uint256"], ["validAfter", "uint256"],
  ["validBefore", "uint256"], ["nonce", "bytes32"],
].map(([name, type]) => ({ name, type })) };
const TYPES_PERMIT2 = {
  PermitWitnessTransferFrom: [
    { name: "permitted", type: "TokenPermissions" }, { name: "spender", type: "address" },
    { name: "nonce", type: "uint256" }, { name: "deadline", type: "uint256" }, { name: "witness", type: "Witness" },
  ],
  TokenPermissions: [{ name: "token", type: "address" }, { name: "amount", type: "uint256" }],
  Witness: [{ name: "to", type: "address" }, { name: "validAfter", type: "uint256" }],
};

/** mulberry32: small, seeded, good enough for choosing mutations. */
export function random(seed) {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  return { next, below: n => Math.floor(next() * n), pick: list => list[Math.floor(next() * list.length)] };
}

const copy = value => JSON.parse(JSON.stringify(value));
const nonceOf = n => keccak256(stringToBytes(`differential:${n}`));
const b64 = text => Buffer.from(text, "utf8").toString("base64");

/** A good authorization for a requirement, not yet signed. */
function unsigned(requirement, n) {
  const times = { validAfter: String(NOW - 600), validBefore: String(NOW + 300) };
  if (requirement.extra.assetTransferMethod === "permit2") {
    return { permit2Authorization: {
      from: payer.address, permitted: { token: requirement.asset, amount: requirement.amount },
      spender: EXACT_PROXY, nonce: hexToBigInt(nonceOf(n)).toString(), deadline: times.validBefore,
      witness: { to: requirement.payTo, validAfter: times.validAfter },
    } };
  }
  return { authorization: {
    from: payer.address, to: requirement.payTo, value: requirement.amount, ...times, nonce: nonceOf(n),
  } };
}

/** Signs what the payload says, as far as it can be signed at all; false when it cannot. */
async function sign(payload, requirement, { signer = payer, domain = {} } = {}) {
  const chainId = Number(requirement.network.split(":")[1]);
  try {
    if (payload.permit2Authorization) {
      const { permitted, spender, nonce, deadline, witness } = payload.permit2Authorization;
      payload.signature = await signer.signTypedData({
        domain: { name: "Permit2", chainId, verifyingContract: PERMIT2, ...domain },
        types: TYPES_PERMIT2, primaryType: "PermitWitnessTransferFrom",
        message: {
          permitted: { token: getAddress(permitted.token), amount: BigInt(permitted.amount) },
          spender: getAddress(spender), nonce: BigInt(nonce), deadline: BigInt(deadline),
          witness: { to: getAddress(witness.to), validAfter: BigInt(witness.validAfter) },
        },
      });
    } else {
      const { from, to, value, validAfter, validBefore, nonce } = payload.authorization;
      payload.signature = await signer.signTypedData({
        domain: {
          name: requirement.extra.name, version: requirement.extra.version, chainId,
          verifyingContract: requirement.asset, ...domain,
        },
        types: TYPES_3009, primaryType: "TransferWithAuthorization",
        message: {
          from: getAddress(from), to: getAddress(to), value: BigInt(value),
          validAfter: BigInt(validAfter), validBefore: BigInt(validBefore), nonce,
        },
      });
    }
    return true;
  } catch {
    return false;
  }
}

/** Every path to a member of a message, leaves and branches. */
function paths(value, at = []) {
  if (value === null || typeof value !== "object") return [at];
  const below = Object.keys(value).flatMap(key => paths(value[key], [...at, key]));
  return at.length === 0 ? below : [at, ...below];
}
const get = (value, path) => path.reduce((v, key) => v?.[key], value);
function set(value, path, to) {
  const last = path[path.length - 1];
  const parent = get(value, path.slice(0, -1));
  if (parent === null || typeof parent !== "object") return;
  if (to === undefined) delete parent[last];
  else parent[last] = to;
}

const flipHex = (text, at) => {
  const digit = (parseInt(text[at], 16) ^ 1).toString(16);
  return text.slice(0, at) + digit + text.slice(at + 1);
};
const mapCase = (text, f) => (text.startsWith("0x") ? `0x${f(text.slice(2))}` : f(text));
const wrongChecksum = text => {
  const at = [...text].findIndex((c, i) => i > 1 && /[a-fA-F]/.test(c));
  if (at < 0) return text;
  const c = text[at];
  return text.slice(0, at) + (c === c.toLowerCase() ? c.toUpperCase() : c.toLowerCase()) + text.slice(at + 1);
};

/** The ways to change one value; `undefined` removes it. */
function changes(value) {
  const any = [undefined, null, "", 0, 1, true, false, [], {}, [value], { value }, "null", "é\u{1F680}"];
  if (typeof value === "number") {
    return [...any, value + 1, value - 1, -value, value + 0.5, String(value), value * 1e15, 1e300, 2, 3];
  }
  if (typeof value === "boolean" || value === undefined) return any;
  if (typeof value === "object") return [...any, { ...value, note: "more" }, { ...value, from: ELSEWHERE }];
  const text = [...any, `${value} `, ` ${value}`, `${value}\n`, `${value}\u0000`, value.toUpperCase(),
    value.toLowerCase(), value.slice(0, -1), `${value}0`, `0${value}`, `x${value}`];
  if (/^\d+$/.test(value)) {
    const n = BigInt(value);
    text.push(
      String(n + 1n), String(n - 1n), `-${value}`, `+${value}`, `00${value}`, `${value}.0`, `${value}n`, `${value}e0`,
      `0x${n.toString(16)}`, `0b${n.toString(2)}`, `0o${n.toString(8)}`, `${value}_000`, "1e4", "0", "NaN", "Infinity",
      Number(n), String(2n ** 64n), String(2n ** 128n), String(2n ** 256n - 1n), String(2n ** 256n), "9".repeat(200),
      [...value].map(d => String.fromCharCode(0xff10 + Number(d))).join(""), `\t${value}`,
      String(NOW), String(NOW + 1), String(NOW - 1), String(NOW + 5), String(NOW + 6), String(NOW + 7),
    );
  }
  if (/^0x[0-9a-fA-F]{40}$/.test(value)) {
    text.push(
      mapCase(value, t => t.toLowerCase()), mapCase(value, t => t.toUpperCase()), wrongChecksum(value), flipHex(value, 41),
      ELSEWHERE, stranger.address, payer.address, PERMIT2, UPTO_PROXY, `0x${"0".repeat(40)}`, value.slice(2), `0X${value.slice(2)}`,
      `0x${"0".repeat(24)}${value.slice(2)}`, `eip155:1:${value}`,
    );
  } else if (/^0x[0-9a-fA-F]+$/.test(value)) {
    text.push(
      mapCase(value, t => t.toUpperCase()), flipHex(value, 9), flipHex(value, value.length - 1), value.slice(2),
      `0X${value.slice(2)}`, `0x${value}`, `${value}ff`, value.slice(0, -2), `0x${"0".repeat(64)}`, `0x${"f".repeat(64)}`,
    );
  }
  if (/^eip155:/.test(value) || /^base/.test(value)) {
    text.push("eip155:8453", "eip155:84532", "eip155:1", "base", "base-sepolia", "EIP155:84532", "solana:mainnet");
  }
  if (value === "exact") text.push("upto", "EXACT", "exact ");
  return text;
}

/** The ways to spoil or respell a good signature. */
function signatures(good) {
  const [r, s, v] = [good.slice(2, 66), good.slice(66, 130), parseInt(good.slice(130), 16)];
  const byte = n => n.toString(16).padStart(2, "0");
  const high = padHex(numberToHex(ORDER - BigInt(`0x${s}`)), { size: 32 }).slice(2);
  const vs = padHex(numberToHex(BigInt(`0x${s}`) | (BigInt(v - 27) << 255n)), { size: 32 }).slice(2);
  const zero = "0".repeat(64);
  const order = ORDER.toString(16);
  const magic = "6492".repeat(16);
  return {
    "high s": `0x${r}${high}${byte(55 - v)}`, "high s, same v": `0x${r}${high}${byte(v)}`, "v 0 or 1": `0x${r}${s}${byte(v - 27)}`,
    "other v": `0x${r}${s}${byte(55 - v)}`, "v 2": `0x${r}${s}02`, "v 29": `0x${r}${s}1d`, "v 35": `0x${r}${s}23`, "v 255": `0x${r}${s}ff`,
    "high s, v 0 or 1": `0x${r}${high}${byte(28 - v)}`, compact: `0x${r}${vs}`, "r zero": `0x${zero}${s}${byte(v)}`,
    "s zero": `0x${r}${zero}${byte(v)}`, "all zero": `0x${"0".repeat(130)}`, "r is the order": `0x${order}${s}${byte(v)}`,
    "s is the order": `0x${r}${order}${byte(v)}`, "r and s swapped": `0x${s}${r}${byte(v)}`, "upper case": mapCase(good, t => t.toUpperCase()),
    "0X": `0X${good.slice(2)}`, "no 0x": good.slice(2), "one digit less": good.slice(0, -1), "one byte more": `${good}00`,
    "two in one": good + good.slice(2), "ends in the magic": `${good}${magic}`, "65 bytes that end in the magic": `0x${"ab".repeat(33)}${magic}`,
    empty: "0x", nothing: "", "ff": `0x${"ff".repeat(65)}`, "one bit of r": flipHex(good, 5), "one bit of s": flipHex(good, 80),
    "contract wallet": `0x${"ab".repeat(200)}`,
  };
}

/** The ways to write the same or another header text. */
function encodings(message) {
  const json = JSON.stringify(message);
  const good = b64(json);
  const members = Object.entries(message).reverse();
  const bytes = Buffer.from(json, "utf8");
  return {
    pretty: b64(JSON.stringify(message, null, 2)), "members reversed": b64(JSON.stringify(Object.fromEntries(members))),
    unpadded: good.replace(/=+$/, ""), "more padding": `${good}=`, base64url: good.replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, ""),
    "space before": ` ${good}`, "space after": `${good} `, "line break within": `${good.slice(0, 40)}\n${good.slice(40)}`, "comma": `${good},${good}`,
    "raw JSON": json, "cut": good.slice(0, 101), "cut by one": good.slice(0, -1), empty: "", "base64 twice": b64(good), null: b64("null"),
    list: b64(`[${json}]`), text: b64(JSON.stringify(json)), number: b64("7"), "byte order mark": Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]), bytes]).toString("base64"),
    "white space around": b64(` \n${json}\t`), "rubbish after": b64(`${json}x`), "two messages": b64(json + json), "single quotes": b64(json.replaceAll('"', "'")),
    "trailing comma": b64(`${json.slice(0, -1)},}`), "comment": b64(`/**/${json}`), "not UTF-8 in another member": Buffer.concat([bytes.subarray(0, -1), Buffer.from(',"note":"', "utf8"), Buffer.from([0xff, 0xc0, 0xaf]), Buffer.from('"}', "utf8")]).toString("base64"),
    "half a surrogate in another member": b64(`${json.slice(0, -1)},"note":"\\ud800"}`), "deep in another member": b64(`${json.slice(0, -1)},"note":${"[".repeat(200)}${"]".repeat(200)}}`),
    "member twice, bad first": b64(`{"payload":{},${json.slice(1)}`), "member twice, bad last": b64(`${json.slice(0, -1)},"payload":{}}`),
    "version twice": b64(`${json.slice(0, -1)},"x402Version":9}`), "300.0": b64(json.replace('"maxTimeoutSeconds":300', '"maxTimeoutSeconds":300.0')),
    "3e2": b64(json.replace('"maxTimeoutSeconds":300', '"maxTimeoutSeconds":3e2')), "300.00000000000000001": b64(json.replace('"maxTimeoutSeconds":300', '"maxTimeoutSeconds":300.00000000000000001')),
    "version 2.0": b64(json.replace(/"x402Version":(\d)/, '"x402Version":$1.0')), "escaped member names": b64(json.replaceAll('"payload"', '"p\\u0061yload"').replaceAll('"amount"', '"\\u0061mount"')),
    "too long": b64(`${json.slice(0, -1)},"note":"${"x".repeat(20000)}"}`), "extra number out of range": b64(`${json.slice(0, -1)},"note":1e999}`), "__proto__": b64(`${json.slice(0, -1)},"__proto__":{"x402Version":9}}`),
  };
}

/** All proofs: every single change of every field first, then random pairs of changes up to `count`. */
export async function* proofs(accepts, count, seed) {
  const rng = random(seed);
  let n = 0;
  const bases = [];
  for (const requirement of accepts) {
    const build = async (options = {}) => {
      const payload = unsigned(requirement, n += 1);
      await sign(payload, requirement, options);
      return payload;
    };
    const name = `${requirement.extra.assetTransferMethod ?? "eip3009"} ${requirement.network}`;
    bases.push({
      name: `v2 ${name}`, version: 2, requirement, build,
      wrap: payload => ({ x402Version: 2, payload, resource: { url: "https://api.example.com/quote" }, accepted: copy(requirement) }),
    });
    if (name.startsWith("eip3009")) {
      const network = { "eip155:84532": "base-sepolia", "eip155:8453": "base" }[requirement.network];
      bases.push({ name: `v1 ${name}`, version: 1, requirement, build, wrap: payload => ({ x402Version: 1, scheme: "exact", network, payload }) });
    }
  }
  const emit = (base, what, message, now = NOW) => ({ what: `${base.name}: ${what}`, version: base.version, header: b64(JSON.stringify(message)), message, now });

  for (const base of bases) {
    const { requirement } = base;
    const fresh = async options => base.wrap(await base.build(options));
    for (let i = 0; i < 20; i += 1) yield emit(base, "good", await fresh());
    yield emit(base, "signed by a stranger", await fresh({ signer: stranger }));
    for (const domain of [{ name: "USD Coin" }, { name: "USDC" }, { name: "Other" }, { version: "1" }, { version: "3" }, { chainId: 1 }, { chainId: 8453 }, { chainId: 84532 }, { verifyingContract: ELSEWHERE }]) {
      yield emit(base, `signed in the domain ${JSON.stringify(domain)}`, await fresh({ domain }));
    }
    for (const second of [-601, -600, -599, 293, 294, 295, 300, 301, 100000]) yield emit(base, `shown ${second} s later`, await fresh(), NOW + second);
    const first = await fresh();
    for (const path of paths(first)) {
      for (const change of changes(get(first, path))) {
        const spelled = change === undefined ? "removed" : JSON.stringify(change)?.slice(0, 60);
        const tampered = await fresh();
        set(tampered, path, copy(change ?? null) === null && change === undefined ? undefined : change);
        yield emit(base, `${path.join(".")} ${spelled}`, tampered);
        if (path[0] === "payload" && path.length > 2) {
          const signed = copy(tampered);
          if (await sign(signed.payload, requirement)) yield emit(base, `${path.join(".")} ${spelled}, signed so`, signed);
        }
      }
    }
    for (const [what, signature] of Object.entries(signatures(first.payload.signature))) {
      yield emit(base, `signature ${what}`, { ...copy(first), payload: { ...copy(first.payload), signature } });
    }
    for (const member of ["accepted", "extensions", "error", "payTo", "amount", "scheme", "network", "extra"]) {
      for (const value of [{}, [], null, "x", { bazaar: { info: {} } }, copy(requirement)]) {
        const message = await fresh();
        if (message[member] === undefined) yield emit(base, `${member} added as ${JSON.stringify(value)}`, { ...message, [member]: value });
      }
    }
    const both = await fresh();
    both.payload = { ...both.payload, authorization: both.payload.authorization ?? {}, permit2Authorization: both.payload.permit2Authorization ?? {} };
    yield emit(base, "both kinds of authorization", both);
    for (const otherBase of bases) {
      if (otherBase === base) continue;
      const message = await fresh();
      message.payload = await otherBase.build();
      yield emit(base, `payload of ${otherBase.name}`, message);
      yield { ...emit(base, `whole message of ${otherBase.name}`, otherBase.wrap(await otherBase.build())), version: base.version };
    }
    for (const [what, header] of Object.entries(encodings(await fresh()))) {
      yield { what: `${base.name}: written ${what}`, version: base.version, header, message: null, now: NOW };
    }
  }
  for (let i = 0; i < count; i += 1) {
    const base = rng.pick(bases);
    const message = base.wrap(await base.build());
    const done = [];
    for (let k = 1 + rng.below(3); k > 0; k -= 1) {
      const path = rng.pick(paths(message));
      if (path.length === 0) continue;
      const change = rng.pick(changes(get(message, path) ?? null));
      set(message, path, change);
      done.push(`${path.join(".")} ${JSON.stringify(change)?.slice(0, 30)}`);
    }
    if (rng.below(2) === 0 && message.payload && typeof message.payload === "object") await sign(message.payload, base.requirement);
    yield emit(base, done.join("; "), message, NOW + rng.pick([0, 0, 0, 0, 290, 295, -601]));
  }
}
