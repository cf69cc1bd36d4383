// Holds our verdicts against the official ones. See README.md; run.sh starts it.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { appendFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { differentReason, exceptions } from "./exceptions.mjs";
import { official } from "./official.mjs";
import { NOW, payer, proofs } from "./proofs.mjs";

const SEED = Number(process.env.DIFFERENTIAL_SEED ?? 402);
const RANDOM = Number(process.env.DIFFERENTIAL_PROOFS ?? 3000);
const AT_LEAST = 2000;

const wall = spawn(process.env.VERDICT_BIN, [fileURLToPath(new URL("wall.toml", import.meta.url))], {
  stdio: ["pipe", "pipe", "inherit"],
});
const lines = createInterface({ input: wall.stdout })[Symbol.asyncIterator]();
const nextLine = async () => {
  const { value, done } = await lines.next();
  if (done) throw new Error("the wall's side ended early");
  return JSON.parse(value);
};

const { accepts } = await nextLine();
const theirSide = await official(accepts, payer.address);

console.warn = () => {}; // the official packages report what we do to them
const counts = { compared: 0, good: 0, refused: 0, sameReason: 0 };
const excused = new Map(exceptions.map(e => [e.id, 0]));
const reasons = new Map();
const violations = [];

for await (const proof of proofs(accepts, RANDOM, SEED)) {
  wall.stdin.write(`${JSON.stringify({ version: proof.version, header: proof.header, now: proof.now })}\n`);
  const [ours, theirs] = await Promise.all([nextLine(), theirSide(proof)]);
  counts.compared += 1;
  const message = decoded(proof.header);
  if (ours.verdict === theirs.verdict) {
    counts[ours.verdict] += 1;
    if (ours.verdict === "good") continue;
    if (ours.reason === theirs.reason) {
      counts.sameReason += 1;
      continue;
    }
    const why = differentReason(ours, theirs, message);
    if (why === undefined) violations.push({ what: proof.what, ours, theirs, header: proof.header });
    else reasons.set(why, (reasons.get(why) ?? 0) + 1);
    continue;
  }
  const exception = exceptions.find(e => e.holds({ ours, theirs, message, proof }));
  if (exception) excused.set(exception.id, excused.get(exception.id) + 1);
  else violations.push({ what: proof.what, ours, theirs, header: proof.header });
}
wall.stdin.end();
const [code] = await once(wall, "exit");

console.log(`compared ${counts.compared} proofs (seed ${SEED}): both good ${counts.good}, both refuse ${counts.refused}`);
console.log(`  of those refused, with the same reason code ${counts.sameReason}, and otherwise:`);
for (const [why, n] of reasons) console.log(`  ${String(n).padStart(6)}  ${why}`);
console.log("differences that are meant:");
for (const e of exceptions) console.log(`  ${String(excused.get(e.id)).padStart(6)}  ${e.id}: ${e.because}`);

const idle = exceptions.filter(e => excused.get(e.id) === 0).map(e => e.id);
if (process.env.FAREWALL_REPORT) {
  // For the table of tests/faults.sh.
  const what = "mutated proofs compared with the official packages";
  appendFileSync(process.env.FAREWALL_REPORT, `${what}\t${counts.compared}\t${violations.length}\n`);
}
const failures = [];
if (violations.length > 0) failures.push(`${violations.length} differences that nobody listed`);
if (idle.length > 0) failures.push(`exceptions that nothing needs: ${idle.join(", ")}`);
if (counts.compared < AT_LEAST) failures.push(`fewer than ${AT_LEAST} proofs`);
if (counts.good < 100) failures.push("too few good proofs to mean anything");
if (code !== 0) failures.push(`the wall's side ended with ${code}`);
const shown = Number(process.env.DIFFERENTIAL_SHOW ?? 15);
for (const v of violations.slice(0, shown)) console.log(`\n${v.what}\n  ours   ${JSON.stringify(v.ours)}\n  theirs ${JSON.stringify(v.theirs)}\n  ${v.header.slice(0, 4000)}`);
console.log(failures.length === 0
  ? `differential: ${counts.compared} proofs compared, 0 unlisted differences`
  : `FAILED: ${failures.join("; ")}`);
process.exit(failures.length === 0 ? 0 : 1);

/** What the header says as lenient JavaScript reads it; undefined when it says nothing. */
function decoded(header) {
  try {
    return JSON.parse(Buffer.from(header, "base64").toString("utf8"));
  } catch {
    return undefined;
  }
}
