#!/usr/bin/env bash
# ephem 4.2.1: the catalogue of bright stars has eight stars under two names.
#
# Expected: that each of the 116 names of `ephem.stars.stars` is another star, so that questions about
# some names can be held out from training on others.
# Seen: they are 108 stars. Seven have two names or spellings, such as Agena and Hadar, Albereo and
# Albireo, Alpheratz and Sirrah, and one is listed with and without its constellation (Gienah Corvi).
# A data set that is split by names has facts of the one part in the other; names have to be joined by
# position first.
#
# Needs Python 3.11 or newer. Fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ephem==4.2.1 2>/dev/null
cat > "$folder/program.py" <<'PYTHON'
import ephem
import ephem.stars

print("ephem", ephem.__version__)
by_place = {}
for name in sorted(ephem.stars.stars):
    star = ephem.star(name)
    by_place.setdefault((star._ra, star._dec), []).append(name)
print(len(ephem.stars.stars), "names of", len(by_place), "stars")
for names in by_place.values():
    if len(names) > 1:
        print(" = ".join(names))
PYTHON
"$folder/venv/bin/python" "$folder/program.py" | tee "$folder/seen"
cat > "$folder/expected" <<'TEXT'
ephem 4.2.1
116 names of 108 stars
Adara = Adhara
Agena = Hadar
Albereo = Albireo
Alcaid = Alkaid
Alpheratz = Sirrah
Eltanin = Etamin
Fomalhaut = Formalhaut
Gienah = Gienah Corvi
TEXT
diff "$folder/expected" "$folder/seen" && echo "as found"
