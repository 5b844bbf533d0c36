"""The same training in PyTorch: python training.py PRECISION THREADS STEPS; one line of JSON."""
import json, resource, sys, time

precision, threads, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
import torch
from transformers import LlamaConfig, LlamaForCausalLM

ROWS, LENGTH = 8, 256
torch.set_num_threads(threads)
torch.manual_seed(1)
model = LlamaForCausalLM(LlamaConfig(
    hidden_size=384, intermediate_size=1024, num_hidden_layers=6, num_attention_heads=6, num_key_value_heads=2,
    vocab_size=8192, max_position_embeddings=LENGTH, tie_word_embeddings=False, rms_norm_eps=1e-5,
    use_cache=False))
optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
batch = torch.randint(0, 8192, (ROWS, LENGTH + 1))


def step():
    optimiser.zero_grad(set_to_none=True)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        logits = model(input_ids=batch[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    return loss.item()


seconds = []
for _ in range(steps + 2):
    start = time.perf_counter()
    loss = step()
    seconds.append(time.perf_counter() - start)
timed = sorted(seconds[2:])
print(json.dumps({
    "tokens_per_s": ROWS * LENGTH / timed[len(timed) // 2],
    "loss": loss,
    "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
}))
