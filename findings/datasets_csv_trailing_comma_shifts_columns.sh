#!/usr/bin/env bash
# datasets 5.2.0 (with pandas 3.1.1): if every row of a CSV ends in a comma that the header lacks, as
# some spreadsheets write it, each column gets the values of the next one, without a word.
#
# Expected: an empty column more, or an error about a row of five fields under a header of four.
# Seen: `question` has the first choice, `answer` is null in every row, and the questions are in a new
# column, `__index_level_0__`: pandas takes the first field of longer rows as the row's name. Only the
# first row decides: a later row of five fields is an error. Questions and choices are all text, so
# that no type shows the shift.
#
# Needs Python 3.11 or newer. Fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet datasets==5.2.0 pandas==3.1.1 pyarrow==25.0.1 2>/dev/null
cat > "$folder/comma.csv" <<'TEXT'
question,a,b,answer
Which floats?,cork,lead,cork,
Which sinks?,cork,lead,lead,
TEXT
cat > "$folder/later.csv" <<'TEXT'
question,a,b,answer
Which floats?,cork,lead,cork
Which sinks?,cork,lead,lead,
TEXT
cat > "$folder/program.py" <<'PYTHON'
import logging
import sys

import datasets

datasets.disable_progress_bars()
logging.disable(logging.CRITICAL)
print("datasets", datasets.__version__)
for name in ("comma", "later"):
    try:
        rows = datasets.load_dataset("csv", data_files=f"{sys.argv[1]}/{name}.csv", split="train")
        print(f"{name}: {dict(rows[0])}")
    except datasets.exceptions.DatasetGenerationError as error:
        print(f"{name}: {str(error.__cause__).strip()}")
PYTHON
HF_HOME="$folder/cache" "$folder/venv/bin/python" -W ignore "$folder/program.py" "$folder" \
  2>/dev/null | tee "$folder/seen"
cat > "$folder/expected" <<'TEXT'
datasets 5.2.0
comma: {'question': 'cork', 'a': 'lead', 'b': 'cork', 'answer': None, '__index_level_0__': 'Which floats?'}
later: Error tokenizing data. C error: Expected 4 fields in line 3, saw 5
TEXT
diff "$folder/expected" "$folder/seen" && echo "as found"
