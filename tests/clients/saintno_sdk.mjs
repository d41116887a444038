// @saintno/comfyui-sdk as published: one job after the other. (Of two jobs of one client at once it takes the success of the
// first for the end of both, on any server.)

import { keepFrom, published, url, workflows } from './common.mjs';

const { CallWrapper, ComfyApi, PromptBuilder } = published('@saintno/comfyui-sdk');

const api = new ComfyApi(url);
api.init();
await api.waitForReady();

const saver = (workflow) => Object.keys(workflow).find((id) => workflow[id].class_type === 'SaveImage');

function run(workflow) {
  const prompt = new PromptBuilder(workflow, [], ['picture']).setOutputNode('picture', saver(workflow));
  return new Promise((done, failed) => {
    const call = new CallWrapper(api, prompt).onFinished((output) => done(output.picture.images)).onFailed(failed);
    call.run().catch(failed);
  });
}

const pictures = [];
for (const workflow of workflows) pictures.push(...await run(workflow));
for (const picture of pictures) await keepFrom(api.getPathImage(picture));
api.destroy();
process.exit(0);
