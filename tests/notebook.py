"""Runs cells in Deno's Jupyter kernel, as a notebook does.

Reads {"deno": path, "folder": where the kernel is to run, "cells": [code]}, of
which each displays something, and prints for each cell the bundle of that, or
{"error": text}.
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
            request = client.execute(cell, allow_stdin=False)
            bundle = {}
            # The kernel may say that it is idle before it sends the result,
            # also that of 1 + 1.
            while not bundle:
                message = client.get_iopub_msg(timeout=60)
                if message["parent_header"].get("msg_id") != request:
                    continue
                kind, content = message["msg_type"], message["content"]
                if kind in ("execute_result", "display_data"):
                    bundle = content["data"]
                elif kind == "error":
                    bundle = {"error": content["ename"] + ": " + content["evalue"]}
            shown.append(bundle)
        print(json.dumps(shown))
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
