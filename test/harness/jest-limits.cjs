/**
 * How long a test or a hook of it may take, by the kind of its suite. It ends what hangs, nothing else: what a test promises about time it
 * asserts, and what it waits for has a deadline that says what was waited for, well below this.
 */
const { testPath } = expect.getState();

if (/[\\/]test[\\/]system[\\/]/.test(testPath)) jest.setTimeout(900_000);
else if (/[\\/]test[\\/]systemd[\\/]/.test(testPath)) jest.setTimeout(900_000);
else if (/[\\/]test[\\/]infra[\\/]/.test(testPath)) jest.setTimeout(900_000);
else if (/[\\/]test[\\/]lambdas[\\/]/.test(testPath)) jest.setTimeout(180_000);
else jest.setTimeout(60_000); // unit and contract: a process that one starts has its second and more on a busy machine
