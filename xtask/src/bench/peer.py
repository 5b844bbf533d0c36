"""Measures llama.cpp as examples/throughput.rs measures our engine: same tokens, same order of work.

Arguments: GGUF THREADS PROMPT GENERATED. Prints one line of JSON. Uses the C interface directly, so
that no Python runs between two tokens except this loop.

Or: quantise GGUF OUT ENCODING, to write a file in another encoding.
"""

import json
import sys
import time

import llama_cpp as llama

if sys.argv[1] == "quantise":
    _, _, source, target, encoding = sys.argv
    params = llama.llama_model_quantize_default_params()
    params.ftype = {"q8_0": llama.LLAMA_FTYPE_MOSTLY_Q8_0,
                    "q4_k_m": llama.LLAMA_FTYPE_MOSTLY_Q4_K_M}[encoding]
    sys.exit(llama.llama_model_quantize(source.encode(), target.encode(), params))

TOGETHER = 8

path, (threads, prompt, generated) = sys.argv[1], map(int, sys.argv[2:])


def token(position):
    return position * 7919 % vocab


def run(context, tokens):
    array = (llama.llama_token * len(tokens))(*tokens)
    status = llama.llama_decode(context, llama.llama_batch_get_one(array, len(tokens)))
    if status != 0:
        sys.exit(f"llama_decode returned {status}")


def run_together(context, batch, position):
    """One token of each sequence."""
    batch.n_tokens = TOGETHER
    for sequence in range(TOGETHER):
        batch.token[sequence] = token(position + sequence)
        batch.pos[sequence] = position
        batch.n_seq_id[sequence] = 1
        batch.seq_id[sequence][0] = sequence
        batch.logits[sequence] = 1
    status = llama.llama_decode(context, batch)
    if status != 0:
        sys.exit(f"llama_decode returned {status}")


def new_context(model, sequences=1):
    params = llama.llama_context_default_params()
    params.n_ctx = (prompt + generated) * sequences
    params.n_batch = params.n_ubatch = prompt
    params.n_seq_max = sequences
    params.n_threads = params.n_threads_batch = threads
    params.no_perf = True
    return llama.llama_init_from_model(model, params)


llama.llama_backend_init()
params = llama.llama_model_default_params()
params.n_gpu_layers = 0
# Built by GCC 12, its AMX buffers end with a general protection fault in quantised models: without them.
params.use_extra_bufts = "model-q" not in path
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

llama.llama_free(context)
context = new_context(model, TOGETHER)
batch = llama.llama_batch_init(TOGETHER, 0, 1)
run_together(context, batch, 0)
start = time.perf_counter()
for position in range(1, 1 + generated):
    run_together(context, batch, position)
together = time.perf_counter() - start

print(json.dumps({
    "decode_together_tokens_per_s": TOGETHER * generated / together,
    "prefill_tokens_per_s": prompt / prefill,
    "decode_tokens_per_s": generated / decode,
}))
