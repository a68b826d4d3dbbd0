#!/usr/bin/env bash
# deepspeed 0.19.8: at ZeRO stage 3, the last worker's part of a parameter that does not divide
# evenly ends in memory that nobody initialized.
#
# Expected: that the padding behind a worker's part is zero, so that a look at all of a part (a norm,
# a check for infinite numbers) sees the parameter alone.
# Seen: of 5 ones in 2 workers, each has a part of 3 numbers, the second one's third is padding. With
# torch told to fill uninitialized memory (deterministic algorithms do so with NaN), it is NaN; on
# used memory it is whatever was there. Only the first numbers of the part, as many as belong to the
# parameter, may be looked at.
#
# Needs Python 3.11 or newer. Fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 deepspeed==0.19.8 setuptools numpy 2>/dev/null
cat > "$folder/program.py" <<'PYTHON'
import os
import sys

import deepspeed
import torch
from torch import nn

rank = int(os.environ["RANK"])
torch.use_deterministic_algorithms(True)
deepspeed.init_distributed("gloo", verbose=False)
with deepspeed.zero.Init(config_dict_or_path={"train_batch_size": 2, "zero_optimization": {"stage": 3}}):
    layer = nn.Linear(5, 1, bias=False)
with deepspeed.zero.GatheredParameters(layer.weight, modifier_rank=0):
    if rank == 0:
        nn.init.ones_(layer.weight)
part = layer.weight.ds_tensor
torch.distributed.barrier()
if rank == 1:
    print("deepspeed", deepspeed.__version__)
    print(f"second worker's part: {part.tolist()}, of which {5 - part.numel()} belong to the parameter")
PYTHON
for rank in 0 1; do
  RANK=$rank LOCAL_RANK=$rank WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=29571 DS_ACCELERATOR=cpu \
    "$folder/venv/bin/python" -W ignore "$folder/program.py" > "$folder/out-$rank" 2> "$folder/err-$rank" &
done
wait
grep -E "^(deepspeed |second )" "$folder/out-1" | tee "$folder/seen"
cat > "$folder/expected" <<'TEXT'
deepspeed 0.19.8
second worker's part: [1.0, 1.0, nan], of which 2 belong to the parameter
TEXT
diff "$folder/expected" "$folder/seen" && echo "as found"
