// Three plugins in one, chosen by `mode` in the settings: `redact`, `sample` and `check`.

import * as batch from 'trommel:plugin/batch@0.1.0';
import * as host from 'trommel:plugin/host@0.1.0';

type Settings =
  | { mode: 'redact'; pattern: string; by: string }
  | { mode: 'sample'; keep: number }
  | { mode: 'check' | 'spin' };

const BODY = { body: true };
let settings: Settings;
let patterns: number;

export const lifecycle = {
  describe: () => ({
    name: 'example',
    version: '0.1.0',
    signals: ['logs'],
    reads: ['body', 'severity', 'trace-id'],
    writes: ['body', 'drop'],
    needs: [],
    windowSeconds: 0,
  }),
  configure(text: string): void {
    settings = JSON.parse(text);
    if (settings.mode === 'redact') patterns = host.compile([settings.pattern]);
  },
};

/** The collector searches: no string moves. */
function redact(by: string): void {
  host.count('redacted', batch.searchAndReplace(patterns, BODY, [by]));
}

/** Errors stay, and of the other traces the part `keep`. */
function sample(keep: number): void {
  const below = 1 - keep;
  const severities: Uint8Array = batch.severities();
  const fractions: number[] = batch.traceFractions();
  const dropped: number[] = [];
  severities.forEach((severity, row) => {
    if (severity < 17 && fractions[row] < below) dropped.push(row);
  });
  batch.drop(dropped);
  host.count('sampled-out', dropped.length);
}

/** One that fails on some records: the collector finds out which, and lets the others pass. */
function check(): void {
  const bodies: string[] = batch.texts(BODY);
  if (bodies.some((body) => body.includes('UNREADABLE'))) throw 'a record is marked as unreadable';
  host.count('checked', batch.rows('item'));
}

/** For the tests of limits: a call that never ends on records that say so. */
function spin(): void {
  const bodies: string[] = batch.texts(BODY);
  while (bodies.some((body) => body.includes('ENDLESS'))) for (;;);
}

export const processor = {
  process(): void {
    switch (settings.mode) {
      case 'redact':
        return redact(settings.by);
      case 'sample':
        return sample(settings.keep);
      case 'check':
        return check();
      case 'spin':
        return spin();
    }
  },
};
