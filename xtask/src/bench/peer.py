"""Measures llama.cpp as examples/throughput.rs measures our engine: same tokens, same order of work.

Arguments: GGUF THREADS PROMPT GENERATED. Prints one line of JSON. Uses the C interface directly, so
that no Python runs between two tokens except this loop.
"""

import json
import sys
import time

import llama_cpp as llama

path, (threads, prompt, generated) = sys.argv[1], map(int, sys.argv[2:])


def token(position):
    return position * 7919 % vocab


def run(context, tokens):
    array = (llama.llama_token * len(tokens))(*tokens)
    status = llama.llama_decode(context, llama.llama_batch_get_one(array, len(tokens)))
    if status != 0:
        sys.exit(f"llama_decode returned {status}")


def new_context(model):
    params = llama.llama_context_default_params()
    params.n_ctx = prompt + generated
    params.n_batch = params.n_ubatch = prompt
    params.n_threads = params.n_threads_batch = threads
    params.no_perf = True
    return llama.llama_init_from_model(model, params)


llama.llama_backend_init()
params = llama.llama_model_default_params()
params.n_gpu_layers = 0
model = llama.llama_model_load_from_file(path.encode(), params)
if not model:
    sys.exit(f"llama.cpp cannot load {path}")
vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))

# Brings the weights into memory.
context = new_context(model)
run(context, [token(0)])
llama.llama_free(context)

context = new_context(model)
start = time.perf_counter()
run(context, [token(position) for position in range(prompt)])
prefill = time.perf_counter() - start

start = time.perf_counter()
for position in range(prompt, prompt + generated):
    run(context, [token(position)])
decode = time.perf_counter() - start

print(json.dumps({
    "prefill_tokens_per_s": prompt / prefill,
    "decode_tokens_per_s": generated / decode,
}))
