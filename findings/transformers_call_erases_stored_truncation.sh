#!/usr/bin/env bash
# transformers 5.23.0 with tokenizers 0.23.3: calling a tokenizer without `truncation` erases the
# truncation that its tokenizer.json sets, for good, and saving it then writes another file.
#
# Expected: that a call is free of side effects: `tokenizer("…")` ignores the stored setting for that
# call, and `backend_tokenizer` and `save_pretrained` keep it. Encoders for sentences are published
# with such a setting (128 tokens, for example).
# Seen: before the first call the backend cuts at the stored length, after it no longer, whatever
# text was tokenized. A tokenizer that is saved unused keeps the setting; one that has been used once
# is saved with `"truncation": null`, so a model copied with its tokenizer depends on whether the
# program happened to tokenize anything.
#
# Needs Python 3.11 or newer. Fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.23.0 tokenizers==0.23.3 2>/dev/null
cat > "$folder/program.py" <<'PYTHON'
import json
import sys
from importlib.metadata import version
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

folder = Path(sys.argv[1])
words = Tokenizer(models.WordLevel({"frog": 0, "toad": 1, "[UNK]": 2}, unk_token="[UNK]"))
words.pre_tokenizer = pre_tokenizers.Whitespace()
words.enable_truncation(3)
PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(folder)
print("transformers", version("transformers"), "tokenizers", version("tokenizers"))
text = "frog toad frog toad frog"
tokenizer = AutoTokenizer.from_pretrained(folder)


def stored():
    tokenizer.save_pretrained(folder / "saved")
    setting = json.loads((folder / "saved" / "tokenizer.json").read_text())["truncation"]
    return setting and setting["max_length"]


print("unused: backend", len(tokenizer.backend_tokenizer.encode(text)), "saved with", stored())
print("a call:", len(tokenizer(text)["input_ids"]))
print("used: backend", len(tokenizer.backend_tokenizer.encode(text)), "saved with", stored())
PYTHON
TRANSFORMERS_VERBOSITY=error "$folder/venv/bin/python" "$folder/program.py" "$folder" 2>/dev/null |
  tee "$folder/seen"
cat > "$folder/expected" <<'TEXT'
transformers 5.23.0 tokenizers 0.23.3
unused: backend 3 saved with 3
a call: 5
used: backend 5 saved with None
TEXT
diff "$folder/expected" "$folder/seen" && echo "as found"
