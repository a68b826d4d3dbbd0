#!/usr/bin/env bash
# transformers 5.23.0 with torch 2.13.0: in a process group, `save_pretrained` of every rank but 0
# writes nothing, into any folder, without an error or a warning.
#
# Expected: that `is_main_process` decides, as its description says ("whether the process calling
# this is the main process"): each rank that saves a model into a folder of its own with
# `is_main_process=True`, the default, finds it there. Ranks have different models when each tries
# something else, or holds an expert or a student of its own.
# Seen: rank 0's folder has config.json and model.safetensors; rank 1's is there and empty. What loads
# it later fails, in another place, with a config.json that does not exist. A tokenizer's
# `save_pretrained` writes on every rank.
#
# Needs Python 3.11 or newer. Fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 tokenizers==0.23.3 2>/dev/null
cat > "$folder/program.py" <<'PYTHON'
import sys
from importlib.metadata import version
from pathlib import Path

import torch.distributed as dist
from tokenizers import Tokenizer, models
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

folder, rank = Path(sys.argv[1]), int(sys.argv[2])
meeting = f"file://{folder}/meeting"
dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
own = folder / f"of-{rank}"
sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
BertModel(BertConfig(vocab_size=10, **sizes)).save_pretrained(own, is_main_process=True)
written = sorted(path.name for path in own.iterdir())
words = Tokenizer(models.WordLevel({"frog": 0}, unk_token="frog"))
PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(own)
tokenizer = (own / "tokenizer.json").is_file()
dist.barrier()
lines = [f"rank {rank}: model {written}, tokenizer {tokenizer}"]
if rank == 0:
    lines.insert(0, f"transformers {version('transformers')}")
(folder / f"seen-{rank}").write_text("\n".join(lines) + "\n")
PYTHON
"$folder/venv/bin/python" "$folder/program.py" "$folder" 0 >/dev/null 2>&1 &
"$folder/venv/bin/python" "$folder/program.py" "$folder" 1 >/dev/null 2>&1
wait
cat "$folder/seen-0" "$folder/seen-1" | tee "$folder/seen"
cat > "$folder/expected" <<'TEXT'
transformers 5.23.0
rank 0: model ['config.json', 'model.safetensors'], tokenizer True
rank 1: model [], tokenizer True
TEXT
diff "$folder/expected" "$folder/seen" && echo "as found"
