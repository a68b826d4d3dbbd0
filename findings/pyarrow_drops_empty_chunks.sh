#!/usr/bin/env bash
# pyarrow 25.0.1: a computation on a chunked array leaves out its empty chunks.
#
# Expected: that the result of an element-wise function has the chunks of its input, so that both can
# be walked through chunk by chunk. A table has an empty chunk wherever a part of the data is empty,
# such as a split without examples.
# Seen: of three chunks, one of them empty, `dictionary_encode`, `cast` and `utf8_upper` return two,
# and `is_null` one. An array of one empty chunk becomes one of none, whose dictionary is lost. No
# value is wrong, but code that zips the chunks pairs those of different parts; lengths have to be
# taken from the input.
#
# Needs Python 3.11 or newer. Fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pyarrow==25.0.1 2>/dev/null
cat > "$folder/program.py" <<'PYTHON'
import pyarrow as pa
import pyarrow.compute as pc

print("pyarrow", pa.__version__)
answers = pa.chunked_array([["yes", "no"], pa.array([], pa.string()), ["no", "maybe"]])
print("input:", answers.num_chunks, "chunks of", [len(chunk) for chunk in answers.chunks])
for name, made in (
    ("dictionary_encode", answers.dictionary_encode()),
    ("cast", answers.cast(pa.large_string())),
    ("utf8_upper", pc.utf8_upper(answers)),
    ("is_null", pc.is_null(answers)),
):
    print(f"{name}: {made.num_chunks} of", [len(chunk) for chunk in made.chunks])
empty = pa.chunked_array([pa.array([], pa.string())])
print("one empty chunk:", empty.num_chunks, "becomes", empty.dictionary_encode().num_chunks)
PYTHON
"$folder/venv/bin/python" "$folder/program.py" | tee "$folder/seen"
cat > "$folder/expected" <<'TEXT'
pyarrow 25.0.1
input: 3 chunks of [2, 0, 2]
dictionary_encode: 2 of [2, 2]
cast: 2 of [2, 2]
utf8_upper: 2 of [2, 2]
is_null: 1 of [4]
one empty chunk: 1 becomes 0
TEXT
diff "$folder/expected" "$folder/seen" && echo "as found"
