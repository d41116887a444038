"""Behaves as ComfyUI's example for SaveImageWebsocket: what comes over the socket while that node executes is a picture
behind eight bytes. It sends no feature flags, so it understands the older form of frames only."""

import json
import uuid

import websocket
from common import arguments, ask, keep

server, workflows = arguments()
client = str(uuid.uuid4())
socket = websocket.WebSocket()
socket.connect(f"ws://{server}/ws?clientId={client}")
for workflow in workflows:
    saver = next(id for id, node in workflow.items() if node["class_type"] == "SaveImageWebsocket")
    prompt = json.loads(ask(server, "/prompt", {"prompt": workflow, "client_id": client}))["prompt_id"]
    node = ""
    while True:
        heard = socket.recv()
        if isinstance(heard, str):
            message = json.loads(heard)
            if message["type"] == "executing" and message["data"]["prompt_id"] == prompt:
                node = message["data"]["node"]
                if node is None:
                    break
        elif node == saver:
            keep(heard[8:])
socket.close()
