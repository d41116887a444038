"""What the Python scripts share. Each is called as SCRIPT URL WORKFLOW.json..., runs the workflows, and writes each picture
that it gets to a file whose name it prints."""

import json
import sys
import urllib.parse
import urllib.request


def arguments():
    """The server's address without the scheme, and the workflows."""
    server = sys.argv[1].removeprefix("http://")
    return server, [json.load(open(path)) for path in sys.argv[2:]]


def ask(server, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(f"http://{server}{path}", data) as answer:
        return answer.read()


def pictures_of(server, history):
    """Every picture that a history entry names, fetched as it is named."""
    for node in history["outputs"].values():
        for image in node.get("images", []):
            query = urllib.parse.urlencode({key: image[key] for key in ("filename", "subfolder", "type")})
            yield ask(server, f"/view?{query}")


_kept = 0


def keep(picture):
    global _kept
    _kept += 1
    name = f"picture-{_kept}.png"
    with open(name, "wb") as file:
        file.write(picture)
    print(name)
