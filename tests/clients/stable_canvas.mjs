// @stable-canvas/comfyui-client as published: over the websocket, and by polling.

import { keep, keepFrom, published, url, workflows } from './common.mjs';

const { Client } = published('@stable-canvas/comfyui-client');
const WebSocket = published('ws');

const client = new Client({ api_host: url.replace('http://', ''), WebSocket, fetch });
await client.connect();
const outputs = [];
for (const workflow of workflows) outputs.push(await client.enqueue(workflow));
outputs.push(...await Promise.all(workflows.map((workflow) => client.enqueue_polling(workflow, { polling_ms: 50 }))));
for (const { images } of outputs) {
  for (const image of images) await (image.type === 'url' ? keepFrom(image.data) : keep(image.data));
}
client.close();
process.exit(0);
