// Answers cases with what one peer makes of them: a JSON object per line in, one per line out.
// Run as `node _harness.mjs PEER PACKAGE...`; the first line out names the versions installed.

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

const [peer, ...packages] = process.argv.slice(2);
const write = process.stdout.write.bind(process.stdout);
const say = (answer) => write(`${JSON.stringify(answer)}\n`);
// Peers print to stdout as they like; the answers need it for themselves.
process.stdout.write = process.stderr.write.bind(process.stderr);

const reject = [];
// A promise that a peer leaves without a catch belongs to the case that is being answered.
process.on("unhandledRejection", (error) => reject.at(-1)?.(error));

const { reduce } = await import(`./${peer}.mjs`);
const versionOf = (name) =>
  JSON.parse(readFileSync(new URL(`../node_modules/${name}/package.json`, import.meta.url))).version;
say({ versions: Object.fromEntries(packages.map((name) => [name, versionOf(name)])) });

for await (const line of createInterface({ input: process.stdin })) {
  const { url, params } = JSON.parse(line);
  try {
    const stray = new Promise((_, no) => reject.push(no));
    say({ result: await Promise.race([reduce(url, params), stray]) });
  } catch (error) {
    say({ error: `${error?.name ?? typeof error}: ${error?.message ?? JSON.stringify(error)}` });
  } finally {
    reject.pop();
  }
}
process.exit();
