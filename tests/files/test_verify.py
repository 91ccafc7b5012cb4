"""Checksums of files: a missing file is an error, and what disks and interrupted writes do is detected."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocensa_nb.files.verify import PAGE_BYTES, compute, page_digest


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("pages") / "array.bin"


@settings(deadline=None)
@given(size=st.integers(1, 3 * PAGE_BYTES), seed=st.integers(0, 2**16), data=st.data())
def test_page_digest_with_a_flipped_bit_differs(file, size, seed, data):
    content = bytearray(np.random.default_rng(seed).bytes(size))
    file.write_bytes(content)
    before = page_digest(file)
    content[data.draw(st.integers(0, size - 1))] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(content)
    assert page_digest(file) != before


@pytest.mark.parametrize(
    "damage",
    [
        lambda pages: [pages[1], pages[0], *pages[2:]],
        lambda pages: [pages[0], bytes(PAGE_BYTES), *pages[2:]],
        lambda pages: pages[:-1],
        lambda pages: [*pages, bytes(PAGE_BYTES)],
        lambda pages: [pages[0], pages[0], *pages[2:]],
    ],
    ids=["misplaced", "empty", "missing", "added", "old"],
)
def test_page_digest_with_a_damaged_page_differs(file, damage):
    pages = [np.random.default_rng(number).bytes(PAGE_BYTES) for number in range(300)]
    file.write_bytes(b"".join(pages))
    before = page_digest(file)
    file.write_bytes(b"".join(damage(pages)))
    assert page_digest(file) != before


def test_page_digest_of_the_same_bytes_is_equal(file, tmp_path):
    file.write_bytes(bytes(range(256)) * 100)
    copy = tmp_path / "copy.bin"
    copy.write_bytes(file.read_bytes())
    assert page_digest(file) == page_digest(copy)


def test_compute_of_a_missing_name_raises_and_names_it(tmp_path):
    (tmp_path / "there").write_text("1")
    assert list(compute(tmp_path, ["there"])) == ["there"]
    with pytest.raises(FileNotFoundError, match="absent"):
        compute(tmp_path, ["there", "absent"])
