"""What the published small runs draw, for other programs to train on: python draw.py TEXT OUT MEMBERS STEPS.

Writes a model's folder with the weights of seed 0, `batches` (member by member, step by step, 12 rows of 65 tokens) and
`validation` (20 batches of 64 rows), tokens as u32, little-endian.
"""
import pathlib, sys, torch
from transformers import LlamaConfig, LlamaForCausalLM

text, out, members, steps = open(sys.argv[1]).read(), pathlib.Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
LENGTH, ROWS = 64, 12
chars = sorted(set(text))
data = torch.tensor([chars.index(c) for c in text])
cut = int(0.9 * len(data))
train, valid = data[:cut], data[cut:]

torch.manual_seed(0)
LlamaForCausalLM(LlamaConfig(
    hidden_size=128, intermediate_size=344, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=4,
    vocab_size=len(chars), max_position_embeddings=LENGTH, tie_word_embeddings=True, rms_norm_eps=1e-5,
    rope_parameters=dict(rope_type="default", rope_theta=10000.0))).save_pretrained(out)


def draw(source, generator, rows):
    starts = torch.randint(0, len(source) - LENGTH - 1, (rows,), generator=generator)
    return torch.stack([source[s:s + LENGTH + 1] for s in starts])


def write(name, source, seeds, batches, rows):
    with open(out / name, "wb") as file:
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            for _ in range(batches):
                file.write(draw(source, generator, rows).to(torch.int32).numpy().tobytes())


write("batches", train, [100 + member for member in range(members)], steps, ROWS)
write("validation", valid, [99], 20, 64)
