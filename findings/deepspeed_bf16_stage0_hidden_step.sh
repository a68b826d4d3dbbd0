#!/usr/bin/env bash
# DeepSpeed 0.19.8 with torch 2.13.0: in bf16 at ZeRO 0, `deepspeed.initialize` takes a step of the
# optimizer that it is given, with zero gradients, before any training step.
#
# Expected: that building an engine changes neither weights nor the optimizer's step count.
# Seen: AdamW's count is 1, and its decoupled weight decay (learning rate 0.1 x decay 0.5) has taken
# the fp32 master weights from 1 to 0.95. Bias correction is one step ahead from then on. Stages 1
# and 2 leave both alone. Losses of a short training are visibly others, and nothing is said.
#
# Needs Python 3.11 or newer, and no compiler. Fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 deepspeed==0.19.8 numpy setuptools 2>/dev/null
cat > "$folder/program.py" <<'PYTHON'
import os
import sys

os.environ.update(DS_ACCELERATOR="cpu", OMP_NUM_THREADS="1", LOCAL_RANK="0", RANK="0", WORLD_SIZE="1")
os.environ["DEEPSPEED_LOG_LEVEL"] = "error"

import torch
import torch.distributed

torch.distributed.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=0, world_size=1)
import deepspeed
import deepspeed.ops

deepspeed.ops.__compatible_ops__ = {}  # no compilations of operations that are not used here
print(f"deepspeed {deepspeed.__version__}, torch {torch.__version__.split('+')[0]}")
for stage in (0, 1, 2):
    model = torch.nn.Linear(4, 1, bias=False)
    torch.nn.init.ones_(model.weight)
    adamw = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "bf16": {"enabled": True},
        "zero_optimization": {"stage": stage},
        "zero_allow_untested_optimizer": True,
    }
    deepspeed.initialize(model=model, optimizer=adamw, config=config, dist_init_required=False)
    steps = max((int(state["step"]) for state in adamw.state.values()), default=0)
    weight = float(adamw.param_groups[0]["params"][0].detach().flatten()[0])
    print(f"stage {stage}: {steps} steps taken, master weight {weight:.2f}")
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/program.py" "$folder/rendezvous" 2>/dev/null |
  grep -E '^(deepspeed [0-9]|stage )' | tee "$folder/seen"
cat > "$folder/expected" <<'TEXT'
deepspeed 0.19.8, torch 2.13.0
stage 0: 1 steps taken, master weight 0.95
stage 1: 0 steps taken, master weight 1.00
stage 2: 0 steps taken, master weight 1.00
TEXT
diff "$folder/expected" "$folder/seen" && echo "as found"
