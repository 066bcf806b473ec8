// node bench/import.ts [--smoke]
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { figures, heading, interleave, type Subject, verdict } from './harness.ts';

const root = fileURLToPath(new URL('..', import.meta.url));

/** Each round is a process of its own, which measures nothing but what it imports. */
function imports(...specifiers: string[]): Subject {
  const all = specifiers.map((specifier) => `import('${specifier}')`).join(', ');
  const program = `const start = performance.now();
    await Promise.all([${all}]);
    console.log(performance.now() - start);`;
  return {
    name: specifiers.join(', '),
    round: async () => {
      const args = ['--input-type=module', '--eval', program];
      const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: root });
      return Number(stdout);
    },
  };
}

heading('the first import in a fresh process, ms');
const dependencies = imports('eventemitter3', 'nanoid');
const one = imports('sluice/semaphore');
const core = imports('sluice');
const medians = await interleave([dependencies, one, core], 31);
figures(medians, 'ms');
const base = medians.get(dependencies.name)!;
verdict('one primitive, to the two dependencies', medians.get(one.name)! / base, 1.2);
verdict('the whole core, to the two dependencies', medians.get(core.name)! / base, 1.2);
