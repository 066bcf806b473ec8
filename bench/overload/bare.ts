// A server that refuses everybody and does nothing else: what is slow about it is the machine.
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

const server = createServer((request, response) => {
  request.resume();
  response.writeHead(503, { 'content-type': 'application/json', 'retry-after': '1' });
  response.end('{"error":{"code":"ERR_QUEUE_FULL"}}');
});
server.listen(0, '127.0.0.1', () => {
  console.log(`Bare http://127.0.0.1:${(server.address() as AddressInfo).port}`);
});
process.once('SIGINT', () => {
  server.close();
  server.closeAllConnections();
});
