"""Checks that NumPy reads the arrays that diapason writes, and the other way round.

Usage: check_npy.py PATH_OF_DIAPASON
"""

import pathlib
import subprocess
import sys
import tempfile

import numpy as np

ALPHABET = "abcdefghijklmnopqrstuvwxyz "
TEXT = "the quick brown fox jumps over the lazy dog "


def main() -> None:
    program = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        text, array = folder / "text.txt", folder / "text.npy"
        text.write_text(TEXT)
        ids = np.array([ALPHABET.index(character) for character in TEXT], dtype=np.uint8)

        # Ours, read by NumPy.
        subprocess.run([program, "corpus", "encode", text, array], check=True)
        ours = np.load(array, allow_pickle=False)
        assert ours.dtype == np.uint8 and ours.shape == ids.shape, (ours.dtype, ours.shape)
        assert (ours == ids).all(), ours

        # NumPy's, read by us: to text, and as a corpus.
        np.save(array, np.tile(ids, 100))
        decoded = subprocess.run([program, "corpus", "decode", array], check=True, capture_output=True)
        assert decoded.stdout.decode() == TEXT * 100, decoded.stdout[:100]
        subprocess.run(
            [program, "corpus", "info", "--corpus", array], check=True, stdout=subprocess.DEVNULL
        )
    print("numpy reads our arrays, and we read numpy's")


if __name__ == "__main__":
    main()
