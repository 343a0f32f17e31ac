/** Loaded before a program (NODE_OPTIONS --require): its wall clock is TEST_CLOCK_AHEAD_MS ahead of the machine's. */
'use strict';

const ahead = Number(process.env.TEST_CLOCK_AHEAD_MS ?? 0);
const Real = Date;

globalThis.Date = class extends Real {
  constructor(...given) {
    if (given.length === 0) super(Real.now() + ahead);
    else super(...given);
  }

  static now() {
    return Real.now() + ahead;
  }
};
