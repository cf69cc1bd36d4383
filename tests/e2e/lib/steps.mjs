// A plain list of steps: each is a sentence and a function that throws when the sentence is not true.
export class Steps {
  passed = 0;
  failed = [];
  skipped = [];

  async step(sentence, check) {
    const began = performance.now();
    try {
      const note = await check();
      this.passed += 1;
      const ms = Math.round(performance.now() - began);
      console.log(`ok      ${sentence}${note ? ` (${note})` : ""} [${ms} ms]`);
    } catch (error) {
      this.failed.push(sentence);
      console.log(`FAILED  ${sentence}\n        ${String(error.stack ?? error).replaceAll("\n", "\n        ")}`);
    }
  }

  skip(sentence, why) {
    this.skipped.push(sentence);
    console.log(`SKIPPED ${sentence}: ${why}`);
  }

  /** Prints the closing line and gives the exit status. */
  close() {
    for (const sentence of this.failed) console.log(`FAILED  ${sentence}`);
    const skipped = this.skipped.length > 0 ? `, ${this.skipped.length} skipped` : "";
    console.log(`${this.passed} passed, ${this.failed.length} failed${skipped}`);
    return this.failed.length === 0 && this.passed > 0 ? 0 : 1;
  }
}
