/**
 * One endpoint for every region of an emulator, as AWS_ENDPOINT_URL is one for a whole node: a connection goes on to the port of
 * the region that its first request is signed for (a client has one region, and connections of its own).
 */
import net from 'node:net';

export type RegionSplit = { port: number; close(): Promise<void> };

/** Request line and headers that are no longer than this, or it is not a request of the SDK. */
const LONGEST_HEAD = 64 * 1024;

export async function startRegionSplit(ports: Readonly<Record<string, number>>): Promise<RegionSplit> {
  const sockets = new Set<net.Socket>();
  const track = (socket: net.Socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    socket.on('error', () => undefined);
    socket.setNoDelay(true);
  };
  const server = net.createServer((client) => {
    track(client);
    let head = Buffer.alloc(0);
    const look = (chunk: Buffer) => {
      head = Buffer.concat([head, chunk]);
      const region = /Credential=[^/\s]+\/\d{8}\/([a-z0-9-]+)\//.exec(head.toString('latin1'))?.[1];
      const port = region === undefined ? undefined : ports[region];
      if (port === undefined) {
        if (region !== undefined || head.length > LONGEST_HEAD || head.includes('\r\n\r\n'))
          client.resetAndDestroy();
        return;
      }
      client.off('data', look);
      client.pause();
      const target = net.connect(port, '127.0.0.1');
      track(target);
      target.write(head);
      client.pipe(target);
      target.pipe(client);
      client.on('close', () => target.destroy());
      // a proxy that cuts shall be felt as a cut, not as an orderly end
      target.on('error', () => client.resetAndDestroy());
      target.on('close', () => client.destroy());
    };
    client.on('data', look);
  });
  const listening = Promise.withResolvers<void>();
  server.once('error', listening.reject);
  server.listen(0, '127.0.0.1', () => listening.resolve());
  await listening.promise;
  return {
    port: (server.address() as net.AddressInfo).port,
    async close() {
      for (const socket of sockets) socket.destroy();
      const closed = Promise.withResolvers<void>();
      server.close(() => closed.resolve());
      await closed.promise;
    },
  };
}
