"""What XGrammar says through its Python package's own bindings: JSON on stdout.

The package itself asks for torch; its bindings, which its classes pass everything
on to, do with tvm_ffi. usage: xgrammar.py FOLDER_OF_THE_PACKAGE < request
"""

import importlib.util
import json
import sys

import numpy as np
import tvm_ffi
from tvm_ffi.libinfo import load_lib_module
from pathlib import Path

folder = sys.argv[1]
library = load_lib_module("xgrammar", "xgrammar_bindings", extra_lib_paths=[Path(folder)])


def bindings(name):
    spec = importlib.util.spec_from_file_location(name, f"{folder}/tvm_ffi_binding/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


core = bindings("_ffi_api")
apply = tvm_ffi.get_global_func(
    "xgrammar.tvm_ffi_binding.kernels.apply_token_bitmask_inplace_cpu"
)
request = json.load(sys.stdin)
vocabulary = request["vocabulary"]
size = len(vocabulary)
words = (size + 31) // 32

tokenizer = core.TokenizerInfo(vocabulary, 0, None, [request["end"]], False)
compiler = core.GrammarCompiler(tokenizer, 2, True, -1)
compiled = compiler.compile_json_schema(
    request["schema"], False, None, None, True, None, False
)
matcher = core.GrammarMatcher(compiled, None, False, -1, None)

steps = []
for token in request["tokens"]:
    bitmask = np.zeros((1, words), np.int32)
    needs = matcher.fill_next_token_bitmask(tvm_ffi.from_dlpack(bitmask), 0, False)
    logits = np.array([request["logits"]], np.float32)
    apply(
        logits.ctypes.data, logits.shape, (size, 1),
        bitmask.ctypes.data, bitmask.shape, (words, 1),
        size, None, "float32",
    )
    masked = [x if np.isfinite(x) else None for x in logits[0].tolist()]
    accepted = matcher.accept_token(token, False)
    steps.append({
        "bitmask": bitmask[0].tolist(), "logits": masked, "needs": bool(needs),
        "accepted": bool(accepted), "terminated": bool(matcher.is_terminated()),
        "jump": "" if matcher.is_terminated() else str(matcher.find_jump_forward_string()),
    })
print(json.dumps({
    "steps": steps, "bytes": int(compiled.memory_size_bytes()),
    "grammar": str(compiled.grammar().to_string()),
    "vocabulary": [list(bytes(token)) for token in tokenizer.decoded_vocab()],
}))
