#!/usr/bin/env bash
# transformers 5.23.0 with tokenizers 0.23.3: beside a config.json of type qwen2, AutoTokenizer reads
# every tokenizer.json as byte-level, whatever it holds: a text becomes no tokens at all.
#
# Expected: what `save_pretrained` wrote comes back, since tokenizer_config.json names its class
# (`TokenizersBackend`) and tokenizer.json is complete. So it is beside bert, llama, gpt2, qwen3.
# Seen: beside qwen2 the class of the file is passed over for Qwen2Tokenizer, which takes the
# vocabulary and replaces normalizer, pre-tokenizer and model; none of a WordPiece vocabulary's words is
# found byte by byte, nothing stands for the unknown, and the result is [], without a warning. A small
# Qwen2 with a tokenizer trained for it is read so; a teacher trained on empty texts learns nothing.
#
# Needs Python 3.11 or newer. Fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.23.0 tokenizers==0.23.3 2>/dev/null
cat > "$folder/program.py" <<'PYTHON'
import sys
from importlib.metadata import version
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CONFIG_MAPPING, AutoTokenizer, PreTrainedTokenizerFast

words = Tokenizer(models.WordPiece({"[UNK]": 0, "frog": 1, "eats": 2, "flies": 3}, unk_token="[UNK]"))
words.pre_tokenizer = pre_tokenizers.Whitespace()
saved = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
print(f"transformers {version('transformers')}")
print(f"saved: {type(saved).__name__} {saved('frog eats flies')['input_ids']}")
for kind in ("bert", "llama", "gpt2", "qwen3", "qwen2"):
    own = Path(sys.argv[1]) / kind
    CONFIG_MAPPING[kind]().save_pretrained(own)
    saved.save_pretrained(own)
    read = AutoTokenizer.from_pretrained(own)
    print(f"beside {kind}: {type(read).__name__} {read('frog eats flies')['input_ids']}")
PYTHON
"$folder/venv/bin/python" "$folder/program.py" "$folder/models" 2>/dev/null | tee "$folder/seen"
cat > "$folder/expected" <<'TEXT'
transformers 5.23.0
saved: TokenizersBackend [1, 2, 3]
beside bert: TokenizersBackend [1, 2, 3]
beside llama: TokenizersBackend [1, 2, 3]
beside gpt2: TokenizersBackend [1, 2, 3]
beside qwen3: TokenizersBackend [1, 2, 3]
beside qwen2: Qwen2Tokenizer []
TEXT
diff "$folder/expected" "$folder/seen" && echo "as found"
