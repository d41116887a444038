#!/usr/bin/env python3
"""Submit a workflow and fetch its images, as with any ComfyUI. Needs nothing but Python.

    python3 submit.py ../workflows/no-model.json [http://127.0.0.1:7188]
"""
import json
import sys
import time
import urllib.parse
import urllib.request

workflow = json.load(open(sys.argv[1]))
server = sys.argv[2] if len(sys.argv) > 2 else "http://127.0.0.1:7188"

# A class is optional: interactive, standard or batch.
body = {"prompt": workflow, "extra_data": {"comfy_router": {"class": "interactive"}}}
request = urllib.request.Request(f"{server}/prompt", json.dumps(body).encode(), {"Content-Type": "application/json"})
prompt_id = json.load(urllib.request.urlopen(request))["prompt_id"]
print("accepted as", prompt_id)

while not (history := json.load(urllib.request.urlopen(f"{server}/history/{prompt_id}"))):
    time.sleep(0.2)
entry = history[prompt_id]
print(entry["status"]["status_str"])
for output in entry["outputs"].values():
    for image in output.get("images", []):
        # Pass the three values back as they came: `subfolder` says which instance has the file.
        query = urllib.parse.urlencode({key: image[key] for key in ("filename", "subfolder", "type")})
        data = urllib.request.urlopen(f"{server}/view?{query}").read()
        open(image["filename"], "wb").write(data)
        print(image["filename"], len(data), "bytes")
