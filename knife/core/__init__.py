"""What every part of the package needs: errors, atomic writes, words, JSON, exits."""
