// Child processes and ports. Every child's id is also written to $E2E_PIDS, so that run.sh can end what a killed driver
// left behind.
import { spawn } from "node:child_process";
import { appendFileSync, createWriteStream } from "node:fs";
import { createServer } from "node:net";

const children = new Set();

/** Starts a program with its output in a log file. `failed` rejects when it ends before `stop`. */
export function start(program, args, { log, env = {}, cwd } = {}) {
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, ...env }, cwd });
  const file = createWriteStream(log);
  child.stdout.pipe(file, { end: false });
  child.stderr.pipe(file, { end: false });
  children.add(child);
  if (child.pid && process.env.E2E_PIDS) appendFileSync(process.env.E2E_PIDS, `${child.pid}\n`);
  let stopping = false;
  const ended = new Promise(done => {
    child.once("error", error => done(`could not be started: ${error.message}`));
    child.once("exit", (code, signal) => done(signal ? `ended by ${signal}` : `ended with status ${code}`));
  }).then(how => {
    children.delete(child);
    return how;
  });
  const failed = ended.then(how => {
    if (!stopping) throw new Error(`${program} ${how}; see ${log}`);
  });
  failed.catch(() => {}); // raced against by those who wait for the child; others learn from the steps that fail
  return {
    failed,
    /** SIGTERM, then SIGKILL after 5 seconds. Says how the child ended. */
    async stop() {
      stopping = true;
      child.kill("SIGTERM");
      const timer = setTimeout(() => child.kill("SIGKILL"), 5000);
      const how = await ended;
      clearTimeout(timer);
      return how;
    },
  };
}

/** Runs a program to its end. Never rejects for its exit status. */
export function run(program, args, { env = {}, timeoutMs = 60_000 } = {}) {
  return new Promise((done, fail) => {
    const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, ...env } });
    children.add(child);
    if (child.pid && process.env.E2E_PIDS) appendFileSync(process.env.E2E_PIDS, `${child.pid}\n`);
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", text => (stdout += text));
    child.stderr.setEncoding("utf8").on("data", text => (stderr += text));
    const timer = setTimeout(() => child.kill("SIGKILL"), timeoutMs);
    const settle = finish => value => {
      clearTimeout(timer);
      children.delete(child);
      finish(value);
    };
    child.once("error", settle(fail));
    child.once("close", settle(status => done({ status, stdout, stderr })));
  });
}

/** Ends all children at once. For the very end, and for signals. */
export function killAll() {
  for (const child of children) child.kill("SIGKILL");
}

/** A port on loopback that was free a moment ago. */
export function freePort() {
  return new Promise((done, fail) => {
    const server = createServer();
    server.once("error", fail);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => done(port));
    });
  });
}

/** Listens on a free port on loopback; resolves to the base URL and a `close` that does not wait for idle clients. */
export function listen(server) {
  return new Promise((done, fail) => {
    server.once("error", fail);
    server.listen(0, "127.0.0.1", () => {
      done({
        url: `http://127.0.0.1:${server.address().port}`,
        close() {
          server.close();
          server.closeAllConnections();
        },
      });
    });
  });
}

export const sleep = ms => new Promise(done => setTimeout(done, ms));

/** Repeats `attempt` until it neither throws nor returns false, or `child` ends, or the time is over. */
export async function until(what, attempt, { child, timeoutMs = 20_000, everyMs = 50 } = {}) {
  let ended;
  child?.failed.catch(error => (ended = error));
  const deadline = Date.now() + timeoutMs;
  let last = "";
  while (Date.now() < deadline) {
    if (ended) throw ended;
    try {
      if ((await attempt()) !== false) return;
    } catch (error) {
      last = `: ${error.message}`;
    }
    await sleep(everyMs);
  }
  throw new Error(`${what} did not happen within ${timeoutMs / 1000} s${last}`);
}
