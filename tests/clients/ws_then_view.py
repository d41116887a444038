"""Behaves as ComfyUI's websocket example: connects, posts, waits for `executing` without a node, then asks for history
and files. Like the example it takes `prompt_id` of every `executing` for granted."""

import json
import uuid

import websocket
from common import arguments, ask, keep, pictures_of

server, workflows = arguments()
client = str(uuid.uuid4())
socket = websocket.WebSocket()
socket.connect(f"ws://{server}/ws?clientId={client}")
for workflow in workflows:
    prompt = json.loads(ask(server, "/prompt", {"prompt": workflow, "client_id": client}))["prompt_id"]
    while True:
        heard = socket.recv()
        if not isinstance(heard, str):
            continue  # a preview
        message = json.loads(heard)
        if message["type"] == "executing":
            data = message["data"]
            if data["node"] is None and data["prompt_id"] == prompt:
                break
    for picture in pictures_of(server, json.loads(ask(server, f"/history/{prompt}"))[prompt]):
        keep(picture)
socket.close()
