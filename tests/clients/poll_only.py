"""Never opens a websocket and names no client: posts, then asks for the history until the prompt is in it."""

import json
import time

from common import arguments, ask, keep, pictures_of

server, workflows = arguments()
prompts = [json.loads(ask(server, "/prompt", {"prompt": workflow}))["prompt_id"] for workflow in workflows]
for prompt in prompts:
    while not (history := json.loads(ask(server, f"/history/{prompt}"))):
        time.sleep(0.05)
    assert history[prompt]["status"]["completed"], history[prompt]["status"]
    for picture in pictures_of(server, history[prompt]):
        keep(picture)
