"""Measures llama.cpp with the last layers of a model in another process, over its RPC back end.

Arguments: serve PORT, to compute for others on one thread until killed.
Or: GGUF LAYERS PROMPT GENERATED ENDPOINT, with LAYERS and the head at ENDPOINT and the rest on one
thread here. Prints one line of JSON. The likeliest token follows, so that none can be asked for
before the one before it is known.
Or: check, to say by the exit status whether there is an RPC back end.
"""

import ctypes
import json
import sys
import time

import llama_cpp as llama
import numpy
from llama_cpp._ggml import libggml

# The best counts, as of `talka bench model`.
REPETITIONS = 3

# The kind of device.
CPU = 0


def function(name, result, *arguments):
    """A function of ggml's C interface, for which the package has no Python."""
    found = getattr(libggml, name)
    found.restype, found.argtypes = result, arguments
    return found


text, pointer, size = ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t
backend = function("ggml_backend_reg_by_name", pointer, text)(b"RPC")
if not backend:
    sys.exit("this llama.cpp was built without GGML_RPC")


def of_backend(name, result, *arguments):
    """A function of the RPC back end."""
    address = function("ggml_backend_reg_get_proc_address", pointer, pointer, text)(backend, name)
    return ctypes.CFUNCTYPE(result, *arguments)(address)


def serve(port):
    device = function("ggml_backend_dev_by_type", pointer, ctypes.c_int)(CPU)
    start = of_backend(b"ggml_backend_rpc_start_server",
                       None, text, text, size, size, ctypes.POINTER(pointer))
    start(f"127.0.0.1:{port}".encode(), None, 1, 1, (pointer * 1)(device))


def remote(endpoint):
    """The first device at `endpoint`."""
    server = of_backend(b"ggml_backend_rpc_add_server", pointer, text)(endpoint.encode())
    if not server:
        sys.exit(f"no device at {endpoint}")
    return function("ggml_backend_reg_dev_get", pointer, pointer, size)(server, 0)


def loaded(path, layers, endpoint):
    params = llama.llama_model_default_params()
    # Ends with a null pointer.
    devices = (pointer * 2)(remote(endpoint))
    params.devices = ctypes.cast(devices, pointer)
    # The head counts as one more.
    params.n_gpu_layers = layers + 1
    model = llama.llama_model_load_from_file(path.encode(), params)
    return model or sys.exit(f"llama.cpp cannot load {path}")


def decode_seconds(model, prompt, generated):
    """Of `generated` tokens, one after the other, behind `prompt` tokens."""
    params = llama.llama_context_default_params()
    params.n_ctx = prompt + generated
    params.n_threads = params.n_threads_batch = 1
    params.no_perf = True
    context = llama.llama_init_from_model(model, params)
    vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))

    def next_token(tokens):
        array = (llama.llama_token * len(tokens))(*tokens)
        status = llama.llama_decode(context, llama.llama_batch_get_one(array, len(tokens)))
        if status != 0:
            sys.exit(f"llama_decode returned {status}")
        # Waits for what is still under way.
        logits = llama.llama_get_logits_ith(context, -1)
        return int(numpy.ctypeslib.as_array(logits, (vocab,)).argmax())

    token = next_token([position * 7919 % vocab for position in range(prompt)])
    start = time.perf_counter()
    for _ in range(generated):
        token = next_token([token])
    seconds = time.perf_counter() - start
    llama.llama_free(context)
    return seconds


def measure(path, layers, prompt, generated, endpoint):
    llama.llama_backend_init()
    model = loaded(path, int(layers), endpoint)
    prompt, generated = int(prompt), int(generated)
    # Brings the weights into memory.
    decode_seconds(model, prompt, 1)
    seconds = min(decode_seconds(model, prompt, generated) for _ in range(REPETITIONS))
    print(json.dumps({"decode_tokens_per_s": generated / seconds}))


if sys.argv[1] == "serve":
    serve(sys.argv[2])
elif sys.argv[1] != "check":
    measure(*sys.argv[1:])
