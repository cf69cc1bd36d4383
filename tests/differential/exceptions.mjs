// Every way in which our verdict may differ from the official one, and why. Anything else fails the
// test, and so does an entry that no proof needs any more.
//
// `holds` looks at both verdicts and at the proof itself, so that an entry excuses only what it names.

const refusedHere = (ours, theirs, because) =>
  ours.verdict === "refused" && theirs.verdict === "good" && because.test(ours.because);
const authorization = message => message?.payload?.permit2Authorization ?? message?.payload?.authorization;
const isDecimal = value => typeof value === "string" && /^[0-9]{1,78}$/.test(value);
const isAccount = value => typeof value === "string" && /^0x[0-9a-fA-F]{40}$/.test(value);

/** The member that our refusal names, wherever the authorization has it. */
const named = (ours, message) => {
  const name = /^unreadable payload: `(\w+)`/.exec(ours.because)?.[1];
  const signed = authorization(message) ?? {};
  const place = [signed, signed.permitted, signed.witness].find(o => o !== undefined && o !== null && Object.hasOwn(o, name));
  return place?.[name];
};
const signature = message => String(message?.payload?.signature);
const bytes = text => (text.length - 2) / 2;

export const exceptions = [
  {
    id: "contract-wallet",
    because: "signatures that are no key's are left to the facilitator, who can ask the chain; here the wallet has no code, so it says no",
    holds: ({ ours, message }) => ours.verdict === "deferred" &&
      (bytes(signature(message)) > 65 || signature(message).endsWith("6492".repeat(16))),
  },
  {
    id: "high-s",
    because: "s above n/2 is the malleated twin of a signature: the token reverts on it, so the settlement would fail",
    holds: ({ ours, theirs, message }) => refusedHere(ours, theirs, /^the signature is not the payer's$/) &&
      BigInt(`0x${signature(message).slice(66, 130)}`) > 0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0n,
  },
  {
    id: "recovery-byte",
    because: "v must be 27 or 28, because the token takes nothing else",
    holds: ({ ours, theirs, message }) => refusedHere(ours, theirs, /^the signature is not the payer's$/) &&
      /^(00|01)$/.test(signature(message).slice(130)),
  },
  {
    id: "number-form",
    because: "numbers are decimal digits in a string; JavaScript's BigInt also reads hexadecimal, white space, \"\", true, 0 and [\"5\"], other facilitators do not",
    holds: ({ ours, theirs, message }) => refusedHere(ours, theirs, /is not a decimal number/) && !isDecimal(named(ours, message)),
  },
  {
    id: "account-form",
    because: "an account is a text; JavaScript also takes a list of one text for it",
    holds: ({ ours, theirs, message }) => refusedHere(ours, theirs, /is not an address$/) && !isAccount(named(ours, message)),
  },
  {
    id: "nonce-form",
    because: "a nonce is 0x and 64 digits; the official packages pad a shorter one, and another text would be the same payment",
    holds: ({ ours, theirs, message }) => refusedHere(ours, theirs, /`nonce` is not 32 bytes/) &&
      !/^0x[0-9a-fA-F]{64}$/.test(named(ours, message)),
  },
  {
    id: "other-kind",
    because: "the payload must be of the kind that the offer asks for, and of one kind only: a facilitator judges whichever it sees first",
    holds: ({ ours, theirs, message }) => refusedHere(ours, theirs, /is not the kind of authorization that the offer asks for$/) &&
      (("permit2Authorization" in message.payload) !== (message.accepted?.extra?.assetTransferMethod === "permit2") ||
        ("authorization" in message.payload && "permit2Authorization" in message.payload)),
  },
  {
    id: "hybrid-version",
    because: "a message of version 1 with `accepted` is neither version; facilitators would read it differently",
    holds: ({ ours, theirs, message }) => refusedHere(ours, theirs, /^no offer matches/) && message.x402Version === 1 && "accepted" in message,
  },
  {
    id: "extensions-form",
    because: "`extensions` must be an object, or the echo cannot be compared",
    holds: ({ ours, theirs, message }) => refusedHere(ours, theirs, /^an echoed extension was altered$/) &&
      (typeof message.extensions !== "object" || Array.isArray(message.extensions)),
  },
  {
    id: "header-text",
    because: "the header is UTF-8 JSON without a byte order mark, lone surrogates, numbers beyond 64-bit floats, or more than 128 levels, whatever member they are in",
    holds: ({ ours, theirs, proof }) => refusedHere(ours, theirs, /^undecodable payment header: not JSON/) &&
      (/ written (byte order mark|not UTF-8|half a surrogate|deep|extra number out of range)/.test(proof.what) ||
        /\\ud[89a-f]/i.test(Buffer.from(proof.header, "base64").toString("latin1"))),
  },
  {
    id: "header-size",
    because: "a payment header has at most `payment_header_bytes_max` bytes",
    holds: ({ ours, theirs, proof }) => refusedHere(ours, theirs, /^undecodable payment header: longer than/) && proof.header.length > 16384,
  },
];

const BEFORE_THE_SIGNATURE =
  /^(invalid_exact_evm_(recipient_mismatch|payload_authorization_(valid_after|valid_before)))$/;

/** Both refuse, with different codes: why that is right; `undefined` when nobody knows. */
export function differentReason(ours, theirs, message) {
  const unreadable = /^unreadable payload: /.test(ours.because);
  if (unreadable) return "we refuse to read what they stumble over, or judge, later";
  if (/^Unsupported x402 version/.test(ours.reason) && /^Unsupported x402 version/.test(theirs.reason)) {
    return "a version that is no number is not spelled back";
  }
  if (ours.reason === "payment_rejected" && /^Unsupported x402 version: -?[0-9.]+e\+[0-9]+$/.test(theirs.reason)) {
    return "a version that cannot be part of a code is not spelled back";
  }
  if (BEFORE_THE_SIGNATURE.test(ours.reason) && theirs.reason === "invalid_exact_evm_signature") {
    return "recipient and times are looked at before the signature, which costs a curve operation";
  }
  if (ours.reason === "invalid_exact_evm_payload_authorization_value_mismatch" && theirs.reason === "invalid_exact_evm_authorization_value") {
    return "version 1 is answered with the codes of version 2";
  }
  if (/^undecodable payment header: not JSON/.test(ours.because)) return "we refuse to decode what they decode and then refuse";
  if (/amount_mismatch$|value_mismatch$/.test(ours.reason) && /signature$/.test(theirs.reason) && bytes(signature(message)) > 65) {
    return "the signature is no key's and left to the facilitator, so what comes after it is what we see";
  }
  if (theirs.reason === "threw") return "they throw: the official server answers 500 or 402 without a code";
  if (ours.reason === "Payment required" && theirs.reason === "Unsupported x402 version: undefined") {
    return "a message that is no object is no payment";
  }
  return undefined;
}
