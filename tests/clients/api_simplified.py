"""comfy_api_simplified as published. It posts first and connects its websocket afterwards."""

import sys

from comfy_api_simplified import ComfyApiWrapper, ComfyWorkflowWrapper
from common import keep

api = ComfyApiWrapper(sys.argv[1])
for path in sys.argv[2:]:
    workflow = ComfyWorkflowWrapper(path)
    if "Load Image" in workflow.list_nodes():
        uploaded = api.upload_image("upload.png")
        name = f"{uploaded['subfolder']}/{uploaded['name']}".lstrip("/")
        workflow.set_node_param("Load Image", "image", name)
    for picture in api.queue_and_wait_images(workflow, "Save Image").values():
        keep(picture)
