"""Writes golden.json: what `transformers` continues some prompts with, greedily and in f32, from the weights beside this file.

With the plays as an argument, prints beside the loss on the end of them that no training saw, in windows of 256 tokens: nats per
token and per character.
Run: pip install torch transformers; python make_golden.py [tinyshakespeare.txt]
"""
import json, pathlib, sys, torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

PROMPTS = ["If music be", "KING RICHARD III:\n", "My lord,"]
TOKENS, WINDOW = 120, 256
# The last tenth, which the job kept back.
KEPT_BACK_CHARACTERS = 111_540
folder = pathlib.Path(__file__).parent
model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))


@torch.no_grad()
def continuation(prompt):
    ids = start = tokenizer.encode(prompt)
    logprobs = []
    for _ in range(TOKENS):
        row = model(torch.tensor([ids])).logits[0, -1].double().log_softmax(-1)
        best, second = row.topk(2).values.tolist()
        # Numbers are rounded on long ways between stages, which decides less than that.
        assert best - second > 0.02, "almost a tie: change the prompt"
        ids = ids + [int(row.argmax())]
        logprobs.append(round(best, 5))
    return dict(prompt=prompt, prompt_ids=start, greedy_ids=ids[len(start):], logprobs=logprobs, text=tokenizer.decode(ids))


@torch.no_grad()
def loss(text):
    ids = torch.tensor(tokenizer.encode(text[-KEPT_BACK_CHARACTERS:]))
    count = (len(ids) - 1) // WINDOW
    total = 0.0
    for at in range(0, count * WINDOW, WINDOW):
        row = ids[at:at + WINDOW + 1]
        total += torch.nn.functional.cross_entropy(model(row[None, :-1]).logits[0].double(), row[1:], reduction="sum").item()
    characters = len(tokenizer.decode(ids[1:count * WINDOW + 1].tolist()))
    return total / (count * WINDOW), total / characters


golden = [continuation(prompt) for prompt in PROMPTS]
rows = ",\n".join(json.dumps(found, ensure_ascii=False) for found in golden)
(folder / "golden.json").write_text(f"[\n{rows}\n]\n", encoding="utf-8")
for found in golden:
    print(found["text"], end="\n---\n")
if len(sys.argv) > 1:
    print("%.4f nats per token, %.4f nats per character" % loss(open(sys.argv[1], encoding="utf-8").read()))
