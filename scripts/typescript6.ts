/**
 * Typedoc asks for the JavaScript API of TypeScript, which TypeScript 7 does not have. Preloaded with
 * `--import`, this gives it TypeScript 6 under that name.
 */
import { registerHooks } from 'node:module';

registerHooks({
  resolve: (specifier, context, next) =>
    next(specifier === 'typescript' ? '@typescript/typescript6' : specifier, context),
});
