from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentdrift.data.export.picture import picture_text, write_picture
from latentdrift.data.images import check_image, read_array
from latentdrift.data.provenance.marks import marks
from latentdrift.errors import ConfigurationError, DataError

TEXT = {"model": "tiny-brain", "seed": 7, "größe": "δ = 0,3 – größer", "lines": "one\ntwo"}


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".TIF"])
@pytest.mark.parametrize(("bits", "level"), [(8, 255), (16, 65535)])
def test_values_and_text_come_back(tmp_path: Path, suffix: str, bits: int, level: int) -> None:
    unit = np.random.default_rng(0).random((33, 21)).astype(np.float32)
    unit[0, :3] = 0, 1, 0.5
    path = write_picture(tmp_path / f"deep/a{suffix}", unit, bits=bits, text=TEXT, synthetic=True)
    found = read_array(path)
    assert np.abs(found - unit).max() <= 0.5 / level + 1e-7
    assert found[0, 0] == 0
    assert found[0, 1] == 1
    told = picture_text(path)
    assert told == {**{name: str(value) for name, value in TEXT.items()}, **marks()}
    assert told["SyntheticData"] == "YES"
    assert "not for diagnosis" in told["Disclaimer"]
    assert check_image(path) is None
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    with Image.open(path) as image:
        assert image.mode == ("L" if bits == 8 else "I;16")


def test_another_reader_sees_the_same_16_bits(tmp_path: Path) -> None:
    from skimage.io import imread

    unit = (np.arange(65536) / 65535).reshape(256, 256)
    for name in ("a.png", "a.tif"):
        path = write_picture(tmp_path / name, unit, bits=16)
        np.testing.assert_array_equal(imread(path), np.arange(65536, dtype=np.uint16).reshape(256, 256))
        assert picture_text(path) == {}
        # Every one of the 65536 values goes through a file unchanged.
        np.testing.assert_array_equal(
            np.rint(read_array(path).astype(np.float64) * 65535), np.arange(65536).reshape(256, 256)
        )


def test_the_same_picture_gives_the_same_bytes(tmp_path: Path) -> None:
    unit = np.random.default_rng(0).random((20, 20))
    for suffix in (".png", ".tif"):
        first, second = (write_picture(tmp_path / f"{n}{suffix}", unit, bits=16, text=TEXT) for n in "ab")
        assert first.read_bytes() == second.read_bytes()


def test_values_beyond_are_clipped_and_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png", np.array([[-1.0, 2.0]]), bits=16)
    np.testing.assert_array_equal(read_array(path), [[0, 1]])
    with pytest.raises(ConfigurationError, match="8 or 16 bits, not 12"):
        write_picture(path, np.zeros((2, 2)), bits=12)
    with pytest.raises(ConfigurationError, match=r"a\.jpg.*\.png"):
        write_picture(tmp_path / "a.jpg", np.zeros((2, 2)))
    with pytest.raises(ConfigurationError, match="'δ' cannot name"):
        write_picture(path, np.zeros((2, 2)), text={"δ": 1})
    for wrong in (np.full((2, 2), np.nan), np.zeros((2, 2, 3)), np.zeros((0, 2))):
        with pytest.raises(DataError, match=r"b\.tif"):
            write_picture(tmp_path / "b.tif", wrong)
    (tmp_path / "file").write_text("x")
    for name in ("a.png", "a.tif"):
        with pytest.raises(DataError, match="cannot be written"):
            write_picture(tmp_path / "file" / name, np.zeros((2, 2)))


def test_text_of_others_is_no_provenance(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "a.tif", tiffinfo={270: "a holiday"})
    assert picture_text(tmp_path / "a.tif") == {}
    (tmp_path / "b.tif").write_bytes(b"II*\0")
    with pytest.raises(DataError, match=r"b\.tif cannot be read"):
        picture_text(tmp_path / "b.tif")
