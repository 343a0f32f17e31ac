/**
 * Jest runs tests in a realm of their own, where an error thrown by Node itself (ENOENT) is no `instanceof Error`. In production there
 * is one realm; this makes `instanceof Error` mean the same here.
 */
const ordinary = Function.prototype[Symbol.hasInstance];
Object.defineProperty(Error, Symbol.hasInstance, {
  value(value) {
    return this === Error ? Error.isError(value) : ordinary.call(this, value);
  },
});
