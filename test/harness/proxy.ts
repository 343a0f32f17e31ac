/**
 * A TCP proxy that fails as networks do, in front of a server that works.
 *
 * The mode may be changed at any time; it holds for open connections as well as for new ones.
 */
import net from 'node:net';

export type ProxyMode =
  /** As if it were not there. */
  | 'pass'
  /** Connections are refused (reset at once). */
  | 'refuse'
  /** Accepts, takes everything, answers nothing. */
  | 'hang'
  /** Hands the request on; when the first byte of the answer comes, the connection is cut instead. */
  | 'cut-answer'
  /** The answer comes, but one byte each 100 ms. */
  | 'trickle'
  /** The answer comes, `delayMs` late. */
  | 'delay'
  /** The connection is cut after `cutAfterBytes` of the answer. */
  | 'truncate';

export type Proxy = {
  port: number;
  mode: ProxyMode;
  delayMs: number;
  cutAfterBytes: number;
  /** Requests whose answer is left alone before the mode takes effect on the next ones, counted down. */
  passFirst: number;
  /** After this many faults the mode goes back to 'pass' by itself. */
  faultsLeft: number;
  /** Answers that were held back, cut or delayed so far. */
  faults: number;
  close(): Promise<void>;
};

const TRICKLE_MS = 100;

export async function startProxy(targetPort: number, mode: ProxyMode = 'pass'): Promise<Proxy> {
  const sockets = new Set<net.Socket>();
  const proxy: Proxy = {
    port: 0,
    mode,
    delayMs: 1000,
    cutAfterBytes: 1000,
    passFirst: 0,
    faultsLeft: Infinity,
    faults: 0,
    async close() {
      for (const socket of sockets) socket.destroy();
      const { promise, resolve } = Promise.withResolvers<void>();
      server.close(() => resolve());
      await promise;
    },
  };
  const fault = () => {
    proxy.faults += 1;
    proxy.faultsLeft -= 1;
    if (proxy.faultsLeft <= 0) {
      proxy.mode = 'pass';
      proxy.faultsLeft = Infinity;
    }
  };
  const track = (socket: net.Socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    socket.on('error', () => undefined);
    socket.setNoDelay(true);
  };

  const server = net.createServer((client) => {
    track(client);
    if (proxy.mode === 'refuse') {
      fault();
      client.resetAndDestroy();
      return;
    }
    const target = net.connect(targetPort, '127.0.0.1');
    track(target);
    /** What this answer is in for; a new request on the connection decides anew. */
    let current: ProxyMode | undefined;
    let answered = 0;
    const waiting: Buffer[] = [];
    let trickling: NodeJS.Timeout | undefined;

    client.on('data', (chunk) => {
      current = undefined;
      answered = 0;
      if (proxy.mode === 'refuse') {
        fault();
        client.resetAndDestroy();
        return;
      }
      if (proxy.mode === 'hang' && proxy.passFirst <= 0) {
        fault();
        client.removeAllListeners('data'); // takes no more, so that the sender's buffers fill up
        client.pause();
        return;
      }
      if (!target.write(chunk)) {
        client.pause();
        target.once('drain', () => client.resume());
      }
    });
    target.on('data', (chunk) => {
      if (current === undefined) {
        if (proxy.passFirst > 0) {
          proxy.passFirst -= 1;
          current = 'pass';
        } else {
          current = proxy.mode;
          if (current !== 'pass') fault();
        }
      }
      answered += chunk.length;
      if (current === 'cut-answer') {
        client.resetAndDestroy();
      } else if (current === 'truncate') {
        const left = proxy.cutAfterBytes - (answered - chunk.length);
        if (left < chunk.length)
          client.write(chunk.subarray(0, Math.max(0, left)), () => client.resetAndDestroy());
        else client.write(chunk);
      } else if (current === 'delay') {
        setTimeout(() => client.writable && client.write(chunk), proxy.delayMs);
      } else if (current === 'trickle') {
        waiting.push(chunk);
        trickling ??= setInterval(() => {
          const first = waiting[0];
          if (first === undefined) return;
          if (client.writable) client.write(first.subarray(0, 1));
          if (first.length > 1) waiting[0] = first.subarray(1);
          else waiting.shift();
        }, TRICKLE_MS);
      } else if (current === 'pass' && !client.write(chunk)) {
        target.pause();
        client.once('drain', () => target.resume());
      }
    });
    client.on('end', () => target.end());
    target.on('end', () => trickling === undefined && client.end());
    client.on('close', () => {
      clearInterval(trickling);
      target.destroy();
    });
    target.on('close', () => trickling === undefined && client.destroy());
  });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject);
  server.listen(0, '127.0.0.1', resolve);
  await promise;
  proxy.port = (server.address() as net.AddressInfo).port;
  return proxy;
}
