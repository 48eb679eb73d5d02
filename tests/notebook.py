"""Runs cells in Deno's Jupyter kernel, as a notebook does.

Reads {"deno": path, "folder": where the kernel is to run, "cells": [code]} and
prints, for each cell, the bundle that it displays, or {"error": text}.
"""

import json
import os
import sys
import tempfile

try:
    from jupyter_client.manager import KernelManager
except ImportError:
    sys.exit(77)

task = json.load(sys.stdin)
with tempfile.TemporaryDirectory() as prefix:
    folder = os.path.join(prefix, "kernels", "deno-here")
    os.makedirs(folder)
    with open(os.path.join(folder, "kernel.json"), "w") as file:
        json.dump({
            "argv": [task["deno"], "jupyter", "--kernel", "--conn",
                     "{connection_file}"],
            "display_name": "Deno",
            "language": "typescript",
        }, file)
    os.environ["JUPYTER_PATH"] = prefix
    os.environ["JUPYTER_RUNTIME_DIR"] = prefix
    manager = KernelManager(kernel_name="deno-here")
    manager.start_kernel(cwd=task["folder"])
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        shown = []
        for cell in task["cells"]:
            bundle = {}

            def look(message):
                kind, content = message["msg_type"], message["content"]
                if kind in ("execute_result", "display_data"):
                    bundle.update(content["data"])
                if kind == "error":
                    bundle["error"] = content["ename"] + ": " + content["evalue"]

            client.execute_interactive(cell, timeout=60, output_hook=look,
                                       allow_stdin=False)
            shown.append(bundle)
        print(json.dumps(shown))
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
